# SPDX-License-Identifier: MIT
# %% [markdown]
# # Models of three RVEs
# RVE1 to RVE3 of the EquiNO paper: snapshots, training, and the errors of the model at unseen strains, in the stress
# field, in its average and in the tangent. The *floor*, the projection of the exact field onto the stress modes, is the
# least error in the field of any operator with these modes.
#
#     mpirun -n 2 python3 demos/demo_cells.py          (--small for coarse meshes, --full for those of the benchmark)

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
from fe2 import pictures
from spon import EquiNOOptions, equino
from spon.training import Live

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results/cells"))
options = parser.parse_args()
comm = MPI.COMM_WORLD
torch.set_num_threads(1)  # the ranks share the cores
options.folder.mkdir(parents=True, exist_ok=True)


def pick(small, middle, full):
    """The setting for the size of the problem."""
    return full if options.full else small if options.small else middle


def say(line):
    """Print on one rank."""
    if comm.rank == 0:
        print(line, flush=True)


materials = {
    meshes.MATRIX: fe2.SaturatingElastic(),
    meshes.INCLUSION: fe2.LinearElastic.from_young_poisson(73_000.0, 0.22),
}
half_range = fe2.mandel.from_engineering([0.04, 0.04, 0.04])  # the shear as γ = 2 ε_xy
mesh_size = pick(0.3, 0.08, 0.0245)
settings = pick(
    EquiNOOptions(r=6, resolved=12, samples=32, lbfgs=20), EquiNOOptions(samples=512, lbfgs=600), EquiNOOptions()
)

# %% [markdown]
# ## From strains to a model
# Snapshots for training and for testing are solved on all ranks. One rank turns them into arrays and trains.

# %%
domains = {name: meshes.benchmark(name, MPI.COMM_SELF, mesh_size=mesh_size) for name in meshes.BENCHMARKS}
rves = {name: fe2.RVE(domain, materials) for name, domain in domains.items()}
parts = {"train": (pick(16, 100, 100), 0), "test": (pick(4, 40, 100), 1)}  # number and seed
files = {(name, part): options.folder / f"{name}-{part}-{mesh_size}.h5" for name in domains for part in parts}
start = time.perf_counter()
for (name, part), file in files.items():
    count, seed = parts[part]
    strains = fe2.strain_sampling.latin_hypercube(count, 2, half_range, seed=seed)
    fe2.rve_snapshots.compute(rves[name], strains, file, comm, progress=False)
say(f"snapshots: {time.perf_counter() - start:.1f} s")


def train(name):
    """The model of an RVE, and unseen snapshots as arrays."""
    data, unseen = (coupling.rve_snapshots(rves[name], fe2.rve_snapshots.read(files[name, part])) for part in parts)
    start = time.perf_counter()
    with Live() as live:
        result = equino.train(data, settings, log=live)
    points = f"{len(result.bases.points)} of {len(data.weights)} points"
    say(f"{name}: {time.perf_counter() - start:.1f} s, cubature of {points}")
    return result.model, unseen


results = {name: train(name) for name in domains} if comm.rank == 0 else {}

# %% [markdown]
# ## Errors on unseen strains
# Errors of the local stress are relative L² norms over the quadrature points for each component, those of the averages
# relative norms of the vector and the matrix. All are means over the unseen strains.


# %%
def predicted(model, unseen):
    """Local stress (n, P, 3), homogenised stress (n, 3) and tangent (n, 3, 3) of a model."""
    with torch.no_grad():
        strain = torch.from_numpy(unseen.strain)
        local = torch.cat([model.fields(e, model.rve_modes.at_points)[1] for e in strain.split(10)])
        return (local.numpy(), *(values.numpy() for values in model(strain)))


def floor(model, unseen):
    """The best local stress (n, P, 3) in the model's modes."""
    modes, root = model.rve_modes.at_points.stress_modes.numpy(), np.sqrt(unseen.weights)[:, None]
    count, r = len(unseen.strain), modes.shape[2]
    matrix, right = (root[..., None] * modes).reshape(-1, r), (root * unseen.local_stress).reshape(count, -1)
    return np.einsum("pdr,rn->npd", modes, np.linalg.lstsq(matrix, right.T, rcond=None)[0])


def percent(found, right, axes):
    """Mean over the strains of the relative norm over `axes`."""
    return 100 * (np.linalg.norm(found - right, axis=axes) / np.linalg.norm(right, axis=axes)).mean(axis=0)


say("\nmean errors [%]    σ_xx    σ_yy    σ_xy   floor: xx      yy      xy        S       C")
pictured = {}
for name, (model, unseen) in results.items():
    local, stress, tangent = predicted(model, unseen)
    fields = [*percent(local, unseen.local_stress, 1), *percent(floor(model, unseen), unseen.local_stress, 1)]
    averages = percent(stress, unseen.stress, 1), percent(tangent, unseen.tangent, (1, 2))
    say("{:15} {:7.2f} {:7.2f} {:7.2f}   {:9.2f} {:7.2f} {:7.2f} {:8.3f} {:7.2f}".format(name, *fields, *averages))
    # The picture shows the strain whose error is the median.
    errors = np.linalg.norm(local - unseen.local_stress, axis=(1, 2)) / np.linalg.norm(unseen.local_stress, axis=(1, 2))
    strain, rve = unseen.strain[np.argsort(errors)[len(errors) // 2]], rves[name]
    exact = rve.homogenise(strain, fields=True).local_stress[0]
    pictured[name] = strain, exact, coupling.micro_fields(rve, model, strain).stress

# %% [markdown]
# ## The picture
# Exact and predicted stress of a component have the same colours, the difference has its own.

# %%
if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(9.5, 24), layout="constrained")
    for block, (name, (strain, exact, learned)) in zip(figure.subfigures(3, 1).ravel(), pictured.items()):
        shown = ", ".join(f"{e:.1f}" for e in np.round(100 * fe2.mandel.to_engineering(strain), 1) + 0.0)
        block.suptitle(f"{name} at the strain (xx, yy, γ_xy) = ({shown}) %", fontsize=12)
        for k, (component, row) in enumerate(zip(("xx", "yy", "xy"), block.subplots(3, 3))):
            factor = 1 / np.sqrt(2) if component == "xy" else 1.0  # of the Mandel component
            fields = [factor * values[..., k] for values in (exact, learned, learned - exact)]
            low, high = min(f.min() for f in fields[:2]), max(f.max() for f in fields[:2])
            largest = abs(fields[2]).max()
            label = f"σ$_{{{component}}}$ [MPa]"
            for axes, values, title, bar, cmap, limits in (
                (row[0], fields[0], "exact", None, "viridis", (low, high)),
                (row[1], fields[1], "predicted", label, "viridis", (low, high)),
                (row[2], fields[2], "predicted − exact", label, "RdBu_r", (-largest, largest)),
            ):
                weights = rves[name].body.weights
                pictures.field(axes, domains[name].mesh, values, weights=weights, label=bar, cmap=cmap, limits=limits)
                if k == 0:
                    axes.set_title(title, fontsize=10)
    print(f"picture: {pictures.save(figure, options.folder / 'cells.png', dpi=75)}")
for rve in rves.values():
    rve.destroy()
