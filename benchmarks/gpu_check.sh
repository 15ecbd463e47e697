#!/usr/bin/env bash
# Everything of the torch engine that only a GPU can show, in one run of under ten minutes, from a checkout.
#   benchmarks/gpu_check.sh [OUT_FOLDER] [arguments of benchmarks/gpu_check.py]
# Needs Python 3.11+ with torch, pydantic, PyYAML, numpy, click; transformers and nvidia-ml-py if they are there.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-${OUT:-gpu-check}}"
[ $# -gt 0 ] && shift
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python="${PYTHON:-python3}"
nvidia-smi > "$out/nvidia-smi.txt" 2>&1 || echo "no nvidia-smi" > "$out/nvidia-smi.txt"
"$python" benchmarks/gpu_check.py --json "$out/gpu_check.json" "$@" 2> >(tee "$out/stderr.txt" >&2) | tee "$out/gpu_check.md"
