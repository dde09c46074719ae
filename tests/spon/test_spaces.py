# SPDX-License-Identifier: MIT
"""Spaces as tensors: matrices against closed forms, transfers of polynomials, strong conditions to the last bit.

All meshes cover the unit interval, square or cube unless they say otherwise.
"""

import functools
import json
import operator
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import basix.ufl
import torch
import ufl
from mpi4py import MPI
from dolfinx import fem, mesh

import spon
from meshes.compat import create_mesh
from spon.spaces import constraints, norms, transfer
from spon.spaces.geometry import locate

EPS = np.finfo(float).eps
ELEMENTS = [
    ("interval", ("P", 3)),
    ("interval", ("DG", 1)),
    ("triangle", ("P", 1)),
    ("triangle", ("P", 3, (2,))),
    ("triangle", ("P", 2, (2, 2), True)),
    ("triangle", ("DG", 0)),
    ("triangle", ("RT", 2)),
    ("triangle", ("N1curl", 1)),
    ("quadrilateral", ("P", 2)),
    ("quadrilateral", ("RTCF", 1)),
    ("tetrahedron", ("P", 2, (3,))),
    ("tetrahedron", ("DG", 1, (3, 3))),
    ("tetrahedron", ("RT", 1)),
    ("tetrahedron", ("N1curl", 2)),
    ("hexahedron", ("P", 2)),
    ("hexahedron", ("NCE", 1)),
]
LAGRANGE = [(cell, element) for cell, element in ELEMENTS if element[0] == "P"]
DIMENSION = {"interval": 1, "triangle": 2, "quadrilateral": 2, "tetrahedron": 3, "hexahedron": 3}


def box(cell, n=2):
    create = {1: mesh.create_unit_interval, 2: mesh.create_unit_square, 3: mesh.create_unit_cube}[DIMENSION[cell]]
    kind = {"cell_type": mesh.CellType[cell]} if cell != "interval" else {}
    return create(MPI.COMM_SELF, *[n] * DIMENSION[cell], **kind)


def bent(cell, n):
    """Inner nodes moved, so that no cell is like the other and none is in a cell of another such mesh."""
    domain = box(cell, n)
    x = domain.geometry.x
    x[:, 0] += 0.05 * np.sin(np.pi * x[:, 0]) * (1 + x[:, 1])
    x[:, 1] -= 0.04 * np.sin(np.pi * x[:, 1]) * (1 + x[:, 0])
    return domain


@functools.cache
def read(cell, element):
    """The function space and what is read from it."""
    V = fem.functionspace(box(cell), element)
    return V, spon.read_space(V)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def interpolate(V, f):
    """Coefficients of a function of x (3, points), the same in all components of a block."""
    u = fem.Function(V)
    size = int(np.prod(V.value_shape))
    vector = V.dofmap.bs == 1 and size > 1
    u.interpolate(f if vector or size == 1 else lambda x: np.tile(f(x), (size, 1)))
    return torch.from_numpy(u.x.array.copy())


def close(a, b, scale=1.0, digits=13):
    """Equal up to the rounding of sums of some hundred terms of a given size."""
    torch.testing.assert_close(
        torch.as_tensor(a, dtype=torch.float64),
        torch.as_tensor(b, dtype=torch.float64).expand_as(torch.as_tensor(a)),
        rtol=0,
        atol=scale * 10**-digits,
    )


