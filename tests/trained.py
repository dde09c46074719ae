# SPDX-License-Identifier: MIT
"""Small RVEs and models of them, each trained once for all tests that use it."""

import fcntl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ufl
from mpi4py import MPI

import coupling
import fe2
import meshes
import spon

AMPLITUDE = 0.03
# Settings of a training of some seconds; a real one has more modes, samples and iterations.
TRAINING = spon.EquiNOOptions(r=8, resolved=16, samples=256, width=16, widths=(24, 24), lbfgs=300)
BRIEF = spon.EquiNOOptions(r=12, resolved=18, samples=96, width=12, widths=(16, 16), lbfgs=120)


@dataclass(frozen=True)
class Trained:
    """The RVE, the model as it is loaded from its file, the file, that of the snapshots, and their amplitude."""

    rve: fe2.RVE
    model: spon.EquiNO
    path: Path
    snapshots: Path
    amplitude: float

    @property
    def dim(self):
        return self.rve.body.dim

    def strains(self, n, scale=0.9, seed=3):
        """n strains (n, d) in the trained range, `scale` times its size, without rotation."""
        return fe2.strain_sampling.box(n, self.dim, scale * self.amplitude, seed=seed, measure=self.rve.measure)


@dataclass(frozen=True)
class Case:
    """How a model is made: the RVE, the amplitude and number of the snapshots, and the training."""

    make: Callable[[], fe2.RVE]
    amplitude: float
    snapshots: int
    training: spon.EquiNOOptions


def make_rve(radius=0.3):
    """An RVE with one stiff circle, 138 unknowns."""
    domain = meshes.rve([meshes.Circle((0.0, 0.0), radius)], MPI.COMM_SELF, mesh_size=0.3)
    materials = {1: fe2.SaturatingElastic(), 2: fe2.LinearElastic(bulk=43452.381, shear=29918.0328)}
    return fe2.RVE(domain, materials, degree=1)


def off_centre():
    """A stiff circle off the centre, so that no symmetry hides a component."""
    return meshes.rve([meshes.Circle((0.05, -0.1), 0.28)], MPI.COMM_SELF, mesh_size=0.3)


MODULI = {1: {"bulk": 3.0, "shear": 1.0}, 2: {"bulk": 60.0, "shear": 25.0}}


def hyperelastic():
    return fe2.RVE(off_centre(), {tag: fe2.NeoHookean(**moduli) for tag, moduli in MODULI.items()}, degree=1)


def hyperelastic_3d():
    """27 cubes, of which three of a chain around a corner are stiff."""
    labels = np.ones((3, 3, 3), dtype=int)
    labels[0, 0, 0] = labels[1, 0, 0] = labels[1, 1, 0] = 2
    domain = meshes.from_labels(labels, MPI.COMM_SELF)
    return fe2.RVE(domain, {tag: fe2.NeoHookean(**moduli) for tag, moduli in MODULI.items()}, degree=1)


UNIT = 100.0  # of gradients, in K/m


def saturating(g):
    """½ k |g|² with a k that falls from 3 to 1 W/(m K) beyond gradients of `UNIT`."""
    return 0.5 * ufl.inner(g, g) + 2 * UNIT**2 * (ufl.sqrt(1 + ufl.inner(g, g) / UNIT**2) - 1)


def conduction():
    return fe2.RVE(off_centre(), {1: fe2.Energy(saturating, measure="gradient"), 2: fe2.Conductive(30.0)}, degree=1)


CASES = {
    "small strain": Case(make_rve, AMPLITUDE, 32, TRAINING),
    "finite strain": Case(hyperelastic, 0.1, 48, BRIEF),
    "finite strain in 3D": Case(hyperelastic_3d, 0.1, 48, BRIEF),
    "conduction": Case(conduction, 2 * UNIT, 24, BRIEF),
}


def once(folder, comm, name="small strain"):
    """The model of this folder, trained by the first process that needs it; others wait."""
    case = CASES[name]
    prefix = "" if name == "small strain" else f"{name.replace(' ', '_')}_"
    rve, path, snapshots = case.make(), folder / f"{prefix}model.safetensors", folder / f"{prefix}snapshots.h5"
    with open(folder / f"{prefix}lock", "w") as lock:
        if comm.rank == 0:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not comm.bcast(path.exists() if comm.rank == 0 else None):
            train(rve, path, snapshots, comm, case)
    return Trained(rve, spon.load(path, whole=True), path, snapshots, case.amplitude)


def train(rve, path, snapshots, comm, case):
    """Snapshots on all ranks, and training on rank 0."""
    from spon import equino

    strains = fe2.strain_sampling.sobol(case.snapshots, rve.body.dim, case.amplitude, seed=1, measure=rve.measure)
    fe2.rve_snapshots.compute(rve, strains, snapshots, comm, progress=False)
    with fe2.raise_on_all_ranks(comm):
        if comm.rank == 0:
            data = coupling.rve_snapshots(rve, fe2.rve_snapshots.read(snapshots))
            equino.train(data, case.training).model.save(path)


def strains(n, scale=0.9, seed=3):
    """n strains (n, d) in the trained range at small strain, `scale` times its size."""
    return fe2.strain_sampling.box(n, 2, scale * AMPLITUDE, seed=seed)
