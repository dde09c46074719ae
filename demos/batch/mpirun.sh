#!/usr/bin/env bash
# A run on RANKS ranks that ends behind a checkpoint after LIMIT, for Open MPI where there is no SLURM:
#
#     RANKS=8 LIMIT=4h demos/batch/mpirun.sh --structure cook --law exact --steps 20 --folder results/cook
#
# It ends with the code 0 if it is done and with 138 (128 + 10, as SIGUSR1 has the number 10) if the same command shall
# go on with it, at once or in another job:
#
#     until demos/batch/mpirun.sh ...; do [ $? = 138 ] || break; done
#
# Each rank is bound to THREADS cores of its own, and has as many threads. Ranks of a node share its GPUs; to leave some
# of them to others, set CUDA_VISIBLE_DEVICES, the same for all ranks.
set -u

ranks=${RANKS:-2} threads=${THREADS:-1} limit=${LIMIT:-0}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export OMP_NUM_THREADS=$threads

# More ranks than cores cannot be bound.
bind=(--map-by "slot:PE=$threads" --bind-to core)
[ $((ranks * threads)) -le "$(nproc)" ] || bind=(--bind-to none)

# mpirun passes SIGUSR1 on to its ranks; SIGTERM it takes as an order to kill them soon.
exec timeout --preserve-status --signal=USR1 "$limit" \
    mpirun -n "$ranks" "${bind[@]}" python3 "$here/demo_batch.py" "$@"