@pytest.mark.parametrize(("cell", "element"), ELEMENTS)
def test_norms_and_integrals_of_polynomials(cell, element):
    """x₁ᵏ of degree k; the place itself, of divergence d; the rotation about the last axis, of curl two."""
    V, space = read(cell, element)
    d, k = DIMENSION[cell], element[1]
    # A symmetric tensor counts its off-diagonal components twice.
    components = int(np.prod(V.value_shape))
    if space.family in ("P", "DG"):
        u = interpolate(V, lambda x: x[0] ** k)
        means, square, slope = 1 / (k + 1), components / (2 * k + 1), components * k**2 / (2 * k - 1)
    elif space.family == "RT":
        u = interpolate(V, lambda x: x[:d])
        means, square, slope = 1 / 2, d / 3, d**2
    else:
        u = interpolate(V, lambda x: np.array([-x[1], x[0], 0 * x[2]])[:d])
        means, square, slope = torch.tensor([-1.0, 1.0, 0.0][:d]) / 2, 2 / 3, 4
    close(space.volume, 1.0)
    close(constraints.integral(space, u), means)
    close(norms.l2(space, u) ** 2, square, scale=components)
    # The terms of the seminorm are of size 1/h² · h^d · dofs.
    close(norms.seminorm(space, u) ** 2, slope, scale=10 * components)
    close(norms.natural(space, u) ** 2, square + slope, scale=10 * components)


@pytest.mark.parametrize(
    ("cell", "element", "differential"),
    [
        ("triangle", ("P", 3, (2,)), ufl.grad),
        ("triangle", ("P", 2, (2, 2), True), ufl.grad),
        ("quadrilateral", ("RTCF", 1), ufl.div),
        ("tetrahedron", ("N1curl", 2), ufl.curl),
        ("tetrahedron", ("DG", 1, (3, 3)), ufl.grad),
    ],
)
def test_norms_against_dolfinx(cell, element, differential):
    V, space = read(cell, element)
    u = fem.Function(V)
    u.x.array[:] = noise(space.dofs).numpy()
    for norm, field in ((norms.l2, u), (norms.seminorm, differential(u))):
        square = fem.assemble_scalar(fem.form(ufl.inner(field, field) * ufl.dx))
        assert norm(space, torch.from_numpy(u.x.array)).item() ** 2 == pytest.approx(square, rel=1e-12)


