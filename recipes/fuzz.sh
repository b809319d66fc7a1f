#!/usr/bin/env bash
# Fuzzes every reader of files that others wrote, with atheris in an environment of its own.
#
#   recipes/fuzz.sh [SECONDS] [FOLDER] [TARGET ...]      default: 600 s each, build/fuzz, all targets of tests/hostile
#
# FOLDER/TARGET keeps what led to new branches, so that the next run begins there. A crash is FOLDER/crash-TARGET-…:
# put it into tests/hostile/corpus/TARGET/, where it is a test, and mend the reader.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
seconds=${1:-600}
folder=$(realpath -m "${2:-build/fuzz}")
shift $(($# < 2 ? $# : 2))
targets=("$@")
((${#targets[@]})) || targets=(picture recipe manifest typed device prompts rows tar sizes tensors tensor_index conversation)

mkdir -p "$folder"
environment=$folder/venv
if [[ ! -x $environment/bin/python ]]; then
    "$project/.venv/bin/python" -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check atheris==3.0.0
    # Everything else is the project's own, as it is pinned.
    "$project/.venv/bin/python" -c 'import site; print(site.getsitepackages()[0])' \
        > "$("$environment/bin/python" -c 'import site; print(site.getsitepackages()[0])')/project.pth"
fi

cd "$project"
failed=0
for target in "${targets[@]}"; do
    printf '== %s\n' "$target" >&2
    PYTHONPATH=$project "$environment/bin/python" recipes/fuzz.py "$target" "$folder/$target" \
        -max_total_time="$seconds" -artifact_prefix="$folder/crash-$target-" -rss_limit_mb=2048 -timeout=20 \
        -verbosity=0 -print_final_stats=1 || failed=1
done
exit "$failed"
