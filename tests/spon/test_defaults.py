# SPDX-License-Identifier: MIT
"""The shortest call of an operator network: processor and coarse spaces that it chooses, and what it learns."""

import functools
from itertools import pairwise

import basix.ufl
import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import scipy.sparse.linalg
import torch
import ufl
from mpi4py import MPI
from dolfinx import fem, mesh
from scipy.spatial import cKDTree

import meshes
import spon
from spon import operators
from spon.operators.coarsening import CoarseGrids
from spon.operators.processors import PROCESSORS, Processor
from spon.operators.processors import poisson as poisson_module
from spon.operators.processors.poisson import poisson_solvers
from spon.spaces import norms
from spon.training import TrainingOptions

CELLS = {2: mesh.CellType.triangle, 3: mesh.CellType.tetrahedron}


def square(n, cell=mesh.CellType.triangle):
    return mesh.create_unit_square(MPI.COMM_SELF, n, n, cell)


def cube(n):
    return mesh.create_unit_cube(MPI.COMM_SELF, n, n, n)


def lagrange(domain, degree=1, shape=None):
    return fem.functionspace(domain, ("P", degree) if shape is None else ("P", degree, shape))


def boundary(V):
    facets = V.mesh.topology.dim - 1
    V.mesh.topology.create_connectivity(facets, facets + 1)
    dofs = fem.locate_dofs_topological(V, facets, mesh.exterior_facet_indices(V.mesh.topology))
    return fem.dirichletbc(fem.Function(V), dofs)


def clamped(V):
    return fem.dirichletbc(fem.Function(V), fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0], 0.0)))


def submesh(domain, keep):
    """The cells whose midpoints (3, cells) are kept."""
    cells = np.arange(domain.topology.index_map(domain.topology.dim).size_local, dtype=np.int32)
    here = keep(mesh.compute_midpoints(domain, domain.topology.dim, cells).T)
    return mesh.create_submesh(domain, domain.topology.dim, cells[here])[0]


def poisson(u, v):
    return ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx


def reaction(u, v):
    return poisson(u, v) + ufl.inner(u, v) * ufl.dx


def elasticity(u, v):
    strain = ufl.sym(ufl.grad(u))
    return ufl.inner(strain + ufl.tr(strain) * ufl.Identity(len(u)), ufl.grad(v)) * ufl.dx


def samples(V, form, bcs, count):
    """Sources of a few waves in each component and their solutions, (dofs, count)."""
    u, v, source = ufl.TrialFunction(V), ufl.TestFunction(V), fem.Function(V)
    A = fem.assemble_matrix(fem.form(form(u, v)), bcs=bcs).to_scipy().tocsc()
    mass = fem.assemble_matrix(fem.form(ufl.inner(u, v) * ufl.dx)).to_scipy()
    x = V.tabulate_dof_coordinates()
    b, d = V.dofmap.bs, V.mesh.geometry.dim
    waves = [np.prod([np.cos(np.pi * k * x[:, i]) for i, k in enumerate(ks)], axis=0) for ks in np.ndindex(*(3,) * d)]
    basis = np.kron(np.array(waves).T, np.eye(b))
    source = basis @ np.random.default_rng(0).standard_normal((basis.shape[1], count))
    loads = mass @ source
    for bc in bcs:
        loads[bc.dof_indices()[0]] = 0.0
    return torch.from_numpy(source), torch.from_numpy(scipy.sparse.linalg.splu(A).solve(loads))


@pytest.mark.parametrize(
    ("domain", "degree", "shape", "form", "conditions", "steps"),
    [
        (functools.partial(mesh.create_unit_square, MPI.COMM_SELF, 12, 12), 1, None, poisson, boundary, 60),
        (functools.partial(mesh.create_unit_square, MPI.COMM_SELF, 12, 12), 1, None, reaction, None, 60),
        (functools.partial(mesh.create_unit_cube, MPI.COMM_SELF, 8, 8, 8), 1, None, poisson, boundary, 20),
        (functools.partial(square, 8, mesh.CellType.quadrilateral), 2, (2,), elasticity, clamped, 60),
    ],
    ids=["Poisson in 2D", "no conditions", "Poisson in 3D", "elasticity"],
)
def test_the_shortest_call_learns(domain, degree, shape, form, conditions, steps):
    """The mean of the solutions has an error of about one."""
    V = lagrange(domain(), degree, shape)
    bcs = [conditions(V)] if conditions else []
    f, u = samples(V, form, bcs, 60)
    network = spon.OperatorNetwork(input=V, output=V, bcs=bcs)
    assert network.processor_name == "fluxes" and len(network.spaces.coarse) > 0
    operators.train(network, f[:, :50], u[:, :50], TrainingOptions(steps=steps, batch=8, every=20))
    errors = operators.relative_errors(network, f[:, 50:], u[:, 50:])
    mean = u[:, :50].mean(1, keepdim=True).expand(-1, 10)
    naive = norms.relative(norms.l2, network.spaces.output, mean, u[:, 50:])
    assert errors.mean() < naive.mean() / 2


