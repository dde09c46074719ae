# SPDX-License-Identifier: MIT
# %% [markdown]
# # Your own energy on your own mesh, and a model of it
# A soft tissue-like matrix that stiffens along its fibres, a coated stiff inclusion and a void: neither the energy nor
# the mesh is part of fe2x. A structure with a learned law needs a mesh file, one function in UFL, snapshots and a model
# file.
#
#     mpirun -n 2 python3 demos/demo_own_energy.py        (--small for coarse meshes, --full for finer ones)

# %%
import argparse
from pathlib import Path

import gmsh
import numpy as np
import torch
import ufl
from mpi4py import MPI

import coupling
import fe2
import meshes
import spon
from fe2 import pictures
from spon import EquiNOOptions, equino

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results/own_energy"))
options = parser.parse_args()
comm = MPI.COMM_WORLD
torch.set_num_threads(1)  # the ranks share the cores
options.folder.mkdir(parents=True, exist_ok=True)


def pick(small, middle, full):
    """The setting for the size of the problem."""
    return full if options.full else small if options.small else middle


# %% [markdown]
# ## Your mesh
# A unit square with a coated ellipse and a round void, made with gmsh as an example of your own mesh (any file that
# gmsh or meshio reads). Each phase is a physical group, and opposite edges have matching nodes.


# %%
def write_mesh(path, mesh_size):
    gmsh.initialize()
    gmsh.option.setNumber("General.Terminal", 0)
    occ = gmsh.model.occ
    square = occ.cut([(2, occ.addRectangle(0, 0, 0, 1, 1))], [(2, occ.addDisk(0.78, 0.2, 0, 0.11, 0.11))])[0]
    coated, inclusion = (occ.addDisk(0.42, 0.55, 0, 0.30 + t, 0.18 + t) for t in (0.04, 0.0))
    occ.rotate([(2, coated), (2, inclusion)], 0.42, 0.55, 0, 0, 0, 1, np.pi / 6)
    _, (whole, outer, inner) = occ.fragment(square, [(2, coated), (2, inclusion)])
    occ.synchronize()
    phases = {"matrix": set(whole) - set(outer), "coating": set(outer) - set(inner), "inclusion": set(inner)}
    for name, surfaces in phases.items():
        gmsh.model.addPhysicalGroup(2, [tag for _, tag in surfaces], name=name)
    near = 1e-6
    for move, lower, upper in (((1, 0), (0, 0, 0, 1), (1, 0, 1, 1)), ((0, 1), (0, 0, 1, 0), (0, 1, 1, 1))):
        edges = []
        for x0, y0, x1, y1 in (lower, upper):
            found = gmsh.model.getEntitiesInBoundingBox(x0 - near, y0 - near, -near, x1 + near, y1 + near, near, 1)
            edges.append([tag for _, tag in found])
        gmsh.model.mesh.setPeriodic(1, edges[1], edges[0], [1, 0, 0, move[0], 0, 1, 0, move[1], 0, 0, 1, 0, 0, 0, 0, 1])
    gmsh.option.setNumber("Mesh.MeshSizeMax", mesh_size)
    gmsh.option.setNumber("Mesh.MeshSizeFromCurvature", 20)  # edges on a full circle
    gmsh.model.mesh.generate(2)
    gmsh.write(str(path))
    gmsh.finalize()


mesh_file = options.folder / "cell.msh"
with fe2.raise_on_all_ranks(comm):
    if comm.rank == 0:
        write_mesh(mesh_file, pick(0.3, 0.08, 0.04))
domain = meshes.read(mesh_file, MPI.COMM_SELF)

# %% [markdown]
# ## Your energy
# Isotropic elasticity, and fibres of direction $a$ that stiffen exponentially (after Fung), with $e = \mathrm{dev}\,ε$
# and $ε_a = a·ε a$:
# $$ψ = \tfrac{K}{2} (\mathrm{tr}\,ε)^2 + G\, e : e + \tfrac{k_1}{2 k_2} (\exp(k_2 ε_a^2) - 1)$$
# It is convex, as the certificate requires. Stress, tangent, compiled code and the torch program follow from it.


# %%
def fung(strain, bulk, shear, k1, k2, angle):
    a = ufl.as_vector([ufl.cos(angle), ufl.sin(angle), 0])
    e, stretch = ufl.dev(strain), ufl.dot(a, ufl.dot(strain, a))
    isotropic = bulk / 2 * ufl.tr(strain) ** 2 + shear * ufl.inner(e, e)
    return isotropic + k1 / (2 * k2) * (ufl.exp(k2 * stretch**2) - 1)


