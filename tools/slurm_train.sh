#!/usr/bin/env bash
# Train under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [tools/train.py options]
# GPUS (default 8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS as in MMSegmentation; GRES= (empty): on CPUs.
# SBATCH=1 submits a job that is requeued when its time is up or it is preempted, and resumes; SBATCH_ARGS go there.
set -eu
[ $# -ge 3 ] || { echo "usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [tools/train.py options]" >&2; exit 2; }
partition=$1 name=$2 config=$3
shift 3
tools=$(cd "$(dirname "$0")" && pwd)
[ -x "$tools/../.venv/bin/python" ] && PATH="$tools/../.venv/bin:$PATH"
per_node=${GPUS_PER_NODE:-8} cpus=${CPUS_PER_TASK:-5} gres=${GRES-gpu:${GPUS_PER_NODE:-8}}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$cpus}
export MASTER_PORT=${MASTER_PORT:-$((20000 + RANDOM % 10000))}  # several jobs may share a node
job=(-p "$partition" --job-name="$name" --ntasks="${GPUS:-8}" --ntasks-per-node="$per_node" ${gres:+--gres="$gres"})
train=(python "$tools/train.py" "$config" --launcher slurm "$@")
if [ -z "${SBATCH:-}" ]; then
  # shellcheck disable=SC2086
  exec srun "${job[@]}" --cpus-per-task="$cpus" --kill-on-bad-exit=1 ${SRUN_ARGS:-} "${train[@]}"
fi
# On USR2 training keeps the step at hand and leaves with 128 + 12; a job that was requeued resumes by itself. A process
# that leaves first must not have the others killed, whose status would hide that.
# shellcheck disable=SC2086
exec sbatch "${job[@]}" --cpus-per-task="$cpus" --requeue --open-mode=append --signal=USR2@90 ${SBATCH_ARGS:-} --wrap "
srun --cpus-per-task=$cpus --kill-on-bad-exit=0 --wait=60 ${SRUN_ARGS:-} $(printf '%q ' "${train[@]}")
status=\$?
[ \$status -ne 140 ] || scontrol requeue \$SLURM_JOB_ID
[ \$status -ne 143 ] || sleep 600 # preempted with grace: Slurm requeues only what has not ended by itself
exit \$status"
