# Sourced by dist_train.sh and dist_test.sh: the project's Python, threads, and where the processes of a launch meet.
# NNODES, NODE_RANK, MASTER_ADDR, PORT as in MMSegmentation. Without PORT, processes of one machine take a free one.
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ -x "$tools/../.venv/bin/python" ] && PATH="$tools/../.venv/bin:$PATH"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
address=${MASTER_ADDR:-127.0.0.1} rank=${NODE_RANK:-0}
case $devices in '' | *[!0-9]* | 0) echo "error: $devices is no number of devices; $usage" >&2; exit 2 ;; esac
port=$(python - "${PORT:-}" "${NNODES:-1}" "$rank" <<'PYTHON'
import socket
import sys

port, nodes, rank = sys.argv[1:]
wanted = port or ('0' if nodes == '1' else '29500')
with socket.socket() as place:
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch's own store
    try:
        if rank == '0':
            place.bind(('', int(wanted)))
            wanted = place.getsockname()[1]
    except (OSError, ValueError, OverflowError) as error:
        sys.exit(f'error: PORT={wanted}: the processes cannot meet there ({error}); choose another, as PORT=29501')
print(wanted)
PYTHON
) || exit 2
