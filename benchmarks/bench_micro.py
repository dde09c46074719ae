# SPDX-License-Identifier: MIT
"""Exact micro solves per second on RVE1-3 against the naive way, in one run on one core.

naive: in every Newton iteration a new matrix, a new symbolic and numeric factorisation (MUMPS), and the tangent from
forward differences, one more nonlinear solve per strain component started from the solution. Same mesh, materials,
tolerance and strains; stress and tangent of both must agree.

    python3 benchmarks/bench_micro.py        prints a table and writes benchmarks/micro.json
"""

import json
import os
import platform
import resource
import time
from pathlib import Path

import dolfinx
import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

import fe2
import meshes
from fe2.reduced import ReducedStiffness

STRAINS = np.random.default_rng(0).uniform(-0.04, 0.04, (6, 3))
SIZES = {"RVE1": 0.0205, "RVE2": 0.0245, "RVE3": 0.0245}


def naive(rve, strain):
    """Stress and tangent at one strain without reuse of anything."""

    def solve(strain, w):
        for _ in range(25):
            r, scale = rve._residual(strain, w)
            if np.linalg.norm(r) <= rve.tolerance * scale:
                return w, rve.affine.T @ rve.body.forces() / rve.volume
            stiffness = ReducedStiffness(rve.unknowns, rve.body.stiffness(), symmetric=True, prefix="naive_")
            stiffness.update(rve.body.stiffness())
            w = w - stiffness.solve(r, 1e-10)
            stiffness.destroy()
        raise RuntimeError("no convergence")

    h = 1e-6
    w, stress = solve(strain, np.zeros(rve.unknowns.size))
    columns = [(solve(strain + h * e, w)[1] - stress) / h for e in np.eye(len(strain))]
    return stress, np.stack(columns, axis=1)


def main():
    materials = {1: fe2.SaturatingElastic(), 2: fe2.LinearElastic(bulk=43452.381, shear=29918.0328)}
    rows = []
    for name, h in SIZES.items():
        cell = meshes.benchmark(name, MPI.COMM_SELF, mesh_size=h)
        rve = fe2.RVE(cell, materials)
        rve.homogenise(STRAINS[:1])  # compilation and first touch are not what is measured
        start = time.perf_counter()
        ours = rve.homogenise(STRAINS)
        fast = (time.perf_counter() - start) / len(STRAINS)
        start = time.perf_counter()
        stress, tangent = naive(rve, STRAINS[0])
        slow = time.perf_counter() - start
        start = time.perf_counter()
        rve.homogenise(STRAINS[:1])
        alone = time.perf_counter() - start
        rows.append(
            {
                "cell": name,
                "unknowns": rve.unknowns.size,
                "solves_per_second": 1 / fast,
                "naive_solves_per_second": 1 / slow,
                "ratio_first_point": slow / alone,
                "ratio": slow / fast,
                "stress_difference": float(abs(stress - ours.stress[0]).max() / abs(stress).max()),
                "tangent_difference": float(abs(tangent - ours.tangent[0]).max() / abs(tangent).max()),
                "state_bytes_per_point": 8 * rve.state_size,
            }
        )
        rve.destroy()
        r = rows[-1]
        print(
            f"{name}: {r['unknowns']} unknowns, {r['solves_per_second']:.2f} solves/s, "
            f"naive {r['naive_solves_per_second']:.3f}/s, "
            f"ratio {r['ratio']:.1f} (one point alone {r['ratio_first_point']:.1f}), "
            f"differences {r['stress_difference']:.1e} "
            f"{r['tangent_difference']:.1e}, {r['state_bytes_per_point'] / 1e3:.0f} kB state a point",
            flush=True,
        )
    about = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "dolfinx": dolfinx.__version__,
        "petsc": ".".join(map(str, PETSc.Sys.getVersion())),
        "peak_memory_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    path = Path(__file__).with_name("micro.json")
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"about": about, "cells": rows}, indent=2) + "\n")
    part.rename(path)


if __name__ == "__main__":
    main()