def test_norms_of_batches():
    _, space = read("triangle", ("P", 1))
    x, y = noise(space.dofs, 3, 2), noise(space.dofs, 3, 2, seed=1)
    for norm in (norms.l2, norms.seminorm, norms.natural):
        all_ = norms.relative(norm, space, x, y)
        assert all_.shape == (3, 2)
        one = norm(space, x[:, 1, 0] - y[:, 1, 0]) / norm(space, y[:, 1, 0])
        assert all_[1, 0].item() == pytest.approx(one.item(), rel=4 * EPS)
        zero = torch.zeros(space.dofs, 2, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(norm(space, zero).sum(), zero)
        assert not slope.any()
        of_space = functools.partial(norm, space)
        assert torch.autograd.gradcheck(of_space, x[:, :, 0].requires_grad_(), check_forward_ad=True)


def test_norms_of_constants_have_no_seminorm():
    _, space = read("triangle", ("P", 3, (2,)))
    # The root of what rounding leaves of a sum of terms of size ten.
    assert norms.seminorm(space, torch.ones(space.dofs, 1, dtype=torch.float64)).item() < (1e3 * EPS) ** 0.5


@pytest.mark.parametrize(("cell", "element"), ELEMENTS)
def test_nodes_stand_where_their_functionals_look(cell, element):
    V, space = read(cell, element)
    d = DIMENSION[cell]
    assert space.cell_dofs.max() + 1 == len(space.points) == space.dofs // space.block_size
    if space.family in ("P", "DG") and element[1] > 0:
        for axis in range(d):
            there = interpolate(V, operator.itemgetter(axis))
            close(there, space.points[:, axis].repeat_interleave(space.block_size))
    elif space.family in ("RT", "N1curl") and element[1] == 1:
        dim = d - 1 if space.family == "RT" else 1
        V.mesh.topology.create_connectivity(dim, d)
        count = V.mesh.topology.index_map(dim).size_local
        middle = mesh.compute_midpoints(V.mesh, dim, np.arange(count, dtype=np.int32))[:, :d]
        apart = np.linalg.norm(space.points.numpy()[:, None] - middle, axis=2)
        assert apart.shape == (count, count) and apart.min(axis=1).max() < 1e-14 and apart.min(axis=0).max() < 1e-14


@pytest.mark.parametrize(("cell", "element"), ELEMENTS)
def test_evaluation_against_dolfinx(cell, element):
    V, space = read(cell, element)
    d = DIMENSION[cell]
    u, points = fem.Function(V), np.zeros((40, 3))
    points[:, :d] = np.random.default_rng(0).random((40, d))
    u.x.array[:] = noise(space.dofs).numpy()
    matrix = transfer.evaluation(V, points[:, :d])
    values = (matrix @ torch.from_numpy(u.x.array)).reshape(40, -1)
    expected = u.eval(points, locate(V.mesh, points[:, :d], 0.0)).reshape(40, -1)
    if len(element) == 4:  # symmetric: DOLFINx repeats what is equal
        expected = expected[:, [0, 1, 3]]
    # Rounding of the reference coordinates, times the gradients of the basis functions.
    close(values, expected, scale=float(abs(matrix.scipy).sum(axis=1).max()), digits=12)


def test_evaluation_in_any_unit():
    """Fluxes through faces give 1/length² times their number: in lengths of 1e9 all is small, and nothing vanishes."""
    points = np.random.default_rng(0).random((20, 3))
    found = []
    for size in (1.0, 1e9):
        V, _ = read("tetrahedron", ("RT", 1))
        V.mesh.geometry.x[:] *= size
        found.append(transfer.evaluation(V, size * points).scipy.toarray() * size**2)
    assert np.count_nonzero(found[1]) == np.count_nonzero(found[0])
    close(found[1], found[0], digits=12)


def pairs(cell, nested):
    """A coarse and a fine mesh of the same box."""
    return (box(cell, 2), box(cell, 4)) if nested else (bent(cell, 2), bent(cell, 3))


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize(("cell", "degrees"), [(c, d) for c in DIMENSION for d in ((1, 1), (2, 1), (1, 3), (3, 3))])
def test_prolongation(cell, degrees, nested):
    """Fields of the coarse degree are carried exactly, and residuals by the transpose."""
    if cell in ("tetrahedron", "hexahedron") and degrees == (3, 3):
        degrees = (2, 2)
    meshes = pairs(cell, nested)
    coarse, fine = (fem.functionspace(m, ("P", k)) for m, k in zip(meshes, degrees))
    p = transfer.interpolation(coarse, fine)
    # On bent quadrilaterals and hexahedra x₁ᵏ is no field of degree k, and x₁ is.
    k = 1 if not nested and cell in ("quadrilateral", "hexahedron") else min(degrees)
    close(p @ interpolate(coarse, lambda x: x[0] ** k), interpolate(fine, lambda x: x[0] ** k), digits=12)
    v, r = noise(p.shape[1]), noise(p.shape[0], seed=1)
    close((p @ v) @ r, v @ (p.T @ r), scale=10 * len(r) ** 0.5)
    if nested and degrees[0] <= degrees[1]:
        inject = transfer.interpolation(fine, coarse)
        close(inject @ (p @ noise(p.shape[1], 3)), noise(p.shape[1], 3), scale=10)


@pytest.mark.parametrize("unit", [1e-9, 1e6])
def test_transfers_know_no_unit_of_length(unit):
    meshes = pairs("triangle", False)
    points = np.random.default_rng(0).random((20, 2))
    expected = [transfer.interpolation(*(fem.functionspace(m, ("P", 2)) for m in meshes))]
    expected.append(transfer.evaluation(fem.functionspace(meshes[0], ("P", 2)), points))
    for m in meshes:
        m.geometry.x[:] *= unit
    found = [transfer.interpolation(*(fem.functionspace(m, ("P", 2)) for m in meshes))]
    found.append(transfer.evaluation(fem.functionspace(meshes[0], ("P", 2)), unit * points))
    for a, b in zip(found, expected):
        close(a.scipy.toarray(), b.scipy.toarray(), digits=12)
    with pytest.raises(ValueError, match=r"outside the mesh by 1\.\d+ times"):
        transfer.evaluation(fem.functionspace(meshes[0], ("P", 2)), [[1.5 * unit, 0.0]])  # in cells of half the edge


def test_prolongation_of_components():
    coarse, fine = (fem.functionspace(m, ("P", 2, (2,))) for m in pairs("triangle", False))
    p = transfer.interpolation(coarse, fine)
    u, w = (interpolate(V, lambda x: x[0] * x[1]) for V in (coarse, fine))
    mixed = torch.tensor([1.0, 2.0], dtype=torch.float64)
    close(p @ (u.view(-1, 2) * mixed).ravel(), (w.view(-1, 2) * mixed).ravel(), digits=12)
    # A field of RT is no field of P2, and one that both have is carried over.
    source = fem.functionspace(coarse.mesh, ("RT", 1))
    place = fem.Function(fine)
    place.interpolate(lambda x: x[:2])
    close(transfer.interpolation(source, fine) @ interpolate(source, lambda x: x[:2]), place.x.array, digits=12)


def test_prolongation_of_fields_that_jump():
    coarse, fine = (fem.functionspace(box("triangle", n), ("DG", 1)) for n in (3, 6))
    v = noise(coarse.dofmap.index_map.size_local)
    p, inject = transfer.interpolation(coarse, fine), transfer.interpolation(fine, coarse)
    a, b = (spon.read_space(V) for V in (coarse, fine))
    close(inject @ (p @ v), v, scale=10, digits=12)
    close(norms.l2(b, p @ v), norms.l2(a, v), digits=12)  # no cell took the value of its neighbour


def test_prolongation_beyond_a_curved_boundary():
    """Two polygons in a circle: the fine one's corners are outside of the coarse one."""

    def disk(n):
        domain = box("triangle", n)
        x = (2 * domain.geometry.x - 1) * [1, 1, 0]
        largest, length = abs(x).max(axis=1), np.linalg.norm(x, axis=1)
        domain.geometry.x[:] = x * np.divide(largest, length, out=np.ones(len(x)), where=length > 0)[:, None]
        return fem.functionspace(domain, ("P", 1))

    coarse, fine = disk(4), disk(16)
    p = transfer.interpolation(coarse, fine)
    close(p @ interpolate(coarse, lambda x: x[0] - 2 * x[1]), interpolate(fine, lambda x: x[0] - 2 * x[1]), digits=12)
    corner = fine.tabulate_dof_coordinates()[:, :2]
    with pytest.raises(ValueError, match="outside the mesh"):
        transfer.evaluation(coarse, corner)


def sides(V, axis, value):
    return fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[axis], value))


