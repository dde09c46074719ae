# SPDX-License-Identifier: MIT
"""Costs of training: an RVE's snapshots and networks by stages, an operator's steps, and memory, on 1 and 2 ranks.

RVE3 with 100 snapshots and the default settings of `spon.equino.train`: the exact problems, shared by the ranks; modes
and cubature; the training targets by the reduced model; and the fit of three networks. Then
steps of the operator network of the Poisson problem of `bench_operators.py`, fluxes, on 32 × 32 squares, batches of 16
samples that the ranks share. Memory is the peak of a rank so far. One core for each rank.

    python3 benchmarks/bench_training.py           rewrites benchmarks/training.json
    python3 benchmarks/bench_training.py --quick   small problems, printed and not saved
    python3 benchmarks/bench_training.py --table   the table of the README
"""

import argparse
import atexit
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keeping
import learned
import problems
import torch
from mpi4py import MPI

import coupling
import fe2
import spon
from spon import equino, operators
from spon.equino.training import sobol_strains, targets
from spon.operators.discretisation import discretise
from spon.reduced import pod_bases
from spon.training import TrainingOptions

RESULTS = Path(__file__).with_name("training.json")
FULL = {"mesh_size": 0.03, "snapshots": 100, "training": {}, "squares": 32, "steps": 200}
QUICK = {
    "mesh_size": 0.3,
    "snapshots": 8,
    "training": {"r": 4, "resolved": 8, "samples": 16, "lbfgs": 5},
    "squares": 4,
    "steps": 2,
}


class Clock:
    """Seconds and memory of successive stages, those of the slowest and of the largest rank."""

    def __init__(self, comm):
        self.comm, self.stages = comm, {}
        self.start()

    def start(self):
        self.comm.Barrier()
        self._begin = time.perf_counter()

    def stop(self, name):
        seconds = self.comm.allreduce(time.perf_counter() - self._begin, MPI.MAX)
        used = self.comm.allreduce(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, MPI.MAX)
        self.stages[name] = {"seconds": seconds, "memory": used}
        self.start()


def rve_stages(effort, comm):
    """The stages of an RVE; those after the snapshots on one rank."""
    rve = learned.rve("RVE3", effort["mesh_size"])
    strains = fe2.strain_sampling.latin_hypercube(effort["snapshots"], 2, learned.BOX, seed=0)
    rve.homogenise(strains[:1])  # compiles
    folder = comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None)
    if comm.rank == 0:
        atexit.register(shutil.rmtree, folder)
    path, clock = Path(folder) / "snapshots.h5", Clock(comm)
    fe2.rve_snapshots.compute(rve, strains, path, comm, progress=False)
    clock.stop(f"{len(strains)} snapshots of {rve.unknowns.size:,} unknowns")
    if comm.size == 1:
        data = coupling.rve_snapshots(rve, fe2.rve_snapshots.read(path))
        bases = pod_bases(data)
        clock.stop(f"modes, and a cubature of {len(bases.points)} points")
        half, count = torch.from_numpy(data.half_range), effort["training"].get("samples", 1024)
        targets(bases, sobol_strains(count, half, 0))
        clock.stop(f"the law at {count:,} strains")
        equino.train(data, equino.EquiNOOptions(**effort["training"]))
        clock.stop("all of spon.equino.train, with the two above")
    return clock.stages


def operator(effort, comm):
    """Steps of an operator network."""
    problem = problems.PROBLEMS["Poisson"](effort["squares"], 64, 2)
    spaces = discretise([problem.input], problem.output, bcs=problem.bcs, coarse=problem.coarse, points=True)
    network, steps = (
        spon.OperatorNetwork.from_discretisation(spaces, processor="fluxes", channels=12).float(),
        effort["steps"],
    )

    def run(count):
        operators.train(
            network,
            problem.inputs.float(),
            problem.outputs.float(),
            TrainingOptions(steps=count, every=10 * count),
            comm=comm,
        )

    run(5)
    clock = Clock(comm)
    run(steps)
    clock.stop(f"{steps} steps, {effort['squares']} × {effort['squares']} squares, {spaces.answer.dofs:,} unknowns")
    return clock.stages


WORKS = {"RVE": rve_stages, "operator": operator}


def study(quick):
    found = {}
    for name in WORKS:
        for ranks in (1, 2):
            launch = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
            command = [*launch, sys.executable, __file__, "--one", name, *(["--quick"] if quick else [])]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stdout + done.stderr)
            stages = found.setdefault(name, {})[ranks] = json.loads(done.stdout.strip().splitlines()[-1])
            print(name, ranks, stages, flush=True)
    return found


def table(found):
    lines = ["| what | stage | ranks | seconds | efficiency | memory of a rank [MiB] |", "|---|---|---|---|---|---|"]
    for name, runs in found.items():
        for ranks, stages in runs.items():
            for stage, record in stages.items():
                alone = runs["1"][stage]["seconds"]
                efficiency = f"{alone / int(ranks) / record['seconds']:.2f}" if int(ranks) > 1 else ""
                numbers = f"{ranks} | {record['seconds']:.3g} | {efficiency} | {record['memory']:.0f}"
                lines.append(f"| {name} | {stage} | {numbers} |")
    return "\n".join(lines)


def main():
    parser = keeping.parser(__doc__)
    parser.add_argument("--one", choices=WORKS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one:
        stages = WORKS[given.one](QUICK if given.quick else FULL, MPI.COMM_WORLD)
        if MPI.COMM_WORLD.rank == 0:
            print(json.dumps(stages), flush=True)
        return
    if given.table:
        print(table(json.loads(RESULTS.read_text())["found"]))
        return
    found = json.loads(json.dumps(study(given.quick)))  # numbers of ranks become strings, as in a file
    if not given.quick:
        keeping.keep(RESULTS, "found", record=found)
    print(table(found))


if __name__ == "__main__":
    main()
