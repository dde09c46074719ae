# SPDX-License-Identifier: MIT
# %% [markdown]
# # A preconditioner, learned
# Heat conduction through a square with a disc of ten times the conductivity, at another place in each problem. An
# operator network $N$, linear in the residual and with the conductivity as another input, gives $B = ω D^{-1} + N N^T$.
# This is symmetric positive definite for any weights, so that conjugate gradients converge with it to any tolerance;
# training accelerates them.
#
#     python3 demos/demo_preconditioner.py                (--small for a coarse mesh, --full for a finer one)

# %%
import argparse
import time
from pathlib import Path

import numpy as np
import torch
import ufl
from mpi4py import MPI
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from dolfinx.mesh import exterior_facet_indices
from petsc4py import PETSc

import coupling
import meshes
import spon
from fe2 import pictures
from spon import operators
from spon.training import TrainingOptions
from spon.training.progress import Live

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results/preconditioner"))
options = parser.parse_args()
torch.set_num_threads(1)
options.folder.mkdir(parents=True, exist_ok=True)


def pick(small, middle, full):
    """The setting for the size of the problem."""
    return full if options.full else small if options.small else middle


# %% [markdown]
# ## Problems
# A matrix for each place of the disc.

# %%
h = pick(0.15, 0.03, 0.015)
squares = [meshes.rve([], MPI.COMM_SELF, mesh_size=k * h, center=(0.5, 0.5)).mesh for k in (1, 2, 4, 8)]
V, *coarse = [fem.functionspace(square, ("P", 1)) for square in squares]
V.mesh.topology.create_connectivity(1, 2)
boundary = fem.locate_dofs_topological(V, 1, exterior_facet_indices(V.mesh.topology))
bc = fem.dirichletbc(0.0, boundary, V)


def conductivity(centre):
    """One, and ten in a disc."""
    k = fem.Function(V)
    k.interpolate(lambda x: 1 + 9 * (np.hypot(x[0] - centre[0], x[1] - centre[1]) < 0.2))
    return k


def matrix(k):
    """Of −div(k grad u) with u = 0 on the boundary."""
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    A = fem_petsc.assemble_matrix(fem.form(k * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx), bcs=[bc])
    A.assemble()
    return A


# %% [markdown]
# ## Training
# No system is solved: pairs $x$ and $A x$ suffice.

# %%
network = spon.OperatorNetwork(
    input=[V, V],
    output=V,
    bcs=[bc],
    coarse=coarse,
    processor="mgno",
    structure=spon.Structure(linear_in=[0]),
    channels=12,
    depth=1,
)
places = np.random.default_rng(0).uniform(0.25, 0.75, (pick(2, 12, 24), 2))
known = [
    spon.Preconditioner(network, coupling.sparse_operator(matrix(k)), torch.from_numpy(k.x.array[:, None]))
    for k in map(conductivity, places)
]
start = time.perf_counter()
with Live() as live:
    operators.train_preconditioner(
        known, TrainingOptions(steps=pick(4, 300, 600), every=50), samples=pick(24, 240, 480), log=live
    )
count = len(V.tabulate_dof_coordinates())
print(f"{count} dofs, {len(known)} matrices, trained in {time.perf_counter() - start:.0f} s", flush=True)

# %% [markdown]
# ## An unseen problem
# A new place of the disc and a new load, solved by conjugate gradients to a relative residual of $10^{-10}$.

# %%
k = conductivity((0.62, 0.41))
A, b = matrix(k), PETSc.Vec().createSeq(count)
b.array[:] = np.random.default_rng(1).standard_normal(count)
b.array[boundary] = 0.0
b.scale(1 / b.norm())


def solve(set_up):
    """Solution and residual norms of conjugate gradients."""
    ksp, x = PETSc.KSP().create(MPI.COMM_SELF), b.duplicate()
    ksp.setOperators(A)
    ksp.setType("cg")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=1e-10, atol=0.0, max_it=1000)
    ksp.setConvergenceHistory()
    set_up(ksp.getPC())
    ksp.solve(b, x)
    history = ksp.getConvergenceHistory().copy()
    ksp.destroy()
    return x, history


def learned(pc):
    pc.setType("python")
    pc.setPythonContext(coupling.LearnedPC(network, k))


ways = {"none": lambda pc: pc.setType("none"), "Jacobi": lambda pc: pc.setType("jacobi"), "learned": learned}
solutions, histories = {}, {}
for name, set_up in ways.items():
    solutions[name], histories[name] = solve(set_up)
    rest = (b - A * solutions[name]).norm()
    print(f"{name:8}  {len(histories[name]) - 1:4} iterations, relative residual {rest:.1e}", flush=True)

# %% [markdown]
# ## The picture

# %%
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.layout_engine import ConstrainedLayoutEngine

layout = ConstrainedLayoutEngine(wspace=0.05)  # room for the numbers at the colour bars
figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout=layout)
for axis, values, title, colours in (
    (axes[0], k.x.array, "conductivity, its disc at a new place", "cividis"),
    (axes[1], solutions["learned"].array, "solution for a random load", "viridis"),
):
    pictures.field(axis, V.mesh, values[V.dofmap.list].mean(axis=1), cmap=colours)
    axis.set_title(title, fontsize=10)
for name, history in histories.items():
    axes[2].semilogy(history, label=f"{name}, {len(history) - 1} iterations")
axes[2].set_xlabel("iteration of conjugate gradients")
axes[2].set_ylabel("relative residual")
axes[2].legend()
axes[2].grid(alpha=0.3)
print(f"picture: {pictures.save(figure, options.folder / 'preconditioner.png', dpi=100)}")