def test_dirichlet_values_are_exact():
    """Non-homogeneous, on a whole vector and on one component, whatever the field was."""
    V, _ = read("triangle", ("P", 3, (2,)))
    g = fem.Function(V)
    g.interpolate(lambda x: np.array([np.sin(9 * x[1]) + 1 / 3, np.exp(x[1])]))
    left, right = sides(V, 0, 0.0), mesh.locate_entities_boundary(V.mesh, 1, lambda x: np.isclose(x[0], 1.0))
    below = fem.locate_dofs_topological(V.sub(1), 1, right)
    space = spon.read_space(V, bcs=[fem.dirichletbc(g, left), fem.dirichletbc(np.float64(0.1), below, V.sub(1))])
    dofs = (2 * left[:, None] + np.arange(2)).ravel()
    assert space.fixed.sum() == len(dofs) + len(below)
    x = (1e20 * noise(space.dofs, 4, 2)).requires_grad_()
    fixed = constraints.prescribe(space, x)
    assert (fixed[dofs] - torch.from_numpy(g.x.array[dofs])[:, None, None]).abs().max() == 0.0
    assert (fixed[below] - 0.1).abs().max() == 0.0
    assert torch.equal(fixed[~space.fixed], x[~space.fixed])
    (slope,) = torch.autograd.grad(fixed.sum(), x)
    assert torch.equal(slope[:, 0, 0] == 0, space.fixed)
    with pytest.warns(DeprecationWarning, match="is now prescribe"):
        assert torch.equal(constraints.fix(space, x), fixed)


