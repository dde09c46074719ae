# SPDX-License-Identifier: MIT
# %% [markdown]
# # A structure whose RVE differs from point to point
# Cook's membrane of a polymer with glass fibres at random places, many at its clamped end and few at the loaded one: no
# two points have the same RVE, so a model of a single RVE does not suffice. Instead, a network predicts displacement
# modes of any RVE from its fibres, and each point minimises the energy of its RVE in these modes.
#
#     environment/run python3 demos/demo_graded.py        (--small for a coarse problem, --full for longer training)

# %%
import argparse
import time
from pathlib import Path

import numpy as np
import torch
from mpi4py import MPI

import coupling
import fe2
import meshes
import spon
from fe2 import pictures
from spon import microstructure
from spon.training import TrainingOptions

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results/graded"))
options = parser.parse_args()
comm = MPI.COMM_WORLD
torch.set_num_threads(1)


def pick(small, middle, full):
    """The setting for the size of the problem."""
    return full if options.full else small if options.small else middle


def say(line):
    """Print on one rank."""
    if comm.rank == 0:
        print(line, flush=True)


# %% [markdown]
# ## RVEs
# All RVEs have the same grid. They differ in the squares of the fibres, those with midpoints in some separate discs.

# %%
n = pick(8, 32, 32)
grid = meshes.from_labels(np.tile([[1, 2], [2, 1]], (n // 2, n // 2)), MPI.COMM_SELF)
materials = {
    meshes.MATRIX: fe2.SaturatingElastic(),
    meshes.INCLUSION: fe2.LinearElastic.from_young_poisson(73_000.0, 0.22),
}
rve = fe2.RVE(grid, materials, degree=1)
half_range = fe2.mandel.from_engineering([0.04, 0.04, 0.04])


def random_tags(fraction, seed):
    """Tags (cells,) of the grid with fibres of about this volume fraction."""
    return meshes.mark(grid, meshes.packing(fraction, radius=0.13, seed=seed, min_gap=0.07))


rng = np.random.default_rng(0)
some = np.stack(
    [random_tags(fraction, seed) for seed, fraction in enumerate(rng.uniform(0.05, 0.35, pick(8, 600, 1000)))]
)

# %% [markdown]
# ## Training
# Training minimises the energies of these RVEs in their modes at random strains, without solving an RVE.

# %%
options.folder.mkdir(parents=True, exist_ok=True)
path = options.folder / "modes.safetensors"
start = time.perf_counter()
with fe2.raise_on_all_ranks(comm):
    if comm.rank == 0:
        network = coupling.mode_network(rve, half_range=half_range)
        phases = network.phases(torch.from_numpy(some))
        microstructure.train(
            network.float(),
            phases,
            TrainingOptions(steps=pick(4, 800, 4000), batch=8, every=pick(2, 50, 100)),
            log=print,
        )
        network.save(path)
network = spon.load(path)
say(f"training: {time.perf_counter() - start:.0f} s, {len(some)} RVEs, none of them solved")

# %% [markdown]
# ## The structure
# A law takes the tags of its points in the order of `fe2.law_coordinates`. The exact law solves the RVE of each
# point, with matrices and factors of its own.

# %%
membrane = meshes.cook(comm, n=pick(1, 5, 10))
coordinates = fe2.law_coordinates(membrane)
left, right = 0.0, 48.0
fractions = 0.3 - 0.22 * (coordinates[:, 0] - left) / (right - left)
# A seed from the coordinates, so that the RVEs do not depend on the number of ranks.
seeds = (1e6 * np.abs(np.sin(coordinates @ [12.9898, 78.233]))).astype(int)
tags = np.stack([random_tags(fraction, seed) for fraction, seed in zip(fractions, seeds)])


def solve(law):
    """The solved problem, and the seconds of the whole run and of its law."""
    problem = fe2.MacroProblem(membrane, law)
    problem.prescribe("left", (0.0, 0.0))
    problem.prescribe("right", (None, 1.6))
    problem.record("right")
    start = time.perf_counter()
    problem.solve(steps=pick(2, 4, 6), log=None)
    return problem, time.perf_counter() - start, sum(s.seconds["law"] for s in problem.history)


exact = fe2.VaryingLaw(rve, tags)
start = time.perf_counter()
for k in range(len(tags)):
    exact.rve_at(k)  # set up here, not in the times below
say(f"exact RVEs set up: {time.perf_counter() - start:.1f} s")
start = time.perf_counter()
learned = coupling.ModesLaw(network, tags)
say(f"modes of {len(tags)} RVEs: {time.perf_counter() - start:.1f} s")
solve(learned)  # compiles the forms
certified = coupling.ModesLaw(network, tags, exact=exact, tolerance=0.2)
runs = {name: solve(law) for name, law in {"exact": exact, "learned": learned, "certified": certified}.items()}


# %%
def norm(values):
    """Root of the sum of squares over all ranks."""
    return np.sqrt(comm.allreduce(float((values**2).sum())))


def force(problem):
    """Displacement and force (steps,) of the right edge."""
    return np.array([(s.displacement["right"][1], s.force["right"][1]) for s in problem.history]).T


reference = runs["exact"][0]
points = comm.allreduce(len(tags))
for name, (problem, seconds, in_law) in runs.items():
    stress = norm(problem.sigma.stresses() - reference.sigma.stresses()) / norm(reference.sigma.stresses())
    off = abs(force(problem)[1] / force(reference)[1] - 1).max()
    where = comm.allreduce({"exact": len(tags), "learned": 0, "certified": int(certified.is_exact.sum())}[name])
    faster, law_faster = runs["exact"][1] / seconds, runs["exact"][2] / in_law
    say(
        f"{name:10} force off by {100 * off:.2f} %, stress by {100 * stress:.2f} %, exact at {where} of {points}, "
        f"run {seconds:.2f} s, {faster:.1f} times as fast, its law {law_faster:.1f} times"
    )

# %% [markdown]
# ## The picture


# %%
def size(stress):
    """In-plane measure √(3/2) ‖dev S‖ of Mandel stresses (..., 3), the trace taken over the plane."""
    mean = stress[..., :2].mean(axis=-1)
    return np.sqrt(1.5 * ((stress[..., 0] - mean) ** 2 + (stress[..., 1] - mean) ** 2 + stress[..., 2] ** 2))


level, found = (size(runs[name][0].sigma.stresses()) for name in ("exact", "learned"))
share = (tags == meshes.INCLUSION).mean(axis=1)
shape, values = pictures.gather(membrane.mesh, reference.sigma.means(np.column_stack([share, level, found - level])))
if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ((a, b, c), (d, e, f)) = plt.subplots(2, 3, figsize=(15, 8.5), layout="constrained")
    pictures.field(a, shape, values[:, 0], label="share of fibres", cmap="cividis")
    a.set_title("Cook's membrane, another RVE at each point", fontsize=10)
    largest = abs(values[:, 2]).max()
    pictures.field(b, shape, values[:, 2], label="difference [MPa]", cmap="RdBu_r", limits=(-largest, largest))
    b.set_title("‖dev S‖·√(3/2), learned − exact", fontsize=10)
    styles: dict[str, dict] = {
        "exact": {"color": "black", "lw": 3, "alpha": 0.4},
        "learned": {"ls": "--", "marker": ""},
        "certified": {"ls": ":", "marker": "", "lw": 2},
    }
    for name, (problem, *_) in runs.items():
        travel, load = np.hstack([np.zeros((2, 1)), force(problem)])
        pictures.curve(c, travel, load, xlabel="displacement", ylabel="force", label=name, **styles[name])
    # Fields of this rank's most loaded RVE, at the strain of the learned run.
    k = int(level.argmax())
    strain = runs["learned"][0].sigma.strains()[k : k + 1]
    coefficients = learned.respond(np.array([k]), strain).coefficients
    inside = learned.local_strain(np.array([k]), strain, coefficients)
    sigma = learned.local_stress(np.array([k]), inside)[0].reshape(*rve.body.weights.shape, 3).mean(axis=1)
    solved = exact.rve_at(k).homogenise(strain)
    right = exact.rve_at(k).set_state(solved.state[0]).stress().mean(axis=1)
    box = pictures.gather(grid.mesh, np.column_stack([size(right), size(sigma), size(sigma - right)]))
    top = max(box[1][:, 0].max(), box[1][:, 1].max())
    for axis, column, title in ((d, 0, "exact"), (e, 1, "learned")):
        pictures.field(axis, box[0], box[1][:, column], label="‖dev σ‖·√(3/2) [MPa]", limits=(0.0, top))
        axis.set_title(f"the most loaded RVE, {title}", fontsize=10)
    pictures.field(f, box[0], box[1][:, 2], label="of the difference [MPa]", cmap="magma")
    f.set_title("learned − exact", fontsize=10)
    print(f"picture: {pictures.save(figure, options.folder / 'graded.png', dpi=100)}")
exact.destroy()
rve.destroy()
