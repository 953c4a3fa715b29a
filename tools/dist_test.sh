#!/usr/bin/env bash
# Evaluate on N devices; the figures equal one process's: tools/dist_test.sh CONFIG CHECKPOINT N [...]
set -eu
[ $# -ge 3 ] || { echo "usage: tools/dist_test.sh CONFIG CHECKPOINT N [tools/test.py options]" >&2; exit 2; }
config=$1 checkpoint=$2 devices=$3
shift 3
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] && PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec python -m torch.distributed.run --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" \
  --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}" --nproc_per_node "$devices" \
  tools/test.py "$config" "$checkpoint" --launcher pytorch "$@"
