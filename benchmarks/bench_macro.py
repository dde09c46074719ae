# SPDX-License-Identifier: MIT
"""FE² with learned RVEs beside exact FE²: three structures of RVE1-3, the force, the stress and the time of each.

RVEs, materials, snapshots and training are those of `bench_equino.py`. The structures are moved at one end until their
strains reach most of the trained range of ±4 %. Errors are those of the force at equal displacement, the largest of all
steps, and of the macroscale stress at the quadrature points, as relative L² norm at the end. Times are those of whole
runs and of the law alone, including the exact solutions of the certified law.

    mpirun -n 2 python3 benchmarks/bench_macro.py [RVE3 ...]    writes benchmarks/macro.json, structure by structure
        --restart    leaves out what that file has        --table    prints it as markdown and runs nothing
        --quick      a coarse RVE in a coarse structure, printed and not written
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import keeping
import learned
import numpy as np
import torch
from mpi4py import MPI
from learned import BOX, SIZES

import coupling
import fe2
import meshes

STEPS = 3
FILE = Path(__file__).with_name("macro.json")
# Record → RVE, and the options of its training other than the defaults. Where the truncation to 16 modes is most of the
# error, as in RVE1, more modes reduce the gap below the tolerance.
MODELS = {name: (name, {}) for name in SIZES} | {"RVE1, 24 modes": ("RVE1", {"r": 24})}
# Structure → mesh, prescribed displacements of boundaries, and the boundary and direction of the reported force.
STRUCTURES = {
    "Cook's membrane": (
        lambda comm: meshes.cook(comm, n=5),
        {"left": (0.0, 0.0), "right": (None, 1.6)},
        ("right", 1),
    ),
    "L-profile": (
        lambda comm: meshes.l_profile(comm, n=3),
        {"top": (0.0, 0.0), "right": (None, 7.0)},
        ("right", 1),
    ),
    "plate with a hole": (
        lambda comm: meshes.plate_with_hole(comm, n=3),
        {"left": (0.0, None), "bottom": (None, 0.0), "right": (0.022, None)},
        ("right", 0),
    ),
}
QUICK = (lambda comm: meshes.plate_with_hole(comm, n=1), *STRUCTURES["plate with a hole"][1:])


def solved(structure, law, comm):
    """The problem of a structure with a law, and the seconds of its solution and of its law (the slowest rank's)."""
    mesh, held, (loaded, _) = structure
    problem = fe2.MacroProblem(mesh(comm), law)
    for boundary, values in held.items():
        problem.prescribe(boundary, values)
    problem.record(loaded)
    comm.Barrier()
    start = time.perf_counter()
    problem.solve(steps=STEPS, log=None)
    whole, law_seconds = time.perf_counter() - start, sum(s.seconds["law"] for s in problem.history)
    return problem, {"run": comm.allreduce(whole, op=MPI.MAX), "law": comm.allreduce(law_seconds, op=MPI.MAX)}


def study(structure, rve, model, comm):
    """Errors and times of one structure, for the file."""
    exact_law = fe2.ExactLaw(rve)
    surrogate = coupling.SurrogateLaw(model, outside="warn")
    certified = coupling.CertifiedLaw(model, fe2.ExactLaw(rve))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", coupling.OutsideRangeWarning)  # they are counted below
        solved(structure, surrogate, comm)  # compiles the structure's forms
        runs = {
            name: solved(structure, law, comm)
            for name, law in {"exact": exact_law, "surrogate": surrogate, "certified": certified}.items()
        }

    def norm(values):
        return np.sqrt(comm.allreduce(float((values**2).sum())))

    def largest(values):
        return np.max(comm.allgather(abs(values).max(axis=0, initial=0.0)), axis=0)

    _, _, (loaded, direction) = structure
    exact, seconds = runs["exact"]
    points = comm.allreduce(len(exact.sigma.stresses()))
    found = {"points": points, "strain_over_range": (largest(exact.sigma.strains()) / BOX).tolist(), "laws": {}}
    found["outside"] = comm.allreduce(int((abs(exact.sigma.strains()) > BOX).any(axis=1).sum()))
    forces = {}
    for name, (problem, times) in runs.items():
        forces[name] = np.array([s.force[loaded][direction] for s in problem.history])
        evaluations = sum(len(s.residuals) for s in problem.history)
        stress = problem.sigma.stresses() - exact.sigma.stresses()
        found["laws"][name] = {
            "displacement": [s.displacement[loaded][direction] for s in problem.history],
            "force": forces[name].tolist(),
            "force_error": abs(forces[name] / forces["exact"] - 1).tolist(),
            "stress_error": norm(stress) / norm(exact.sigma.stresses()),
            "evaluations": evaluations,
            "seconds": times["run"],
            "law_seconds_per_point": times["law"] / evaluations / points,
            "times_as_fast": seconds["run"] / times["run"],
        }
    per_point = {name: law["law_seconds_per_point"] for name, law in found["laws"].items()}
    for name, law in found["laws"].items():
        law["law_times_as_fast"] = per_point["exact"] / per_point[name]
    found["exact_at_the_end"] = comm.allreduce(int(certified.is_exact.sum()))
    found["summary"] = certified.summary(comm)
    for problem, _ in runs.values():
        problem.destroy()
    return found


def show(record):
    """A line for each of the two laws."""
    lines = [
        f"  {name}: force off by {100 * max(law['force_error']):.3g} %, stress by {100 * law['stress_error']:.3g} %, "
        f"{law['seconds']:.2f} s, {law['times_as_fast']:.1f} times as fast, the law {law['law_times_as_fast']:.1f}"
        for name, law in record["laws"].items()
        if name != "exact"
    ]
    ranges = "/".join(f"{100 * r:.0f}" for r in record["strain_over_range"])
    lines.append(f"  strains reach {ranges} % of the range, {record['outside']} of {record['points']} points outside")
    return "\n".join([*lines, f"  {record['summary']}"])


def table(records):
    """The records as a markdown table, a pair being surrogate / certified."""
    lines = [
        "| RVE | structure | force off by [%] | stress off by [%] | run, times as fast | law, times as fast "
        "| points exact | exact FE² [s] |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, record in sorted(records.items(), key=lambda item: item[0].split(": ")):
        s, c = (record["laws"][name] for name in ("surrogate", "certified"))
        pairs = [
            f"{100 * max(s['force_error']):.2g} / {100 * max(c['force_error']):.2g}",
            f"{100 * s['stress_error']:.2g} / {100 * c['stress_error']:.2g}",
            *(f"{s[k]:.0f} / {c[k]:.1f}" for k in ("times_as_fast", "law_times_as_fast")),
        ]
        end = f"{record['exact_at_the_end']} of {record['points']}"
        lines.append(f"| {' | '.join([*key.split(': '), *pairs, end])} | {record['laws']['exact']['seconds']:.0f} |")
    return "\n".join(lines)


def stored():
    return json.loads(FILE.read_text())["runs"] if FILE.exists() else {}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="RVE", help=f"of {'; '.join(MODELS)}; all by default")
    parser.add_argument("--structure", choices=STRUCTURES, action="append", help="only this one")
    for option in ("quick", "restart", "table"):
        parser.add_argument(f"--{option}", action="store_true")
    options = parser.parse_args()
    comm = MPI.COMM_WORLD
    torch.set_num_threads(1)
    if options.table:
        if comm.rank == 0:
            print(table(stored()))
        return
    if options.quick:
        rve, model = learned.quick(comm)
        record = study(QUICK, rve, model, comm)
        rve.destroy()
        if comm.rank == 0:
            print(f"{show(record)}\n{table({'RVE3: plate with a hole': record})}")
        return
    structures = options.structure or list(STRUCTURES)
    done = comm.bcast(set(stored())) if options.restart else set()
    for name in options.names or list(MODELS):
        wanted = [s for s in structures if f"{name}: {s}" not in done]
        if not wanted:
            continue
        which, settings = MODELS[name]
        rve = learned.rve(which)
        model = learned.trained(rve, name, comm, **settings)
        for structure in wanted:
            record = study(STRUCTURES[structure], rve, model, comm)
            if comm.rank == 0:
                print(f"{name}: {structure}\n{show(record)}", flush=True)
                keeping.keep(FILE, "runs", f"{name}: {structure}", record=record, ranks=comm.size, steps=STEPS)
        rve.destroy()


if __name__ == "__main__":
    main()
