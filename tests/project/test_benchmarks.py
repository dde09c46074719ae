# SPDX-License-Identifier: MIT
"""Benchmarks of operator networks: their data solve the equations, and what they compare with runs on them."""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")

import basix.ufl
import scipy.sparse.linalg
import torch
import ufl
from mpi4py import MPI
from dolfinx import fem, mesh

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import baselines
import domains
import problems

import spon
from spon.operators.discretisation import discretise
from spon.spaces import constraints, norms, transfer

BENCHMARKS = Path(baselines.__file__).parent
N, SAMPLES, UNSEEN = 8, 34, 2


@functools.cache
def problem(name):
    return problems.PROBLEMS[name](N, SAMPLES, UNSEEN)


@functools.cache
def spaces(name):
    p = problem(name)
    return discretise([p.input], p.output, bcs=p.bcs, coarse=p.coarse, velocity=p.velocity)


def elastic_residual(u, E, v):
    """From Lamé's parameters, with the traction as a difference of integrals of which one is the divergence's."""
    lame, shear = 0.3 * E / (1.3 * 0.4), E / 2.6
    sym = (ufl.grad(u) + ufl.grad(u).T) / 2
    inner = lame * ufl.div(u) * ufl.div(v) + 2 * shear * ufl.inner(sym, ufl.grad(v))
    # ∫_right v_x ds = ∫ ∂(x v_x)/∂x dx − ∫_top,bottom x v_x n_x ds, where n_x is zero; at the left x is zero.
    return inner * ufl.dx - (ufl.SpatialCoordinate(v.ufl_function_space().mesh)[0] * v[0]).dx(0) * ufl.dx


def neo_hookean_residual(u, f, v):
    """From the first Piola-Kirchhoff stress μ (F − F⁻ᵀ) + λ ln J F⁻ᵀ."""
    mu, lame = 1 / 2.6, 0.3 / (1.3 * 0.4)
    F = ufl.Identity(2) + ufl.grad(u)
    J = F[0, 0] * F[1, 1] - F[0, 1] * F[1, 0]
    cofactor = ufl.as_matrix([[F[1, 1], -F[1, 0]], [-F[0, 1], F[0, 0]]])
    stress = mu * F + (lame * ufl.ln(J) - mu) / J * cofactor
    return (ufl.inner(stress, ufl.grad(v)) - ufl.dot(f, v)) * ufl.dx


RESIDUALS = {
    "Poisson": lambda u, f, v: (ufl.dot(ufl.grad(u), ufl.grad(v)) - f * v) * ufl.dx,
    "Darcy": lambda u, a, v: (a * ufl.dot(ufl.grad(u), ufl.grad(v)) - v) * ufl.dx,
    "elasticity": elastic_residual,
    "hyperelasticity": neo_hookean_residual,
}


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_samples_are_counted(name):
    p = problem(name)
    assert p.name == name
    assert (p.inputs.shape[1], p.outputs.shape[1]) == (SAMPLES, SAMPLES)
    assert (p.unseen_inputs.shape[1], p.unseen_outputs.shape[1]) == (UNSEEN, UNSEEN)
    fields = torch.cat([p.outputs, p.unseen_outputs], 1)
    assert len(fields.T.unique(dim=0)) == SAMPLES + UNSEEN


@pytest.mark.parametrize("name", [name for name in problems.PROBLEMS if name not in ("Stokes", "Navier–Stokes")])
def test_solutions_solve_the_equation(name):
    p = problem(name)
    given, u, v = fem.Function(p.input), fem.Function(p.output), ufl.TestFunction(p.output)
    given.x.array[:], u.x.array[:] = p.unseen_inputs[:, 0].numpy(), p.unseen_outputs[:, 0].numpy()
    (form,) = (make for start, make in RESIDUALS.items() if name.startswith(start))
    residual = fem.assemble_vector(fem.form(form(u, given, v))).array
    fixed = spaces(name).output.fixed.numpy()
    assert 0 < fixed.sum() < len(fixed) / 2
    assert abs(u.x.array[fixed]).max() == 0.0
    # At fixed dofs the residual is the reaction, which is as large as the load.
    assert abs(residual[~fixed]).max() < 1e-11 * abs(residual[fixed]).max()


def test_coefficients():
    """Both values of Darcy's coefficient and of Young's modulus occur, and the discs have about their area."""
    assert set(problem("Darcy, rough").inputs.unique().tolist()) == {3.0, 12.0}
    E = problem("elasticity, inclusions").inputs
    assert set(E.unique().tolist()) == {1.0, 10.0}
    assert 0.10 < (E > 1).double().mean() < 3 * np.pi * 0.15**2


