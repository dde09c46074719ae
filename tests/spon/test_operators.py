# SPDX-License-Identifier: MIT
"""Operator networks: what their spaces promise is exact, whatever their parameters are, and they learn."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import basix.ufl
import scipy.sparse.linalg
import torch
import ufl
from mpi4py import MPI
from dolfinx import fem, mesh
from dolfinx.fem import petsc as fem_petsc
from scipy.spatial import cKDTree

import coupling
import spon
from meshes.compat import create_mesh, geometry_dofmap
from spon import operators
from spon.operators.training import NORMS
from spon.spaces import constraints, norms, transfer
from spon.training import TrainingOptions

PROCESSORS = ["mlp", "messages", "multigrid", "mgno", "attention", "fluxes"]
SMALL = {"channels": 4, "depth": 2}


def square(n, cell=mesh.CellType.triangle):
    return mesh.create_unit_square(MPI.COMM_SELF, n, n, cell)


def spaces(element, *sizes):
    return [fem.functionspace(square(n), element) for n in sizes]


def boundary(V, value=0.0):
    """A Dirichlet condition on the whole boundary: a number or a `fem.Function`."""
    V.mesh.topology.create_connectivity(1, 2)
    g = value
    if not isinstance(value, fem.Function):
        g = fem.Function(V)
        g.x.array[:] = value
    dofs = fem.locate_dofs_topological(V, 1, mesh.exterior_facet_indices(V.mesh.topology))
    return fem.dirichletbc(g, dofs)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def count(V):
    return V.dofmap.index_map.size_local * V.dofmap.bs


@pytest.mark.parametrize("processor", PROCESSORS)
def test_dirichlet_values_and_integrals_are_exact(processor):
    V, W = fem.functionspace(square(6), ("P", 2, (2,))), fem.functionspace(square(5), ("DG", 1))
    values = fem.Function(V)
    values.interpolate(lambda x: np.array([np.sin(9 * x[1]) + 1 / 3, np.exp(x[0])]))
    bc = boundary(V, values)
    coarse = spaces(("P", 1), 4, 2)
    network = spon.OperatorNetwork(
        input=W, output=V, bcs=[bc], coarse=coarse, processor=processor, structure=spon.Structure(integral=0.7), **SMALL
    )
    u = network(1e6 * noise(count(W), 3))
    assert u.shape == (count(V), 3)
    dofs = bc.dof_indices()[0]
    assert len(dofs) == 2 * 4 * 2 * 6
    assert (u[dofs] - torch.from_numpy(values.x.array[dofs])[:, None]).abs().max() == 0.0
    assert u.detach().std() > 1e2  # away from the boundary it is no small field
    # The integral is a sum of some hundred terms of the size of the field.
    error = constraints.integral(network.spaces.output, u.detach()) - 0.7
    assert error.abs().max() < 1e-13 * u.detach().abs().max()


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("element", [("P", 1), ("P", 2, (2,))])
def test_periodic_outputs(processor, element):
    V, *coarse = spaces(element, 6, 3)
    W = fem.functionspace(V.mesh, ("P", 1))
    network = spon.OperatorNetwork(
        input=W,
        output=V,
        periodic=(0, 1),
        coarse=coarse,
        processor=processor,
        encoder="interpolation" if processor == "fluxes" else "integrals",
        **SMALL,
    )
    u = network(noise(count(W), 2)).detach()
    points = V.tabulate_dof_coordinates()[:, :2]
    values = u.view(len(points), -1)
    for axis in (0, 1):
        here, there = (np.flatnonzero(np.isclose(points[:, axis], end)) for end in (0.0, 1.0))
        _, partner = cKDTree(points[there][:, 1 - axis, None]).query(points[here][:, 1 - axis, None])
        assert (values[here] - values[there[partner]]).abs().max() <= 1e-14
    assert values.std() > 1e-6  # before training it is small


def test_integrals_against_the_basis():
    """The load of a constant, exactly, and the interpolation of a linear function."""
    V, W = fem.functionspace(square(4), ("P", 2)), fem.functionspace(square(4), ("P", 1))
    x = torch.from_numpy(W.tabulate_dof_coordinates()[:, :1])
    load = fem.assemble_vector(fem.form(ufl.SpatialCoordinate(V.mesh)[0] * ufl.TestFunction(V) * ufl.dx)).array
    seen = [
        spon.OperatorNetwork(input=W, output=V, processor="mlp", encoder=encoder).encode(0, x).ravel()
        for encoder in ("interpolation", "integrals")
    ]
    np.testing.assert_allclose(seen[0], V.tabulate_dof_coordinates()[:, 0], atol=1e-14)
    np.testing.assert_allclose(seen[1], load, atol=1e-15)


@pytest.mark.parametrize("cell", [mesh.CellType.triangle, mesh.CellType.quadrilateral])
def test_inputs_that_jump_count_in_every_cell(cell):
    """Integrals of a piecewise constant field against UFL's, and its means over the cells around each node."""
    V = fem.functionspace(square(4, cell), ("P", 2))
    A = fem.functionspace(V.mesh, ("DG", 0, (2,)))
    k = fem.Function(A)
    k.x.array[:] = noise(count(A)).numpy()
    v = ufl.TestFunction(V)
    loads = [fem.assemble_vector(fem.form(k[i] * v * ufl.dx)).array for i in range(2)]
    seen = {
        encoder: spon.OperatorNetwork(input=A, output=V, processor="mlp", encoder=encoder)
        .encode(0, torch.from_numpy(k.x.array[:, None]))[:, 0]
        .numpy()
        for encoder in ("interpolation", "integrals")
    }
    np.testing.assert_allclose(seen["integrals"], np.column_stack(loads), atol=1e-15)
    # The cells of a regular mesh are of one size.
    around = [np.flatnonzero((V.dofmap.list == node).any(axis=1)) for node in range(count(V))]
    values = k.x.array.reshape(-1, 2)
    np.testing.assert_allclose(seen["interpolation"], [values[cells].mean(axis=0) for cells in around], atol=1e-14)


