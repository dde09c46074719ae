# SPDX-License-Identifier: MIT
"""A small RVE and a model of it, trained once for all tests that use a model."""

import fcntl
from dataclasses import dataclass
from pathlib import Path

from mpi4py import MPI

import coupling
import fe2
import meshes
import spon

AMPLITUDE = 0.03
# Settings of a training of some seconds; a real one has more modes, samples and iterations.
TRAINING = spon.EquiNOOptions(r=8, resolved=16, samples=256, width=16, widths=(24, 24), lbfgs=300)


@dataclass(frozen=True)
class Trained:
    """The RVE, the model as it is loaded from its file, and the file."""

    rve: fe2.RVE
    model: spon.EquiNO
    path: Path


def make_rve(radius=0.3):
    """An RVE with one stiff circle, 138 unknowns."""
    domain = meshes.rve([meshes.Circle((0.0, 0.0), radius)], MPI.COMM_SELF, mesh_size=0.3)
    materials = {1: fe2.SaturatingElastic(), 2: fe2.LinearElastic(bulk=43452.381, shear=29918.0328)}
    return fe2.RVE(domain, materials, degree=1)


def once(folder, comm):
    """The model of this folder, trained by the first process that needs it; others wait."""
    rve, path = make_rve(), folder / "model.safetensors"
    with open(folder / "lock", "w") as lock:
        if comm.rank == 0:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not comm.bcast(path.exists() if comm.rank == 0 else None):
            train(rve, path, comm)
    return Trained(rve, spon.load(path, whole=True), path)


def train(rve, path, comm):
    """Snapshots on all ranks, and training on rank 0."""
    from spon import equino

    snapshots = path.with_name("snapshots.h5")
    fe2.rve_snapshots.compute(rve, fe2.strain_sampling.sobol(32, 2, AMPLITUDE, seed=1), snapshots, comm, progress=False)
    with fe2.raise_on_all_ranks(comm):
        if comm.rank == 0:
            data = coupling.rve_snapshots(rve, fe2.rve_snapshots.read(snapshots))
            equino.train(data, TRAINING).model.save(path)


def strains(n, scale=0.9, seed=3):
    """n strains (n, d) in the trained range, `scale` times its size."""
    return fe2.strain_sampling.box(n, 2, scale * AMPLITUDE, seed=seed)
