#!/usr/bin/env bash
# Builds a release: sdist and wheel, twice from the committed source, equal byte by byte; licences checked.
#
#   recipes/release.sh [FOLDER]        default: dist/
#
# Needs a checkout with git, a Python 3.11, and an environment with bluelm for the licences (BLUELM_PYTHON, default: the
# checkout's .venv). The builder gets an environment of its own, in the version that constraints.txt pins. The time in the
# files is that of the last commit, or SOURCE_DATE_EPOCH.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$(realpath -m "${1:-$root/dist}")
python=${BLUELM_PYTHON:-$root/.venv/bin/python}
cd "$root"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
[[ -z $(git status --porcelain) ]] || echo "note: what is not committed is left out" >&2

"$python" recipes/release_licences.py --check

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/builder"
"$work/builder/bin/pip" install --quiet --disable-pip-version-check --constraint constraints.txt hatchling
for name in first second; do
    mkdir "$work/$name"
    git archive HEAD | tar -x -C "$work/$name"
    (cd "$work/$name" && "$work/builder/bin/python" -m hatchling build -d "$work/$name-dist" >/dev/null)
done
diff -r "$work/first-dist" "$work/second-dist"

mkdir -p "$target"
cp "$work"/first-dist/* "$target/"
(cd "$target" && sha256sum -- *.whl *.tar.gz)
