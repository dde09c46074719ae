# SPDX-License-Identifier: MIT
"""Cost of a learned RVE: stress and tangent by batch size, beside the exact RVE, a formula, and its own training.

All on one core of a CPU, and on a GPU if available.

- points per second by batch size, in float64 and float32, and the ratio to the exact solver's, both for random strains
  and on one core;
- Cook's membrane of 1,000 elements with the learned RVE and with the matrix material alone as a formula, compiled from
  UFL: time of the whole run and of a Newton iteration, and the law's share of it;
- snapshots and training in units of one load step of that membrane with the exact RVE: as many Newton iterations as
  the learned RVE needs, times points, at the rate at which the exact RVE solves 64 of the membrane's points. Training
  times are those of `bench_equino.py`.

    python3 benchmarks/bench_surrogate.py [RVE3 ...]     writes benchmarks/surrogate.json
    python3 benchmarks/bench_surrogate.py --table        prints it as markdown and runs nothing
"""

import argparse
import json
import time
from pathlib import Path

import keeping
import learned
import numpy as np
import torch
from mpi4py import MPI

import coupling
import fe2
import meshes

RESULTS, ACCURACY = (Path(__file__).with_name(f"{name}.json") for name in ("surrogate", "equino"))
BATCHES = (1, 64, 1024, 16384, 262144)
SIDE = (25, 40)  # elements of the membrane
MOVE, STEPS, REPEATS = 1.6, 2, 7


def rate(model, n, device, dtype, compiled):
    """Points per second in batches of n, each of them on the device and back at the law's chunks; best of some runs."""
    chunk = 1024 if device == "cpu" else n
    law = coupling.SurrogateLaw(model, device=device, dtype=dtype, chunk=chunk, compiled=compiled, outside="warn")
    assert (law.way != "torch") == compiled
    strain = learned.BOX * np.random.default_rng(0).uniform(-1, 1, (n, 3))
    empty, best, begin = np.zeros((n, 0)), np.inf, time.perf_counter()
    while time.perf_counter() - begin < 2.0:
        start = time.perf_counter()
        law.evaluate(strain, empty, empty)
        best = min(best, time.perf_counter() - start)
    return n / best


def exact_rate(rve, strain):
    """Points per second of the exact solver."""
    start = time.perf_counter()
    rve.homogenise(strain)
    return len(strain) / (time.perf_counter() - start)


def membrane(law):
    """The solved problem and its seconds, with the forms already compiled."""
    for _ in range(2):
        problem = fe2.MacroProblem(meshes.cook(MPI.COMM_SELF, n=SIDE), law)
        problem.prescribe("left", (0.0, 0.0))
        problem.prescribe("right", (None, MOVE))
        problem.record("right")
        start = time.perf_counter()
        problem.solve(steps=STEPS, log=None)
        seconds = time.perf_counter() - start
    evaluations = sum(len(s.residuals) for s in problem.history)
    return problem, {
        "seconds": seconds,
        "evaluations": evaluations,
        "seconds_per_evaluation": seconds / evaluations,
        "law_share": sum(s.seconds["law"] for s in problem.history) / seconds,
    }


def study(name):
    rve = learned.rve(name)
    model = learned.trained(rve, name)
    ways = {"cpu": ("cpu", True), "cpu, torch": ("cpu", False)}
    if torch.cuda.is_available():
        ways["cuda"] = ("cuda", False)
    rates = {
        way: {
            str(dtype).removeprefix("torch."): {n: rate(model, n, device, dtype, compiled) for n in BATCHES}
            for dtype in (torch.float64, torch.float32)
        }
        for way, (device, compiled) in ways.items()
    }
    random = exact_rate(rve, learned.BOX * np.random.default_rng(1).uniform(-1, 1, (64, 3)))
    found = {"points_per_second": rates, "exact_per_second": random}
    found["ratio_to_exact"] = max(rates["cpu"]["float64"].values()) / random

    # In turns, so that other load of the machine affects both; the best run has the least.
    laws = coupling.SurrogateLaw(model, outside="warn"), fe2.UFLLaw(learned.MATERIALS[1])
    runs = [[membrane(law) for law in laws] for _ in range(REPEATS)]
    (problem, with_model), (_, formula) = (min(r, key=lambda run: run[1]["seconds"]) for r in zip(*runs, strict=True))
    found["membrane"] = {"elements": SIDE[0] * SIDE[1], "points": len(problem.sigma.strains())}
    found["membrane"] |= {"surrogate": with_model, "formula": formula}
    found["membrane"]["ratio_of_runs"] = with_model["seconds"] / formula["seconds"]
    found["membrane"]["ratio_of_iterations"] = with_model["seconds_per_evaluation"] / formula["seconds_per_evaluation"]

    strains = problem.sigma.strains()
    near = strains[len(strains) // 2 :][:64]
    per_step = with_model["evaluations"] / STEPS * len(strains) / exact_rate(rve, near)
    trainings = json.loads(ACCURACY.read_text())["RVEs"][name]["methods"]["EquiNO, default"]
    offline = {
        "snapshots": 100 / exact_rate(rve, fe2.strain_sampling.latin_hypercube(100, 2, learned.BOX, seed=0)),
        "training": float(np.mean([t["seconds"] for t in trainings])),
    }
    found["offline"] = offline | {"exact_load_step": per_step, "ratio": sum(offline.values()) / per_step}
    rve.destroy()
    return found


def table(rves):
    """The README's tables in Markdown."""
    head = ["RVE", *(f"{n:,}" for n in BATCHES), "float32, best", "torch, best", "exact [1/s]", "ratio"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, c in rves.items():
        rates = c["points_per_second"]
        double, single, by_torch = rates["cpu"]["float64"], rates["cpu"]["float32"], rates["cpu, torch"]["float64"]
        row = [name, *(f"{double[str(n)]:.2g}" for n in BATCHES)]
        row += [f"{max(r.values()):.2g}" for r in (single, by_torch)]
        lines.append("| " + " | ".join([*row, f"{c['exact_per_second']:.1f}", f"{c['ratio_to_exact']:.2g}"]) + " |")
    head = ["RVE", "run, learned / formula [s]", "ratio", "ratio of an iteration", "law's share, learned / formula",
            "snapshots + training [s]", "exact load step [s]", "ratio"]  # fmt: skip
    lines += ["", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, c in rves.items():
        m, o = c["membrane"], c["offline"]
        s, f = m["surrogate"], m["formula"]
        lines.append(
            f"| {name} | {s['seconds']:.2f} / {f['seconds']:.2f} | {m['ratio_of_runs']:.2f} | "
            f"{m['ratio_of_iterations']:.2f} | {100 * s['law_share']:.0f} % / {100 * f['law_share']:.0f} % | "
            f"{o['snapshots']:.0f} + {o['training']:.0f} | {o['exact_load_step']:.0f} | {o['ratio']:.2f} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of RVE1, RVE2, RVE3; all by default")
    parser.add_argument("--table", action="store_true", help="print the tables and run nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.table:
        for name in given.names or learned.SIZES:
            keeping.keep(RESULTS, "RVEs", name, record=study(name))
    print(table(json.loads(RESULTS.read_text())["RVEs"]))


if __name__ == "__main__":
    main()
