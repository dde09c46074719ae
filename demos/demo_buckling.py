# SPDX-License-Identifier: MIT
# %% [markdown]
# # Buckling of a microstructure
#
# A sheet of rubber with a square array of holes, compressed, switches at a strain of some per cent to a pattern of
# ellipses that alternate in direction. From there on the stress stays the same, and the sheet becomes narrower instead
# of wider (Mullin, Deschanel, Bertoldi & Boyce, Phys. Rev. Lett. 99, 2007, 084301; Bertoldi, Boyce, Deschanel, Prange &
# Mullin, J. Mech. Phys. Solids 56, 2008, 2642–2668). The pattern has twice the period of the array, so that an RVE of
# 2 × 2 holes has it.
#
# Run it with `environment/run python3 demos/demo_buckling.py`; `--full` takes a finer mesh, `--small` a coarse one.

# %%
import argparse
import warnings
from pathlib import Path

import numpy as np
import ufl
from mpi4py import MPI

import fe2
import meshes

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results"))
options = parser.parse_args()
comm = MPI.COMM_WORLD

# %% [markdown]
# ## The RVE
# Holes of radius 4.335 mm, 9.97 mm apart, in plane strain. `meshes.tiled` copies the mesh of one period: before the
# buckling the solution then has exactly the period of one hole, and its loss is a bifurcation. In a mesh without this
# symmetry the pattern would grow from the beginning.

# %%
period, radius = 9.97, 4.335  # mm
cell = meshes.rve(
    [meshes.Circle((0.0, 0.0), radius, tag=meshes.VOID)],
    MPI.COMM_SELF,
    size=(period, period),
    mesh_size=0.8 if options.full else 3.0 if options.small else 1.5,
    order=1 if options.small else 2,
    cells_per_gap=2 if options.small else 4,
)
domain = meshes.tiled(cell, (2, 2))

# %% [markdown]
# ## The material
# A rubber that stiffens, nearly incompressible, as an energy density of the deformation gradient $F$ with
# $I_1 = \mathrm{tr}\,F^T F$ and $J = \det F$:
# $$ψ = c_1 (I_1 - 3) + c_2 (I_1 - 3)^2 - 2 c_1 \ln J + \tfrac{K}{2} (J - 1)^2.$$


# %%
def rubber(F, c1, c2, K):
    J, excess = ufl.det(F), ufl.inner(F, F) - 3
    return c1 * excess + c2 * excess**2 - 2 * c1 * ufl.ln(J) + K / 2 * (J - 1) ** 2


numbers = {"c1": 0.55, "c2": 0.3, "K": 55.0}  # MPa
material = fe2.Energy(rubber, parameters=numbers, measure="displacement gradient")
straight = fe2.RVE(domain, {meshes.MATRIX: material})

# %% [markdown]
# ## Where it buckles
# Under the same strain in both directions the path is a straight line. Strains are displacement gradients $H = F - I$,
# row by row. `fe2.critical_strain` finds where the stiffness of the RVE is no longer positive definite, and the mode.

# %%
equal = fe2.critical_strain(straight, [-0.05, 0.0, 0.0, -0.05], steps=5)
if comm.rank == 0:
    print(f"{straight.unknowns.size} unknowns")
    print(f"equal compression in both directions: the RVE buckles at {-equal.strain[3]:.5f}")


# %% [markdown]
# ## Uniaxial compression
# The sides are free: there the stress is prescribed, and the strain is found.


# %%
def compress(rve, strains):
    """Strain rows (n, 4) and responses at the vertical strains, with no stress in x."""
    responses, state, free = [], None, np.nan
    for strain in strains:
        h = rve.homogenise([free, 0.0, 0.0, strain], state, stress=[0.0, free, free, free])
        state = h.state
        responses.append(h)
    return np.concatenate([h.strain for h in responses]), responses


strains = -np.linspace(0.0, 0.08, 9 if options.small else 17)[1:]
with warnings.catch_warnings():
    warnings.simplefilter("ignore", fe2.UnstableWarning)  # this is the path that is not followed any more
    path, unbuckled = compress(straight, strains)
limit = fe2.critical_strain(straight, path, steps=len(path))
assert limit.found

# %% [markdown]
# ## Beyond
# With `buckling="follow"` an RVE that is at no minimum of its energy goes down to one. The fluctuation is a part of the
# state, so that it stays there in the next step. The same option serves FE².

# %%
buckling = fe2.RVE(domain, {meshes.MATRIX: material}, solver=fe2.SolverOptions(buckling="follow"))
buckled_path, buckled = compress(buckling, strains)

if comm.rank == 0:
    print(f"uniaxial compression: the RVE buckles at {-limit.strain[3]:.5f}")
    if np.isnan(limit.macroscopic_fraction):
        print("its tangent is strongly elliptic up to there: the pattern comes before any long wave")
    print("\n  strain   S (straight)   lateral    S (buckled)   lateral   (MPa)")
    for e, a, one, b, two in zip(strains, path, unbuckled, buckled_path, buckled):
        print(f"{e:8.4f} {one.stress[0, 3]:13.6f} {a[0]:10.5f} {two.stress[0, 3]:13.6f} {b[0]:10.5f}")
    saved = 1 - buckled[-1].energy[0] / unbuckled[-1].energy[0]
    print(f"\nat the end the pattern has {100 * saved:.0f} % less energy")
assert buckled[-1].energy[0] < unbuckled[-1].energy[0] and not buckled[-1].unstable[0]

# %% [markdown]
# ## The picture

# %%
if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from fe2 import pictures

    figure, axes = plt.subplots(1, 3, figsize=(13, 4), width_ratios=[1.25, 1, 1])
    labels = {"xlabel": "compressive strain", "ylabel": "compressive stress [kPa]"}
    x = np.concatenate([[0.0], -strains])
    for responses, label, style in (
        (buckled, "in the minimum of the energy", {}),
        (unbuckled, "period of one hole", {"linestyle": "--", "marker": "", "color": "0.4"}),
    ):
        stress = np.concatenate([[0.0], [-1e3 * h.stress[0, 3] for h in responses]])
        pictures.curve(axes[0], x, stress, label=label, **style, **labels)
    axes[0].axvline(-limit.strain[3], color="C3", linewidth=1, label=f"critical strain {-limit.strain[3]:.4f}")
    axes[0].legend(frameon=False)
    for ax, rve, state, title in (
        (axes[1], straight, limit.state, f"at {-limit.strain[3]:.4f}, before the buckling"),
        (axes[2], buckling, buckled[-1].state[0], f"at {-strains[-1]:.2f}, buckled"),
    ):
        body = rve.set_state(state)
        size = np.linalg.norm(body.stress(), axis=2)
        pictures.field(ax, domain.mesh, size, weights=body.weights, deformation=body.u, label="stress ‖P‖ [MPa]")
        ax.set_title(title, fontsize=10)
    print(f"picture: {pictures.save(figure, options.folder / 'buckling.png')}")
straight.destroy()
buckling.destroy()