def grids(V, periodic=(), **options):
    """Cells and independent nodes of the coarse spaces that are made, after checks that hold for all."""
    network = spon.OperatorNetwork(input=V, output=V, periodic=periodic, **options)
    spaces = network.discretisation
    for matrix, finer, coarser in zip(spaces.prolongations, (spaces.output, *spaces.coarse), spaces.coarse):
        # Linear functions are reproduced, constants where the nodes are periodic.
        fields = torch.ones(len(coarser.independent), 1, dtype=torch.float64)
        expected = torch.ones(len(finer.independent) // finer.block_size, 1, dtype=torch.float64)
        if not periodic:
            fields, expected = coarser.points, finer.points
        torch.testing.assert_close(matrix @ fields, expected, rtol=0, atol=1e-12)
    predicted = network(torch.ones(spaces.output.dofs, 1, dtype=torch.float64)).detach()
    assert bool(predicted.isfinite().all())
    return [(len(space.cell_dofs), len(space.independent)) for space in spaces.coarse]


@pytest.mark.parametrize("cell", [mesh.CellType.triangle, mesh.CellType.quadrilateral])
def test_coarse_grids_have_half_as_many_cells_along_an_edge(cell):
    assert grids(lagrange(square(16, cell))) == [(64, 81), (16, 25)]
    assert grids(lagrange(square(8, cell), 2, (2,))) == [(64, 81), (16, 25)]
    assert grids(lagrange(square(16, cell)), periodic=(0, 1)) == [(64, 64), (16, 16)]
    assert grids(lagrange(square(16, cell)), periodic=(0,)) == [(64, 72), (16, 20)]
    assert grids(lagrange(square(16, cell)), processor="mgno") == [(64, 81), (16, 25), (4, 9)]
    assert grids(lagrange(square(3, cell))) == []  # all rounds are on the mesh itself
    assert grids(lagrange(square(16, cell)), processor="messages") == []


def test_coarse_grids_in_other_dimensions():
    box = mesh.create_box(MPI.COMM_SELF, [[0.0, 0.0, 0.0], [2.0, 1.0, 1.0]], [12, 6, 6])
    assert grids(lagrange(box)) == [(54, 112)]
    assert grids(lagrange(box, 1, (3,)), periodic=(0, 1, 2)) == [(54, 54)]
    line = mesh.create_interval(MPI.COMM_SELF, 16, [1.0, 3.0])
    assert grids(lagrange(line)) == [(8, 9), (4, 5)]
    cube = mesh.create_unit_cube(MPI.COMM_SELF, 4, 4, 4)
    cube.topology.create_connectivity(2, 3)
    surface, *_ = mesh.create_submesh(cube, 2, mesh.exterior_facet_indices(cube.topology))
    assert grids(lagrange(surface)) == []


def test_coarse_grids_leave_out_what_is_outside_of_the_mesh():
    corner = submesh(square(16), lambda x: ~((x[0] > 0.5) & (x[1] > 0.5)))
    (cells, nodes), *coarser = grids(lagrange(corner))
    assert cells == 48 and nodes == 65 and coarser == [(12, 21)]
    porous = meshes.rve([meshes.Circle((0.0, 0.0), 0.3, tag=0)], MPI.COMM_SELF, mesh_size=1 / 16).mesh
    for periodic in ((), (0, 1)):
        (cells, _), *_ = grids(lagrange(porous, 2), periodic=periodic)
        along = np.sqrt(cells / (1 - 0.09 * np.pi))  # of a grid whose hole has as many cells as its area asks for
        assert abs(along - round(along)) < 0.5 and 12 < along < 20


def test_grids_that_tear_the_mesh_are_left_out():
    graded = square(24)
    graded.geometry.x[:, :2] **= 6
    assert grids(lagrange(graded), processor="multigrid") == [(9, 16)]
    halves = submesh(square(12), lambda x: abs(x[0] - 0.5) > 0.09)  # one cell of the grid bridges the gap
    assert len(grids(lagrange(halves))) == 1


@pytest.mark.parametrize(("domain", "degree"), [(square(24), 1), (square(12), 2), (cube(8), 1)])
def test_strongly_graded_meshes_have_coarse_meshes_between_their_nodes(domain, degree):
    d = domain.geometry.dim
    domain.geometry.x[:, :d] **= 6
    V = lagrange(domain, degree)
    nodes = [V.dofmap.index_map.size_local, *(count for _, count in grids(V))]
    assert len(nodes) > 1 and all(b < a / 2 for a, b in pairwise(nodes)) and nodes[-1] >= 5**d
    spaces = spon.OperatorNetwork(input=V, output=V).discretisation
    for space in spaces.coarse:
        assert space.cell == domain.topology.cell_name() and abs(space.volume - 1.0) < 1e-2
        away, _ = cKDTree(spaces.output.points).query(space.points)
        assert away.max() < 1e-12


@pytest.mark.parametrize(("n", "power"), [(24, 6), (36, 4)])
def test_strongly_graded_meshes_may_be_large(n, power, monkeypatch):
    """On more nodes than are inverted, the solver is a positive map by cycles on a coarse mesh."""
    monkeypatch.setattr(poisson_module, "INVERTED", 200)
    domain = square(n)
    domain.geometry.x[:, :2] **= power
    V = lagrange(domain)
    network = spon.OperatorNetwork(input=V, output=V, bcs=[clamped(V)])
    spaces = network.discretisation
    assert len(spaces.output.independent) > 200 > len(spaces.coarse[0].independent)
    (solver, *_), *_ = network.processor.solvers
    load = spaces.output.mass @ torch.ones(spaces.output.dofs, 1, dtype=torch.float64)
    assert solver.below is not None and float((load * solver(load)).sum()) > 0
    assert bool(network(torch.ones_like(load)).isfinite().all())


@pytest.mark.parametrize("n", [8, 12])
def test_one_fixed_node_is_enough_on_all_levels(n):
    """Where it is a node of no coarse space, its nearest ones are fixed."""
    V = lagrange(square(n))
    at = (n // 2 + 1) / n
    dofs = fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0], at) & np.isclose(x[1], at))
    network = spon.OperatorNetwork(input=V, output=V, bcs=[fem.dirichletbc(0.0, dofs, V)])
    spaces = network.discretisation
    solvers = poisson_solvers(spaces.points, spaces.prolongations, spaces.output.fixed.numpy(), 1.0)
    assert len(solvers) > 1
    for solver in solvers:
        # That of a singular matrix is without bound.
        eigenvalues = torch.linalg.eigvalsh(solver.inverse)
        assert eigenvalues.min() > -1e-12 and 0.01 < eigenvalues.max() < len(eigenvalues)


