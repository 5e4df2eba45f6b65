#!/usr/bin/env bash
# Test on the GPUs of one machine:  tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of test.py]
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT PROCESSES [options of test.py]" >&2
    exit 2
fi
config=$1 checkpoint=$2 processes=$3
shift 3
exec torchrun --standalone --nproc-per-node "$processes" "$(dirname "$0")/test.py" "$config" "$checkpoint" \
    --launcher pytorch "$@"
