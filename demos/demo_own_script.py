# SPDX-License-Identifier: MIT
# %% [markdown]
# # FE² in your own DOLFINx script
# Your own script has a mesh, a residual and Newton's method. Its stress is a formula $σ(u)$. Here such a script gets
# finite element problems on a microstructure instead, one per quadrature point. Finally one line chooses the law.
#
#     mpirun -n 2 python3 demos/demo_own_script.py          (--full for finer meshes, --small for coarse ones)

# %%
import argparse
from pathlib import Path

import numpy as np
import ufl
from mpi4py import MPI
from dolfinx import fem, mesh
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

import fe2
import meshes
from fe2 import pictures

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results/own_script"))
options = parser.parse_args()
comm = MPI.COMM_WORLD

# %% [markdown]
# ## The script without fe2x
# A cantilever, 4 by 1, clamped at its left end and pulled down at its right end.

# %%
n = 6 if options.full else 2 if options.small else 3
beam = mesh.create_rectangle(comm, [(0.0, 0.0), (4.0, 1.0)], (4 * n, n), cell_type=mesh.CellType.quadrilateral)
V = fem.functionspace(beam, ("Lagrange", 1, (2,)))
u, v, du = fem.Function(V, name="displacement"), ufl.TestFunction(V), ufl.TrialFunction(V)

clamped = mesh.locate_entities_boundary(beam, 1, lambda x: np.isclose(x[0], 0.0))
pulled = mesh.locate_entities_boundary(beam, 1, lambda x: np.isclose(x[0], 4.0))
zero = np.zeros(2)
bcs = [fem.dirichletbc(zero, fem.locate_dofs_topological(V, 1, clamped), V)]
ends = mesh.meshtags(beam, 1, np.sort(pulled), np.ones(len(pulled), dtype=np.int32))
traction = fem.Constant(beam, np.array([0.0, -1.5]))  # MPa
external = ufl.dot(traction, v) * ufl.Measure("ds", domain=beam, subdomain_data=ends)(1)

# %% [markdown]
# The material is a polymer, stiff in pressure ($K$) and saturating in shear: with $e = \mathrm{dev}\,ε$ in three
# dimensions, $σ = K\,\mathrm{tr}(ε)\,I + a_1 / (a_2 + \|e\|)\; e$.

# %%
K, a1, a2 = 4780.0, 50.0, 0.06  # MPa, MPa, -


def stress(u):
    plane = ufl.sym(ufl.grad(u))
    strain = ufl.as_tensor([[plane[0, 0], plane[0, 1], 0], [plane[1, 0], plane[1, 1], 0], [0, 0, 0]])
    e = ufl.dev(strain)
    size = ufl.sqrt(ufl.inner(e, e) + 1e-30)
    full = K * ufl.tr(strain) * ufl.Identity(3) + a1 / (a2 + size) * e
    return ufl.as_tensor([[full[0, 0], full[0, 1]], [full[1, 0], full[1, 1]]])


dx = ufl.Measure("dx", domain=beam, metadata={"quadrature_degree": 3})
F = ufl.inner(stress(u), ufl.sym(ufl.grad(v))) * dx - external
J = ufl.derivative(F, u, du)

# %% [markdown]
# Newton's method, with PETSc for the linear systems.


# %%
def newton(F, J, update=lambda: None):
    """Solve F(u) = 0 from u = 0; `update` is called whenever u has changed. Returns the norms of the residuals."""
    residual, jacobian = fem.form(F), fem.form(J)
    A, step = fem_petsc.create_matrix(jacobian), fem.Function(V)
    ksp = PETSc.KSP().create(comm)
    ksp.setOperators(A)
    ksp.setType("preonly")
    ksp.getPC().setType("lu")
    ksp.getPC().setFactorSolverType("mumps")
    u.x.array[:] = 0.0
    norms = []
    for _ in range(20):
        update()
        b = fem_petsc.assemble_vector(residual)
        b.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        fem_petsc.set_bc(b, bcs)
        norms.append(b.norm())
        if norms[-1] <= 1e-9 * norms[0]:
            break
        A.zeroEntries()
        fem_petsc.assemble_matrix(A, jacobian, bcs)
        A.assemble()
        ksp.solve(b, step.x.petsc_vec)
        step.x.scatter_forward()
        u.x.array[:] -= step.x.array
        b.destroy()
    else:
        raise RuntimeError(f"Newton's method did not converge: {norms}")
    for o in (b, ksp, A):
        o.destroy()
    if comm.rank == 0:
        print("residuals", " ".join(f"{norm:.1e}" for norm in norms))
    return norms


