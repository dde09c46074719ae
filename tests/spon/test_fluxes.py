# SPDX-License-Identifier: MIT
"""Learned laws at quadrature points: points, fixed solvers, and what networks of them keep exactly."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
import ufl
from mpi4py import MPI
from dolfinx import fem, mesh

import spon
from spon import operators
from spon.operators.discretisation import Discretisation, discretise, node_matrix
from spon.operators.processors import poisson
from spon.operators.processors.poisson import poisson_solvers, stiffness_matrix
from spon.spaces import norms
from spon.spaces.quadrature import read_levels, read_points
from spon.training import TrainingOptions

CELLS = [mesh.CellType.triangle, mesh.CellType.quadrilateral]


def square(n, cell=mesh.CellType.triangle):
    return mesh.create_unit_square(MPI.COMM_SELF, n, n, cell)


def lagrange(domain, degree=1, shape=None):
    return fem.functionspace(domain, ("P", degree) if shape is None else ("P", degree, shape))


def boundary(V, value=0.0):
    V.mesh.topology.create_connectivity(V.mesh.topology.dim - 1, V.mesh.topology.dim)
    facets = mesh.exterior_facet_indices(V.mesh.topology)
    g = fem.Function(V)
    g.interpolate(value) if callable(value) else g.x.array.fill(value)
    return fem.dirichletbc(g, fem.locate_dofs_topological(V, V.mesh.topology.dim - 1, facets))


def irregular(n, seed=0):
    """A square of triangles whose inner vertices have been moved."""
    domain = square(n)
    x = domain.geometry.x
    inner = ((x[:, :2] > 1e-9) & (x[:, :2] < 1 - 1e-9)).all(axis=1)
    x[inner, :2] += np.random.default_rng(seed).uniform(-0.25 / n, 0.25 / n, (inner.sum(), 2))
    return domain


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def untied(V):
    return scipy.sparse.eye_array(V.dofmap.index_map.size_local, format="csr")


@pytest.mark.parametrize(
    ("domain", "degree"),
    [
        (mesh.create_unit_interval(MPI.COMM_SELF, 5), 2),
        (irregular(4), 1),
        (irregular(4), 3),
        (square(3, mesh.CellType.quadrilateral), 2),
        (mesh.create_unit_cube(MPI.COMM_SELF, 2, 2, 2), 2),
        (mesh.create_unit_cube(MPI.COMM_SELF, 2, 2, 2, mesh.CellType.hexahedron), 1),
    ],
)
def test_points_integrate_slopes(domain, degree):
    V, d = lagrange(domain, degree), domain.geometry.dim
    points, cells = read_points(V, untied(V))
    assert len(cells) == len(points.weights)
    assert float(points.weights.sum()) == pytest.approx(1.0, abs=1e-13)
    # A polynomial of the degree: slopes and values by hand.
    x = V.tabulate_dof_coordinates()[:, :d]
    found = (points.fields @ torch.from_numpy(x.sum(axis=1) ** degree)).view(-1, d + 1)
    along = points.coordinates.sum(1)
    torch.testing.assert_close(found[:, d], along**degree, rtol=0, atol=1e-11)
    slopes = (degree * along ** (degree - 1))[:, None].expand(-1, d)
    torch.testing.assert_close(found[:, :d], slopes, rtol=0, atol=1e-10)
    # The stiffness matrix as DOLFINx assembles it.
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    wanted = fem.assemble_matrix(fem.form(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)).to_scipy()
    assert abs(stiffness_matrix(points, 0.0) - wanted).max() < 1e-11 * abs(wanted).max()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sizes", [(8, 4, 2), (7, 4, 3)])
def test_means_between_levels(cell, sizes):
    """Constants stay, and on nested meshes integrals too; what is carried back up is the mean of the cell below."""
    spaces = [lagrange(square(n, cell)) for n in sizes]
    levels, _ = read_levels(spaces, [untied(V) for V in spaces])
    for finer, coarser in pairwise(levels):
        for matrix in (coarser.above, coarser.below):
            torch.testing.assert_close(
                matrix @ torch.ones(matrix.shape[1]).double(), torch.ones(matrix.shape[0]).double()
            )
        f = noise(len(finer.weights))
        if sizes == (8, 4, 2):
            assert float(coarser.weights @ (coarser.above @ f)) == pytest.approx(float(finer.weights @ f), abs=1e-12)
    # A coarse cell in which there is no finer point.
    levels, _ = read_levels([spaces[2], spaces[0]], [untied(spaces[2]), untied(spaces[0])])
    mean = levels[1].above @ levels[0].coordinates
    assert mean.isfinite().all() and mean.min() > 0 and mean.max() < 1


def test_files_name_the_coordinates_places():
    """As those of the first release do, so that either release loads the files of the other."""
    spaces = discretise([lagrange(square(2))], lagrange(square(2)), points=True)
    header, tensors = spaces.pack()
    assert torch.equal(tensors["points.0.places"], spaces.points[0].coordinates)

    def below(name):
        return {key.removeprefix(name): value for key, value in tensors.items() if key.startswith(name)}

    again = Discretisation.unpack(header, below)
    assert torch.equal(again.points[0].coordinates, spaces.points[0].coordinates)


@pytest.mark.parametrize("inverted", [2000, 60])
@pytest.mark.parametrize("domains", [(square(16), square(8), square(4)), (irregular(16), irregular(9), irregular(5))])
@pytest.mark.parametrize("degree", [1, 2])
def test_solvers(domains, degree, inverted, monkeypatch):
    """The inverse is that of the stiffness matrix; cycles of multigrid are near it, symmetric and positive."""
    monkeypatch.setattr(poisson, "INVERTED", inverted)
    V = lagrange(domains[0], degree)
    bc = boundary(V)
    spaces = discretise([V], V, bcs=[bc], coarse=[lagrange(domain) for domain in domains[1:]], points=True)
    fixed = spaces.output.fixed.numpy()
    green = poisson_solvers(spaces.points, spaces.prolongations, fixed, 1.0)[0]
    assert (green.below is None) == (inverted == 2000)
    n = len(fixed)
    G = green(torch.eye(n, dtype=torch.float64)).numpy()
    assert abs(G[fixed]).max() == abs(G[:, fixed]).max() == 0.0
    assert abs(G - G.T).max() < 1e-14 * abs(G).max()
    K = node_matrix(spaces.output, spaces.output.stiffness).toarray()[~fixed][:, ~fixed]
    eigenvalues = np.linalg.eigvals(G[~fixed][:, ~fixed] @ K)
    assert abs(eigenvalues.imag).max() < 1e-10
    spread = abs(eigenvalues.real - 1).max()
    assert spread < (1e-10 if inverted == 2000 else poisson.ACCURACY)


def test_a_space_without_conditions_has_stiff_constants():
    V = lagrange(square(6))
    spaces = discretise([V], V, points=True)
    (green,) = poisson_solvers(spaces.points, (), np.zeros(49, dtype=bool), 4.0)
    load = spaces.output.integral[:, 0]
    # K + M / 4 with volume 4 in the plane: a constant source of one makes the constant four.
    torch.testing.assert_close(green(load[:, None])[:, 0], torch.full((49,), 4.0).double(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("degree", [1, 2])
def test_a_right_law_gives_the_solution(degree):
    """With sources that are the input, and nothing else, it is the finite element solution of −Δu = f."""
    V = lagrange(irregular(6), degree)
    bc = boundary(V)
    network = spon.OperatorNetwork(
        input=lagrange(V.mesh),
        output=V,
        bcs=[bc],
        processor="fluxes",
        structure=spon.Structure(linear_in=[0]),
        channels=2,
        depth=0,
        finer=1,
    )
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
        network.processor.laws[0].mix.weight[-1, 0] = 1.0  # the source; before it are the slopes' fluxes
        network.processor.readout.weight.fill_(network.processor.unit**2)
    f = torch.full((network.spaces.encoders[0].shape[1], 1), 3.0, dtype=torch.float64)
    v = ufl.TestFunction(V)
    stiffness = ufl.inner(ufl.grad(ufl.TrialFunction(V)), ufl.grad(v)) * ufl.dx
    matrix = fem.assemble_matrix(fem.form(stiffness), bcs=[bc]).to_scipy()
    load = fem.assemble_vector(fem.form(3.0 * v * ufl.dx)).array
    load[bc.dof_indices()[0]] = 0.0
    u = scipy.sparse.linalg.spsolve(matrix.tocsc(), load)
    np.testing.assert_allclose(network(f).detach()[:, 0].numpy(), u, rtol=0, atol=1e-13)


def test_rounds_on_coarser_spaces():
    """With a right law, the finite element solution there, as a field of the output; conditions stay to the last
    bit."""
    V, W = lagrange(square(8)), lagrange(square(4))
    network = spon.OperatorNetwork(
        input=V,
        output=V,
        bcs=[boundary(V)],
        coarse=[W],
        processor="fluxes",
        channels=2,
        structure=spon.Structure(linear_in=[0]),
        depth=0,
    )
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
        network.processor.laws[0].mix.weight[-1, 0] = 1.0  # the source
        network.processor.readout.weight.fill_(network.processor.unit**2)
    network.processor.coarsen(1)
    answer = network(torch.ones(81, 1, dtype=torch.float64)).detach()
    assert answer[network.spaces.output.fixed].abs().max() == 0.0
    bc, v = boundary(W), ufl.TestFunction(W)
    stiffness = ufl.inner(ufl.grad(ufl.TrialFunction(W)), ufl.grad(v)) * ufl.dx
    load = fem.assemble_vector(fem.form(1.0 * v * ufl.dx)).array
    load[bc.dof_indices()[0]] = 0.0
    matrix = fem.assemble_matrix(fem.form(stiffness), bcs=[bc]).to_scipy()
    u = torch.from_numpy(scipy.sparse.linalg.spsolve(matrix.tocsc(), load))
    torch.testing.assert_close(answer[:, 0], network.spaces.prolongations[0] @ u, rtol=0, atol=1e-14)
    network.processor.coarsen(5)  # there are no others
    assert torch.equal(network(torch.ones(81, 1, dtype=torch.float64)), answer)


def test_nested_training():
    """From coarser to finer spaces: as accurate as all steps on the finest, and ends there, whatever happens."""
    V, *coarse = (lagrange(square(n)) for n in (16, 8, 4))
    bc, v = boundary(V), ufl.TestFunction(V)
    A = fem.assemble_matrix(fem.form(ufl.inner(ufl.grad(ufl.TrialFunction(V)), ufl.grad(v)) * ufl.dx), bcs=[bc])
    x, y = V.tabulate_dof_coordinates()[:, :2].T
    waves = np.array([np.cos(np.pi * i * x) * np.cos(np.pi * j * y) for i in range(3) for j in range(3)])
    f = torch.from_numpy(waves.T @ np.random.default_rng(0).standard_normal((9, 80)))
    used, errors = [], {}
    for nested in ((), (0.2, 0.3)):
        network = spon.OperatorNetwork(input=V, output=V, bcs=[bc], processor="fluxes", channels=8, coarse=coarse)
        loads = torch.where(network.spaces.output.fixed[:, None], 0.0, network.spaces.output.mass @ f)
        u = torch.from_numpy(scipy.sparse.linalg.spsolve(A.to_scipy().tocsc(), loads.numpy()))

        def loss(answer, forcing, network=network):
            used.append(network.processor.coarsening)
            return 0.0 * answer.sum(0)

        operators.train(
            network, f[:, :60], u[:, :60], TrainingOptions(steps=100, rate=1e-2, every=25), loss=loss, nested=nested
        )
        assert network.processor.coarsening == 0
        errors[nested] = float(operators.relative_errors(network, f[:, 60:], u[:, 60:]).mean())
        if not nested:
            assert set(used) == {0}
            used.clear()
    assert sorted(set(used)) == [0, 1, 2] and used == sorted(used, reverse=True)
    assert abs(used.count(2) - 20) <= 6 and abs(used.count(1) - 30) <= 6  # looks at the validation samples besides
    assert errors[0.2, 0.3] < 2 * errors[()] < 0.2

    def broken(answer, forcing):
        if network.processor.coarsening == 1:
            raise RuntimeError("the loss of another")
        return answer.square().sum(0)

    with pytest.raises(RuntimeError, match="the loss of another"):
        operators.train(network, f, options=TrainingOptions(steps=20), loss=broken, nested=(0.3, 0.4))
    assert network.processor.coarsening == 0
    for nested in ((1.0,), (0.5, 0.5), (-0.1,), (0.0, 0.5)):
        with pytest.raises(ValueError, match=r"nested = \(.*\): need positive fractions with a sum below 1"):
            operators.train(network, f, u, nested=nested)
    other = spon.OperatorNetwork(input=V, output=V, bcs=[bc], processor="multigrid", coarse=coarse)
    with pytest.raises(ValueError, match="and the processor 'fluxes'"):
        operators.train(other, f, u, nested=(0.5,))


def test_dirichlet_values_reach_into_the_domain():
    """Before anything is learned: the harmonic field with these values, here a linear function, of each component."""
    V = lagrange(irregular(6), 2, (2,))
    bc = boundary(V, lambda x: np.array([1 + x[0], x[1] - 2 * x[0]]))
    network = spon.OperatorNetwork(
        input=lagrange(V.mesh), output=V, bcs=[bc], processor="fluxes", channels=8, coarse=[lagrange(square(3))]
    )
    with torch.no_grad():
        network.processor.readout.weight.zero_()
    answer = network(noise(network.spaces.encoders[0].shape[1], 1)).detach().view(-1, 2)
    x = torch.from_numpy(V.tabulate_dof_coordinates()[:, :2])
    wanted = torch.stack([1 + x[:, 0], x[:, 1] - 2 * x[:, 0]], 1)
    torch.testing.assert_close(answer, wanted, rtol=0, atol=1e-12)
    # Samples that are this field alone have nothing left to be scaled by.
    network.normalise([noise(network.spaces.encoders[0].shape[1], 3)], wanted.reshape(-1, 1).expand(-1, 3))
    assert float(network.scale.max()) < 1e-12 or torch.equal(network.scale, torch.ones_like(network.scale))


def test_components_with_conditions_of_their_own():
    """On rollers a component vanishes without being set, and the other one does not."""
    V = lagrange(square(6), 1, (2,))
    bcs = []
    for i in (0, 1):
        sub, _ = V.sub(i).collapse()
        dofs = fem.locate_dofs_geometrical((V.sub(i), sub), lambda x, i=i: np.isclose(x[i], 0.0))
        bcs.append(fem.dirichletbc(fem.Function(sub), dofs, V.sub(i)))
    network = spon.OperatorNetwork(
        input=V, output=V, bcs=bcs, processor="fluxes", channels=8, coarse=[lagrange(square(3))]
    )
    assert network.processor.counts == [2, 2]
    found = []

    network.processor.register_forward_hook(lambda _, given, predicted: found.append(predicted[0].detach()))
    u = network(noise(98, 3))
    assert torch.equal(network.decode(found[0]), u.detach())
    x = V.tabulate_dof_coordinates()
    for i in (0, 1):
        on = np.isclose(x[:, i], 0.0)
        assert found[0][on, :, i].abs().max() == 0.0
        assert found[0][on, :, 1 - i].abs().max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"structure": spon.Structure(linear_in=[1])}])
def test_a_network_of_fluxes_is_kept(options, tmp_path):
    """On a vector space with ties, of two inputs, one that jumps: the file needs no function spaces."""
    V = lagrange(square(6), 2, (2,))
    inputs = [fem.functionspace(V.mesh, ("DG", 0)), lagrange(square(5))]
    bc = fem.dirichletbc(np.zeros(2), fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[1], 0.0)), V)
    network = spon.OperatorNetwork(
        input=inputs, output=V, bcs=[bc], periodic=(0,), processor="fluxes", channels=8, coarse=[lagrange(square(3))],
        **options,
    )  # fmt: skip
    fields = [noise(e.shape[1], 3, seed=k).exp() for k, e in enumerate(network.spaces.encoders)]
    network.normalise(fields, noise(network.spaces.output.dofs, 3))
    network.save(tmp_path / "network")
    assert torch.equal(spon.load(tmp_path / "network")(*fields), network(*fields))
    single = network.to(torch.float32)(*(x.float() for x in fields)).detach()
    assert single.dtype == torch.float32 and single.std() > 1e-3


def test_inputs_that_jump_are_exact_at_points():
    """At the points of its own mesh, to the last bit; nodes take means."""
    V = lagrange(irregular(5))
    A = fem.functionspace(V.mesh, ("DG", 0))
    network = spon.OperatorNetwork(input=A, output=V, processor="fluxes", coarse=[lagrange(square(3))])
    a = noise(network.spaces.encoders[0].shape[1], 2)
    assert torch.equal(network.encode(0, a, points=True)[..., 0], a[torch.tensor(A.dofmap.list[:, 0])])


def test_coefficients_have_logarithms():
    V = lagrange(square(4))
    network = spon.OperatorNetwork(input=[V, V], output=V, processor="mlp")
    g, f = noise(25, 40), noise(25, 40, seed=1)
    network.normalise([g.exp(), f], f)

    def scaled(k, x):
        return network.encoder.scalings[k](network.encode(k, x))

    seen, other = scaled(0, g.exp()), scaled(1, f)
    torch.testing.assert_close(seen[..., 1], (g - g.mean()) / g.std(unbiased=False))
    assert (other[..., 1] == 0.0).all()
    # Below the least value of the samples they are constant.
    low = scaled(0, torch.full((25, 1), 1e-9, dtype=torch.float64))[..., 1]
    torch.testing.assert_close(low.flatten(), seen[..., 1].min().expand(25))


def test_it_learns_a_rough_coefficient():
    """Better than messages on a hierarchy after as many steps; fluxes have the solver of an elliptic problem."""
    V = lagrange(square(8))
    A = fem.functionspace(V.mesh, ("DG", 0))
    bc, k = boundary(V), fem.Function(A)
    v = ufl.TestFunction(V)
    form = fem.form(ufl.inner(k * ufl.grad(ufl.TrialFunction(V)), ufl.grad(v)) * ufl.dx)
    load = fem.assemble_vector(fem.form(1.0 * v * ufl.dx)).array
    load[bc.dof_indices()[0]] = 0.0
    coefficients = np.where(np.random.default_rng(0).random((128, 160)) < 0.5, 1.0, 5.0)
    solutions = np.empty((81, 160))
    for n, field in enumerate(coefficients.T):
        k.x.array[:] = field
        matrix = fem.assemble_matrix(form, bcs=[bc]).to_scipy().tocsc()
        solutions[:, n] = scipy.sparse.linalg.spsolve(matrix, load)
    inputs, outputs = torch.from_numpy(coefficients), torch.from_numpy(solutions)
    errors = {}
    # The coefficient varies from cell to cell, so that most rounds are on the finest space.
    for processor, rounds in (("fluxes", {"depth": 1, "finer": 4}), ("multigrid", {"depth": 4})):
        network = spon.OperatorNetwork(
            input=A, output=V, bcs=[bc], processor=processor, channels=8, coarse=[lagrange(square(4))], **rounds
        )
        operators.train(
            network, inputs[:, :150], outputs[:, :150], TrainingOptions(steps=300, batch=4, rate=1e-2, every=50)
        )
        errors[processor] = float(operators.relative_errors(network, inputs[:, 150:], outputs[:, 150:]).mean())
    mean = outputs[:, :150].mean(1, keepdim=True).expand(-1, 10)
    naive = float(norms.relative(norms.l2, network.spaces.output, mean, outputs[:, 150:]).mean())
    assert errors["fluxes"] < min(errors["multigrid"], naive / 2)


@pytest.mark.parametrize("processor", ["fluxes", "multigrid", "mgno"])
def test_a_network_on_other_spaces(processor):
    """The same on the same spaces; on refined ones fluxes predict nearly the same field, all the nearer the finer."""
    g = lambda x: np.sin(3 * x[0]) * np.cos(2 * x[1] + x[0])  # noqa: E731

    def given(n):
        domain = square(n)
        V = lagrange(domain)
        f = fem.Function(V)
        f.interpolate(g)
        made = {"input": V, "output": V, "bcs": [boundary(V)], "coarse": [lagrange(square(n // 2))]}
        return made, torch.from_numpy(f.x.array[:, None].copy())

    made, f = given(8)
    network = spon.OperatorNetwork(processor=processor, channels=8, **made)
    network.normalise([f + noise(81, 4)], noise(81, 4))
    assert torch.equal(network.on(**made)(f), network(f))
    assert network.to(torch.float32).on(**made).scale.dtype == torch.float32
    network.to(torch.float64)
    with pytest.raises(ValueError, match="does not fit these spaces, as"):
        vector = lagrange(square(8), 1, (2,))
        network.on(input=vector, output=vector, coarse=made["coarse"])
    if processor == "fluxes":
        fields = []
        for n in (16, 32, 64):
            made, f = given(n)
            answer = network.on(**made)(f).detach()[:, 0].numpy()
            x = 8 * made["output"].tabulate_dof_coordinates()[:, :2]
            common = np.isclose(x, np.rint(x), atol=1e-9).all(axis=1)
            fields.append(answer[common][np.lexsort(np.rint(x[common]).T)])
        size = abs(fields[-1]).max()
        first, second = (abs(field - fields[-1]).max() / size for field in fields[:2])
        assert second < first / 2 and first < 0.2


def test_a_right_law_is_right_in_another_domain(tmp_path):
    """It keeps its unit of length: in a box of twice the size and another shape, and from a file of that network."""

    def spaces(domain):
        V = lagrange(domain)
        return {"input": V, "output": V, "bcs": [boundary(V)]}

    network = spon.OperatorNetwork(
        processor="fluxes", structure=spon.Structure(linear_in=[0]), channels=2, depth=0, finer=1, **spaces(square(6))
    )
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
        network.processor.laws[0].mix.weight[-1, 0] = 1.0  # the source
        network.processor.readout.weight.fill_(network.processor.unit**2)
    made = spaces(mesh.create_rectangle(MPI.COMM_SELF, [[0.0, 0.0], [2.0, 1.0]], [12, 6]))
    V, (bc,) = made["output"], made["bcs"]
    other = network.on(**made)
    v = ufl.TestFunction(V)
    stiffness = ufl.inner(ufl.grad(ufl.TrialFunction(V)), ufl.grad(v)) * ufl.dx
    load = fem.assemble_vector(fem.form(1.0 * v * ufl.dx)).array
    load[bc.dof_indices()[0]] = 0.0
    matrix = fem.assemble_matrix(fem.form(stiffness), bcs=[bc]).to_scipy()
    u = torch.from_numpy(scipy.sparse.linalg.spsolve(matrix.tocsc(), load))
    one = torch.ones(len(u), 1, dtype=torch.float64)
    torch.testing.assert_close(other(one).detach()[:, 0], u, rtol=0, atol=1e-14)
    other.save(tmp_path / "other")
    torch.testing.assert_close(spon.load(tmp_path / "other")(one), other(one), rtol=0, atol=0)


def test_a_norm_of_what_is_no_number_is_none():
    space = spon.read_space(lagrange(square(2)))
    x = torch.ones(9, 2, dtype=torch.float64)
    x[3, 1] = torch.nan
    assert norms.l2(space, x).isnan().tolist() == [False, True]
    assert norms.relative(norms.natural, space, x, torch.ones_like(x)).isnan().tolist() == [False, True]


def test_wrong_use_of_fluxes_is_refused(monkeypatch):
    V = lagrange(square(8))
    with pytest.raises(ValueError, match="the output is DG, need Lagrange"):
        D = fem.functionspace(V.mesh, ("DG", 1))
        spon.OperatorNetwork(input=V, output=D, processor="fluxes")
    with pytest.raises(ValueError, match="encoder = 'integrals': need 'interpolation' for inputs at points"):
        spon.OperatorNetwork(input=V, output=V, processor="fluxes", encoder="integrals")
    with pytest.raises(ValueError, match="read with its points"):
        spon.OperatorNetwork.from_discretisation(discretise([V], V), processor="fluxes")
    monkeypatch.setattr(poisson, "INVERTED", 50)
    with pytest.raises(ValueError, match="the coarsest space has 81 free nodes, need at most 50"):
        spon.OperatorNetwork(input=V, output=V, coarse=[])
