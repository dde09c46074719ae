# SPDX-License-Identifier: MIT
# %% [markdown]
# # Cook's membrane with an RVE at every quadrature point
# A tapered panel (48 wide, 44 and 16 high, plane strain) is clamped at the left and sheared at the right. Its material
# is a matrix whose shear stiffness fades, with three stiff inclusions: at every quadrature point a finite element
# problem on that cell is solved for the stress and the consistent tangent.
#
#     mpirun -n 2 python3 demos/demo_cook.py          (small; --full for a finer structure and cell)

# %%
import argparse
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

import fe2
import meshes

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--folder", type=Path, default=Path("results/cook"))
parser.add_argument("--restart", action="store_true", help="continue from the last accepted step")
options = parser.parse_args()
comm = MPI.COMM_WORLD

# %% [markdown]
# The microscale: each rank holds the whole cell.

# %%
cell = meshes.benchmark("RVE3", MPI.COMM_SELF, mesh_size=0.03 if options.full else 0.09)
materials = {1: fe2.SaturatingElastic(), 2: fe2.LinearElastic(bulk=43452.381, shear=29918.0328)}
law = fe2.ExactLaw(fe2.RVE(cell, materials))

# %% [markdown]
# The macroscale: the mesh is spread over the ranks, and so are the RVE problems.

# %%
membrane = meshes.cook(comm, n=12 if options.full else 5)
problem = fe2.MacroProblem(membrane, law, degree=1)
problem.fix("left", (0.0, 0.0))
problem.traction("right", (0.0, 6.0))
problem.watch("right")

options.folder.mkdir(parents=True, exist_ok=True)
start = time.perf_counter()
history = problem.solve(steps=4, folder=options.folder, restart=options.restart)
seconds = time.perf_counter() - start

# %% [markdown]
# What it cost, and the picture: the macroscale stress, the cells at the points of the largest and the smallest
# stress, and the force–displacement curve.


# %%
def von_mises(stress):
    """In-plane measure √(3/2) ‖dev S‖ of Mandel stresses (..., 3), the trace taken over the plane."""
    mean = stress[..., :2].mean(axis=-1)
    return np.sqrt(1.5 * ((stress[..., 0] - mean) ** 2 + (stress[..., 1] - mean) ** 2 + stress[..., 2] ** 2))


sigma = problem.sigma
points = len(sigma.state)
stress = sigma.stress.x.array[: 3 * points].reshape(-1, 3)
level = von_mises(stress)
vertices = membrane.mesh.geometry.x[membrane.mesh.geometry.dofmap[: len(sigma.cells)]][:, [0, 1, 3, 2], :2]
per_cell = level.reshape(len(sigma.cells), -1).mean(axis=1)
candidates = [(level[k], sigma.state[k]) for k in (level.argmin(), level.argmax())] if points else []
gathered = comm.gather((vertices, per_cell, candidates)) or []

if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.collections import PolyCollection

    def draw(axes, polygons, values, title):
        shape = PolyCollection(polygons, array=values, cmap="viridis", edgecolors="face", linewidths=0.2)
        axes.add_collection(shape)
        axes.autoscale_view()
        axes.set_aspect("equal")
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
        figure.colorbar(shape, ax=axes, shrink=0.8, label="MPa")

    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(11, 9), layout="constrained")
    polygons, values = (np.concatenate([g[i] for g in gathered]) for i in (0, 1))
    draw(a, polygons, values, "macroscale, ‖dev S‖·√(3/2)")
    extremes = sorted((pair for g in gathered for pair in g[2]), key=lambda pair: pair[0])
    corners = cell.mesh.geometry.x[cell.mesh.geometry.dofmap[:, :3]][:, :, :2]
    for axes, (value, state), label in ((b, extremes[-1], "most"), (c, extremes[0], "least")):
        body = law.rve.place(state[:-1])
        mean = np.einsum("cqd,cq->cd", body.stress(), body.weights) / body.weights.sum(axis=1, keepdims=True)
        draw(axes, corners, von_mises(mean), f"the cell of the {label} stressed point ({value:.2f} MPa)")
    travel = [0.0] + [s.displacement["right"][1] for s in history]
    force = [0.0] + [s.force["right"][1] for s in history]
    d.plot(travel, force, "o-")
    d.set(xlabel="mean vertical displacement of the right edge", ylabel="force", title="force–displacement")
    d.grid(alpha=0.3)
    path = options.folder / "cook.png"
    figure.savefig(path.with_suffix(".part"), dpi=120, format="png")
    path.with_suffix(".part").rename(path)

totals = {k: comm.allreduce(sum(s.seconds[k] for s in history), op=MPI.MAX) for k in ("law", "assembly", "solver")}
points = comm.allreduce(points)
if comm.rank == 0:
    evaluations = sum(len(s.residuals) for s in history)
    print(f"{points} RVE problems of {law.rve.unknowns.size} unknowns on {comm.size} ranks, solved {evaluations} times")
    print(", ".join(f"{name} {totals[name]:.1f} s" for name in totals))
    print(f"picture: {path}   whole run {seconds:.1f} s")