@pytest.mark.parametrize(("cell", "element"), LAGRANGE)
def test_periodic_fields(cell, element):
    V, _ = read(cell, element)
    d = DIMENSION[cell]
    space = spon.read_space(V, periodic=range(d))
    # Two cells along each edge of the box.
    assert len(space.independent) == space.block_size * (2 * element[1]) ** d
    field = constraints.expand(space, noise(len(space.independent), 3))
    assert torch.equal(constraints.restrict(space, field), noise(len(space.independent), 3))
    for axis in range(d):
        here, there = (torch.from_numpy(sides(V, axis, value)).long() for value in (0.0, 1.0))
        apart = torch.cdist(*(space.points[nodes].index_fill(1, torch.tensor(axis), 0.0) for nodes in (here, there)))
        values = field.view(-1, space.block_size, 3)
        assert torch.equal(values[here], values[there[apart.argmin(dim=1)]])
        coordinates = np.random.default_rng(0).random((20, d))
        coordinates = [np.where(np.arange(d) == axis, value, coordinates) for value in (0.0, 1.0)]
        close(*(transfer.evaluation(V, points) @ field for points in coordinates), scale=10)
    r = noise(space.dofs)
    close(r @ field[:, 0], (space.tying.T @ r) @ noise(len(space.independent), 3)[:, 0], scale=100)


def test_periodic_along_one_axis():
    V, _ = read("triangle", ("P", 1))
    space = spon.read_space(V, periodic=(1,))
    assert len(space.independent) == 6
    field = constraints.expand(space, noise(6))
    assert torch.equal(field[sides(V, 1, 0.0)].sort().values, field[sides(V, 1, 1.0)].sort().values)
    assert not torch.equal(field[sides(V, 0, 0.0)].sort().values, field[sides(V, 0, 1.0)].sort().values)


@pytest.mark.parametrize("shift", [0.0, 1e5])
def test_ties_follow_the_mesh_wherever_it_is(shift):
    """A sheared grid inside of the faces, numbered by DOLFINx as it likes, and far from the origin."""
    domain = bent("triangle", 5)
    domain.geometry.x[:] += shift
    V = fem.functionspace(domain, ("P", 1))
    # The bent mesh has its nodes on opposite faces at different coordinates along y alone.
    with pytest.raises(ValueError, match="periodic along axis 0"):
        spon.read_space(V, periodic=(0,))
    straight = box("triangle", 5)
    straight.geometry.x[:] += shift
    V = fem.functionspace(straight, ("P", 2))
    space = spon.read_space(V, periodic=(0, 1))
    x = (space.points - shift).numpy()
    master = space.independent.numpy()[space.tying.columns.numpy()]
    apart = np.rint(x - x[master])
    np.testing.assert_allclose(x - x[master], apart, atol=4e-16 * max(shift, 1.0))
    assert set(np.unique(apart)) == {0.0, 1.0} and (x[master] < 1 - 1e-6).all()


def test_a_crack_that_meets_a_periodic_face_is_refused():
    """Two rows of cells with nodes of their own along the line between them: two nodes at each of its ends."""
    points = np.array([[x, y] for y in (0.0, 0.5, 0.5, 1.0) for x in (0.0, 0.5, 1.0)])
    cells = [[6 * k + i + a for a in (0, 1, 4, 3)] for k in range(2) for i in range(2)]
    cells = [[c[k] for k in corner] for c in cells for corner in ((0, 1, 2), (0, 2, 3))]
    element = basix.ufl.element("P", "triangle", 1, shape=(2,))
    cracked = fem.functionspace(create_mesh(MPI.COMM_SELF, np.array(cells), points, element), ("P", 1))
    assert spon.read_space(cracked, periodic=(1,)).tying.shape == (12, 9)
    with pytest.raises(ValueError, match=r"the node at .* could be tied to several nodes at one point"):
        spon.read_space(cracked, periodic=(0,))


