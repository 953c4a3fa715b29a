#!/usr/bin/env bash
# Train on N devices (GPUs where there are any, else processes on the CPU): tools/dist_train.sh CONFIG N [...]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR, PORT as in MMSegmentation. MAX_RESTARTS: how often a process that
# died starts all again from the last checkpoint.
set -eu
[ $# -ge 2 ] || { echo "usage: tools/dist_train.sh CONFIG N [tools/train.py options]" >&2; exit 2; }
config=$1 devices=$2
shift 2
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] && PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# What is wrong is said once, before N processes start.
WORLD_SIZE=$((devices * ${NNODES:-1})) python tools/train.py "$config" --launcher pytorch --dry-run "$@"
exec python -m torch.distributed.run --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" \
  --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}" --nproc_per_node "$devices" \
  --max_restarts "${MAX_RESTARTS:-0}" tools/train.py "$config" --launcher pytorch "$@"