def test_holes_are_round():
    V = problem("Poisson, perforated").output
    area = fem.assemble_scalar(fem.form(fem.Constant(V.mesh, 1.0) * ufl.dx))
    discs = np.pi * (0.12**2 + 0.08**2 + 0.15**2 + 0.1**2)
    # Polygons of six corners or more inside of the discs.
    assert 1 - discs < area < 1 - 3 * np.sqrt(3) / (2 * np.pi) * discs


def test_blocks_are_bent_far():
    """Displacements are of the size of the block, and not those of Hooke's law."""
    p = problem("hyperelasticity")
    assert p.outputs.abs().max() > 0.3
    u, v, f, w = ufl.TrialFunction(p.output), ufl.TestFunction(p.output), fem.Function(p.output), fem.Function(p.output)
    load = neo_hookean_residual(w, f, v)
    K = fem.assemble_matrix(fem.form(ufl.derivative(load, w, u))).to_scipy().tocsc()
    free = ~spaces(p.name).output.fixed.numpy()
    space, off = spaces(p.name).output, []
    for k in range(SAMPLES):
        f.x.array[:], linear = p.inputs[:, k].numpy(), torch.zeros(space.dofs, dtype=torch.float64)
        right = -fem.assemble_vector(fem.form(load)).array[free]
        linear[free] = torch.from_numpy(scipy.sparse.linalg.spsolve(K[free][:, free], right))
        off.append(norms.relative(norms.l2, space, linear[:, None], p.outputs[:, k, None]))
    assert torch.cat(off).mean() > 0.05 and torch.cat(off).max() > 0.2


def taylor_hood(n, viscosity):
    """The velocity of the Stokes problem with quadratic elements and linear pressures, of which one is zero."""
    domain = mesh.create_unit_square(MPI.COMM_SELF, n, n)
    element = [basix.ufl.element("P", "triangle", 2, shape=(2,)), basix.ufl.element("P", "triangle", 1)]
    X = fem.functionspace(domain, basix.ufl.mixed_element(element))
    (u, p), (v, q) = ufl.TrialFunctions(X), ufl.TestFunctions(X)
    mu = fem.Function(fem.functionspace(domain, ("P", 1)))
    mu.x.array[:] = viscosity(mu.function_space.tabulate_dof_coordinates()[:, :2])
    sym = (ufl.grad(u) + ufl.grad(u).T) / 2
    force = ufl.sin(2 * ufl.pi * ufl.SpatialCoordinate(domain)[0])
    A = fem.assemble_matrix(fem.form((2 * mu * ufl.inner(sym, ufl.grad(v)) - p * ufl.div(v) - q * ufl.div(u)) * ufl.dx))
    load = fem.assemble_vector(fem.form(force * v[1] * ufl.dx)).array
    domain.topology.create_connectivity(1, 2)
    walls = fem.locate_dofs_topological(X.sub(0), 1, mesh.exterior_facet_indices(domain.topology))
    one_pressure = X.sub(1).dofmap.list.ravel()[:1]
    free = np.setdiff1d(np.arange(len(load)), np.concatenate([walls, one_pressure]))
    w = fem.Function(X)
    w.x.array[free] = scipy.sparse.linalg.spsolve(A.to_scipy().tocsc()[free][:, free], load[free])
    return w.sub(0).collapse()


def test_stokes_flow():
    """No divergence, nothing through the walls, and the flow of another discretisation in the limit of fine meshes."""
    off = []
    for n in (16, 32):
        p = problems.stokes(n, 1, 1)
        u = fem.Function(p.velocity)
        u.x.array[:] = p.outputs[:, 0].numpy()
        normal = ufl.FacetNormal(p.velocity.mesh)
        measured = [ufl.inner(u, u) * ufl.dx, ufl.div(u) ** 2 * ufl.dx, ufl.dot(u, normal) ** 2 * ufl.ds]
        size, divergence, flux = (fem.assemble_scalar(fem.form(form)) for form in measured)
        assert divergence < 1e-24 * size and flux < 1e-24 * size
        right = taylor_hood(24, lambda points: np.exp(domains.smooth(points, 2)[:, 0]))
        exact = fem.Function(fem.functionspace(p.velocity.mesh, ("P", 2, (2,))))
        there = transfer.interpolation(right.function_space, exact.function_space)
        exact.x.array[:] = there.scipy @ right.x.array
        off.append((fem.assemble_scalar(fem.form(ufl.inner(u - exact, u - exact) * ufl.dx)) / size) ** 0.5)
    # Velocities are linear in the cells, so that the order is two in the end.
    assert off[1] < 0.08 and off[0] / off[1] > 2.5


