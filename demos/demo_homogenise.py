# SPDX-License-Identifier: MIT
# %% [markdown]
# # Homogenise your own RVE
#
# On the scale of a structure a composite is homogeneous. Its response is the average over a small representative volume
# element, the RVE: prescribe an average strain $E$, solve for the periodic fluctuation $w$ of the displacement
# $u = E x + w$, and average the stress. With the stress $S(E)$ comes the tangent $C = dS/dE$, which Newton's method on
# the macroscale needs.
#
# Run it with `environment/run python3 demos/demo_homogenise.py`, on several ranks with
# `environment/run mpirun -n 2 python3 demos/demo_homogenise.py`; `--full` takes a finer mesh, `--small` a coarse one.

# %%
import argparse
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
# Three stiff fibres in a matrix: `RVE3` of `meshes.BENCHMARKS`. `meshes.rve` takes a list of circles, ellipses,
# spheres, ... of your own in the same way. Each rank holds the whole RVE, hence `COMM_SELF`.

# %%
domain = meshes.benchmark("RVE3", MPI.COMM_SELF, mesh_size=0.02 if options.full else 0.2 if options.small else 0.04)
if comm.rank == 0:
    shares = ", ".join(f"{name} {domain.fractions()[tag]:.4f}" for name, tag in domain.names.items())
    print(f"{domain.mesh.topology.index_map(2).size_local} cells; volume fractions: {shares}")


# %% [markdown]
# ## The materials
# A material is an energy density in UFL of the 3×3 strain. Stress and tangent follow by differentiation, also in plane
# strain. Here is a new one: a matrix whose deviatoric stress saturates,
# $$ψ = \tfrac{K}{2} (\mathrm{tr}\,ε)^2 + τ γ \left(\sqrt{1 + e : e / γ^2} - 1\right), \qquad e = \mathrm{dev}\,ε,$$
# so that $\mathrm{dev}\,σ = (τ/γ)\, e / \sqrt{1 + e : e/γ^2}$ has a norm below $τ$.


# %%
def saturating(strain, bulk, limit, scale):
    e = ufl.dev(strain)
    return bulk / 2 * ufl.tr(strain) ** 2 + limit * scale * (ufl.sqrt(1 + ufl.inner(e, e) / scale**2) - 1)


numbers = {"bulk": 4780.0, "limit": 50.0, "scale": 0.06}  # MPa, MPa, -
materials = {
    meshes.MATRIX: fe2.Energy(saturating, parameters=numbers),
    meshes.INCLUSION: fe2.LinearElastic.from_young_poisson(70_000.0, 0.2),
}

# %% [markdown]
# ## A path of strains
# Shear up to $γ_{xy} = 0.15$. Strains and stresses are Mandel vectors $(xx, yy, \sqrt2\, xy)$; engineering
# strains are converted at input and output. The materials have no state, so the strains are independent and the ranks
# share them. (For a material with state, such as `fe2.J2`, pass the `state` of one step to the next.)

# %%
rve = fe2.RVE(domain, materials)
shear = np.linspace(0.0, 0.15, 11)
strains = fe2.mandel.from_engineering([[0.0, 0.0, g] for g in shear])

mine = np.array_split(np.arange(len(strains)), comm.size)[comm.rank]
h = rve.homogenise(strains[mine])
stress, tangent, state = (np.concatenate(comm.allgather(a)) for a in (h.stress, h.tangent, h.state))

if comm.rank == 0:
    print("\n  γ_xy      S_xx      S_yy      S_xy    dS_xy/dγ   (MPa)")
    for g, s, c in zip(shear, stress, tangent):
        print(f"{g:6.3f} {s[0]:9.4f} {s[1]:9.4f} {s[2] / np.sqrt(2):9.4f} {c[2, 2] / 2:11.3f}")
    with np.printoptions(precision=2, suppress=True):
        print(f"\ntangent of the undeformed RVE (Mandel, MPa)\n{tangent[0]}")
        print(f"tangent at the end\n{tangent[-1]}")

# %% [markdown]
# The tangent is the exact derivative of the discrete law, which a central difference confirms.

# %%
step = 1e-5
direction = np.array([0.6, 0.0, 0.8])
ahead, behind = rve.homogenise([strains[-1] + step * direction, strains[-1] - step * direction]).stress
difference = (ahead - behind) / (2 * step)
error = np.linalg.norm(difference - tangent[-1] @ direction) / np.linalg.norm(difference)
if comm.rank == 0:
    print(f"\ntangent against a central difference: relative error {error:.1e}")
assert error < 1e-5

# %% [markdown]
# ## Fields of the RVE
# A row of `state` defines a solved problem. `rve.set_state` sets the body to it, which then evaluates the micro stress
# at every quadrature point. Its average is the stress above.

# %%
body = rve.set_state(state[-1])
micro = body.stress()  # (cells, points, 3)
average = np.einsum("cq,cqk->k", body.weights, micro) / rve.volume
assert np.allclose(average, stress[-1], rtol=1e-8, atol=1e-8)

# %% [markdown]
# ## The picture
# For comparison, the curve of the matrix alone in closed form: $e_{xy} = γ_{xy}/2$ and
# $e : e = γ_{xy}^2/2$.

# %%
if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from fe2 import pictures

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=[1.15, 1])
    pictures.field(
        left,
        domain.mesh,
        micro[:, :, 2] / np.sqrt(2),
        weights=body.weights,
        deformation=body.u,
        label="micro shear stress σ$_{xy}$ [MPa]",
    )
    left.set_title(f"RVE at γ$_{{xy}}$ = {shear[-1]:g}, deformed to scale", fontsize=10)
    matrix = numbers["limit"] / numbers["scale"] * shear / 2 / np.sqrt(1 + shear**2 / 2 / numbers["scale"] ** 2)
    axis_labels = {"xlabel": "shear strain γ$_{xy}$", "ylabel": "shear stress S$_{xy}$ [MPa]"}
    pictures.curve(right, shear, stress[:, 2] / np.sqrt(2), label="RVE", **axis_labels)
    pictures.curve(right, shear, matrix, label="matrix alone", linestyle="--", marker="", color="0.4", **axis_labels)
    print(f"picture: {pictures.save(figure, options.folder / 'homogenise.png')}")
rve.destroy()
