#!/usr/bin/env bash
# Everything that only a GPU can show, in one run of under ten minutes, from a checkout.
#   benchmarks/gpu_check.sh [OUT_FOLDER] [arguments of benchmarks/gpu_check.py]
# The engine (gpu_check.py) and the sensors (gpu_sensors.py) need Python 3.11+ with torch, pydantic, PyYAML,
# numpy, click, psutil; transformers and nvidia-ml-py if they are there. The short sweep at the end needs all
# that aiprof installs, and is left out, saying so, where something is missing. A step that fails does not
# take the others along; the exit status is 1 then.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-${OUT:-gpu-check}}"
[ $# -gt 0 ] && shift
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python="${PYTHON:-python3}"
device="${DEVICE:-cuda:0}"
nvidia-smi > "$out/nvidia-smi.txt" 2>&1 || echo "no nvidia-smi" > "$out/nvidia-smi.txt"
failed=0
log() { tee -a "$out/stderr.txt" >&2; }
"$python" benchmarks/gpu_check.py --device "$device" --json "$out/gpu_check.json" "$@" 2> >(log) | tee "$out/gpu_check.md" || failed=1
echo
timeout 60 "$python" benchmarks/gpu_sensors.py --device "$device" --out "$out" 2> >(log) | tee "$out/gpu_sensors.md" || failed=1
echo
if "$python" -c "import pyarrow, altair, jinja2, rich" 2>/dev/null; then
    sweep=("$python" -m profiler sweep --device "$device" --model "${MODEL:-qwen2.5-1.5b}" --budget 75s)
    timeout 130 "${sweep[@]}" --out "$out/run" 2> >(log) | tee "$out/sweep.txt" || failed=1
    "$python" -m profiler verify "$out/run" | tee -a "$out/sweep.txt" || failed=1
else
    echo "no sweep: pyarrow, altair, jinja2 or rich is missing" | tee "$out/sweep.txt"
fi
exit $failed
