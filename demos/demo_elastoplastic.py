# SPDX-License-Identifier: MIT
# %% [markdown]
# # An elastoplastic plate, loaded and unloaded, stopped and continued
# A square steel plate with a round hole is pulled and pushed beyond yield. Around the hole the steel is reinforced
# with ceramic fibres: there, each quadrature point has a finite element problem on an RVE of the composite and keeps
# the plastic strains in it. The rest is plain steel, whose law is a formula. The run is stopped half way, and a new one
# continues from its checkpoint.
#
#     mpirun -n 2 python3 demos/demo_elastoplastic.py          (--full for a finer plate, --small for a coarse one)

# %%
import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from mpi4py import MPI
from dolfinx.mesh import compute_midpoints, meshtags

import fe2
import meshes
from fe2 import pictures

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results/elastoplastic"))
options = parser.parse_args()
comm = MPI.COMM_WORLD

# %% [markdown]
# ## The plate
# By symmetry a quarter of it suffices. `meshes.plate_with_hole` gives all cells one tag; those near the hole, whose
# radius is 0.25, get a tag of their own. Each rank tags its ghost cells as well, without communication.

# %%
STEEL, COMPOSITE = 1, 2
plate = meshes.plate_with_hole(comm, n=10 if options.full else 2 if options.small else 5)
index = plate.mesh.topology.index_map(2)
cells = np.arange(index.size_local + index.num_ghosts, dtype=np.int32)
near = np.linalg.norm(compute_midpoints(plate.mesh, 2, cells), axis=1) < (0.5 if options.small else 0.4)
tags = meshtags(plate.mesh, 2, cells, np.where(near, COMPOSITE, STEEL).astype(np.int32))
plate = replace(plate, cell_tags=tags, names={"steel": STEEL, "composite": COMPOSITE})

# %% [markdown]
# ## The materials
# Steel with von Mises plasticity and linear hardening (MPa), and elastic fibres, one in the middle of each RVE.
# `fe2.J2` is one incremental potential in UFL. At the points of the plate it is evaluated by the law `fe2.UFLLaw`, in
# the RVE it is the material of the matrix.

# %%
young, poisson = 206_000.0, 0.3
bulk, shear = fe2.bulk_shear(young, poisson)
steel = fe2.J2(bulk, shear, yield_stress=240.0, hardening=5000.0)
domain = meshes.rve([meshes.Circle((0.0, 0.0), 0.28)], MPI.COMM_SELF, mesh_size=0.3 if options.small else 0.16)
rve = fe2.RVE(domain, {meshes.MATRIX: steel, meshes.INCLUSION: fe2.LinearElastic.from_young_poisson(400_000.0, 0.2)})
laws = {STEEL: fe2.UFLLaw(steel), COMPOSITE: fe2.ExactLaw(rve)}

# %% [markdown]
# ## The load
# The right edge is moved by 0.0025 of the plate's length, then by as much to the left, and back to its place.
# `load` gives the factor over the pseudo-time from 0 to 1.


# %%
def cycle(t):
    """0 → 1 → −1 → 0 with equal speed."""
    return float(np.interp(t, [0.0, 0.25, 0.75, 1.0], [0.0, 1.0, -1.0, 0.0]))


def problem():
    problem = fe2.MacroProblem(plate, laws)
    problem.prescribe("left", (0.0, None))
    problem.prescribe("bottom", (None, 0.0))
    problem.prescribe("right", (0.0025, None))
    problem.record("right")
    return problem


# %% [markdown]
# ## Half the way, and the other half
# Each step ends with a checkpoint, so a killed run loses one step. Here the first run stops at half of the pseudo-time,
# and the second continues from the folder alone. Its results equal those of an uninterrupted run, bit by bit. The
# fields of all steps, for ParaView, are in `fields.xdmf`.

# %%
run = {"steps": 4 if options.small else 16, "load": cycle, "folder": options.folder, "fields": True}
first = problem()
before = len(first.solve(until=0.5, **run))
first.destroy()

second = problem()
history = second.solve(restart=True, **run)

# %% [markdown]
# ## The residual stress
# The edge is back at its initial place, but since the plate has yielded, a force is needed to hold it there. The
# pictures show the RVE with the largest macroscale stress.

# %%
sigma = second.sigma


def von_mises(stress):
    """In-plane measure √(3/2) ‖dev S‖ of Mandel stresses (..., 3), the trace taken over the plane."""
    mean = stress[..., :2].mean(axis=-1)
    return np.sqrt(1.5 * ((stress[..., 0] - mean) ** 2 + (stress[..., 1] - mean) ** 2 + stress[..., 2] ** 2))


composite = sigma.regions[1].cells
coordinates = np.concatenate(comm.allgather(sigma.coordinates(composite)))
level = von_mises(sigma.stresses()).reshape(len(sigma.cells), -1)[composite]
(point,) = second.write_micro(options.folder, coordinates[[np.concatenate(comm.allgather(level.ravel())).argmax()]])
shape, values = pictures.gather(plate.mesh, von_mises(sigma.means(sigma.stresses())))

# %% [markdown]
# `memory` holds the state of the RVE: that of each quadrature point of each material with a state, in the order of the
# tags. Here this is the steel alone, whose layout names the accumulated plastic strain.

# %%
if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    body = point.body()
    plastic = np.full(body.weights.shape, np.nan)  # the fibres have none
    plastic[domain.cell_tags.find(meshes.MATRIX)] = steel.layout.view(
        body.memory.reshape(-1, len(body.points), steel.state_size), "accumulated_plastic_strain"
    )

    figure, (a, b, c) = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    pictures.field(a, shape, values, label="‖dev S‖·√(3/2) [MPa]")
    a.plot(*point.coordinates, "o", markerfacecolor="none", markeredgecolor="red", markersize=9)
    a.set_title("stress at the end; fibres around the hole only", fontsize=10)
    pictures.field(b, domain.mesh, 100 * plastic, weights=body.weights, label="plastic strain [%]", cmap="magma")
    b.text(0.0, 0.0, "fibre", ha="center", va="center")
    b.set_title("accumulated plastic strain in the RVE of the marked point", fontsize=10)
    travel = 1000 * np.array([0.0] + [s.displacement["right"][0] for s in history])
    force = np.array([0.0] + [s.force["right"][0] for s in history])
    names = {"xlabel": "displacement of the right edge [‰ of the length]", "ylabel": "force [MPa · length]"}
    pictures.curve(c, travel[: before + 1], force[: before + 1], label="first run", **names)
    pictures.curve(c, travel[before:], force[before:], label="after the restart", **names)
    print(f"picture: {pictures.save(figure, options.folder / 'elastoplastic.png', dpi=120)}")
second.destroy()
rve.destroy()
