# SPDX-License-Identifier: MIT
# %% [markdown]
# # A flow in steps of a learned operator
# An incompressible flow in a box, by its vorticity $ω$: the velocity $u$ is the curl of $ψ$ with $-Δψ = ω$ and $ψ = 0$
# at the walls, and $∂ω/∂t + u·∇ω = ν Δω$. Walls are impermeable to fluid and vorticity, so that the circulation $∫ω$ is
# constant. A network is trained to predict the vorticity after a time step of 0.1, and is then applied to its own
# predictions: for unseen flows, and for twice the time of the flows in training.
#
#     python3 demos/demo_flow.py                       (--small for a coarse mesh, --full for a finer one)

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
from spon.spaces import constraints, norms
from spon.training import TrainingOptions
from spon.training.progress import Live

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results/flow"))
options = parser.parse_args()
torch.set_num_threads(1)
options.folder.mkdir(parents=True, exist_ok=True)


def pick(small, middle, full):
    """The setting for the size of the problem."""
    return full if options.full else small if options.small else middle


# %% [markdown]
# ## Spaces
# Linear elements on three unstructured meshes, which are not nested. The first is that of the flow, the others are for
# the network.

# %%
h = pick(0.15, 0.05, 0.03)
boxes = [meshes.rve([], MPI.COMM_SELF, mesh_size=k * h, center=(0.5, 0.5)).mesh for k in (1, 2, 4)]
V, *coarse = [fem.functionspace(box, ("P", 1)) for box in boxes]
V.mesh.topology.create_connectivity(1, 2)
walls = fem.locate_dofs_topological(V, 1, exterior_facet_indices(V.mesh.topology))
rest = fem.dirichletbc(0.0, walls, V)

# %% [markdown]
# ## The exact flow
# The implicit midpoint rule, whose equation is iterated for all flows at once. Linear elements with a velocity that is
# constant in each cell conserve $∫ω$, and without viscosity also $∫ω²$ and the kinetic energy.

# %%
viscosity, delta = 2e-3, 0.1
parts = round(1 / (2 * h))  # of a step of the network; in each the flow moves by about a cell
u, v, q = ufl.TrialFunction(V), ufl.TestFunction(V), ufl.TestFunction(fem.functionspace(V.mesh, ("DG", 0)))


def matrix(integrand, bcs=()):
    return fem.assemble_matrix(fem.form(integrand * ufl.dx), bcs=list(bcs)).to_scipy().tocsc()


slopes = ufl.inner(ufl.grad(u), ufl.grad(v))
mass, stiffness = matrix(u * v), matrix(slopes)
poisson = scipy.sparse.linalg.splu(matrix(slopes, [rest]))
implicit = scipy.sparse.linalg.splu(mass + delta / parts / 2 * viscosity * stiffness)
inside, along_x, along_y = matrix(u * q), matrix(u.dx(0) * q), matrix(u.dx(1) * q)  # integrals over the cells
area = np.asarray(inside.sum(axis=1)).reshape(-1, 1)


def carried(omega):
    """∫ ω u·∇v for vorticities (dofs, flows)."""
    load = mass @ omega
    load[walls] = 0.0
    psi = poisson.solve(load)
    density = (inside @ omega) / area**2
    return along_x.T @ (density * (along_y @ psi)) - along_y.T @ (density * (along_x @ psi))


def advance(omega):
    """Vorticities (dofs, flows) after a time of 0.1."""
    for _ in range(parts):
        middle, change = omega, np.inf
        while change > 1e-12 * abs(omega).max():
            found = implicit.solve(mass @ omega + delta / parts / 2 * carried(middle))
            change, middle = abs(found - middle).max(), found
        omega = 2 * middle - omega
    return omega


# %% [markdown]
# ## Data
# Initial vorticities are sums of waves with random amplitudes. The networks are trained on the first steps of some
# flows.

# %%
seen, flows, unseen = pick(4, 10, 10), pick(6, 100, 300), pick(3, 20, 20)
x, y = V.tabulate_dof_coordinates()[:, :2].T
numbers = [(i, j) for i in range(6) for j in range(6)]
waves = np.array([np.cos(np.pi * i * x) * np.cos(np.pi * j * y) / (1 + (i * i + j * j) / 4) ** 1.5 for i, j in numbers])
states = [3 * waves.T @ np.random.default_rng(0).standard_normal((len(waves), flows + unseen))]
with Live() as live:
    for step in range(2 * seen):
        states.append(advance(states[-1]))
        live(f"exact flows: step {step + 1} of {2 * seen}")
states = torch.from_numpy(np.stack(states)).float()  # (steps + 1, dofs, flows)


before, after = (states[k : seen + k, :, :flows].movedim(0, 1).flatten(1) for k in (0, 1))  # (dofs, samples)

