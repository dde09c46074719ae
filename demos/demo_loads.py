# SPDX-License-Identifier: MIT
# %% [markdown]
# # Test a composite as a laboratory does
#
# A testing machine pulls along one direction and leaves the sides free: one strain is prescribed, and the other
# stresses vanish. `fe2.drive` follows such a path at one point of any law. Each row has, for each component, its strain
# or its stress, and NaN in the place of the other. For the exact law the stresses are equations of the RVE's own Newton
# iteration.
#
# Run it with `environment/run python3 demos/demo_loads.py`; `--full` takes a finer mesh, `--small` a coarse one.

# %%
import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

import fe2
import meshes

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results"))
options = parser.parse_args()
comm = MPI.COMM_WORLD

size = 0.04 if options.full else 0.15 if options.small else 0.08
cell = meshes.rve([meshes.Ellipse((0.0, 0.0), (0.42, 0.2))], MPI.COMM_SELF, mesh_size=size, size=(1.0, 0.6))
free = np.nan


def tension(values):
    """Rows of strain and stress that prescribe the first strain, and no stress in the other directions."""
    strain = np.full((len(values), 3), free)
    strain[:, 0] = values
    return {"strain": strain, "stress": np.where(np.isnan(strain), 0.0, free)}


# %% [markdown]
# ## Stiffness in all directions
# `directions` turns the machine: its rows are the Mandel vectors along which the components are taken. A tensile test
# at an angle must give $1/(n \cdot C^{-1} n)$ with the effective stiffness $C$ and $n$ the Mandel vector of the
# direction.

# %%
elastic = {
    meshes.MATRIX: fe2.LinearElastic.from_young_poisson(3_000.0, 0.35),
    meshes.INCLUSION: fe2.LinearElastic.from_young_poisson(70_000.0, 0.2),
}
rve = fe2.RVE(cell, elastic, plane="stress")
law = fe2.ExactLaw(rve)
compliance = np.linalg.inv(rve.homogenise([0.0, 0.0, 0.0]).tangent[0])
angles = np.radians(np.arange(0, 181, 30 if options.small else 10))
young = []
for angle in angles:
    c, s = np.cos(angle), np.sin(angle)
    directions = fe2.mandel.rotation([[c, -s], [s, c]]).T
    path = fe2.drive(law, **tension([1e-3]), directions=directions)
    young.append((directions @ path.stress[0])[0] / 1e-3)
along = [fe2.mandel.vector(np.outer(n, n)) for n in np.column_stack([np.cos(angles), np.sin(angles)])]
closed = np.array([1 / (n @ compliance @ n) for n in along])
assert np.allclose(young, closed, rtol=1e-8, atol=0)
if comm.rank == 0:
    print(f"Young's modulus {min(young):.0f} to {max(young):.0f} MPa; off the compliance by "
          f"{max(abs(young / closed - 1)):.1e}")  # fmt: skip
rve.destroy()

# %% [markdown]
# ## Load, unload, load backwards
# With a plastic matrix the same test has a hysteresis loop. A path keeps its state from row to row.

# %%
plastic = elastic | {meshes.MATRIX: fe2.J2(bulk=3333.0, shear=1111.0, yield_stress=30.0, hardening=100.0)}
rve = fe2.RVE(cell, plastic, plane="strain")
count = 4 if options.small else 12
up = np.linspace(0.0, 0.02, count + 1)[1:]
cycle = np.concatenate([up, up[-2::-1], [0.0], -up, -up[-2::-1], [0.0], up])
loop = fe2.drive(fe2.ExactLaw(rve), **tension(cycle))
assert abs(loop.stress[:, 1:]).max() < 1e-8 * abs(loop.stress).max()
if comm.rank == 0:
    print(f"cyclic test: {len(cycle)} steps, {loop.iterations.mean():.1f} iterations each, stresses "
          f"{loop.stress[:, 0].min():.1f} to {loop.stress[:, 0].max():.1f} MPa")  # fmt: skip
rve.destroy()

# %% [markdown]
# ## Elastomers: tension, equibiaxial tension, pure shear
# The same cell of neo-Hookean phases at finite strain, as a thin sheet. Strains are the rows of $H = F - I$, stresses
# those of the first Piola–Kirchhoff stress. The rotation has to be prescribed as well: here $H_{yx} = 0$.

# %%
rubber = {meshes.MATRIX: fe2.NeoHookean(20.0, 0.5), meshes.INCLUSION: fe2.NeoHookean(200.0, 10.0)}
rve = fe2.RVE(cell, rubber, plane="stress")
law = fe2.ExactLaw(rve)
stretch = np.linspace(0.0, 0.2 if options.small else 0.4, 3 if options.small else 9)[1:]
zero, same = np.zeros_like(stretch), stretch
tests = {
    "tension, sides free": [same, zero + free, zero, zero + free],
    "equibiaxial": [same, zero + free, zero, same],
    "sides held": [same, zero + free, zero, zero],
}
curves = {}
for name, rows in tests.items():
    strain = np.column_stack(rows)
    curves[name] = fe2.drive(law, strain=strain, stress=np.where(np.isnan(strain), 0.0, free))
    if comm.rank == 0:
        last = curves[name]
        print(f"{name}: P_xx = {last.stress[-1, 0]:.3f} MPa at λ = {1 + stretch[-1]:.2f}, "
              f"{last.iterations.max()} iterations at most")  # fmt: skip
body = rve.set_state(fe2.ExactLaw(rve).layout.view(curves["tension, sides free"].state[-1], "rve"))

# %% [markdown]
# ## The picture

# %%
if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from fe2 import pictures

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.8), width_ratios=[1, 1, 1, 1.1])
    pictures.curve(axes[0], np.degrees(angles), closed / 1e3, label="1 / (n · C⁻¹ n)", marker="", color="0.4",
                   xlabel="direction of the test [°]", ylabel="Young's modulus [GPa]")  # fmt: skip
    pictures.curve(axes[0], np.degrees(angles), np.array(young) / 1e3, label="tensile tests", linestyle="",
                   xlabel="direction of the test [°]", ylabel="Young's modulus [GPa]")  # fmt: skip
    axis_labels = {"xlabel": "strain along x", "ylabel": "stress along x [MPa]"}
    pictures.curve(axes[1], np.append(0.0, cycle), np.append(0.0, loop.stress[:, 0]), label="plastic matrix",
                   marker="", **axis_labels)  # fmt: skip
    for name, path in curves.items():
        pictures.curve(axes[2], np.append(1.0, 1 + stretch), np.append(0.0, path.stress[:, 0]), label=name,
                       xlabel="stretch along x", ylabel="P$_{xx}$ [MPa]")  # fmt: skip
    pictures.field(axes[3], cell.mesh, body.stress()[:, :, 0], weights=body.weights, deformation=body.u,
                   label="micro stress P$_{xx}$ [MPa]")  # fmt: skip
    axes[3].set_title(f"tension to λ = {1 + stretch[-1]:.1f}", fontsize=10)
    figure.tight_layout()
    print(f"picture: {pictures.save(figure, options.folder / 'loads.png')}")
rve.destroy()