def test_steps_of_a_flow():
    """A step of the vorticity solves the midpoint rule in another form; it conserves and loses what it should."""
    V, nu, tau = problem("Navier–Stokes").output, 0.01, 0.02
    start = 5 * domains.smooth(V.tabulate_dof_coordinates()[:, :2], 2) + 1
    after = problems.vorticity_step(V, nu, tau)(start)
    before, now, psi, v = fem.Function(V), fem.Function(V), fem.Function(V), ufl.TestFunction(V)
    before.x.array[:], now.x.array[:] = start[:, 1], after[:, 1]
    omega = (before + now) / 2
    bc = problems._zero(V)
    K = fem.assemble_matrix(fem.form(ufl.inner(ufl.grad(ufl.TrialFunction(V)), ufl.grad(v)) * ufl.dx), bcs=[bc])
    load = fem.assemble_vector(fem.form(omega * v * ufl.dx)).array
    load[bc.dof_indices()[0]] = 0.0
    psi.x.array[:] = scipy.sparse.linalg.spsolve(K.to_scipy().tocsc(), load)
    # Convective form: the same, as the velocity has no divergence and does not leave.
    carried = psi.dx(1) * omega.dx(0) - psi.dx(0) * omega.dx(1)
    rate = (now - before) / tau * v + carried * v + nu * ufl.dot(ufl.grad(omega), ufl.grad(v))
    residual, scale = (fem.assemble_vector(fem.form(form * ufl.dx)).array for form in (rate, carried * v))
    assert abs(residual).max() < 1e-11 * abs(scale).max()

    def total(form):
        return fem.assemble_scalar(fem.form(form * ufl.dx))

    assert total(now) == pytest.approx(total(before), rel=1e-13)
    lost = 2 * tau * nu * total(ufl.dot(ufl.grad(omega), ufl.grad(omega)))
    assert total(before**2) - total(now**2) == pytest.approx(lost, rel=1e-9)


def test_flows_are_series_of_steps():
    """Samples follow one another, unseen runs begin with the unseen samples, circulations are conserved and differ."""
    p = problem("Navier–Stokes")
    steps = 10
    assert torch.equal(p.inputs[:, 1:steps], p.outputs[:, : steps - 1])
    assert not torch.equal(p.inputs[:, steps], p.outputs[:, steps - 1])
    assert p.runs.shape == (2 * steps + 1, len(p.outputs), 1)
    assert torch.equal(p.runs[:UNSEEN, :, 0].T, p.unseen_inputs)
    assert torch.equal(p.runs[1 : UNSEEN + 1, :, 0].T, p.unseen_outputs)
    space = spaces(p.name).output
    circulation = constraints.integral(space, torch.cat([p.inputs, p.outputs], 1))[0].view(2, -1)
    assert (circulation[0] - circulation[1]).abs().max() < 1e-13 * circulation.abs().max()
    assert circulation[0, ::steps].std() > 1.0
    enstrophy = norms.l2(space, p.runs[:, :, 0].T)
    assert (enstrophy.diff() < 0).all() and enstrophy[-1] > 0.5 * enstrophy[0]


def test_flows_converge():
    """One run on two meshes, at the end of the samples' time, against one on a finer mesh."""
    fine, *others = (problems.navier_stokes(n, 1, 1) for n in (32, 8, 16))
    off = []
    for p in others:
        exact = transfer.interpolation(fine.output, p.output) @ fine.runs[10]
        space = spon.read_space(p.output)
        off.append(float(norms.relative(norms.l2, space, p.runs[10], exact)))
    assert off[1] < 0.1 and off[0] / off[1] > 2.5


def test_random_fields_have_mean_variance_one_and_their_spectrum():
    k = (np.arange(64) + 0.5) / 64  # midpoints, exact for these cosines
    points = np.stack(np.meshgrid(k, k, indexing="ij"), -1).reshape(-1, 2)
    fields = domains.rough(points, 400)
    assert (fields**2).mean() == pytest.approx(1.0, rel=0.1)
    waves = [2 * np.cos(np.pi * points[:, 0] * i) * np.cos(np.pi * points[:, 1] * i) for i in (1, 2)]
    first, second = (np.square(wave @ fields / len(points)).mean() for wave in waves)
    assert first / second == pytest.approx(((8 * np.pi**2 + 9) / (2 * np.pi**2 + 9)) ** 2, rel=0.3)