# %% [markdown]
# ## Networks, each trained for the same time
# The first predicts the next vorticity. The second predicts the increment and conserves the circulation to rounding
# for any weights.

# %%
networks = {
    "next state": {},
    "conserving increments": {"structure": spon.Structure(increment=True, integral="input")},
}
budget = pick(0.05, 100.0, 900.0)  # seconds of one core for each
trial = pick(2, 30, 30)  # steps to measure the time of a step


def make(settings):
    """A network in single precision, which halves the time of a step."""
    network = spon.OperatorNetwork(input=V, output=V, coarse=coarse, processor="multigrid", **settings)
    return network.to(torch.float32)


def train(network, steps, log=None):
    """Train; returns the processor time in seconds."""
    start = time.process_time()
    operators.train(network, before, after, TrainingOptions(steps=steps), log=log)
    return time.process_time() - start


exact = states[:, :, flows:]
space = spon.read_space(V).to(dtype=torch.float32)


def errors(predicted):
    """Relative errors (steps, flows) in L² after each step."""
    return torch.stack([norms.relative(norms.l2, space, a, b) for a, b in zip(predicted[1:], exact[1:])])


def show(name, seconds, predicted):
    """A line of the table: errors, and the largest change of the circulation of a flow."""
    found = errors(predicted).mean(1)
    circulation = constraints.integral(space.to(dtype=torch.float64), predicted.double().movedim(0, 1))[0]
    drift = (circulation - circulation[0]).abs().max() / circulation[0].abs().mean()
    figures = "  ".join(f"{100 * found[k]:9.2f}" for k in (0, seen - 1, -1))
    print(f"{name:23}  {seconds:7.0f}  {figures}  {float(drift):11.1e}", flush=True)


trained, rollouts = {}, {"nothing changes": exact[:1].expand_as(exact)}
print(f"{len(x)} dofs, {flows} flows of {seen} steps, relative L² errors [%] on {unseen} unseen flows")
print(f"{'':23}  seconds  {'a step':>9}  {f'{seen} steps':>9}  {f'{2 * seen} steps':>9}  circulation")
show("nothing changes", 0.0, rollouts["nothing changes"])
for name, settings in networks.items():
    *_, taken = (train(make(settings), trial) for _ in range(2))  # the first run is slower
    trained[name] = network = make(settings)
    with Live() as live:
        seconds = train(network, max(2, round(trial * budget / taken)), log=live)
    with torch.no_grad():
        rollouts[name] = operators.rollout(network, exact[0], 2 * seen)
    show(name, seconds, rollouts[name])

# %% [markdown]
# ## A file, and back
# The network runs without FEniCSx, and conserves the circulation there, too.

# %%
best = list(networks)[-1]
trained[best].save(options.folder / "network.safetensors")
network = spon.load(options.folder / "network.safetensors")

# %% [markdown]
# ## The picture
# The unseen flow of median error at the last step.

# %%
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

which = int(errors(rollouts[best])[-1].argsort()[unseen // 2])
with torch.no_grad():
    predicted = operators.rollout(network, exact[0, :, [which]], 2 * seen)[:, :, 0]
right = exact[:, :, which]
times = [0, seen // 2, seen, seen + seen // 2, 2 * seen]
figure = plt.figure(figsize=(16, 6.6), layout="constrained")
grid = figure.add_gridspec(3, len(times) + 3)
rows = {"exact": right, "predicted": predicted, "predicted − exact": predicted - right}
for i, (title, fields) in enumerate(rows.items()):
    largest = float(abs(fields if i == 2 else right).max())
    for j, k in enumerate(times):
        axis = figure.add_subplot(grid[i, j])
        values = fields[k].numpy()[V.dofmap.list].mean(axis=1)
        bar = "" if j == len(times) - 1 else None
        pictures.field(axis, V.mesh, values, label=bar, cmap="RdBu_r", limits=(-largest, largest))
        time_now = f"t = {delta * k:.1f}" + (", beyond training" if k > seen else "")
        axis.set_title(f"{title}\n{time_now}" if j == 0 else time_now, fontsize=9)
axis = figure.add_subplot(grid[:, len(times) :])
for name, fields in rollouts.items():
    style = ":" if name == "nothing changes" else "-"
    axis.plot(delta * np.arange(1, 2 * seen + 1), 100 * errors(fields).mean(1), style, label=name)
axis.axvline(delta * seen, color="0.3", linestyle="--", linewidth=1)
axis.text(delta * seen, 0.02, " end of training time", transform=axis.get_xaxis_transform(), fontsize=9)
axis.set(xlabel="time", ylabel="mean relative L² error [%]", yscale="log")
axis.legend(fontsize=9)
print(f"picture: {pictures.save(figure, options.folder / 'flow.png', dpi=100)}")
