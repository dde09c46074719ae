# SPDX-License-Identifier: MIT
# %% [markdown]
# # A soft composite at large rotation
# A strip of rubber with stiff fibres and holes is bent until its end has turned by some sixty degrees. Strains are
# finite: laws take the displacement gradient $H = \nabla u = F - I$ and return the first Piola–Kirchhoff stress $P$,
# both row by row. Nothing else changes: an RVE, its law, and a structure.
#
#     mpirun -n 2 python3 demos/demo_elastomer.py          (small; --full for a finer strip and RVE)

# %%
import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

import fe2
import meshes
from fe2 import pictures

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results/elastomer"))
options = parser.parse_args()
comm = MPI.COMM_WORLD

# %% [markdown]
# ## The RVE
# A fibre in the middle, and a hole at the corners. A hole has the tag 0, no cells and no material. Materials are
# energies of $F$: `fe2.NeoHookean`, or `fe2.Energy(function, measure="displacement gradient")` with your own function.

# %%
inclusions = [meshes.Circle((0.0, 0.0), 0.28, 2), meshes.Circle((0.5, 0.5), 0.22, meshes.VOID)]
microstructure = meshes.rve(
    inclusions,
    MPI.COMM_SELF,
    mesh_size=0.06 if options.full else 0.3 if options.small else 0.15,
    edges_per_circle=8 if options.small else 16,
)
moduli = {1: (2.0, 0.5), 2: (200.0, 50.0)}  # bulk and shear modulus [MPa] of rubber and fibre
rve = fe2.RVE(microstructure, {tag: fe2.NeoHookean(*numbers) for tag, numbers in moduli.items()})

# %% [markdown]
# The law is objective: if the strain is turned by $Q$, so is the stress, $P(QF) = Q\,P(F)$. A rotation alone, here by
# 120°, has none.

# %%
angle = np.radians(120)
Q = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
F = np.array([[1.2, 0.3], [0.0, 0.9]])
P, turned, rotation = rve.homogenise([(G - np.eye(2)).ravel() for G in (F, Q @ F, Q)]).stress.reshape(3, 2, 2)
if comm.rank == 0:
    with np.printoptions(precision=4, suppress=True):
        print(f"P(F) [MPa]\n{P}")
    print(f"P(QF) − Q P(F): {abs(turned - Q @ P).max():.1e}, P(Q): {abs(rotation).max():.1e}")
assert np.allclose(turned, Q @ P, rtol=0, atol=1e-10)

# %% [markdown]
# ## The strip
# 8 long and 1 high, clamped at the left. The traction at the right is a force per area of the undeformed end and keeps
# its direction. A step that is too large is halved.

# %%
n = (16, 2) if options.full else (4, 1) if options.small else (10, 1)
load = 0.01  # MPa


def strip(law):
    """The strip with a law: the problem and the deflection of its end over the load factor."""
    problem = fe2.MacroProblem(meshes.bar(comm, size=(8.0, 1.0), n=n), law, degree=2)
    problem.prescribe("left", (0.0, 0.0))
    problem.traction("right", (0.0, load))
    problem.record("right")
    history = problem.solve(steps=3 if options.small else 5)
    factors = [0.0] + [step.factor for step in history]
    return problem, factors, np.array([[0.0, 0.0]] + [step.displacement["right"] for step in history])


problem, factors, travel = strip(fe2.ExactLaw(rve))

# %% [markdown]
# For comparison the same strip at small strain, whose end moves straight up, in proportion to the load.

# %%
linear = fe2.RVE(microstructure, {tag: fe2.LinearElastic(*numbers) for tag, numbers in moduli.items()})
_, small_factors, small_travel = strip(fe2.ExactLaw(linear))
if comm.rank == 0:
    print(f"the end moves by {travel[-1].round(3)}, at small strain by {small_travel[-1].round(3)}")

# %% [markdown]
# ## The picture
# The deformed strip with its largest stretch, the largest singular value of $F$; and the deformed RVEs of two points:
# at the clamped end, where the strip is bent most, and at the free end, which is turned and hardly strained.


# %%
def stretch(strains):
    """Largest stretch (...) of displacement gradients (..., 4)."""
    return np.linalg.svd(np.eye(2) + fe2.DISPLACEMENT_GRADIENT.tensors(strains), compute_uv=False)[..., 0]


sigma = problem.sigma
points = problem.write_micro(options.folder, [[0.1, 0.05], [7.9, 0.5]])
shape, per_cell = pictures.gather(problem.mesh, stretch(sigma.means(sigma.strains())), deformation=problem.u)

if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 9), layout="constrained")
    pictures.field(axes[0, 0], shape, per_cell, label="largest stretch")
    axes[0, 0].set_title("the strip", fontsize=10)
    for ax, point, name in zip((axes[0, 1], axes[1, 0]), points, ("clamped", "free")):
        body = point.body()
        # Nine RVEs side by side show that they fit: the others are moved by F times the period.
        cells = pictures.polygons(microstructure.mesh, body.u)
        moved = (np.eye(2) + point.strain.reshape(2, 2)) @ np.moveaxis(np.indices((3, 3)) - 1, 0, -1)[..., None]
        many = np.concatenate([cells + shift for shift in moved.reshape(9, 2)])
        values = np.tile(np.average(stretch(body.strain()), axis=1, weights=body.weights), 9)
        pictures.field(ax, many, values, label="largest stretch")
        ax.set_title(f"RVEs at the {name} end", fontsize=10)
    ax = axes[1, 1]
    pictures.curve(ax, travel[:, 1], load * np.array(factors), label="finite strain")
    labels = {"xlabel": "deflection of the end", "ylabel": "traction [MPa]"}
    pictures.curve(ax, small_travel[:, 1], load * np.array(small_factors), label="small strain", ls="--", **labels)
    print(f"picture: {pictures.save(figure, options.folder / 'elastomer.png', dpi=120)}")
rve.destroy()
linear.destroy()