def test_integrals_of_a_field_of_another_mesh():
    """A linear function of a mesh that covers the other, by quadrature on the latter."""
    V, W = (fem.functionspace(square(n), ("P", degree)) for n, degree in ((4, 2), (7, 1)))
    x = W.tabulate_dof_coordinates()[:, 0]
    load = fem.assemble_vector(fem.form(ufl.SpatialCoordinate(V.mesh)[0] * ufl.TestFunction(V) * ufl.dx)).array
    np.testing.assert_allclose(transfer.integrals(W, V).scipy @ x, load, atol=1e-15)


@pytest.mark.parametrize("cell", [mesh.CellType.triangle, mesh.CellType.quadrilateral])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_curls_are_exact(cell, degree):
    """Of any potential on a distorted mesh, against UFL."""
    domain = square(4, cell)
    x = domain.geometry.x
    x[:, 0] += 0.05 * np.sin(np.pi * x[:, 0]) * (1 + x[:, 1])
    x[:, 1] -= 0.04 * np.sin(np.pi * x[:, 1]) * (1 + x[:, 0])
    V, W = fem.functionspace(domain, ("P", degree)), fem.functionspace(domain, (RT[cell], degree))
    psi, u = fem.Function(V), fem.Function(W)
    psi.x.array[:] = noise(count(V)).numpy()
    u.x.array[:] = (transfer.curl(V, W) @ torch.from_numpy(psi.x.array)).numpy()
    error = u - ufl.as_vector([psi.dx(1), -psi.dx(0)])
    size, off = (fem.assemble_scalar(fem.form(ufl.inner(w, w) * ufl.dx)) for w in (u, error))
    assert off < 1e-24 * size


RT = {mesh.CellType.triangle: "RT", mesh.CellType.quadrilateral: "RTCF"}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_velocities_without_divergence(processor):
    """Nor flux through the walls, where the potential is constant; they are learned and kept in a file."""
    V, *coarse = spaces(("P", 2), 8, 4)
    W = fem.functionspace(V.mesh, ("RT", 2))
    network = spon.OperatorNetwork(
        input=V, output=V, bcs=[boundary(V)], velocity=W, coarse=coarse, processor=processor, **SMALL
    )
    f = noise(count(V), 4)
    network.normalise([f], 100 * noise(count(W), 4))
    u = fem.Function(W)
    u.x.array[:] = network(f).detach()[:, 0].numpy()
    normal = ufl.FacetNormal(V.mesh)
    slopes, divergence, flux = (
        fem.assemble_scalar(fem.form(form))
        for form in (
            ufl.inner(ufl.grad(u), ufl.grad(u)) * ufl.dx,
            ufl.div(u) ** 2 * ufl.dx,
            ufl.dot(u, normal) ** 2 * ufl.ds,
        )
    )
    assert slopes > 1.0 and divergence < 1e-24 * slopes and flux < 1e-24 * slopes


def test_a_velocity_is_learned_and_kept(tmp_path):
    V, bc, coarse, f, psi = poisson()
    W = fem.functionspace(V.mesh, ("RT", 1))
    network = spon.OperatorNetwork(input=V, output=V, bcs=[bc], velocity=W, coarse=coarse, **SMALL)
    u = transfer.curl(V, W) @ psi
    history = operators.train(network, f, u, TrainingOptions(steps=30, every=15)).history
    assert min(history.validation) < 0.9 * history.validation[0]
    network.save(tmp_path / "network")
    assert torch.equal(spon.load(tmp_path / "network")(f), network(f))


@pytest.mark.parametrize("processor", PROCESSORS)
def test_linear_in_the_load(processor):
    V, *coarse = spaces(("P", 1), 6, 3)
    A = fem.functionspace(V.mesh, ("DG", 0))
    network = spon.OperatorNetwork(
        input=[A, V], output=V, bcs=[boundary(V)], coarse=coarse, processor=processor,
        structure=spon.Structure(linear_in=[1], integral=0.0),
        **SMALL,
    )  # fmt: skip
    a, f, g = noise(count(A), 2), noise(count(V), 2, seed=1), noise(count(V), 2, seed=2)
    network.normalise((a, f), 3 + noise(count(V), 2))
    both, apart = network(a, 2 * f - 3 * g), 2 * network(a, f) - 3 * network(a, g)
    size = apart.detach().abs().max()
    assert (both - apart).abs().max() < 1e-13 * size
    # It is linear in nothing else.
    assert (network(2 * a, f) - 2 * network(a, f)).abs().max() > 1e-3 * size