OFF = ("Poisson, L-shape", "Poisson, perforated", "Navier–Stokes")
ON_GRID = [name for name in problems.PROBLEMS if name not in OFF]


@pytest.mark.parametrize("name", ON_GRID)
def test_nodes_stand_where_the_grid_says(name):
    p = problem(name)
    V = p.output if p.output.dofmap.bs == 1 else p.output.sub(0).collapse()[0]
    for axis in (0, 1):
        x = fem.Function(V)
        x.interpolate(lambda points, axis=axis: points[axis])
        expected = np.arange(N + 1) / N
        expected = expected[:, None] if axis == 0 else expected[None, :]
        assert abs(x.x.array[p.grid.numpy()] - expected).max() < 1e-14


def build(kind, p, discretisation, seed):
    options = {"grid": p.grid} if issubclass(kind, baselines.OnGrid) else {}
    return baselines.build(kind, discretisation, seed, p.increment, **options)


OFF_GRID = [kind for kind in baselines.KINDS if not issubclass(kind, baselines.OnGrid)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in ("elasticity, inclusions", "Stokes") for kind in baselines.KINDS]
    + [(name, kind) for name in ("Poisson, L-shape", "Navier–Stokes") for kind in OFF_GRID],
)
def test_baselines_run_and_have_gradients(name, kind, dtype):
    p = problem(name)
    network, again = (build(kind, p, spaces(name), seed=3).to(dtype) for _ in range(2))
    network.normalise([p.inputs], p.outputs)
    again.normalise([p.inputs], p.outputs)
    x = p.unseen_inputs.to(dtype)
    y = network(x)
    assert y.shape == p.unseen_outputs.shape and y.dtype == dtype
    assert (y == again(x)).all()
    y.square().sum().backward()
    assert all(q.grad is not None and q.grad.isfinite().all() for q in network.parameters())
    # Each sample by itself.
    assert (network(x[:, 1:]) - y[:, 1:]).abs().max() < 1e3 * torch.finfo(dtype).eps * y.abs().max()


def test_several_inputs():
    p = problem("elasticity, inclusions")
    two = discretise([p.input, p.output], p.output, bcs=p.bcs)
    for kind in baselines.KINDS:
        network = build(kind, p, two, seed=0)
        network.normalise([p.inputs, p.outputs], p.outputs)
        assert network(p.inputs[:, :3], p.outputs[:, :3]).shape == (len(p.outputs), 3)


def test_grids_are_entered_and_left_at_the_same_places():
    """A network on the grid that returns its input reproduces it, with x and y along the axes."""
    p = problem("Darcy, rough")
    network = baselines.build(baselines.UNet, spaces(p.name), seed=0, grid=p.grid)
    images = []

    def only_input(image):
        images.append(image)
        return image[:, 2:]

    network.layers = torch.nn.Module()
    network.layers.forward = only_input
    assert (network(p.inputs) - p.inputs).abs().max() < 1e-14 * p.inputs.max()
    along = torch.linspace(-1, 1, N + 1, dtype=torch.float64)
    assert (images[0][0, 0] - along[:, None]).abs().max() < 1e-14
    assert (images[0][0, 1] - along[None]).abs().max() < 1e-14


def test_convolutional_mgno_is_as_large_as_published():
    """572,661 parameters for Darcy's equation from the coefficient alone, with transposed convolutions of 4 × 4."""
    layers = baselines.GridMgNOLayers(seen=1, components=1, channels=24, levels=6, depth=4)
    larger = 4 * 5 * (4 * 4 - 3 * 3) * 24 * 24
    assert sum(p.numel() for p in layers.parameters()) + larger == 572_661


@pytest.mark.parametrize("name", ["Stokes", "Navier–Stokes"])
def test_baselines_say_potentials_and_increments(name):
    """The output of a baseline has the requested components."""
    p = problem(name)
    network = build(baselines.DeepONet, p, spaces(name), seed=0)
    network.normalise([p.inputs], p.outputs)
    wanted = network.wanted([p.inputs], p.outputs)
    assert wanted.shape[0] == spaces(name).output.dofs
    scaled = ((wanted - network.mean) / network.scale).T[..., None].transpose(0, 1)
    network.predict = lambda _: scaled
    assert (network(p.inputs) - p.outputs).abs().max() < 1e-11 * p.outputs.abs().max()
    assert scaled.std() == pytest.approx(1.0, rel=1e-6)


