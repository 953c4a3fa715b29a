#!/usr/bin/env bash
# Train on N devices (GPUs where there are any, else processes on the CPU): tools/dist_train.sh CONFIG N [...]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR, PORT as in MMSegmentation. MAX_RESTARTS: how often a process that
# died starts all again from the last checkpoint.
set -eu
usage="usage: tools/dist_train.sh CONFIG N [tools/train.py options]"
[ $# -ge 2 ] || { echo "$usage" >&2; exit 2; }
config=$1 devices=$2
shift 2
. "$(dirname "$0")/launch.sh"
# What is wrong is said once, before N processes start.
WORLD_SIZE=$((devices * ${NNODES:-1})) python "$tools/train.py" "$config" --launcher pytorch --dry-run "$@"
meeting=(--node_rank "$rank" --master_addr "$address" --master_port "$port")
if [ "${MAX_RESTARTS:-0}" -gt 0 ]; then # a store that outlives a start keeps the addresses of those that died
  export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
  meeting=(--max_restarts "$MAX_RESTARTS" --rdzv_backend c10d --rdzv_endpoint "$address:$port" --rdzv_id "$port"
    --rdzv_conf "is_host=$((rank == 0))")
  [ "${NNODES:-1}" -gt 1 ] || meeting+=(--local_addr 127.0.0.1)
fi
exec python -m torch.distributed.run --nnodes "${NNODES:-1}" "${meeting[@]}" --nproc_per_node "$devices" \
  "$tools/train.py" "$config" --launcher pytorch "$@"