@pytest.mark.parametrize("processor", PROCESSORS)
def test_symmetric_operators(processor):
    """The Jacobian, with Dirichlet values and periodic ties, and what a plain network has instead."""
    V, *coarse = spaces(("P", 1), 3, 1)
    below = fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[1], 0.0))
    g = fem.Function(V)
    g.x.array[:] = 1 / 3
    make = functools.partial(
        spon.OperatorNetwork, input=V, output=V, bcs=[fem.dirichletbc(g, below)], periodic=(0,), coarse=coarse,
        processor=processor, **SMALL,
    )  # fmt: skip
    x = noise(count(V))
    network = make(structure=spon.Structure(symmetric=True))
    J, plain = (torch.func.jacrev(n)(x[:, None])[:, 0, :, 0].detach() for n in (network, make()))
    size = J.abs().max()
    assert (J - J.T).abs().max() < 1e-13 * size
    assert processor == "mlp" or (plain - plain.T).abs().max() > 1e-2 * plain.abs().max()
    u = network(x[:, None])
    assert (u[below] - 1 / 3).abs().max() == 0.0
    assert torch.equal(u, constraints.expand(network.spaces.output, constraints.restrict(network.spaces.output, u)))
    assert torch.autograd.gradcheck(network, (x[:, None].requires_grad_(),), check_forward_ad=True)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_rollouts_conserve_the_integral(processor, tmp_path):
    """Of each component over 50 steps, beside Dirichlet values, from a file too, and each sample by itself."""
    V, *coarse = spaces(("P", 1, (2,)), 6, 3)
    values = fem.Function(V)
    values.interpolate(lambda x: np.array([np.sin(9 * x[1]) + 1 / 3, np.exp(x[0])]))
    dofs = fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0], 0.0))
    network = spon.OperatorNetwork(
        input=[coarse[0], V], output=V, bcs=[fem.dirichletbc(values, dofs)], coarse=coarse, processor=processor,
        structure=spon.Structure(integral="input", increment=True), **SMALL,
    )  # fmt: skip
    space = network.spaces.output
    other, start = noise(count(coarse[0]), 3), 2 + noise(count(V), 3, seed=1)
    start = constraints.prescribe(space, start)
    # Small increments, with which an untrained network stays in bounds.
    network.normalise([other, start], start + 0.03 * noise(count(V), 3, seed=2))
    states = operators.rollout(network, [other, start], 50).detach()
    assert states.shape == (51, count(V), 3) and torch.equal(states[0], start)
    fixed = space.fixed
    assert fixed.sum() == 2 * 7 and torch.equal(states[:, fixed], start[fixed].expand_as(states[:, fixed]))
    integrals = constraints.integral(space, states.movedim(1, 0))
    assert (integrals - integrals[:, :1]).abs().max() < 1e-12 * integrals.abs().max()
    assert 0.1 < (states[-1] - start).std() < 100.0 and integrals[:, 0].abs().min() > 1.0
    alone = operators.rollout(network, [other[:, 2:], start[:, 2:]], 3)
    assert (alone - states[:4, :, 2:]).abs().max() < 1e-12 * states.abs().max()
    network.save(tmp_path / "network")
    again = operators.rollout(spon.load(tmp_path / "network"), [other, start], 50)
    assert torch.equal(again, states)


@pytest.mark.parametrize("increment", [False, True])
def test_increments_are_added_to_the_input(increment):
    """A readout of zero leaves the input but for ties and Dirichlet values, or predicts the mean of the data."""
    V, *coarse = spaces(("P", 1), 6, 3)
    below = fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[1], 0.0))
    g = fem.Function(V)
    g.x.array[:] = 1 / 3
    network = spon.OperatorNetwork(
        input=V,
        output=V,
        bcs=[fem.dirichletbc(g, below)],
        periodic=(0,),
        coarse=coarse,
        structure=spon.Structure(increment=increment),
        processor="multigrid",
        **SMALL,
    )
    x = noise(count(V), 2)
    network.normalise([x], x + 5.0)
    torch.nn.init.zeros_(network.processor.readout.weight)
    space = network.spaces.output
    expected = constraints.expand(
        space, constraints.restrict(space, x if increment else 0 * x + x[~space.fixed].mean())
    )
    assert (network(x) - constraints.prescribe(space, expected + 5.0)).abs().max() < 1e-13


