# SPDX-License-Identifier: MIT
"""Time of the parts of a macroscale Newton iteration, with a learned RVE and with a formula instead.

Cook's membrane of 10⁴ and of 10⁵ quadrature points, in one load step, on one rank and on two: the learned law alone;
what surrounds it (strains, checks of numbers that are not finite, copies); assembly of residual and matrix; and the
linear solver, with PETSc's options by default (a direct solver) and with conjugate gradients and algebraic multigrid,
with the near-nullspace of rigid motions. The formula is the matrix material of the RVE alone, compiled from UFL. The
structure is solved three times in turns; times are those of the fastest run, iterations those of each material.

    python3 benchmarks/bench_assembly.py           rewrites benchmarks/assembly.json and docs/assembly.png
    python3 benchmarks/bench_assembly.py --quick   a small structure, printed and not saved
    python3 benchmarks/bench_assembly.py --table   the table of the README
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import keeping
import learned
import numpy as np
import torch
from mpi4py import MPI

import coupling
import fe2
import meshes
from fe2 import pictures
from fe2.petsc_options import default_options

RESULTS = Path(__file__).with_name("assembly.json")
PICTURE = Path(__file__).parents[1] / "docs" / "assembly.png"
MULTIGRID = {"ksp_type": "cg", "pc_type": "gamg", "ksp_rtol": "1e-8"}
# Name → elements along an edge, ranks, options.
RUNS = {
    "10⁴ points": (50, 1, {}),
    "10⁴ points, 2 ranks": (50, 2, {}),
    "2 · 10⁴ points, 2 ranks": (71, 2, {}),
    "10⁵ points": (158, 1, {}),
    "10⁵ points, multigrid": (158, 1, MULTIGRID),
    "10⁵ points, 2 ranks, multigrid": (158, 2, MULTIGRID),
}
# Scaling to two ranks: title → runs on one and on two, and the ratio of their work.
SCALING = {
    "strong, 10⁴ points": ("10⁴ points", "10⁴ points, 2 ranks", 1),
    "strong, 10⁵ points, multigrid": ("10⁵ points, multigrid", "10⁵ points, 2 ranks, multigrid", 1),
    "weak, 10⁴ points a rank": ("10⁴ points", "2 · 10⁴ points, 2 ranks", 2),
}
QUICK = {"64 points": (4, 1, {}), "64 points, 2 ranks": (4, 2, MULTIGRID)}
PARTS = ("law", "around it", "assembly", "solver")


class Timed:
    """A law that records the seconds of its evaluations."""

    def __init__(self, law):
        self.law, self.strain_size, self.state_size, self.seconds = law, law.strain_size, law.state_size, 0.0

    def initial_state(self, n):
        return self.law.initial_state(n)

    def evaluate(self, *arguments):
        start = time.perf_counter()
        out = self.law.evaluate(*arguments)
        self.seconds += time.perf_counter() - start
        return out


def solve(law, n, comm):
    """Seconds of each part of an iteration (the slowest rank's), iterations, and points."""
    timed = Timed(law)
    problem = fe2.MacroProblem(meshes.cook(comm, n=n), timed)
    problem.prescribe("left", (0.0, 0.0))
    problem.prescribe("right", (None, 1.0))
    comm.Barrier()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", coupling.OutsideRangeWarning)
        problem.solve(steps=1, log=None)
    (step,) = problem.history
    points, count = comm.allreduce(len(problem.sigma.strains())), len(step.residuals)
    parts = (timed.seconds, step.seconds["law"] - timed.seconds, step.seconds["assembly"], step.seconds["solver"])
    parts = [comm.allreduce(x / count, MPI.MAX) for x in parts]
    problem.destroy()
    return {"parts": dict(zip(PARTS, parts)), "iterations": count, "points": points, "iteration": sum(parts)}


def measure(model, n, options, comm, rounds):
    laws = {
        "learned": coupling.SurrogateLaw(model, outside="warn"),
        "formula": fe2.UFLLaw(learned.MATERIALS[1]),
    }
    found = {name: [] for name in laws}
    with default_options("macro_", options):
        for law in laws.values():
            solve(law, 2, comm)  # compiles
        for _ in range(rounds):
            for name, law in laws.items():
                found[name].append(solve(law, n, comm))
    best = {name: min(runs, key=lambda run: run["iteration"]) for name, runs in found.items()}
    best["memory"] = comm.allreduce(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, MPI.MAX)  # MiB
    return best


def table(runs):
    lines = ["| structure | law | around it | assembly | solver | iteration [ms] | law and around | learned / formula, "
             "iteration / run | memory of a rank [MiB] |", "|---" * 9 + "|"]  # fmt: skip
    for name, record in runs.items():
        whole, formula = record["learned"], record["formula"]
        parts = [1e3 * whole["parts"][part] for part in PARTS]
        share = sum(parts[:2]) / sum(parts)
        iteration = whole["iteration"] / formula["iteration"]
        run = iteration * whole["iterations"] / formula["iterations"]
        columns = [name, *(f"{x:.3g}" for x in parts), f"{sum(parts):.3g}", f"{100 * share:.0f} %"]
        lines.append("| " + " | ".join([*columns, f"{iteration:.2f} / {run:.2f}", f"{record['memory']:.0f}"]) + " |")
    return "\n".join(lines)


def scaling(runs):
    """Efficiencies of two ranks: the time of one over that of two, by the work of a rank."""
    lines = ["| two ranks | law | law and around | assembly | solver | iteration |", "|---" * 6 + "|"]
    for title, (one, two, growth) in SCALING.items():
        parts = [runs[name]["learned"]["parts"] for name in (one, two)]
        times = np.array([[p["law"], p["law"] + p["around it"], p["assembly"], p["solver"], sum(p.values())]
                          for p in parts])  # fmt: skip
        efficiencies = times[0] * growth / (2 * times[1])
        lines.append(f"| {title} | " + " | ".join(f"{x:.2f}" for x in efficiencies) + " |")
    return "\n".join(lines)


def draw(runs, path):
    """A bar for each law of each structure, of the parts of an iteration."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
    labels, shares = [], []
    for name, record in runs.items():
        for law in ("learned", "formula"):
            labels.append(f"{name}, {law}")
            shares.append([100 * record[law]["parts"][part] / record["learned"]["iteration"] for part in PARTS])
    left = np.zeros(len(labels))
    for part, values in zip(PARTS, np.array(shares).T):
        axis.barh(labels, values, left=left, label=part)
        left += values
    axis.invert_yaxis()
    axis.set(xlabel="time of an iteration, % of that with the learned RVE")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", fontsize=8, ncols=4)
    print(f"picture: {pictures.save(figure, path, dpi=100)}")


def one(name, quick):
    """A run on the ranks of this program; its record on the first rank as the last line."""
    comm = MPI.COMM_WORLD
    n, _, options = (QUICK if quick else RUNS)[name]
    model = model_of(quick)
    record = measure(model, n, options, comm, 1 if quick else 3)
    if comm.rank == 0:
        print(json.dumps(record), flush=True)


def model_of(quick):
    return learned.quick()[1] if quick else learned.trained(learned.rve("RVE3", 0.06), "RVE3-tiers")


def main():
    parser = keeping.parser(__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one:
        one(given.one, given.quick)
        return
    if given.table:
        runs = json.loads(RESULTS.read_text())["runs"]
        print(f"{table(runs)}\n\n{scaling(runs)}")
        return
    model_of(given.quick)
    found = {}
    for name, (_, ranks, _) in (QUICK if given.quick else RUNS).items():
        launch = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
        command = [*launch, sys.executable, __file__, "--one", name, *(["--quick"] if given.quick else [])]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        found[name] = json.loads(done.stdout.strip().splitlines()[-1])
        if not given.quick:
            keeping.keep(RESULTS, "runs", name, record=found[name])
        print(table({name: found[name]}).splitlines()[-1], flush=True)
    draw(found, Path("results/assembly.png") if given.quick else PICTURE)
    print(table(found))


if __name__ == "__main__":
    main()
