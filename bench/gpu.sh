#!/bin/sh
# Sensitivities' gradients and Hessians on a CUDA device against the CPU's numbers: agreement and speed, in eight minutes at most.
# Needs `make setup` with torch's CUDA build. Exits with 1 when the devices differ, with 124 when the time is over.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null || true
exec timeout 480 "$PYTHON" -m bench.gpu "$@"