def test_a_conserving_operator_linear_in_the_state():
    V, *coarse = spaces(("P", 1), 6, 3)
    network = spon.OperatorNetwork(
        input=V,
        output=V,
        coarse=coarse,
        structure=spon.Structure(linear_in=[0], integral="input", increment=True),
        **SMALL,
    )
    x, y = noise(count(V), 2), noise(count(V), 2, seed=1)
    network.normalise([x], y)
    both, apart = network(2 * x - 3 * y), 2 * network(x) - 3 * network(y)
    assert (both - apart).abs().max() < 1e-13 * apart.abs().max()
    assert (network(x) - x).abs().max() > 1e-3


def test_rollouts_of_velocities_without_divergence():
    """Increments are curls: divergence and the flux through the walls stay those of the start."""
    V, *coarse = spaces(("P", 1), 8, 4)
    W = fem.functionspace(V.mesh, ("RT", 1))
    network = spon.OperatorNetwork(
        input=W,
        output=V,
        bcs=[boundary(V)],
        velocity=W,
        coarse=coarse,
        structure=spon.Structure(increment=True),
        **SMALL,
    )
    start = noise(count(W), 2)
    network.normalise([start], start + 0.03 * noise(count(W), 2, seed=1))
    states = operators.rollout(network, start, 20).detach()
    change = fem.Function(W)
    change.x.array[:] = (states[-1] - start)[:, 0].numpy()
    sizes = [ufl.inner(change, change) * ufl.dx, ufl.div(change) ** 2 * ufl.dx]
    sizes.append(ufl.dot(change, ufl.FacetNormal(V.mesh)) ** 2 * ufl.ds)
    size, divergence, flux = (fem.assemble_scalar(fem.form(form)) for form in sizes)
    # Rounding is relative to the state, whose divergence is 1/h times as large.
    assert size > 1e-3 and divergence < 1e-24 and flux < 1e-24


def test_training_along_several_steps():
    """The loss is the mean error of a rollout, and falls; of one step it is that of the fields themselves."""
    V, *coarse = spaces(("P", 1), 8, 4)
    space = spon.read_space(V)
    damped = scipy.linalg.expm(-0.05 * np.linalg.solve(space.mass.scipy.toarray(), space.stiffness.scipy.toarray()))
    states = [torch.from_numpy(damped) @ waves(space, 40)]
    for _ in range(3):
        states.append(torch.from_numpy(damped) @ states[-1])
    states = torch.stack(states)

    def trained(following, steps):
        network = spon.OperatorNetwork(
            input=V, output=V, coarse=coarse, structure=spon.Structure(integral="input", increment=True), **SMALL
        )
        result = operators.train(network, states[0], following, TrainingOptions(steps=steps, every=10))
        return network, result.history

    network, history = trained(states[1:], 60)
    assert min(history.validation) < 0.7 * history.validation[0]
    check = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:4]
    found = operators.rollout(network, states[0][:, check], 3)[1:].detach()
    errors = [norms.relative(norms.l2, space, x, y[:, check]).mean() for x, y in zip(found, states[1:])]
    assert torch.stack(errors).mean().item() == pytest.approx(min(history.validation), rel=1e-12)
    (_, one), (_, same) = trained(states[1], 10), trained(states[1:2], 10)
    assert one.loss == same.loss


def test_a_symmetric_operator_is_learned_and_kept(tmp_path):
    V, bc, coarse, f, u = poisson()
    network = spon.OperatorNetwork(
        input=V, output=V, bcs=[bc], coarse=coarse, structure=spon.Structure(symmetric=True), **SMALL
    )
    loads = network.spaces.output.mass @ f
    history = operators.train(network, loads, u, TrainingOptions(steps=30, every=15)).history
    assert min(history.validation) < 0.9 * history.validation[0]
    network.save(tmp_path / "network")
    assert torch.equal(spon.load(tmp_path / "network")(f), network(f))


def permuted(domain, seed):
    """The same mesh with its cells, their corners and the vertices in another order."""
    rng = np.random.default_rng(seed)
    x, cells = domain.geometry.x[:, :2], geometry_dofmap(domain)
    new = rng.permutation(len(x))
    shuffled = np.empty_like(x)
    shuffled[new] = x
    cells = rng.permuted(new[cells], axis=1)[rng.permutation(len(cells))]
    element = basix.ufl.element("P", "triangle", 1, shape=(2,))
    return create_mesh(MPI.COMM_SELF, cells.astype(np.int64), shuffled, element)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_numbering_of_the_mesh_does_not_matter(processor):
    domain = mesh.create_rectangle(MPI.COMM_SELF, [(0, 0), (2, 1)], (6, 4), diagonal=mesh.DiagonalType.crossed)
    coarse = spaces(("P", 1), 3)
    coarse[0].mesh.geometry.x[:, 0] *= 2
    other = permuted(domain, 1)
    answers = []
    V, W = (fem.functionspace(m, ("P", 2)) for m in (domain, other))
    points = [U.tabulate_dof_coordinates() for U in (V, W)]
    _, here = cKDTree(points[0]).query(points[1])  # node i of W is node here[i] of V
    assert not np.array_equal(here, np.arange(len(here)))
    f = noise(count(V), 3)
    for U, x in ((V, f), (W, f[here])):
        g = fem.Function(U)
        g.interpolate(lambda x: x[0] - x[1])
        bc = boundary(U, g)
        network = spon.OperatorNetwork(input=U, output=U, bcs=[bc], coarse=coarse, processor=processor, **SMALL)
        answers.append(network(x).detach())
    difference = answers[0][here] - answers[1]
    assert difference.abs().max() < 1e-12 * answers[0].abs().max()
    assert (answers[0] - answers[1]).abs().max() > 1e-2 * answers[0].abs().max()


