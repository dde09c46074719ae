#!/usr/bin/env bash
# A run that is longer than the time limit of its job:
#
#     sbatch demos/batch/slurm.sh --structure cook --law exact --steps 20 --folder results/cook
#
# Two minutes before the limit, or up to one minute earlier, SLURM sends SIGUSR1 to this script, which passes it on. The
# run then ends after a checkpoint, with the exit code 138 (128 + 10, the number of SIGUSR1), and the job is queued again.
# One evaluation of the law and one checkpoint must take less than these two minutes.
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
# With a surrogate: GPUs per node, not per task. Then all GPUs of a node are visible to all its ranks, and neighbouring
# ranks share one. With --gpus-per-task, or another CUDA_VISIBLE_DEVICES for each rank, each uses the GPU visible to it.
##SBATCH --gpus-per-node=1
set -u

# One thread for each core of a rank: otherwise each rank would start as many as the node has cores.
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

# The folder of submission: SLURM runs a copy of this file in another folder.
cd "${SLURM_SUBMIT_DIR:-.}" || exit

# `srun` needs an MPI that was built with PMIx, and `--mpi=pmix` where that is not the cluster's default. If every rank
# reports that it is the only one, use `mpirun` instead.
srun --cpu-bind=cores --kill-on-bad-exit=1 python3 demos/batch/demo_batch.py "$@" &
run=$!
told= limit=
trap 'told=1 limit=1; kill -USR1 "$run"' USR1

# A signal also ends `wait`: wait again for the end of the run.
while told=; wait "$run"; code=$?; [ "$told" ]; do :; done

# Ended by the signal, with any of the exit codes of the ranks and srun.
if [ "$limit" ] && [ "$code" -ge 128 ]; then
    if [ "${SLURM_RESTART_COUNT:-0}" -ge 50 ]; then
        echo "at the time limit for the 51st time: does the run make steps? See log.txt in its folder." >&2
        exit "$code"
    fi
    scontrol requeue "$SLURM_JOB_ID"
    exit
fi
exit "$code"
