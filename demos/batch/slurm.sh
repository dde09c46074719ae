#!/usr/bin/env bash
# A run that outlives the time limit of its job:
#
#     sbatch demos/batch/slurm.sh --structure cook --law exact --steps 20 --folder results/cook
#
# Two minutes before the limit SLURM sends SIGUSR1 to this script, which passes it on. The run then ends behind a
# checkpoint, with the code 138 (128 + 10, as SIGUSR1 has the number 10), and the job goes back into the queue.
# The two minutes must be more than one evaluation of the law and one checkpoint take.
#
#SBATCH --job-name=fe2
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=16
#SBATCH --cpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=fe2-%j.out
#
# With a surrogate: GPUs per node, not per task. So all ranks see all GPUs of their node, and those that are neighbours
# share one. With --gpus-per-task, or CUDA_VISIBLE_DEVICES set differently for each rank, each takes what it is shown.
##SBATCH --gpus-per-node=1
set -u

# One thread for each core that a rank has: without it each rank would start as many as the node has cores.
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

# Where the job is sent from: SLURM runs a copy of this file that lies elsewhere.
cd "${SLURM_SUBMIT_DIR:-.}" || exit

# `srun` needs an MPI that was built with PMIx; if every rank says that it is alone, take `mpirun` in its place.
srun --cpu-bind=cores --kill-on-bad-exit=1 python3 demos/batch/demo_batch.py "$@" &
run=$!
told= limit=
trap 'told=1 limit=1; kill -USR1 "$run"' USR1

# A signal ends `wait` as well: then wait again, for the end of the run.
while told=; wait "$run"; code=$?; [ "$told" ]; do :; done

# Ended by the signal, by whatever code the ranks and srun say so.
if [ "$limit" ] && [ "$code" -ge 128 ]; then
    if [ "${SLURM_RESTART_COUNT:-0}" -ge 50 ]; then
        echo "at the time limit for the 51st time: does the run make steps? See log.txt in its folder." >&2
        exit "$code"
    fi
    scontrol requeue "$SLURM_JOB_ID"
    exit
fi
exit "$code"