def test_pod_deeponet_is_exact_in_its_modes():
    p = problem("Poisson")
    network = baselines.build(baselines.PODDeepONet, spaces("Poisson"), seed=0, modes=SAMPLES - 1)
    network.normalise([p.inputs], p.outputs)
    modes = network.modes.flatten(0, 1)
    wanted = ((p.outputs - network.mean) / network.scale) - network.middle
    coefficients = torch.linalg.lstsq(modes, wanted).solution
    network.branch = torch.nn.Module()
    network.branch.forward = lambda _: coefficients.T
    assert (network(p.inputs) - p.outputs).abs().max() < 1e-10 * p.outputs.abs().max()
    # Coefficients of the training samples are of size one.
    assert coefficients.square().mean(1).sub(1).abs().max() < 1e-6


def test_benchmark_runs(script, tmp_path):
    for only in ("U-Net", "SPON-MG, fluxes"):
        options = ("--quick", "--problem", "rough", "--only", only, "--seconds", "0.2")
        assert f"| Darcy, rough | {only} |" in script(BENCHMARKS / "bench_operators.py", *options)
    assert (tmp_path / "results/operators/quick.json").exists()


def test_errors_by_width_are_measured(script, tmp_path):
    printed = script(BENCHMARKS / "bench_width.py", "--quick")
    assert "| squares along an edge | Poisson, elements | Poisson, network |" in printed
    # Linear elements are of second order in L² and of first in H¹.
    figures = json.loads((tmp_path / "results/width/quick.json").read_text())["Poisson"]["width"]
    coarse, fine = (figures[n][0]["elements"] for n in ("4", "8"))
    assert 2.5 < coarse["L2"] / fine["L2"] < 4.5 and 1.6 < coarse["H1"] / fine["H1"] < 2.4


def test_the_page_of_results_is_that_of_the_files():
    """`make results` after each change of a figure."""
    import results

    assert results.PAGE.read_text() == results.page()


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["RVE", "operator"])
def test_stages_of_training_are_measured(name, comm):
    import bench_training

    stages = bench_training.WORKS[name](bench_training.QUICK, comm)
    assert all(record["seconds"] > 0 and record["memory"] > 10 for record in stages.values())
    assert comm.allgather(list(stages)) == [list(stages)] * comm.size
    assert len(stages) == {"RVE": 4 if comm.size == 1 else 1, "operator": 1}[name]


STARTING_PROCESSES = ("assembly", "spmm", "training")  # each imports for seconds


@pytest.mark.parametrize(
    "name", ["evaluation", "grid", *(pytest.param(name, marks=pytest.mark.slow) for name in STARTING_PROCESSES)]
)
def test_benchmarks_run(name, script, tmp_path):
    """At their smallest size, in a folder of their own."""
    (tmp_path / "results").mkdir()
    assert script(BENCHMARKS / f"bench_{name}.py", "--quick").count("|") > 10


def test_operations_of_a_network_by_hand():
    """The smallest potential, one norm and one unit in each layer; and a branch of one layer of one."""
    import bench_evaluation

    from spon.equino.networks import Branch, Potential

    half = torch.ones(3, dtype=torch.float64)
    smallest = Potential(torch.eye(3, dtype=torch.float64), half, 1.0, width=1, norms=1)
    # Inputs 4: forward 4 + 1, back 1 + 4, with of slopes 3 for the norm and 3 for the second layer: products and sums.
    matrices = 2 * (4 + 1 + 1 + 4 + 3 + 3)
    # Three squares (two layers and the norm) of 6 entries with 3 operations, 6 of the metric with 2, 3 products of
    # slopes.
    curvature = 3 * 6 * 3 + 6 * 2 + 3
    # Two activations; the norm's 9 products and sums, and 12 around it; the linear part and the units, 4 each.
    assert bench_evaluation.operations("potential", smallest) == matrices + curvature + 2 * 38 + (2 * 9 + 12) + 4 * 9
    branch = Branch(half, torch.ones(2, dtype=torch.float64), widths=(1,), through_zero=False)
    # Forward 3 + 2, the slopes of 3 components through the last 2; one activation, and 3 components times its slope;
    # and 16 coefficients to 3 stresses and 9 slopes.
    assert bench_evaluation.operations("branch", branch) == 2 * (3 + 2) + 2 * 3 * 2 + 38 + 3 + 2 * 16 * 3 * 4
