#!/usr/bin/env bash
# Train on the GPUs of one machine (or on several processes of a CPU):  tools/dist_train.sh CONFIG PROCESSES [options of train.py]
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG PROCESSES [options of train.py]" >&2
    exit 2
fi
config=$1 processes=$2
shift 2
exec torchrun --standalone --nproc-per-node "$processes" "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