@pytest.mark.parametrize(("cell", "element"), ELEMENTS)
def test_integrals_are_met(cell, element):
    """And the field is changed by what is orthogonal in L² to all fields without integral."""
    _, space = read(cell, element)
    x = noise(space.dofs, 3)
    y = constraints.with_integral(space, x)
    close(constraints.integral(space, y), 0.0, digits=14)
    target = noise(space.integral.shape[1], 3)
    close(constraints.integral(space, constraints.with_integral(space, x, target)), target, scale=10, digits=14)
    other = constraints.with_integral(space, noise(space.dofs, 3, seed=1))
    close(((x - y) * (space.mass @ other)).sum(0), 0.0)


def test_integrals_keep_strong_conditions():
    V, _ = read("triangle", ("P", 3, (2,)))
    g = fem.Function(V)
    g.interpolate(lambda x: np.array([np.sin(9 * x[1]), x[1] ** 2]))
    space = spon.read_space(V, bcs=[fem.dirichletbc(g, sides(V, 0, 0.0))], periodic=())
    tied = spon.read_space(V, periodic=(0, 1))
    x = constraints.prescribe(space, noise(space.dofs, 3))
    y = constraints.with_integral(space, x, 0.7)
    assert torch.equal(y[space.fixed], x[space.fixed])
    close(constraints.integral(space, y), 0.7, digits=14)
    z = constraints.with_integral(tied, constraints.expand(tied, noise(len(tied.independent), 3)))
    close(z, constraints.expand(tied, constraints.restrict(tied, z)), digits=14)
    # All dofs of one component are fixed.
    below = fem.locate_dofs_topological(V.sub(1), 2, np.arange(8, dtype=np.int32))
    full = spon.read_space(V, bcs=[fem.dirichletbc(np.float64(0.0), below, V.sub(1))])
    with pytest.raises(ValueError, match="fix all dofs of some component"):
        constraints.with_integral(full, x)


def test_mixed_spaces(tmp_path):
    element = basix.ufl.mixed_element(
        [basix.ufl.element("P", "triangle", 2, shape=(2,)), basix.ufl.element("RT", "triangle", 1)]
    )
    W = fem.functionspace(box("triangle"), element)
    V = fem.functionspace(W.mesh, ("P", 2, (2,)))
    g = fem.Function(V)
    g.interpolate(lambda x: np.array([np.sin(9 * x[0]), x[0] + 1 / 3]))
    bc = fem.dirichletbc(g, fem.locate_dofs_geometrical((W.sub(0), V), lambda x: np.isclose(x[1], 1.0)), W.sub(0))
    space = spon.read_space(W, bcs=[bc])
    w = fem.Function(W)
    w.x.array[:] = noise(space.dofs).numpy()
    for k, x in enumerate(space.split(torch.from_numpy(w.x.array))):
        part = w.sub(k)
        square = fem.assemble_scalar(fem.form(ufl.inner(part, part) * ufl.dx))
        assert norms.l2(space.parts[k], x).item() ** 2 == pytest.approx(square, rel=1e-12)
    x = noise(space.dofs, 3)
    assert torch.equal(space.join(space.split(x)), x)
    velocity = constraints.prescribe(space.parts[0], space.split(x)[0])
    w.x.array[:] = space.join([velocity, space.split(x)[1]])[:, 0].numpy()
    on = transfer.evaluation(W.sub(0).collapse()[0], np.array([[0.0, 1.0], [0.25, 1.0], [0.5, 1.0]])) @ velocity[:, 0]
    close(on, np.array([[np.sin(9 * a), a + 1 / 3] for a in (0.0, 0.25, 0.5)]).ravel())
    assert not space.parts[1].fixed.any()
    space.save(tmp_path / "mixed")
    again = spon.load(tmp_path / "mixed")
    assert torch.equal(again.parts[0].lifting, space.parts[0].lifting)
    assert torch.equal(again.join(again.split(x)), x)