newton(F, J)
formula = u.x.array.copy()

# %% [markdown]
# ## The stress becomes a law
# The residual has `sigma.stress` instead of a formula: a function at the quadrature points, as Mandel vector
# $(xx, yy, \sqrt2\, xy)$. `sigma.derivative` contains the tangent of the law, and `sigma.update` evaluates the law at
# the present $u$. At first the law is the same polymer, a material of fe2x. The displacements are the same as before.

# %%
polymer = fe2.SaturatingElastic(bulk=K, a1=a1, a2=a2)
law: fe2.Law = fe2.UFLLaw(polymer)


def solve(law):
    sigma = fe2.QuadratureLaw(law, u)
    F = ufl.inner(sigma.stress, fe2.mandel.strain(v)) * sigma.dx - external
    J = sigma.derivative(F, du)
    return sigma, newton(F, J, sigma.update)


sigma, norms = solve(law)
difference = comm.allreduce(abs(u.x.array - formula).max(), op=MPI.MAX)
assert difference < 1e-8 * comm.allreduce(abs(formula).max(), op=MPI.MAX)


def result(sigma, norms):
    """Data of the picture: cells moved with u, the norms of their mean strains in per cent, and the residuals."""
    strain = 100 * np.linalg.norm(sigma.means(sigma.strains()), axis=1)
    return *pictures.gather(beam, strain, deformation=u), norms


results = [result(sigma, norms)]

# %% [markdown]
# ## One line
# Now the polymer is reinforced with stiff fibres. Each rank holds the RVE of the composite; every quadrature point of
# the beam has a problem on that RVE, and the problems are spread over the ranks.

# %%
composite = meshes.benchmark("RVE3", MPI.COMM_SELF, mesh_size=0.06 if options.full else 0.2 if options.small else 0.12)
rve = fe2.RVE(
    composite, {meshes.MATRIX: polymer, meshes.INCLUSION: fe2.LinearElastic.from_young_poisson(70_000.0, 0.2)}
)

law = fe2.ExactLaw(rve)  # ← the line

results.append(result(*solve(law)))

# %% [markdown]
# ## The picture
# Both beams in their deformed shapes, with the same colours, and the convergence of Newton's method: as fast with a
# microstructure as with a formula, since the tangent of the law is consistent.

# %%
if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (top, middle, bottom) = plt.subplots(3, 1, figsize=(7, 8), layout="constrained", height_ratios=[1, 1, 1.3])
    largest = max(values.max() for _, values, _ in results)
    x, y = (np.concatenate([corners[..., i].ravel() for corners, _, _ in results]) for i in (0, 1))
    names = ("the polymer, a formula", "the polymer with fibres, FE²")
    for axes, (corners, values, norms), name in zip((top, middle), results, names):
        pictures.field(axes, corners, values, label="strain ‖E‖ [%]", limits=(0.0, largest))
        axes.set(xlim=(x.min() - 0.05, x.max() + 0.05), ylim=(y.min() - 0.05, y.max() + 0.05))
        axes.set_title(name, fontsize=10)
        labels = {"xlabel": "Newton iteration", "ylabel": "relative residual"}
        pictures.curve(bottom, np.arange(len(norms)), np.array(norms) / norms[0], label=name, **labels)
    bottom.set_yscale("log")
    bottom.xaxis.get_major_locator().set_params(integer=True)
    print(f"picture: {pictures.save(figure, options.folder / 'own_script.png', dpi=120)}")
rve.destroy()
