# SPDX-License-Identifier: MIT
"""Benchmarks of operator networks: their data solve the equations, and what they compare with runs on them."""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")

import torch
import ufl
from dolfinx import fem

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import baselines
import problems

from spon.discretisation import discretise

N, SAMPLES, UNSEEN = 8, 34, 2


@functools.cache
def problem(name):
    return problems.PROBLEMS[name](N, SAMPLES, UNSEEN)


@functools.cache
def spaces(name):
    p = problem(name)
    return discretise([p.input], p.output, bcs=p.bcs, coarse=p.coarse)


def elastic_residual(u, E, v):
    """From Lamé's parameters, with the traction as a difference of integrals of which one is the divergence's."""
    lame, shear = 0.3 * E / (1.3 * 0.4), E / 2.6
    sym = (ufl.grad(u) + ufl.grad(u).T) / 2
    inner = lame * ufl.div(u) * ufl.div(v) + 2 * shear * ufl.inner(sym, ufl.grad(v))
    # ∫_right v_x ds = ∫ ∂(x v_x)/∂x dx − ∫_top,bottom x v_x n_x ds, where n_x is zero; at the left x is zero.
    return inner * ufl.dx - (ufl.SpatialCoordinate(v.ufl_function_space().mesh)[0] * v[0]).dx(0) * ufl.dx


RESIDUALS = {
    "Poisson": lambda u, f, v: (ufl.dot(ufl.grad(u), ufl.grad(v)) - f * v) * ufl.dx,
    "Darcy": lambda u, a, v: (a * ufl.dot(ufl.grad(u), ufl.grad(v)) - v) * ufl.dx,
    "elasticity": elastic_residual,
}


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_solutions_solve_the_equation(name):
    p = problem(name)
    assert p.name == name
    assert (p.inputs.shape[1], p.outputs.shape[1]) == (SAMPLES, SAMPLES)
    assert (p.unseen_inputs.shape[1], p.unseen_outputs.shape[1]) == (UNSEEN, UNSEEN)
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


def test_random_fields_have_mean_variance_one_and_their_spectrum():
    k = (np.arange(64) + 0.5) / 64  # midpoints, exact for these cosines
    points = np.stack(np.meshgrid(k, k, indexing="ij"), -1).reshape(-1, 2)
    fields = problems.rough(points, 400)
    assert (fields**2).mean() == pytest.approx(1.0, rel=0.1)
    waves = [2 * np.cos(np.pi * points[:, 0] * i) * np.cos(np.pi * points[:, 1] * i) for i in (1, 2)]
    first, second = (np.square(wave @ fields / len(points)).mean() for wave in waves)
    assert first / second == pytest.approx(((8 * np.pi**2 + 9) / (2 * np.pi**2 + 9)) ** 2, rel=0.3)


@pytest.mark.parametrize("name", [name for name in problems.PROBLEMS if "L-shape" not in name])
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
    return baselines.build(kind, discretisation, seed, **options)


OFF_GRID = [kind for kind in baselines.KINDS if not issubclass(kind, baselines.OnGrid)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("elasticity, inclusions", kind) for kind in baselines.KINDS] + [("Poisson, L-shape", kind) for kind in OFF_GRID],
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
    """A network on the grid that returns what it sees returns the input, and x and y stand along the axes."""
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


def test_benchmark_runs(tmp_path):
    script = str(Path(baselines.__file__).with_name("bench_operators.py"))
    for only in ("U-Net", "SPON-MG"):
        command = [sys.executable, script, "--quick", "--problem", "rough", "--only", only, "--seconds", "0.2"]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert found.returncode == 0, found.stderr
        assert f"| Darcy, rough | {only} |" in found.stdout
    assert (tmp_path / "results/operators/quick.json").exists()
