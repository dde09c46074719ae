#!/usr/bin/env bash
# A run on RANKS ranks that ends after a checkpoint at LIMIT, for Open MPI without SLURM:
#
#     RANKS=8 LIMIT=4h demos/batch/mpirun.sh --structure cook --law exact --steps 20 --folder results/cook
#
# Its exit code is 0 if the run is complete and 138 (128 + 10, the number of SIGUSR1) if the same command has to
# continue it, at once or in another job:
#
#     until demos/batch/mpirun.sh ...; do [ $? = 138 ] || break; done
#
# Each rank is bound to THREADS cores of its own and has as many threads. Ranks of a node share its GPUs; to use only
# some of them, set CUDA_VISIBLE_DEVICES, the same for all ranks.
set -u

ranks=${RANKS:-2} threads=${THREADS:-1} limit=${LIMIT:-0}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export OMP_NUM_THREADS=$threads

# More ranks than cores cannot be bound.
bind=(--map-by "slot:PE=$threads" --bind-to core)
[ $((ranks * threads)) -le "$(nproc)" ] || bind=(--bind-to none)

# mpirun passes SIGUSR1 on to its ranks; at SIGTERM it kills them after a short time.
exec timeout --preserve-status --signal=USR1 "$limit" \
    mpirun -n "$ranks" "${bind[@]}" python3 "$here/demo_batch.py" "$@"
