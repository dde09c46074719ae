# SPDX-License-Identifier: MIT
# %% [markdown]
# # Cook's membrane with an RVE at every quadrature point
# A tapered panel (48 wide, 44 and 16 high, plane strain) is clamped at the left and sheared at the right. Its RVE is a
# matrix that softens in shear with three stiff inclusions: at every quadrature point a finite element problem on the
# RVE gives the stress and the consistent tangent.
#
#     mpirun -n 2 python3 demos/demo_cook.py          (small; --full for a finer structure and RVE)

# %%
import argparse
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

import fe2
import meshes
from fe2 import pictures

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results/cook"))
parser.add_argument("--restart", action="store_true", help="continue from the last accepted step")
options = parser.parse_args()
comm = MPI.COMM_WORLD

# %% [markdown]
# The microscale: each rank holds the whole RVE.

# %%
microstructure = meshes.benchmark(
    "RVE3", MPI.COMM_SELF, mesh_size=0.03 if options.full else 0.2 if options.small else 0.07
)
materials = {1: fe2.SaturatingElastic(), 2: fe2.LinearElastic(bulk=43452.381, shear=29918.0328)}
law = fe2.ExactLaw(fe2.RVE(microstructure, materials))

# %% [markdown]
# The macroscale: the mesh is spread over the ranks, and so are the RVE problems.

# %%
membrane = meshes.cook(comm, n=12 if options.full else 2 if options.small else 8)
problem = fe2.MacroProblem(membrane, law, degree=1)
problem.prescribe("left", (0.0, 0.0))
problem.traction("right", (0.0, 6.0))
problem.record("right")

start = time.perf_counter()
history = problem.solve(steps=4, folder=options.folder, restart=options.restart, fields=True)
seconds = time.perf_counter() - start

# %% [markdown]
# The cost and the picture: the macroscale stress, the RVEs at the points of the largest and the smallest stress, and
# the force–displacement curve. ParaView opens the series `fields.xdmf`, and `micro-1.xdmf`, `micro-2.xdmf` with the
# fields of the two RVEs.


# %%
def von_mises(stress):
    """In-plane measure √(3/2) ‖dev S‖ of Mandel stresses (..., 3), the trace taken over the plane."""
    mean = stress[..., :2].mean(axis=-1)
    return np.sqrt(1.5 * ((stress[..., 0] - mean) ** 2 + (stress[..., 1] - mean) ** 2 + stress[..., 2] ** 2))


sigma = problem.sigma
x, level = (np.concatenate(comm.allgather(a)) for a in (sigma.coordinates(), von_mises(sigma.stresses())))
extremes = problem.write_micro(options.folder, x[[level.argmax(), level.argmin()]])
shape, per_cell = pictures.gather(membrane.mesh, von_mises(sigma.means(sigma.stresses())))

if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(11, 9), layout="constrained")
    pictures.field(a, shape, per_cell, label="‖dev S‖·√(3/2) [MPa]")
    a.set_title("macroscale", fontsize=10)
    for axes, point, label in zip((b, c), extremes, ("most", "least")):
        body = point.body()
        pictures.field(
            axes, microstructure.mesh, von_mises(body.stress()), weights=body.weights, label="‖dev σ‖·√(3/2) [MPa]"
        )
        axes.set_title(f"the RVE of the {label} stressed point ({von_mises(point.stress):.2f} MPa)", fontsize=10)
    travel = [0.0] + [s.displacement["right"][1] for s in history]
    force = [0.0] + [s.force["right"][1] for s in history]
    pictures.curve(d, travel, force, xlabel="mean vertical displacement of the right edge", ylabel="force")
    path = pictures.save(figure, options.folder / "cook.png", dpi=120)

totals = {k: comm.allreduce(sum(s.seconds[k] for s in history), op=MPI.MAX) for k in ("law", "assembly", "solver")}
if comm.rank == 0:
    evaluations = sum(len(s.residuals) for s in history)
    unknowns = law.rve.unknowns.size
    print(f"{len(level)} RVE problems of {unknowns} unknowns on {comm.size} ranks, solved {evaluations} times")
    print(", ".join(f"{name} {totals[name]:.1f} s" for name in totals))
    print(f"picture: {path}   whole run {seconds:.1f} s")