numbers = {"bulk": 2000.0, "shear": 600.0, "k1": 1500.0, "k2": 250.0, "angle": np.pi / 4}  # MPa, MPa, MPa, -, rad
materials = {
    "matrix": fe2.Energy(fung, parameters=numbers),
    "coating": fe2.LinearElastic.from_young_poisson(500.0, 0.4),
    "inclusion": fe2.LinearElastic.from_young_poisson(20_000.0, 0.25),
}
rve = fe2.RVE(domain, materials)

# %% [markdown]
# ## Snapshots, training, a model file

# %%
strains = fe2.strain_sampling.latin_hypercube(pick(16, 100, 200), 2, 0.05, seed=0)
snapshots, model_file = options.folder / f"snapshots-{len(strains)}.h5", options.folder / "model.safetensors"
fe2.rve_snapshots.compute(rve, strains, snapshots, comm)
settings = pick(EquiNOOptions(r=6, resolved=12, samples=32, lbfgs=20), EquiNOOptions(r=24), EquiNOOptions(r=24))
with fe2.raise_on_all_ranks(comm):
    if comm.rank == 0:
        data = coupling.rve_snapshots(rve, fe2.rve_snapshots.read(snapshots))
        equino.train(data, settings).model.save(model_file)
model = spon.load(model_file, whole=True)

# %% [markdown]
# ## A structure
# A plate with a hole is pulled with each law.

# %%
laws: dict[str, fe2.Law] = {
    "exact": fe2.ExactLaw(rve),
    "surrogate": coupling.SurrogateLaw(model, outside="warn"),
    "certified": (certified := coupling.CertifiedLaw(model, fe2.ExactLaw(rve), tolerance=1e-3)),
}
plate = meshes.plate_with_hole(comm, n=pick(1, 3, 6))
problems = {}
for name, law in laws.items():
    problems[name] = problem = fe2.MacroProblem(plate, law)
    problem.prescribe("left", (0.0, None))
    problem.prescribe("bottom", (None, 0.0))
    problem.prescribe("right", (0.025, None))
    problem.record("right")
    force = problem.solve(steps=pick(2, 4, 8), log=None)[-1].force["right"][0]
    reference = problems["exact"].history[-1].force["right"][0]
    seconds = comm.allreduce(sum(s.seconds["law"] for s in problem.history), op=MPI.MAX)
    if comm.rank == 0:
        print(f"{name}: force {force:.4f} ({force / reference - 1:+.1e}), {seconds:.2f} s in the law")
summary = certified.summary(comm)

# %% [markdown]
# ## The picture
# The most loaded point of the plate, exact and predicted, and the force.

# %%
sigma = problems["exact"].sigma
coordinates, level = (np.concatenate(comm.allgather(a)) for a in (sigma.coordinates(), sigma.stresses()[:, 0]))
((point),) = problems["exact"].micro(coordinates[level.argmax()])
exact_stress = point.body().stress()[..., 0].copy()
learned_stress = coupling.micro_fields(rve, model, point.strain).stress[..., 0]
shape, mean = pictures.gather(plate.mesh, sigma.means(sigma.stresses())[:, 0])

if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    print(summary)
    figure, ((a, b, c), (d, e, f)) = plt.subplots(2, 3, figsize=(14, 8), layout="constrained")
    tags = domain.cell_tags.values[np.argsort(domain.cell_tags.indices)]
    pictures.field(a, domain.mesh, tags, label=None, cmap="cividis")
    a.set_title(f"the RVE: {', '.join(domain.names)} and a void", fontsize=10)
    pictures.field(b, shape, mean, label="S$_{xx}$ [MPa]")
    b.set_title("the plate, exact law", fontsize=10)
    for (name, problem), style in zip(problems.items(), ("-", "--", ":")):
        path = np.array([(0.0, 0.0)] + [(s.displacement["right"][0], s.force["right"][0]) for s in problem.history])
        pictures.curve(c, *path.T, xlabel="displacement", ylabel="force", label=name, ls=style, lw=2)
    limits = (float(exact_stress.min()), float(exact_stress.max()))
    difference = learned_stress - exact_stress
    largest = float(abs(difference).max())
    for axes, values, title, look in (
        (d, exact_stress, "the most loaded RVE, exact", {"limits": limits}),
        (e, learned_stress, "predicted", {"limits": limits}),
        (f, difference, "predicted − exact", {"limits": (-largest, largest), "cmap": "RdBu_r"}),
    ):
        pictures.field(axes, domain.mesh, values, weights=rve.body.weights, label="σ$_{xx}$ [MPa]", **look)
        axes.set_title(title, fontsize=10)
    print(f"picture: {pictures.save(figure, options.folder / 'own_energy.png', dpi=100)}")
rve.destroy()
