# SPDX-License-Identifier: MIT
"""RVEs, snapshots and models that several benchmarks use.

The RVEs are RVE1-3 in the range of the published benchmark: 100 snapshots at a Latin hypercube in the box of ±4 %
(shear as γ = 2 ε_xy). Snapshots and models are saved under results/equino and reused if they are of the same RVE.
"""

from pathlib import Path

import numpy as np
from mpi4py import MPI

import coupling
import fe2
import meshes
import spon
from fe2.fingerprints import differences, fingerprint
from spon import EquiNOOptions, equino
from spon.training import Live

MATERIALS = {1: fe2.SaturatingElastic(), 2: fe2.LinearElastic(bulk=43452.381, shear=29918.0328)}
SIZES = {"RVE1": 0.0205, "RVE2": 0.0245, "RVE3": 0.0245}
BOX = 0.04 * np.array([1.0, 1.0, 0.5**0.5])
FOLDER = Path("results/equino")
# Smoke tests have a coarse RVE3 and a model that is trained in seconds.
QUICK_MESH_SIZE = 0.3
QUICK_TRAINING = {"r": 12, "resolved": 20, "samples": 64, "width": 16, "widths": (24, 24), "lbfgs": 100}


def rve(name, mesh_size=None):
    """The RVE of this name."""
    return fe2.RVE(meshes.benchmark(name, MPI.COMM_SELF, mesh_size=mesh_size or SIZES[name]), MATERIALS)


def solved(rve, stem, n, seed, comm=MPI.COMM_SELF):
    """n solved problems of an RVE; None on ranks other than the first."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path, strains = FOLDER / f"{stem}.h5", fe2.strain_sampling.latin_hypercube(n, 2, BOX, seed=seed)
    fe2.rve_snapshots.compute(rve, strains, path, comm, chunk=20, progress=False)
    with fe2.raise_on_all_ranks(comm):
        return coupling.rve_snapshots(rve, fe2.rve_snapshots.read(path)) if comm.rank == 0 else None


def trained(rve, stem, comm=MPI.COMM_SELF, **settings):
    """The model of an RVE, from its file if that is of the same RVE; otherwise one rank trains it."""
    path = FOLDER / f"{stem}.safetensors"
    fits = path.exists() and not differences(spon.load(path).fingerprint, fingerprint(rve))
    if not comm.bcast(fits):
        data = solved(rve, f"{stem}-train", 100, 0, comm)
        with fe2.raise_on_all_ranks(comm):
            if data is not None:
                with Live() as live:
                    equino.train(data, EquiNOOptions(**settings), log=live).model.save(path)
    return spon.load(path, whole=True)


def quick(comm=MPI.COMM_SELF):
    """The RVE of smoke tests, and its model."""
    coarse = rve("RVE3", QUICK_MESH_SIZE)
    return coarse, trained(coarse, "RVE3-quick", comm, **QUICK_TRAINING)