@pytest.mark.parametrize("processor", PROCESSORS)
def test_derivatives(processor):
    """In reverse and in forward mode against finite differences, by the fields and by the parameters."""
    V, *coarse = spaces(("P", 1), 3, 1)
    network = spon.OperatorNetwork(
        input=V, output=V, bcs=[boundary(V, 1.0)], coarse=coarse, processor=processor, **SMALL
    )
    x = noise(count(V), 2).requires_grad_()
    assert torch.autograd.gradcheck(network, (x,), check_forward_ad=True)
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    directions = {name: noise(*p.shape, seed=k) for k, (name, p) in enumerate(parameters.items())}

    def moved(t):
        state = {name: p + t * directions[name] for name, p in parameters.items()}
        return torch.func.functional_call(network, state, (x.detach(),))

    assert torch.autograd.gradcheck(moved, (torch.zeros((), dtype=torch.float64).requires_grad_(),))


@pytest.mark.parametrize("options", [{"cycle": "W"}, {"shared": True}, {"wide": 1}])
def test_cycles_of_multigrid(options):
    """Each changes the answer, and a change at one corner changes it at the other."""
    V, *coarse = spaces(("P", 1), 16, 8, 4)
    make = functools.partial(spon.OperatorNetwork, input=V, output=V, coarse=coarse, processor="multigrid", **SMALL)
    network, plain = make(**options), make()
    x = noise(count(V), 1)
    assert (network(x) - plain(x)).abs().max() > 1e-3
    corners = [int(np.argmin(s * V.tabulate_dof_coordinates()[:, :2].sum(axis=1))) for s in (1, -1)]
    changed = x.clone()
    changed[corners[0]] += 1.0
    assert (network(changed) - network(x))[corners[1]].abs() > 1e-12  # rounding is below 1e-15
    # Two rounds of messages on the fine space alone do not get there.
    local = make(processor="messages")
    assert (local(changed) - local(x))[corners[1]] == 0.0
    if "shared" in options:
        assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in plain.parameters())


def test_mgno_restricts_residuals_or_right_sides():
    V, *coarse = spaces(("P", 1), 8, 4)
    x = noise(count(V), 1)
    make = functools.partial(spon.OperatorNetwork, input=V, output=V, coarse=coarse, processor="mgno", **SMALL)
    assert (make(residual=True)(x) - make(residual=False)(x)).abs().max() > 1e-6


@pytest.mark.parametrize("linear_in", [(), (0,)])
def test_attention_does_not_depend_on_the_density_of_nodes(linear_in):
    """A mesh that is much finer on one side; means over the nodes would be others there."""
    V, W = (fem.functionspace(square(24), ("P", 1)) for _ in range(2))
    W.mesh.geometry.x[:, 0] **= 2
    answers = []
    for U, weighted in ((V, True), (W, True), (V, False), (W, False)):
        network = spon.OperatorNetwork(
            input=U, output=U, processor="attention", structure=spon.Structure(linear_in=linear_in), depth=2
        )
        if not weighted:
            n = count(U)
            network.processor.hierarchy.levels[0].mean.operator = spon.SparseOperator.of(scipy.sparse.eye_array(n) / n)
        x = U.tabulate_dof_coordinates()
        f = torch.from_numpy(np.exp(x[:, :1]) * np.cos(2 * x[:, 1:2]))
        common = np.flatnonzero(np.isin(x[:, 0].round(9), [0.0, 0.25, 1.0]))
        assert len(common) == 3 * 25
        answers.append(network(f).detach()[common[np.lexsort(x[common].round(9).T)]])
    off, off_without = ((a - b).abs().max() for a, b in (answers[:2], answers[2:]))
    assert off < 0.01 * answers[0].std() and off < 0.1 * off_without


def waves(space, samples):
    """Random sums of a few waves, (dofs, samples)."""
    x, y = space.points.T
    shapes = [torch.cos(np.pi * i * x) * torch.cos(np.pi * j * y) for i in range(4) for j in range(4)]
    return torch.stack(shapes, 1) @ noise(16, samples)


@functools.cache
def poisson():
    """Sources of a few waves and solutions of −Δu = f, zero on the boundary: (V, bc, coarse, f, u)."""
    V, *coarse = spaces(("P", 1), 12, 6, 3)
    bc = boundary(V)
    space = spon.read_space(V)
    free = torch.ones(space.dofs, dtype=torch.bool)
    free[bc.dof_indices()[0]] = False
    f = waves(space, 80)
    K = space.stiffness.scipy.toarray()[np.ix_(free, free)]
    solutions = torch.zeros_like(f)
    solutions[free] = torch.from_numpy(np.linalg.solve(K, (space.mass @ f)[free].numpy()))
    return V, bc, coarse, f, solutions


