# SPDX-License-Identifier: MIT
# %% [markdown]
# # Three structures, three laws
# A model of one RVE is trained once. Then Cook's membrane, an L-profile and a plate with a hole are solved with the
# exact law, with the model, and with the model where its certificate is below the tolerance and the exact law
# elsewhere: the errors of force and stress, the points that needed the exact law, and the times.
#
#     mpirun -n 2 python3 demos/demo_structures.py        (--small for coarse meshes, --full for finer ones)

# %%
import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from mpi4py import MPI

import coupling
import fe2
import meshes
import spon
from fe2 import pictures
from spon import EquiNOOptions, equino

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results/structures"))
options = parser.parse_args()
comm = MPI.COMM_WORLD
torch.set_num_threads(1)  # the ranks share the cores


def pick(small, middle, full):
    """The setting for the size of the problem."""
    return full if options.full else small if options.small else middle


def say(line):
    """Print on one rank."""
    if comm.rank == 0:
        print(line, flush=True)


# %% [markdown]
# ## The model of the RVE
# Snapshots are solved on all ranks, one rank trains, all load the model file. The range is a box of ±4 %, the shear
# given as $γ = 2 ε_{xy}$.

# %%
mesh_size = pick(0.3, 0.1, 0.05)
domain = meshes.benchmark("RVE3", MPI.COMM_SELF, mesh_size=mesh_size)
materials = {
    meshes.MATRIX: fe2.SaturatingElastic(),
    meshes.INCLUSION: fe2.LinearElastic.from_young_poisson(73_000.0, 0.22),
}
rve = fe2.RVE(domain, materials)
half_range = fe2.mandel.from_engineering([0.04, 0.04, 0.04])

options.folder.mkdir(parents=True, exist_ok=True)
file, path = options.folder / f"snapshots-{mesh_size}.h5", options.folder / "model.safetensors"
strains = fe2.strain_sampling.latin_hypercube(pick(16, 100, 200), 2, half_range, seed=0)
settings = pick(EquiNOOptions(r=6, resolved=12, samples=32, lbfgs=20), EquiNOOptions(), EquiNOOptions(r=20))
start = time.perf_counter()
fe2.rve_snapshots.compute(rve, strains, file, comm)
with fe2.raise_on_all_ranks(comm):
    if comm.rank == 0:
        result = equino.train(coupling.rve_snapshots(rve, fe2.rve_snapshots.read(file)), settings)
        result.model.save(path)
model = spon.load(path, whole=True)
say(f"snapshots and training: {time.perf_counter() - start:.1f} s, paid once")

# %% [markdown]
# ## The structures
# Each structure is fixed on some boundaries and moved at its right end, so far that its largest strains need most of
# the range. A mesh comes with the displacements of its boundaries (None is free) and the direction of the reported
# force.

# %%
structures = {
    "Cook's membrane": (
        meshes.cook(comm, n=pick(1, 5, 10)),
        {"left": (0.0, 0.0), "right": (None, 1.6)},
        1,
    ),
    "L-profile": (
        meshes.l_profile(comm, n=pick(1, 3, 6)),
        {"top": (0.0, 0.0), "right": (None, 7.0)},
        1,
    ),
    "plate with a hole": (
        meshes.plate_with_hole(comm, n=pick(1, 3, 7)),
        {"left": (0.0, None), "bottom": (None, 0.0), "right": (0.022, None)},
        0,
    ),
}


def laws():
    """New laws for each structure, since they record the points that were exact."""
    return {
        "exact": fe2.ExactLaw(rve),
        "surrogate": coupling.SurrogateLaw(model, outside="warn"),
        "certified": coupling.CertifiedLaw(model, fe2.ExactLaw(rve)),
    }


def solve(structure, law):
    """The solved problem, and its seconds."""
    domain, held, _ = structures[structure]
    problem = fe2.MacroProblem(domain, law)
    for boundary, values in held.items():
        problem.prescribe(boundary, values)
    problem.record("right")
    start = time.perf_counter()
    problem.solve(steps=pick(2, 3, 6), log=None)
    return problem, time.perf_counter() - start


