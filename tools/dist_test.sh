#!/usr/bin/env bash
# Evaluate on N devices; the figures equal one process's: tools/dist_test.sh CONFIG CHECKPOINT N [...]
set -eu
usage="usage: tools/dist_test.sh CONFIG CHECKPOINT N [tools/test.py options]"
[ $# -ge 3 ] || { echo "$usage" >&2; exit 2; }
config=$1 checkpoint=$2 devices=$3
shift 3
. "$(dirname "$0")/launch.sh"
exec python -m torch.distributed.run --nnodes "${NNODES:-1}" --node_rank "$rank" --master_addr "$address" \
  --master_port "$port" --nproc_per_node "$devices" "$tools/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