@pytest.mark.parametrize(
    ("settings", "norm", "lbfgs"),
    [
        ({"processor": "multigrid"}, "L2", 50),
        ({"processor": "mgno", "structure": spon.Structure(linear_in=[0])}, "H1", 0),
        ({"processor": "attention", "structure": spon.Structure(linear_in=[0])}, "L2", 100),
    ],
)
def test_training_beats_the_mean(settings, norm, lbfgs):
    V, bc, coarse, f, u = poisson()
    network = spon.OperatorNetwork(input=V, output=V, bcs=[bc], coarse=coarse, channels=8, depth=2, **settings)
    lines = []
    history = operators.train(
        network, f[:, :60], u[:, :60], TrainingOptions(steps=100, every=50, lbfgs=lbfgs), norm=norm, log=lines.append
    ).history
    assert history.validation[-1] < history.validation[0] and len(lines) == len(history.step) >= 3
    unseen, right = f[:, 60:], u[:, 60:]
    found = operators.relative_errors(network, unseen, right, norm=norm, batch=7)
    mean = u[:, :60].mean(1, keepdim=True).expand_as(right)
    naive = norms.relative(NORMS[norm], network.spaces.answer, mean, right)
    assert found.shape == (20,) and found.mean() < naive.mean() / 3


def test_training_is_reproducible():
    V, bc, coarse, f, u = poisson()
    states = []
    for seed in (0, 0, 1):
        network = spon.OperatorNetwork(input=V, output=V, bcs=[bc], coarse=coarse, seed=seed, **SMALL)
        operators.train(network, f[:, :10], u[:, :10], TrainingOptions(steps=3, lbfgs=50, seed=seed))
        states.append(torch.cat([p.detach().ravel() for p in network.parameters()]))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


USE_OPERATOR = """
import json, sys

for name in "meshes fe2 coupling dolfinx ufl basix petsc4py mpi4py".split():
    sys.modules[name] = None  # an import of it fails
import torch
import spon
from spon import operators

given = json.load(sys.stdin)
for path in sys.argv[1:]:
    network = spon.load(path)
    print(json.dumps(network(torch.tensor(given, dtype=network.scale.dtype)).tolist()))
"""


def test_a_network_is_used_without_fenicsx(tmp_path):
    """In double and in single precision, to the last bit."""
    V, bc, coarse, f, u = poisson()
    network = spon.OperatorNetwork(
        input=V, output=V, bcs=[bc], coarse=coarse, processor="multigrid", cycle="W", **SMALL
    )
    network.normalise([f], u)
    right, files = [], []
    for dtype in (torch.float64, torch.float32):
        files.append(tmp_path / str(dtype))
        network.to(dtype).save(files[-1])
        right.append(network(f[:, :2].to(dtype)).tolist())
    command = [sys.executable, "-c", USE_OPERATOR, *map(str, files)]
    project = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, input=json.dumps(f[:, :2].tolist()), cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(map(json.loads, done.stdout.splitlines())) == right


def test_damaged_files_are_refused(tmp_path):
    V, *_ = poisson()
    path = tmp_path / "network"
    spon.OperatorNetwork(input=V, output=V, processor="mlp", **SMALL).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(spon.ModelFileError, match="damaged"):
        spon.load(path)
    spon.read_space(V).save(path)
    assert isinstance(spon.load(path), spon.Space)


@functools.cache
def stokes():
    """Flow driven by forces of a few waves, no slip: (mixed space, space of forces, bc, coarse, forces, solutions)."""
    domain = square(6)
    P2, P1 = basix.ufl.element("P", "triangle", 2, shape=(2,)), basix.ufl.element("P", "triangle", 1)
    W = fem.functionspace(domain, basix.ufl.mixed_element([P2, P1]))
    V, _ = W.sub(0).collapse()
    _, in_Q = W.sub(1).collapse()
    domain.topology.create_connectivity(1, 2)
    facets = mesh.exterior_facet_indices(domain.topology)
    bc = fem.dirichletbc(fem.Function(V), fem.locate_dofs_topological((W.sub(0), V), 1, facets), W.sub(0))
    (u, p), (v, q), f = ufl.TrialFunctions(W), ufl.TestFunctions(W), ufl.TrialFunction(V)
    a = (ufl.inner(ufl.grad(u), ufl.grad(v)) - p * ufl.div(v) - q * ufl.div(u)) * ufl.dx
    A = coupling.sparse_operator(assembled(a, [bc])).scipy
    B = coupling.sparse_operator(assembled(ufl.inner(f, v) * ufl.dx)).scipy
    x, y = V.tabulate_dof_coordinates()[:, :2].T
    waves = [np.cos(np.pi * i * x) * np.sin(np.pi * j * y) for i in range(3) for j in range(1, 3)]
    basis = np.concatenate([np.kron(np.array(waves).T, e[:, None]) for e in np.eye(2)], axis=1)
    forces = torch.from_numpy(basis) @ noise(basis.shape[1], 60)
    loads = B @ forces.numpy()
    loads[bc.dof_indices()[0]] = 0.0
    in_Q = np.ravel(in_Q)
    free = np.setdiff1d(np.arange(len(loads)), in_Q[:1])  # one pressure is given
    solutions = np.zeros_like(loads)
    solutions[free] = scipy.sparse.linalg.splu(A[free][:, free].tocsc()).solve(loads[free])
    pressure = spon.read_space(W).parts[1]
    mean = constraints.integral(pressure, torch.from_numpy(solutions[in_Q])) / pressure.volume
    solutions[in_Q] -= mean.numpy()
    coarse = tuple(spaces(("P", 1), 4, 2))
    return W, V, bc, coarse, forces, torch.from_numpy(solutions)


