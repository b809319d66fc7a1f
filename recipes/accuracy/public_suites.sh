#!/usr/bin/env bash
# Published benchmarks by lmms-eval, against a model that `bluelm chat --serve` answers for.
#
#   recipes/accuracy/public_suites.sh MODEL [WORK] [TASK ...]
#
# Without tasks: the thirteen of the paper's tables. lmms-eval downloads each benchmark itself (tens of gigabytes for all
# of them) and gets an environment of its own below WORK, pinned by requirements.txt beside this file: it must not meet
# the versions that bluelm is tested with. mathvista, hallusion_bench, mmbench and mmvet ask a hosted model to judge:
# they need OPENAI_API_KEY. What rules alone can score of them, `bluelm bench accuracy` does without any server, from the
# benchmarks' own files.
#
#   LIMIT     at most so many questions of each
#   PORT      of the server, 8123
#   INCLUDE   a folder with tasks of your own, in lmms-eval's form
#   PYTHON    an environment that holds lmms-eval already
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
model=${1:?usage: public_suites.sh MODEL [WORK] [TASK ...]}
work=${2:-accuracy}
shift $(($# < 2 ? $# : 2))
tasks=("$@")
((${#tasks[@]})) || tasks=(vqav2_val textvqa_val docvqa_val chartqa ocrbench mmbench_en_dev mmstar mmmu_val
    mathvista_testmini hallusion_bench_image ai2d mmvet mtvqa)
port=${PORT:-8123}
python=${PYTHON:-$work/environment/bin/python}
mkdir -p "$work"

if [[ ! -x $python ]]; then
    python3.11 -m venv "$work/environment"
    # Its own list of requirements names torchvision, which breaks against a CPU build of torch and is not needed here.
    "$work/environment/bin/pip" install --no-deps -r "$here/requirements.txt"
    # What these need themselves, in the versions that bluelm is tested with.
    "$work/environment/bin/pip" install -c "$here/../../constraints.txt" torch transformers accelerate datasets \
        aiohttp httpx jinja2 joblib numpy openpyxl packaging pandas pillow pydantic pyyaml requests scipy sympy tqdm
fi

bluelm chat "$model" --serve "127.0.0.1:$port" 2>"$work/server.log" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
until "$python" - "$port" <<'CHECK'
import sys, urllib.request
try:
    urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/health", timeout=2)
except OSError:
    sys.exit(1)
CHECK
do
    kill -0 "$server" 2>/dev/null || { cat "$work/server.log" >&2; exit 2; }
    sleep 1
done

name=$("$python" -c 'import json, sys, urllib.request
models = json.load(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/v1/models"))
print(models["data"][0]["id"])' "$port")
for task in "${tasks[@]}"; do
    printf '\n== %s\n' "$task" >&2
    OPENAI_API_KEY=${OPENAI_API_KEY:-none} "$python" -m lmms_eval --model async_openai \
        --model_args "model=$name,base_url=http://127.0.0.1:$port/v1,num_cpus=1" \
        --tasks "$task" --batch_size 1 --log_samples --output_path "$work/$task" \
        ${LIMIT:+--limit "$LIMIT"} ${INCLUDE:+--include_path "$INCLUDE"}
done