def test_processors_are_chosen_for_the_output():
    domain = square(8)
    P = lagrange(domain)
    mixed = basix.ufl.mixed_element([basix.ufl.element("P", "triangle", k, shape=s) for k, s in ((2, (2,)), (1, ()))])
    chosen = {
        "fluxes": [P, lagrange(domain, 2, (2,)), fem.functionspace(domain, mixed)],
        "multigrid": [fem.functionspace(domain, (kind, 1)) for kind in ("DG", "RT", "N1curl")],
    }
    for name, outputs in chosen.items():
        for V in outputs:
            network = spon.OperatorNetwork(input=P, output=V)
            assert network.processor_name == name
            assert network(torch.ones(81, 2, dtype=torch.float64)).shape == (network.spaces.answer.dofs, 2)
    assert spon.OperatorNetwork(input=P, output=P, encoder="integrals").processor_name == "multigrid"


def test_a_network_on_a_finer_mesh_has_as_many_coarse_grids():
    V, W = lagrange(square(8)), lagrange(square(32))
    for processor in ("fluxes", "multigrid"):
        network = spon.OperatorNetwork(input=V, output=V, bcs=[boundary(V)], processor=processor)
        other = network.on(input=W, output=W, bcs=[boundary(W)])
        assert len(other.spaces.coarse) == len(network.spaces.coarse)
        assert other(torch.ones(33**2, 1, dtype=torch.float64)).isfinite().all()
    explicit = spon.OperatorNetwork(input=V, output=V, coarse=[])
    assert explicit.on(input=W, output=W, coarse=[lagrange(square(16))]).spaces.coarse


def test_the_number_of_grids_can_be_said():
    V = lagrange(square(32))
    space = spon.read_space(V)
    assert len(CoarseGrids(cells=1).spaces(V.mesh, space)) == 5
    assert len(CoarseGrids(cells=1, count=2).spaces(V.mesh, space)) == 2
    assert len(CoarseGrids(cells=8).spaces(V.mesh, space)) == 2


def test_every_processor_is_in_the_registry():
    """They are built alike, and say whether they can work on coarser spaces."""
    V = lagrange(square(8))
    for name, kind in PROCESSORS.items():
        assert issubclass(kind, Processor)
        network = spon.OperatorNetwork(input=V, output=V, processor=name, channels=4)
        assert type(network.processor) is kind
        network.processor.coarsen(0)
        if kind.nests:
            network.processor.coarsen(1)
        else:
            with pytest.raises(ValueError, match="cannot move to coarser spaces, need 'fluxes'"):
                network.processor.coarsen(1)