def assembled(form, bcs=()):
    A = fem_petsc.assemble_matrix(fem.form(form), bcs=list(bcs))
    A.assemble()
    return A


@pytest.mark.parametrize("processor", PROCESSORS)
def test_mixed_outputs(processor, tmp_path):
    """Velocity and pressure by one network: the conditions of both are exact, and both have the same features."""
    W, V, bc, coarse, f, _ = stokes()
    network = spon.OperatorNetwork(
        input=V,
        output=W,
        bcs=[bc],
        coarse=coarse,
        processor=processor,
        structure=spon.Structure(integral=[None, 0.3]),
        **SMALL,
    )
    answer = network(f[:, :3])
    assert answer.shape == (W.dofmap.index_map.size_local * W.dofmap.index_map_bs, 3)
    assert (answer[bc.dof_indices()[0]] == 0.0).all()
    velocity, pressure = (x.detach() for x in network.spaces.answer.split(answer))
    _, Q = network.spaces.parts
    assert (constraints.integral(Q, pressure) - 0.3).abs().max() < 1e-13
    assert velocity.std() > 1e-3 and pressure.std() > 1e-3
    # The vertices are nodes of both spaces, where the pressure takes the velocity's features.
    (carry,) = network.spaces.carry
    places = network.encoder.node_features[:, :2]
    low, high = Q.points.min(0).values, Q.points.max(0).values
    torch.testing.assert_close(carry @ places, 2 * (Q.points - low) / (high - low) - 1, rtol=0, atol=1e-13)
    network.save(tmp_path / "network")
    assert torch.equal(spon.load(tmp_path / "network")(f[:, :3]), answer)
    g = fem.Function(V)
    g.x.array[:] = f[:, 0].numpy()
    field = coupling.FieldOperator(network, input=V, output=W)(g)
    np.testing.assert_allclose(field.x.array, network(f[:, :1]).detach()[:, 0], atol=1e-14)
    with pytest.raises(ValueError, match=r"the output has \d+ dofs"):
        coupling.FieldOperator(network, input=V, output=V)


def test_flow_and_pressure_are_learned():
    W, V, bc, coarse, f, w = stokes()
    network = spon.OperatorNetwork(
        input=V, output=W, bcs=[bc], coarse=coarse, processor="mgno", channels=8,
        structure=spon.Structure(linear_in=[0], integral=[None, 0.0]),
        depth=2,
    )  # fmt: skip
    history = operators.train(network, f[:, :50], w[:, :50], TrainingOptions(steps=150, every=50, lbfgs=50)).history
    assert min(history.validation) < 0.6 * history.validation[0]
    errors = operators.relative_errors(network, f[:, 50:], w[:, 50:])
    parts = [
        norms.relative(norms.l2, space, x, right)
        for (space, x), (_, right) in zip(
            norms.split(network.spaces.answer, network(f[:, 50:]).detach()),
            norms.split(network.spaces.answer, w[:, 50:]),
        )
    ]
    torch.testing.assert_close(errors, (parts[0] + parts[1]) / 2, rtol=1e-12, atol=0)
    assert max(part.mean() for part in parts) < 0.5  # of zero it is one


def test_precision_can_be_changed_and_changed_back():
    V, _, coarse, f, _ = poisson()
    network = spon.OperatorNetwork(input=V, output=V, bcs=[boundary(V, 1 / 3)], coarse=coarse, **SMALL)
    double = network(f)
    single = network.to(torch.float32)(f.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5 * double.detach().abs().max().item())
    # The parameters have been rounded, the spaces have not.
    assert network.to(torch.float64).spaces.output.lifting.max() == 1 / 3


