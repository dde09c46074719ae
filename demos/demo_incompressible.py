# SPDX-License-Identifier: MIT
# %% [markdown]
# # Nearly incompressible rubber
#
# A rubber resists a change of volume hundreds to ten thousands of times as much as a change of shape. Plain elements
# then *lock*: they have too few ways to deform at constant volume and are far too stiff, and Newton's method fails.
# Mixed elements with a pressure are the usual remedy, and the periodic conditions then have to hold for both fields.
# With `element="mean dilatation"` an RVE keeps the displacement as its only unknown: the material is given the mean
# change of volume of each cell.
#
# Run it with `environment/run python3 demos/demo_incompressible.py`, on several ranks with
# `environment/run mpirun -n 2 python3 demos/demo_incompressible.py`; `--small` takes a coarse mesh.

# %%
import argparse
import warnings
from pathlib import Path

import numpy as np
from mpi4py import MPI

import fe2
import meshes

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results"))
options = parser.parse_args()
comm = MPI.COMM_WORLD

# %% [markdown]
# ## A cube of rubber
# First the periodic unit cube of one neo-Hookean solid with $K/μ = 200$, 3 × 3 × 3 hexahedra of degree 2, stretched
# by 3 % in six steps while its other sides are held. Nothing may happen inside: the stress is that of the material.

# %%
cube = meshes.laminate((1.0,), MPI.COMM_SELF, cells=(3, 3, 3))
rubber = fe2.NeoHookean(bulk=200.0, shear=1.0)
rve = fe2.RVE(cube, {1: rubber}, element="mean dilatation")
law = fe2.UFLLaw(rubber, dim=3)
state = rve.initial_state(1)
if comm.rank == 0:
    print("periodic cube, K/μ = 200\n   F_xx    P_xx [MPa]   iterations")
for stretch in np.linspace(0.005, 0.03, 6):
    H = np.zeros((1, 9))  # F − I, row by row
    H[0, 0] = stretch
    h = rve.homogenise(H, state)
    exact = law.evaluate(H, law.initial_state(1), law.initial_state(1)).stress
    assert abs(h.stress - exact).max() < 1e-10 * abs(exact).max()
    state = h.state
    if comm.rank == 0:
        print(f"  {1 + stretch:.3f} {h.stress[0, 0]:12.6f} {h.iterations[0]:10d}")
rve.destroy()

# %% [markdown]
# ## Stiff particles in rubber
# Now two stiff particles in a rubber with $K/μ = 10^4$, sheared by up to $γ = 0.4$ in eight steps. The shear
# $F = I + γ\, e_x ⊗ e_y$ keeps the volume, and so must the rubber between the particles.

# %%
particles = [meshes.Circle((-0.21, 0.12), 0.2), meshes.Circle((0.26, -0.2), 0.17)]
materials = {
    meshes.MATRIX: fe2.NeoHookean(bulk=1e4, shear=1.0),
    meshes.INCLUSION: fe2.NeoHookean(bulk=5e3, shear=100.0),
}
gammas = np.linspace(0.05, 0.4, 8)


def sheared(mesh_size, element, degree=2):
    """The RVE, and its states along the path, as long as there are any."""
    domain = meshes.rve(particles, MPI.COMM_SELF, mesh_size=mesh_size, quads=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of locking, and of strains that are not finite
        rve = fe2.RVE(domain, materials, element=element, degree=degree)
        state, found = rve.initial_state(1), []
        for gamma in gammas:
            h = rve.homogenise([[0.0, gamma, 0.0, 0.0]], state, on_failure="report")
            if h.failures:
                break
            state = h.state
            found.append(h)
    return rve, found


sizes = (0.3, 0.2) if options.small else (0.2, 0.1, 0.05)
kinds = {"plain, degree 1": ("displacement", 1), "plain, degree 2": ("displacement", 2)}
kinds |= {f"mean dilatation, degree {p}": ("mean dilatation", p) for p in (1, 2)}
tasks = [(name, size) for name in kinds for size in sizes]
mine = {}
for name, size in tasks[comm.rank :: comm.size]:
    rve, found = sheared(size, *kinds[name])
    mine[name, size] = (
        rve.domain.mesh.topology.index_map(2).size_local,
        [h.stress[0, 1] for h in found],
        [int(h.iterations[0]) for h in found],
    )
    rve.destroy()
results = {key: value for part in comm.allgather(mine) for key, value in part.items()}

if comm.rank == 0:
    print(f"\nparticles in rubber, K/μ = 10000: shear stress P_xy [MPa] at γ = {gammas[1]:.1f} ... {gammas[-1]:.1f}")
    for name, size in tasks:
        cells, stresses, iterations = results[name, size]
        shown = " ".join(f"{s:6.4f}" for s in stresses[1::2]) + " no convergence" * (len(stresses) < len(gammas))
        print(f"{name:26} {cells:4d} cells  {shown}   iterations {' '.join(map(str, iterations))}")

# %% [markdown]
# The mean dilatation needs a few iterations at each step, and coarse meshes come close to fine ones. The plain elements
# are too stiff, or fail.

# %%
good = [results[f"mean dilatation, degree {p}", sizes[-1]][1] for p in (1, 2)]
assert all(len(stresses) == len(gammas) for stresses in good)
assert abs(good[0][-1] / good[1][-1] - 1) < (0.3 if options.small else 0.05)

# %% [markdown]
# ## The picture

# %%
if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from fe2 import pictures

    rve, found = sheared(sizes[-1], "mean dilatation")
    body = rve.set_state(found[-1].state[0])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=[1.2, 1], layout="constrained")
    F = np.eye(2) + rve.measure.tensors(body.strain())
    P = body.stress().reshape(F.shape)
    cauchy = np.einsum("cqik,cqjk->cqij", P, F) / np.linalg.det(F)[..., None, None]
    mean = (cauchy[..., 0, 0] + cauchy[..., 1, 1]) / 2
    span = np.quantile(abs(mean), 0.98)
    pictures.field(
        left,
        rve.domain.mesh,
        mean,
        weights=body.weights,
        deformation=body.u,
        label="mean stress (σ$_{xx}$ + σ$_{yy}$)/2 [MPa]",
        cmap="RdBu_r",
        limits=(-span, span),
    )
    left.set_title(f"particles in rubber at γ = {gammas[-1]:g}, true to scale", fontsize=10)
    names = {"xlabel": "shear γ", "ylabel": "shear stress P$_{xy}$ [MPa]"}
    for name, marker, line in zip(kinds, "s^so", "::--", strict=True):
        stresses = results[name, sizes[-1]][1]
        pictures.curve(right, gammas[: len(stresses)], stresses, label=name, marker=marker, linestyle=line, **names)
    right.set_yscale("log")
    right.set_title(f"{results[tasks[-1]][0]} cells", fontsize=10)
    print(f"picture: {pictures.save(figure, options.folder / 'incompressible.png')}")
    rve.destroy()