@pytest.mark.parametrize(("cell", "element"), [about for about in ELEMENTS if about[1][0] != "DG"])
def test_graph(cell, element):
    """Edges join what shares a cell; vectors, lengths and entries are those of the points and matrices."""
    _, space = read(cell, element)
    g = spon.graph(space)
    together = {(i, j) for nodes in space.cell_dofs.tolist() for i in nodes for j in nodes if i != j}
    assert set(zip(g.receivers.tolist(), g.senders.tolist())) == together and len(g.senders) == len(together)
    assert bool((g.receivers.diff() >= 0).all())
    d, b = DIMENSION[cell], space.block_size
    assert torch.equal(g.features[:, :d], space.points[g.senders] - space.points[g.receivers])
    close(g.features[:, d], g.features[:, :d].norm(dim=1))
    for column, matrix in ((-2, space.mass), (-1, space.stiffness)):
        dense = torch.from_numpy(matrix.scipy.toarray())
        assert torch.equal(g.features[:, column], dense[b * g.receivers, b * g.senders])
    x, messages = noise(g.nodes, 3), noise(len(g.senders), 3)
    assert torch.equal(g.send @ x, x[g.senders]) and torch.equal(g.receive @ x, x[g.receivers])
    close(g.receive.T @ messages, torch.zeros_like(x).index_add(0, g.receivers, messages), scale=10)


def test_graph_across_periodic_faces():
    """P1 on a torus of 4 × 4 × 2 triangles: six neighbours each, vectors as in the plane, rows of zero sum."""
    V = fem.functionspace(box("triangle", 4), ("P", 1))
    g = spon.graph(spon.read_space(V, periodic=(0, 1)))
    assert g.nodes == 16 and torch.equal(g.receivers.bincount(), torch.full((16,), 6))
    assert g.features[:, 2].max().item() == pytest.approx(2**0.5 / 4, rel=4 * EPS)
    for receiver in range(16):
        close(g.features[g.receivers == receiver, :2].sum(0), 0.0)
    close(g.features[:, 3], 1 / 16 / 12)  # ∫ φ_i φ_j over two triangles of area 1/32, each 1/12


def test_graph_of_a_discontinuous_space():
    """Constants on cells: the neighbours are those across facets."""
    _, space = read("triangle", ("DG", 0))
    g = spon.graph(space)
    assert g.nodes == 8 and len(g.senders) == 2 * 8  # of the 16 edges of the mesh, 8 are inside


USE_SPACE = """
import json, sys

for name in "meshes fe2 coupling dolfinx ufl basix petsc4py mpi4py".split():
    sys.modules[name] = None  # an import of it fails
import torch
import spon
from spon.spaces import constraints, norms

space = spon.load(sys.argv[1])
x = torch.tensor(json.load(sys.stdin), dtype=torch.float64)
y = constraints.prescribe(space, constraints.expand(space, constraints.restrict(space, x)))
y = constraints.with_integral(space, y)
print(json.dumps([y.tolist(), norms.natural(space, y).tolist(), spon.graph(space).features.tolist()]))
"""


def test_a_space_is_used_without_fenicsx(tmp_path):
    V, _ = read("triangle", ("P", 3, (2,)))
    g = fem.Function(V)
    g.interpolate(lambda x: np.array([np.sin(2 * np.pi * x[0]), x[1]]))
    ends = np.concatenate([sides(V, 1, 0.0), sides(V, 1, 1.0)])
    space = spon.read_space(V, bcs=[fem.dirichletbc(g, ends)], periodic=(0,))
    space.save(tmp_path / "space")
    x = noise(space.dofs, 2)
    y = constraints.prescribe(space, constraints.expand(space, constraints.restrict(space, x)))
    # Still periodic to the last bit, though sin 2π is zero but for rounding.
    assert torch.equal(y, constraints.expand(space, constraints.restrict(space, y)))
    y = constraints.with_integral(space, y)
    here = [y.tolist(), norms.natural(space, y).tolist(), spon.graph(space).features.tolist()]
    command = [sys.executable, "-c", USE_SPACE, str(tmp_path / "space")]
    project = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, input=json.dumps(x.tolist()), cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == here