solved = {}
for structure in structures:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", coupling.OutsideRangeWarning)  # Newton's first iterates may be far outside
        solve(structure, laws()["surrogate"])  # compiles the forms of this structure before the timing
    solved[structure] = {name: (law, *solve(structure, law)) for name, law in laws().items()}

# %% [markdown]
# ## Errors and speed
# The error of the force, at equal displacement, is the largest of all steps; that of the macroscale stress is the
# relative L² norm over the quadrature points at the last step.


# %%
def norm(values):
    """Root of the sum of squares over all ranks."""
    return np.sqrt(comm.allreduce(float((values**2).sum())))


def forces(structure, problem):
    """Displacement and force (steps,) of the right boundary."""
    k = structures[structure][2]
    return np.array([(s.displacement["right"][k], s.force["right"][k]) for s in problem.history]).T


say(f"\n{'structure':18} {'law':10} {'force [%]':>9} {'stress [%]':>10} {'exact at':>12} {'run [s]':>8} {'faster':>7}")
for structure, runs in solved.items():
    _, exact, seconds = runs["exact"]
    reference, total = exact.sigma.stresses(), comm.allreduce(len(exact.sigma.stresses()))
    for name, (law, problem, its_seconds) in runs.items():
        force = 100 * abs(forces(structure, problem)[1] / forces(structure, exact)[1] - 1).max()
        stress = 100 * norm(problem.sigma.stresses() - reference) / norm(reference)
        where = total if name == "exact" else comm.allreduce(int(law.is_exact.sum()))
        say(
            f"{structure:18} {name:10} {force:9.3f} {stress:10.3f} {f'{where} of {total}':>12} {its_seconds:8.2f} "
            f"{seconds / its_seconds:7.1f}"
        )

# %% [markdown]
# ## The picture


# %%
def size(stress):
    """In-plane measure √(3/2) ‖dev S‖ of Mandel stresses (..., 3), the trace taken over the plane."""
    mean = stress[..., :2].mean(axis=-1)
    return np.sqrt(1.5 * ((stress[..., 0] - mean) ** 2 + (stress[..., 1] - mean) ** 2 + stress[..., 2] ** 2))


drawn = {}
for structure, runs in solved.items():
    level, learned = (size(runs[name][1].sigma.stresses()) for name in ("exact", "surrogate"))
    law, problem, _ = runs["certified"]
    certificate = np.log10(np.maximum(law.gap, 1e-8))
    drawn[structure] = pictures.gather(
        structures[structure][0].mesh, problem.sigma.means(np.column_stack([level, learned - level, certificate]))
    )

if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    styles: dict[str, dict] = {
        "exact": {"color": "black", "lw": 3, "alpha": 0.4},
        "surrogate": {"ls": "--", "marker": ""},
        "certified": {"ls": ":", "marker": "", "lw": 2},
    }
    figure, rows = plt.subplots(3, 4, figsize=(17, 11), layout="constrained")
    for (structure, (shape, values)), (a, b, c, d) in zip(drawn.items(), rows):
        pictures.field(a, shape, values[:, 0], label="‖dev S‖·√(3/2) [MPa]")
        a.set_title(f"{structure}: exact", fontsize=10)
        largest = abs(values[:, 1]).max()
        pictures.field(b, shape, values[:, 1], label="difference [MPa]", cmap="RdBu_r", limits=(-largest, largest))
        b.set_title("surrogate − exact", fontsize=10)
        pictures.field(c, shape, values[:, 2], label="log₁₀ of gap over energy", cmap="magma")
        law = solved[structure]["certified"][0]
        c.set_title(f"the certificate, exact above {np.log10(law.tolerance):.0f}", fontsize=10)
        for name, (_, problem, _) in solved[structure].items():
            travel, force = np.hstack([np.zeros((2, 1)), forces(structure, problem)])
            pictures.curve(d, travel, force, xlabel="displacement", ylabel="force", label=name, **styles[name])
    print(f"picture: {pictures.save(figure, options.folder / 'structures.png', dpi=100)}")
rve.destroy()
