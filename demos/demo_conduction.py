# SPDX-License-Identifier: MIT
# %% [markdown]
# # A heat spreader of graphite flakes in a polymer
# The RVE of a conductor gives its effective conductivity, a tensor: flakes that lie aslant guide the heat. Laws of
# conduction take the gradient of a temperature and return $k\,\nabla T$, which is minus the heat flux. The same classes
# serve diffusion, flow in porous media or direct current.
#
#     mpirun -n 2 python3 demos/demo_conduction.py          (--full for finer meshes, --small for coarse ones)

# %%
import argparse
from pathlib import Path

import numpy as np
import ufl
from mpi4py import MPI
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

import fe2
import meshes
from fe2 import pictures

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results/conduction"))
options = parser.parse_args()
comm = MPI.COMM_WORLD

# %% [markdown]
# ## The effective conductivity
# Two flakes at 45°, 200 times as conductive as the polymer. `order=2` curves their edges.

# %%
flakes = [meshes.Ellipse(center, (0.4, 0.09), 45.0, 2) for center in ((-0.25, 0.0), (0.25, 0.0))]
microstructure = meshes.rve(
    flakes, MPI.COMM_SELF, mesh_size=0.04 if options.full else 0.25 if options.small else 0.08, order=2
)
rve = fe2.RVE(microstructure, {1: fe2.Conductive(0.5), 2: fe2.Conductive(100.0)})  # W/(m K)
k = rve.homogenise(np.zeros(2)).tangent[0]
values, axes = np.linalg.eigh(k)
angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1])) % 180
if comm.rank == 0:
    print(f"{microstructure.fractions()[2]:.3f} of the volume is graphite; conductivity [W/(m K)]\n{k.round(4)}")
    print(f"{values[1]:.3f} at {angle:.1f}°, {values[0]:.3f} across")

# %% [markdown]
# Linear conduction needs no more than this tensor: it could be the $k$ of any program.
#
# ## The spreader in a script of its own
# An L-profile, 0.1 m long and high: a chip at the end of its leg heats it with 500 W/m², and the end of its foot is
# kept cold. The heat balance has the form of the equilibrium of a stress.

# %%
domain = meshes.l_profile(
    comm, length=0.1, height=0.1, thickness=0.05, n=16 if options.full else 3 if options.small else 8
)
V = fem.functionspace(domain.mesh, ("Lagrange", 2))
T, v, dT = fem.Function(V, name="temperature"), ufl.TestFunction(V), ufl.TrialFunction(V)
cold = fem.locate_dofs_topological(V, 1, domain.facet_tags.find(domain.facet_names["right"]))
bcs = [fem.dirichletbc(0.0, cold, V)]
ds = ufl.Measure("ds", domain=domain.mesh, subdomain_data=domain.facet_tags)
heat = fem.Constant(domain.mesh, 500.0) * v * ds(domain.facet_names["top"])

# %% [markdown]
# `fe2.QuadratureLaw` puts the law into the residual. With the exact law each point solves the RVE. One iteration of
# Newton's method gives the solution, since the law is linear.

# %%
law = fe2.ExactLaw(rve)
sigma = fe2.QuadratureLaw(law, T)
F = ufl.inner(sigma.stress, ufl.grad(v)) * sigma.dx - heat
sigma.update()
A = fem_petsc.assemble_matrix(fem.form(sigma.derivative(F, dT)), bcs)
A.assemble()
b = fem_petsc.assemble_vector(fem.form(F))
b.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
fem_petsc.set_bc(b, bcs)
ksp = PETSc.KSP().create(comm)
ksp.setOperators(A)
ksp.setType("preonly")
ksp.getPC().setType("lu")
ksp.getPC().setFactorSolverType("mumps")
step = fem.Function(V)
ksp.solve(b, step.x.petsc_vec)
step.x.scatter_forward()
T.x.array[:] -= step.x.array
for o in (b, A, ksp):
    o.destroy()

# %% [markdown]
# ## The same by `MacroProblem`
# A prescribed displacement is a temperature here, and a traction a heat flux into the body. It also solves nonlinear
# conduction, `fe2.Energy(function, measure="gradient")`, in steps.

# %%
problem = fe2.MacroProblem(domain, law, degree=2)
problem.prescribe("right", 0.0)
problem.traction("top", 500.0)
problem.record("top")
problem.record("right")
problem.solve(steps=1, folder=options.folder, fields=True, log=None)
(last,) = problem.history
off = comm.allreduce(abs(problem.u.x.array - T.x.array).max(initial=0.0), op=MPI.MAX)
if comm.rank == 0:
    print(
        f"the chip is {last.displacement['top'][0]:.1f} K warmer than the cold end; the solutions differ by {off:.1e}"
    )
    print(f"{-last.force['right'][0]:.2f} W/m leave through the cold end, of 25 W/m")
assert off < 1e-7 * last.displacement["top"][0]

# %% [markdown]
# ## The picture
# Temperature and heat flux of the spreader, and those of the RVE at the inner corner.


# %%
def arrows(ax, mesh, flux):
    """Arrows of the heat flux −k ∇T (cells, 2) in the middle of cells."""
    middle = (mesh if isinstance(mesh, np.ndarray) else pictures.polygons(mesh)).mean(axis=1)
    ax.quiver(*middle.T, *(-flux).T, color="w", width=0.003)


(point,) = problem.write_micro(options.folder, [[0.05, 0.05]])
temperature = T.x.array[V.dofmap.list[problem.sigma.cells]].mean(axis=1)
flux = problem.sigma.means(problem.sigma.stresses())
shape, found = pictures.gather(domain.mesh, np.column_stack([temperature, flux]))

if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    pictures.field(left, shape, found[:, 0], label="temperature [K]", cmap="inferno")
    arrows(left, shape, found[:, 1:])
    left.set_title("spreader", fontsize=10)
    body = point.body()
    micro = np.einsum("cqd,cq->cd", body.stress(), body.weights) / body.weights.sum(axis=1, keepdims=True)
    pictures.field(right, microstructure.mesh, np.linalg.norm(micro, axis=1), label="heat flux [W/m²]", cmap="inferno")
    arrows(right, microstructure.mesh, micro)
    right.set_title("RVE at the inner corner", fontsize=10)
    print(f"picture: {pictures.save(figure, options.folder / 'conduction.png', dpi=120)}")
rve.destroy()
