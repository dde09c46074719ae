# SPDX-License-Identifier: MIT
# %% [markdown]
# # Learning an operator between finite element spaces
# From the forcing $f$ to the solution of $-Δu = f$ in the unit square, $u = 0$ on its boundary. A local change of the
# forcing changes the solution everywhere: a network that passes messages to neighbours would need as many rounds as
# cells along an edge. SPON-MG does most of its work on a coarse mesh, with few cells. A network of fluxes learns a law
# at each point; a Poisson solver of the space transforms the law's fluxes to fields.
#
#     python3 demos/demo_poisson.py                       (--small for a coarse mesh, --full for a finer one)

# %%
import argparse
import time
from pathlib import Path

import numpy as np
import scipy.sparse.linalg
import torch
import ufl
from mpi4py import MPI
from dolfinx import fem
from dolfinx.mesh import exterior_facet_indices

import meshes
import spon
from fe2 import pictures
from spon import operators
from spon.training import TrainingOptions
from spon.training.progress import Live

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results/poisson"))
options = parser.parse_args()
torch.set_num_threads(1)
options.folder.mkdir(parents=True, exist_ok=True)


def pick(small, middle, full):
    """The setting for the size of the problem."""
    return full if options.full else small if options.small else middle


# %% [markdown]
# ## Spaces
# Linear elements on three unstructured meshes, which are not nested. The first is that of the problem, the others are
# for the network.

# %%
h = pick(0.15, 0.06, 0.03)
squares = [meshes.rve([], MPI.COMM_SELF, mesh_size=k * h, center=(0.5, 0.5)).mesh for k in (1, 2, 4)]
V, *coarse = [fem.functionspace(square, ("P", 1)) for square in squares]
V.mesh.topology.create_connectivity(1, 2)
boundary = fem.locate_dofs_topological(V, 1, exterior_facet_indices(V.mesh.topology))
bc = fem.dirichletbc(0.0, boundary, V)

# %% [markdown]
# ## Data
# Forcings are sums of waves with random amplitudes, solutions come from one factorisation.

# %%
u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
stiffness = fem.assemble_matrix(fem.form(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx), bcs=[bc]).to_scipy()
mass = fem.assemble_matrix(fem.form(u * v * ufl.dx)).to_scipy()
samples, unseen = pick(40, 400, 1000), pick(10, 100, 100)
x, y = V.tabulate_dof_coordinates()[:, :2].T
numbers = [(i, j) for i in range(6) for j in range(6)]
waves = np.array([np.cos(np.pi * i * x) * np.cos(np.pi * j * y) / (1 + (i * i + j * j) / 4) for i, j in numbers])
forcings = waves.T @ np.random.default_rng(0).standard_normal((len(waves), samples + unseen))
loads = mass @ forcings
loads[boundary] = 0.0
solutions = scipy.sparse.linalg.splu(stiffness.tocsc()).solve(loads)
f, exact = (torch.from_numpy(fields).float() for fields in (forcings, solutions))

# %% [markdown]
# ## Networks, each trained for the same time
# The solution is linear in the forcing. The first four networks are nonlinear, the others are linear by construction.

# %%
networks = {
    "mlp": {"processor": "mlp"},
    "message passing": {"processor": "messages"},
    "SPON-MG": {"processor": "multigrid"},
    "fluxes": {"processor": "fluxes"},
    "SPON-MG, linear": {"processor": "multigrid", "structure": spon.Structure(linear_in=[0])},
    "MgNO, linear": {"processor": "mgno", "structure": spon.Structure(linear_in=[0])},
    "fluxes, linear": {"processor": "fluxes", "structure": spon.Structure(linear_in=[0])},
}
budget = pick(0.05, 25.0, 200.0)  # seconds of one core for each
trial = pick(2, 30, 30)  # steps to measure the time of a step


def make(settings):
    """A network in single precision, which halves the time of a step."""
    return spon.OperatorNetwork(input=V, output=V, bcs=[bc], coarse=coarse, **settings).to(torch.float32)


def train(network, steps, log=None):
    """Train; returns the processor time in seconds."""
    start = time.process_time()
    operators.train(network, f[:, :samples], exact[:, :samples], TrainingOptions(steps=steps), log=log)
    return time.process_time() - start


trained = {}
print(f"{V.dofmap.index_map.size_local} dofs, {samples} samples, relative errors [%] on {unseen} unseen ones")
print(f"{'':17}  parameters  steps  seconds  L² mean   max  H¹ mean   max")
for name, settings in networks.items():
    *_, taken = (train(make(settings), trial) for _ in range(2))  # the first run is slower
    steps = max(2, round(trial * budget / taken))
    trained[name] = network = make(settings)
    with Live() as live:
        seconds = train(network, steps, log=live)
    errors = [operators.relative_errors(network, f[:, samples:], exact[:, samples:], norm=n) for n in ("L2", "H1")]
    figures = "  ".join(f"{100 * e.mean():7.2f} {100 * e.max():5.1f}" for e in errors)
    count = sum(p.numel() for p in network.parameters())
    print(f"{name:17}  {count:10}  {steps:5}  {seconds:7.0f}  {figures}", flush=True)

# %% [markdown]
# ## A file, and back
# The file is complete: it loads on a machine without FEniCSx, too.

# %%
trained["fluxes"].save(options.folder / "network.safetensors")
network = spon.load(options.folder / "network.safetensors")

# %% [markdown]
# ## The picture
# An unseen forcing of median error.

# %%
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

order = operators.relative_errors(network, f[:, samples:], exact[:, samples:]).argsort()
place = samples + int(order[unseen // 2])
with torch.no_grad():
    predicted = network(f[:, [place]])[:, 0]
difference = predicted - exact[:, place]
limits, largest = (float(exact[:, place].min()), float(exact[:, place].max())), float(difference.abs().max())
figure, axes = plt.subplots(1, 4, figsize=(16, 3.8), layout="constrained")
for axis, field, title, look in (
    (axes[0], f[:, place], "forcing", {"cmap": "cividis"}),
    (axes[1], exact[:, place], "solution, exact", {"limits": limits}),
    (axes[2], predicted, "predicted by fluxes", {"limits": limits}),
    (axes[3], difference, "predicted − exact", {"limits": (-largest, largest), "cmap": "RdBu_r"}),
):
    pictures.field(axis, V.mesh, field.numpy()[V.dofmap.list].mean(axis=1), **look)
    axis.set_title(title, fontsize=10)
print(f"picture: {pictures.save(figure, options.folder / 'poisson.png', dpi=100)}")