def test_files_that_hold_no_space_are_refused(tmp_path):
    _, space = read("triangle", ("P", 1))
    path = tmp_path / "space"
    space.save(path)
    whole = path.read_bytes()
    for k in (len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :])
        with pytest.raises(spon.ModelFileError, match="damaged"):
            spon.load(path)
    path.write_bytes(whole)
    assert isinstance(spon.load(path), spon.Space)


def test_precision():
    _, space = read("triangle", ("P", 1))
    single = space.to(dtype=torch.float32)
    x = noise(space.dofs, 2)
    found = norms.natural(single, x.float())
    assert found.dtype == torch.float32 and single.cell_dofs.dtype == torch.int64 and single.fixed.dtype == torch.bool
    torch.testing.assert_close(found.double(), norms.natural(space, x), rtol=1e-6, atol=0)


@pytest.mark.mpi
def test_distributed_meshes_are_refused(comm):
    V = fem.functionspace(mesh.create_unit_square(comm, 4, 4), ("P", 1))
    if comm.size == 1:
        assert spon.read_space(V).dofs == 25
    else:
        with pytest.raises(ValueError, match=f"spread over {comm.size} ranks, need one on MPI.COMM_SELF"):
            spon.read_space(V)


def test_wrong_use_is_refused():
    V, _ = read("triangle", ("P", 1))
    domain = V.mesh
    for element, name in ((("Bubble", 3), "'bubble'"), (("CR", 1), "'CR'"), (("Discontinuous RT", 1), "'RT'")):
        with pytest.raises(ValueError, match=f"family {name}, need Lagrange, DG, RT or N1curl"):
            spon.read_space(fem.functionspace(domain, element))
    other = fem.functionspace(domain, ("P", 2))
    with pytest.raises(ValueError, match="on another function space"):
        spon.read_space(V, bcs=[fem.dirichletbc(fem.Function(other), sides(other, 0, 0.0))])
    with pytest.raises(ValueError, match="need axes between 0 and 1"):
        spon.read_space(V, periodic=(2,))
    flat = box("triangle", 2)
    flat.geometry.x[:, 1] = 0.0
    with pytest.raises(ValueError, match=r"periodic = \(1,\): the mesh has no extent along axis 1"):
        spon.spaces.read._masters(flat.geometry.x[:, :2], (1,), "P")
    with pytest.raises(ValueError, match="only Lagrange dofs can be tied, the element is RT"):
        spon.read_space(fem.functionspace(domain, ("RT", 1)), periodic=(0,))
    slanted = box("triangle", 4)
    slanted.geometry.x[:, 1] *= 1 + 0.1 * slanted.geometry.x[:, 0]
    with pytest.raises(ValueError, match=r"periodic along axis 0: the node at .* has no partner"):
        spon.read_space(fem.functionspace(slanted, ("P", 1)), periodic=(0,))
    single = mesh.create_unit_square(MPI.COMM_SELF, 2, 2, dtype=np.float32)
    with pytest.raises(ValueError, match="coordinates of type float32, need float64"):
        spon.read_space(fem.functionspace(single, ("P", 1)))
    left = fem.dirichletbc(fem.Function(V), sides(V, 0, 0.0))
    with pytest.raises(ValueError, match="are tied, but only one is fixed"):
        spon.read_space(V, bcs=[left], periodic=(0,))
    with pytest.raises(ValueError, match=r"need \(n, 2\)"):
        transfer.evaluation(V, np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"point \[1.5, 0.5\] is outside the mesh by 1 times the size"):
        transfer.evaluation(V, [[0.5, 0.5], [1.5, 0.5]])
    with pytest.raises(ValueError, match="neither Lagrange nor DG"):
        transfer.interpolation(V, fem.functionspace(domain, ("RT", 1)))
    with pytest.raises(ValueError, match="have 1 components, the target 2"):
        transfer.interpolation(V, fem.functionspace(domain, ("P", 1, (2,))))