def test_wrong_use_is_refused():
    V, bc, coarse, f, u = poisson()
    make = functools.partial(spon.OperatorNetwork, input=V, output=V, coarse=coarse, processor="multigrid", **SMALL)
    with pytest.raises(ValueError, match="processor = 'fno', need one of 'fluxes', 'multigrid', 'messages', 'mgno'"):
        make(processor="fno")
    with pytest.raises(ValueError, match="'multigrid' needs coarse spaces"):
        make(coarse=[])
    with pytest.raises(ValueError, match="cycle = 'F', need 'V' or 'W'"):
        make(cycle="F")
    with pytest.raises(ValueError, match="heads = 3, need a divisor of the 4 channels"):
        make(processor="attention", heads=3)
    with pytest.raises(ValueError, match="encoder = 'galerkin', need one of 'interpolation', 'integrals'"):
        make(encoder="galerkin")
    with pytest.raises(ValueError, match="169 nodes, need fewer than 49"):
        make(coarse=[coarse[0], V])
    with pytest.raises(ValueError, match=r"coarse\[0\] is not Lagrange"):
        make(coarse=[fem.functionspace(V.mesh, ("DG", 0))])
    with pytest.raises(ValueError, match=r"linear_in = \(1,\), need numbers of inputs from 0 to 0"):
        make(structure=spon.Structure(linear_in=(1,)))
    with pytest.raises(ValueError, match="with those given the operator is affine"):
        make(structure=spon.Structure(linear_in=(0,)), bcs=[boundary(V, 1.0)])
    elements = [basix.ufl.element(family, "triangle", 1) for family in ("RT", "P")]
    mixed = fem.functionspace(V.mesh, basix.ufl.mixed_element(elements))
    with pytest.raises(ValueError, match="mixed: its first part must be Lagrange"):
        make(output=mixed)
    mixed = fem.functionspace(V.mesh, basix.ufl.mixed_element(elements[::-1]))
    with pytest.raises(ValueError, match=r"integral = 0\.0, need 2, one for each part"):
        make(output=mixed, structure=spon.Structure(integral=0.0))
    with pytest.raises(ValueError, match="leave velocity out"):
        make(output=mixed, velocity=fem.functionspace(V.mesh, ("RT", 1)))
    with pytest.raises(ValueError, match="the Dirichlet values fix the integral"):
        tiny = fem.functionspace(square(1), ("P", 1))
        spon.OperatorNetwork(
            input=tiny, output=tiny, bcs=[boundary(tiny)], processor="mlp", structure=spon.Structure(integral=0.0)
        )
    with pytest.raises(ValueError, match="scalar Lagrange to Raviart-Thomas of at least its degree"):
        transfer.curl(fem.functionspace(V.mesh, ("P", 2)), fem.functionspace(V.mesh, ("RT", 1)))
    with pytest.raises(ValueError, match="need one mesh, in the plane"):
        transfer.curl(V, fem.functionspace(square(2), ("RT", 1)))
    with pytest.raises(ValueError, match="leave integral out"):
        make(velocity=fem.functionspace(V.mesh, ("RT", 1)), structure=spon.Structure(integral=0.0))
    with pytest.raises(ValueError, match="neither linear_in nor integral nor increment nor velocity nor mixed"):
        make(structure=spon.Structure(symmetric=True, linear_in=(0,)))
    with pytest.raises(ValueError, match="neither linear_in nor integral nor increment nor velocity"):
        make(structure=spon.Structure(symmetric=True, increment=True))
    with pytest.raises(ValueError, match="integral = 'mean', need a number, 'input' or None"):
        make(structure=spon.Structure(integral="mean"))
    for settings in ({"increment": True}, {"integral": "input"}):
        with pytest.raises(ValueError, match="need an input in the space of the prediction"):
            make(input=fem.functionspace(V.mesh, ("P", 2)), structure=spon.Structure(**settings))
        with pytest.raises(ValueError, match=r"depends on input 1, so that linear_in = \(0,\) needs 1 too"):
            make(input=[coarse[0], V], structure=spon.Structure(linear_in=(0,), **settings))
    with pytest.raises(ValueError, match=r"one input of 169 dofs as the output, not \[169, 169\]"):
        make(structure=spon.Structure(symmetric=True), input=[V, V])
    with pytest.raises(ValueError, match="steps = 0: need at least 1"):
        operators.rollout(make(), f, 0)
    with pytest.raises(ValueError, match="got 1 inputs, need 2"):
        operators.rollout(make(input=[coarse[0], V]), f, 3)
    with pytest.raises(ValueError, match="a rollout needs an input in the space of the output"):
        operators.rollout(make(input=coarse[0]), noise(49, 2), 3)
    network = make(bcs=[bc])
    with pytest.raises(ValueError, match=r"input 0 has the shape \(3, 2\), need \(169, batch\)"):
        network(noise(3, 2))
    with pytest.raises(ValueError, match="got 2 inputs, need 1"):
        network(f, f)
    with pytest.raises(ValueError, match=r"norm = 'max', need one of 'L2', 'H1', 'energy'"):
        operators.train(network, f, u, norm="max")
    with pytest.raises(ValueError, match=r"inputs have \[79\] samples, outputs 80"):
        operators.train(network, f[:, 1:], u)
    with pytest.raises(ValueError, match=r"outputs have the shape \(80, 169\), need \(169, samples\)"):
        operators.train(network, f, u.T)
    with pytest.raises(ValueError, match=r"outputs\[:, 4\] has the norm zero"):
        operators.train(network, f, u * (torch.arange(80) != 4))
    with pytest.raises(ValueError, match=r"validation = 1\.0 of 80 samples are 80"):
        operators.train(network, f, u, TrainingOptions(validation=1.0))
