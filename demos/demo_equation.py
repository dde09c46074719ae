# SPDX-License-Identifier: MIT
# %% [markdown]
# # Learning an equation without its solutions
# A network learns to solve $-∇·((1 + u^2) ∇u) = f$ from the equation alone, written in UFL: its loss is the residual in
# the dual of the energy norm. Solutions are computed as well, on all ranks, for comparison and to train a second
# network on them.
#
#     mpirun -n 2 python3 demos/demo_equation.py          (--small for a coarse mesh, --full for a finer one)

# %%
import argparse
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse.linalg
import torch
import ufl
from mpi4py import MPI
from dolfinx import fem
from dolfinx.mesh import exterior_facet_indices

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
parser.add_argument("--folder", type=Path, default=Path("results/equation"))
options = parser.parse_args()
torch.set_num_threads(1)
options.folder.mkdir(parents=True, exist_ok=True)


def pick(small, middle, full):
    """The setting for the size of the problem."""
    return full if options.full else small if options.small else middle


# %% [markdown]
# ## The equation
# Each rank has the whole mesh and solves problems of its own.

# %%
h = pick(0.2, 0.06, 0.03)
V, *coarse = [
    fem.functionspace(meshes.rve([], MPI.COMM_SELF, mesh_size=k * h, center=(0.5, 0.5)).mesh, ("P", 1))
    for k in (1, 2, 4)
]
V.mesh.topology.create_connectivity(1, 2)
boundary = fem.locate_dofs_topological(V, 1, exterior_facet_indices(V.mesh.topology))
bc = fem.dirichletbc(0.0, boundary, V)
u, f, v = fem.Function(V), fem.Function(V), ufl.TestFunction(V)
F = (1 + u**2) * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx - f * v * ufl.dx

# %% [markdown]
# ## Samples
# Forcings of a few waves, and solutions by Newton's method. The file is written in parts: a killed run continues, and a
# run with more samples adds them.

# %%
x, y = V.tabulate_dof_coordinates()[:, :2].T
waves = np.array([np.cos(np.pi * i * x) * np.cos(np.pi * j * y) for i in range(4) for j in range(4)])
residual_form, slope = fem.form(F), fem.form(ufl.derivative(F, u))


def draw(rng):
    """A forcing."""
    f.x.array[:] = 20 * waves.T @ rng.standard_normal(len(waves))


def solve():
    """Its solution."""
    for _ in range(30):
        r = fem.assemble_vector(residual_form).array
        r[boundary] = 0.0
        if np.linalg.norm(r) < 1e-10:
            return
        A = fem.assemble_matrix(slope, bcs=[bc]).to_scipy().tocsc()
        u.x.array[:] -= scipy.sparse.linalg.splu(A).solve(r)
    raise RuntimeError("Newton's method did not converge")


samples, unseen = pick((16, 4), (250, 100), (250, 100))
world, path = MPI.COMM_WORLD, options.folder / "samples.h5"
coupling.sample_operator(draw, solve, samples + unseen, path, world, inputs=[f], output=u, progress=not options.small)
if world.rank > 0:
    sys.exit()  # one rank trains

# %% [markdown]
# ## Training
# The same network, trained on the residual alone and on solutions.

# %%
data = spon.load(path)
(forces,), solutions = data.inputs, data.output
residual = coupling.Residual(F, u, [f], bcs=[bc])
teachers = {
    "residual": {"loss": residual.relative},
    "solutions": {"outputs": solutions[:, :samples], "norm": "energy"},
}
trained, errors = {}, {}
print(f"{len(x)} dofs, {samples} samples, relative errors [%] on {unseen} unseen ones")
print("learned from  seconds  L² mean   max  energy mean   max")
for name, teacher in teachers.items():
    trained[name] = network = spon.OperatorNetwork(input=V, output=V, bcs=[bc], coarse=coarse, processor="multigrid")
    begin = time.monotonic()
    with Live() as live:
        operators.train(
            network, forces[:, :samples], options=TrainingOptions(steps=pick(2, 500, 500)), log=live, **teacher
        )
    seconds = time.monotonic() - begin
    errors[name] = [
        100 * operators.relative_errors(network, forces[:, samples:], solutions[:, samples:], norm=norm)
        for norm in ("L2", "energy")
    ]
    (l2, energy) = errors[name]
    print(
        f"{name:12}  {seconds:7.0f}  {l2.mean():7.2f} {l2.max():5.1f}  {energy.mean():11.2f} {energy.max():5.1f}",
        flush=True,
    )

# %% [markdown]
# ## The picture
# An unseen forcing of median error.

# %%
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

place = samples + int(errors["residual"][0].argsort()[unseen // 2])
with torch.no_grad():
    predicted = trained["residual"](forces[:, [place]])[:, 0]
exact = solutions[:, place]
limits, largest = (float(exact.min()), float(exact.max())), float((predicted - exact).abs().max())
figure, axes = plt.subplots(1, 4, figsize=(16, 3.8), layout="constrained")
for axis, field, title, look in (
    (axes[0], forces[:, place], "forcing", {"cmap": "cividis"}),
    (axes[1], exact, "solution, exact", {"limits": limits}),
    (axes[2], predicted, "learned from the residual", {"limits": limits}),
    (axes[3], predicted - exact, "learned − exact", {"limits": (-largest, largest), "cmap": "RdBu_r"}),
):
    pictures.field(axis, V.mesh, field.numpy()[V.dofmap.list].mean(axis=1), **look)
    axis.set_title(title, fontsize=10)
print(f"picture: {pictures.save(figure, options.folder / 'equation.png', dpi=100)}")
