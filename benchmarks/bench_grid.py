# SPDX-License-Identifier: MIT
"""Full-field problems of RVEs given as images, in batches by FFT, beside the exact solver one by one.

RVEs are those of `bench_cells.py` in 2D, discs of fibre in a matrix that softens, and balls of fibre in 3D, at random
strains of a ±4 % box, from zero fluctuation. Both solve the same discrete problem, stress and tangent to the same
tolerance. Seconds are those of one core, the least of two runs, without setup.

    python3 benchmarks/bench_grid.py           rewrites benchmarks/grid.json
    python3 benchmarks/bench_grid.py --quick   small grids, printed and not saved
    python3 benchmarks/bench_grid.py --table   the table of the README
"""

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

RESULTS = Path(__file__).with_name("grid.json")
# Grid → sizes of the batch.
FULL = {(32, 32): (1, 8, 64), (64, 64): (1, 8, 32), (16, 16, 16): (1, 4)}
QUICK = {(8, 8): (1, 4), (4, 4, 4): (1,)}
TOLERANCE = 1e-9


def images(grid, count, seed=0):
    """Labels (count, *grid) with six discs or balls of fibre at random places."""
    rng, dim = np.random.default_rng(seed), len(grid)
    places = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n for n in grid], indexing="ij"), -1)
    centres = rng.uniform(0.0, 1.0, (count, 6, dim))
    away = places[None, None] - centres.reshape(count, 6, *[1] * dim, dim)
    away -= np.rint(away)  # of the nearest periodic image
    return np.where((np.linalg.norm(away, axis=-1) < 0.13 + 0.07 * (dim - 2)).any(1), 2, 1)


def fastest(work):
    taken = []
    for _ in range(2):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def study(grids, device):
    found = {}
    for grid, batches in grids.items():
        dim, name = len(grid), " × ".join(map(str, grid))
        count = max(batches)
        labels = images(grid, count)
        box = 0.04 * np.array([1.0] * dim + [0.5**0.5] * (dim * (dim - 1) // 2))
        strains = fe2.strain_sampling.latin_hypercube(count, dim, box, seed=2)
        rows = {}
        for n in batches:
            rves = coupling.grid_rves(labels[:n], learned.MATERIALS, device=device)
            given = torch.from_numpy(strains[:n])
            response = rves.homogenise(given, tolerance=TOLERANCE)
            seconds = fastest(lambda rves=rves, given=given: rves.homogenise(given, tolerance=TOLERANCE))
            rows[n] = {
                "seconds_per_rve": seconds / n,
                "iterations": float(response.iterations.double().mean()),
                "products": float(response.products.double().mean()),
            }
            print(name, n, rows[n], flush=True)
        some = min(count, 4)
        exact, off = 0.0, 0.0
        for k in range(some):
            domain = meshes.from_labels(labels[k], MPI.COMM_SELF)
            rve = fe2.RVE(domain, learned.MATERIALS, degree=1)
            right = rve.homogenise(strains[k : k + 1])  # compiles
            exact += fastest(lambda rve=rve, e=strains[k : k + 1]: rve.homogenise(e)) / some
            error = response.stress[k].cpu().numpy() - right.stress[0]
            off = max(off, float(abs(error).max() / abs(right.stress).max()))
            unknowns = rve.unknowns.size
            rve.destroy()
        # Memory of an RVE during the solution: fields at the points, with tangents, and vectors of conjugate gradients.
        d, points = dim * (dim + 1) // 2, 2**dim * int(np.prod(grid))
        memory = 8 * (points * (2 * d * d + 2 * d + d * d) + 5 * d * unknowns) / 2**20
        found[name] = {"unknowns": unknowns, "batches": rows, "exact": exact, "off": off, "memory": memory}
        print(name, "exact", exact, "off", off, flush=True)
    return found


def table(found):
    lines = ["| grid | unknowns | an RVE [ms], by size of the batch | Newton iterations / products | exact solver [ms] "
             "| stress apart | memory [MiB] |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, record in found.items():
        batches = record["batches"]
        each = " / ".join(f"{1e3 * row['seconds_per_rve']:.3g} ({n})" for n, row in batches.items())
        last = list(batches.values())[-1]
        lines.append(
            f"| {name} | {record['unknowns']:,} | {each} | {last['iterations']:.1f} / {last['products']:.0f} | "
            f"{1e3 * record['exact']:.3g} | {record['off']:.0e} | {record['memory']:.0f} |"
        )
    return "\n".join(lines)


def main():
    given = keeping.parser(__doc__).parse_args()
    torch.set_num_threads(1)
    if given.table:
        figures = json.loads(RESULTS.read_text())
        print("\n\n".join(table(figures[key]) for key in ("found", "on the GPU") if key in figures))
        return
    found = study(QUICK if given.quick else FULL, "cpu")
    if not given.quick:
        keeping.keep(RESULTS, "found", record=found)
        if torch.cuda.is_available():
            keeping.keep(RESULTS, "on the GPU", record=study(FULL, "cuda"))
    print(table(found))


if __name__ == "__main__":
    main()
