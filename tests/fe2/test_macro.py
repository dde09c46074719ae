# SPDX-License-Identifier: MIT
"""FE² on structures: patch test, single-scale limit, rank counts, restart after a kill, errors reaching all ranks."""

import os
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse.linalg
import ufl
from mpi4py import MPI
from dolfinx import fem, la
from dolfinx.mesh import compute_midpoints, meshtags
from hypothesis import given, settings
from hypothesis import strategies as st
from launch import outside_mpi
from petsc4py import PETSc

import fe2
import meshes
from fe2.callbacks import Callbacks

MATERIALS = {1: fe2.SaturatingElastic(), 2: fe2.LinearElastic(bulk=43452.381, shear=29918.0328)}


@pytest.fixture(scope="module")
def law():
    cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(4, 2))
    return fe2.ExactLaw(fe2.RVE(cell, MATERIALS, degree=1))


def bar(comm, law, **options):
    problem = fe2.MacroProblem(meshes.bar(comm, size=(4.0, 1.0), n=(4, 2)), law)
    problem.prescribe("left", (0.0, 0.0))
    problem.prescribe("right", (0.08, None))
    problem.body_force((0.0, -0.2))
    problem.record("right")
    problem.solve(**{"log": None} | options)
    return problem


def by_place(problem):
    """Displacements in the order of their nodes' places, the same on all ranks."""
    n = problem.V.dofmap.index_map.size_local
    x = problem.V.tabulate_dof_coordinates()[:n]
    rows = np.hstack([x, problem.u.x.array.reshape(-1, 2)[:n]])
    rows = np.concatenate(problem.comm.allgather(rows))
    return rows[np.lexsort(rows[:, :3].round(9).T)][:, 3:]


@pytest.mark.mpi
def test_affine_boundary_gives_single_cell_homogenisation_at_every_point(law, comm):
    """A uniform strain satisfies equilibrium, so every point must carry what one cell gives."""
    strain = np.array([0.02, -0.01, 0.0])
    problem = fe2.MacroProblem(meshes.bar(comm, size=(2.0, 1.0), n=(3, 2)), law)
    problem.prescribe("left", (0.0, None))
    problem.prescribe("bottom", (None, 0.0))
    problem.prescribe("right", (2.0 * strain[0], None))
    problem.prescribe("top", (None, 1.0 * strain[1]))
    problem.solve(steps=1, log=None)
    single = law.rve.homogenise(strain)
    stress = problem.sigma.stresses()
    n = len(stress)
    assert np.allclose(stress, single.stress, rtol=1e-9, atol=1e-9)
    tangent = problem.sigma.tangent.x.array[: 9 * n].reshape(n, 3, 3)
    assert np.allclose(tangent, single.tangent, rtol=1e-8, atol=1e-8 * abs(single.tangent).max())


def test_homogeneous_cell_gives_the_single_scale_solution():
    """Against the same linear problem written directly in UFL and solved without any of the package's solvers."""
    material = fe2.LinearElastic.from_young_poisson(100.0, 0.3)
    cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 2))
    problem = bar(MPI.COMM_SELF, fe2.ExactLaw(fe2.RVE(cell, {1: material, 2: material}, degree=1)), steps=2)

    mesh = problem.mesh
    u, v = ufl.TrialFunction(problem.V), ufl.TestFunction(problem.V)
    lam, mu = material.bulk - 2 / 3 * material.shear, material.shear
    eps = ufl.sym(ufl.grad(u))
    sigma = lam * ufl.tr(eps) * ufl.Identity(2) + 2 * mu * eps
    a = fem.form(ufl.inner(sigma, ufl.grad(v)) * ufl.dx)
    b = fem.assemble_vector(fem.form(ufl.dot(fem.Constant(mesh, np.array([0.0, -0.2])), v) * ufl.dx)).array
    matrix = fem.assemble_matrix(a, block_mode=la.BlockMode.expanded).to_scipy().tocsc()
    x = problem.V.tabulate_dof_coordinates()
    value = np.full((len(x), 2), np.nan)
    value[np.isclose(x[:, 0], 0)] = 0.0
    value[np.isclose(x[:, 0], 4), 0] = 0.08
    value = value.ravel()
    free, held = np.isnan(value), ~np.isnan(value)
    value[free] = scipy.sparse.linalg.spsolve(matrix[free][:, free], b[free] - matrix[free][:, held] @ value[held])
    assert np.allclose(problem.u.x.array, value, rtol=0, atol=1e-10 * abs(value).max())


@pytest.mark.mpi
def test_closed_form_law_and_homogeneous_cells_give_the_same_structure(comm):
    """Plasticity, loaded and unloaded: the cells' strain is uniform, so both are the same discrete problem."""
    steel = fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.5, hardening=5.0)
    cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 2))
    path = {"steps": 4, "load": lambda t: min(t, 1 - t)}
    exact = bar(comm, fe2.ExactLaw(fe2.RVE(cell, {1: steel, 2: steel}, degree=1)), **path)
    closed = bar(comm, fe2.UFLLaw(steel), **path)
    assert comm.allreduce(closed.sigma.regions[0].state[:, 6].max(initial=0.0), op=MPI.MAX) > 1e-3  # it did yield
    assert [s.time for s in closed.history] == [s.time for s in exact.history]  # plasticity remembers the steps
    reference = by_place(exact)
    assert np.allclose(by_place(closed), reference, rtol=0, atol=1e-9 * abs(reference).max())


def halves(comm):
    """A bar whose right half has the tag 2; with 4 ranks or fewer some rank has cells of one tag only."""
    domain = meshes.bar(comm, size=(4.0, 1.0), n=(4, 2))
    cells = domain.mesh.topology.index_map(2).size_local + domain.mesh.topology.index_map(2).num_ghosts
    cells = np.arange(cells, dtype=np.int32)
    right = compute_midpoints(domain.mesh, 2, cells)[:, 0] > 2.0
    tags = meshtags(domain.mesh, 2, cells, np.where(right, 2, 1).astype(np.int32))
    return replace(domain, cell_tags=tags, names={"near": 1, "far": 2})


@pytest.mark.mpi
def test_each_region_has_its_own_law(law, comm):
    """A bar of two halves in series, each 2 long, at ν = 0: the force is the same in both, u = σ (2/E₁ + 2/E₂)."""
    soft, stiff = (fe2.LinearElastic.from_young_poisson(e, 0.0) for e in (100.0, 300.0))
    cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 2))
    exact = fe2.ExactLaw(fe2.RVE(cell, {1: soft, 2: soft}, degree=1))
    problem = fe2.MacroProblem(halves(comm), {1: exact, 2: fe2.UFLLaw(stiff)})
    problem.prescribe("left", (0.0, None))
    problem.prescribe("bottom", (None, 0.0))
    problem.prescribe("right", (0.08, None))
    problem.record("right")
    problem.solve(steps=1, log=None)
    stress = 0.08 / (2 / 100.0 + 2 / 300.0)
    assert np.allclose(problem.sigma.stresses(), [stress, 0.0, 0.0], rtol=1e-9, atol=1e-9 * stress)
    assert np.isclose(problem.history[-1].force["right"][0], stress * 1.0, rtol=1e-9)
    near, far = problem.sigma.regions
    assert near.law is exact and comm.allreduce(near.cells.size) == comm.allreduce(far.cells.size) == 4


@pytest.mark.mpi
def test_equal_laws_in_all_regions_are_one_law(law, comm):
    def solved(laws):
        problem = fe2.MacroProblem(halves(comm), laws)
        problem.prescribe("left", (0.0, 0.0))
        problem.prescribe("right", (0.08, 0.02))
        problem.solve(steps=2, log=None)
        return by_place(problem)

    one = solved(law)
    assert np.allclose(solved({1: law, 2: law}), one, rtol=0, atol=1e-11 * abs(one).max())


@pytest.mark.mpi
def test_tags_and_laws_must_match(law, comm):
    with pytest.raises(ValueError, match=r'tag 2 \("far"\) has no law'):
        fe2.MacroProblem(halves(comm), {1: law})
    with pytest.raises(ValueError, match=r"tag 3 has the law UFLLaw, but no cells"):
        fe2.MacroProblem(halves(comm), {1: law, 2: law, 3: fe2.UFLLaw(fe2.SaturatingElastic())})
    with pytest.raises(ValueError, match=r"UFLLaw of tag 2 \(\"far\"\) takes \(6,\)"):
        fe2.MacroProblem(halves(comm), {1: law, 2: fe2.UFLLaw(fe2.SaturatingElastic(), dim=3)})


@pytest.mark.mpi
def test_a_law_that_returns_nan_is_refused_on_all_ranks(comm):
    """The root ends at tr ε = 0.015; the cells beyond x = 3 stretch by 0.03, those before by 0.01 or not at all."""
    dies = fe2.Energy(lambda e: 50 * ufl.inner(e, e) - ufl.sqrt(0.015 - ufl.tr(e)))
    problem = fe2.MacroProblem(halves(comm), {1: fe2.UFLLaw(fe2.LinearElastic(100.0, 40.0)), 2: fe2.UFLLaw(dies)})
    problem.u.interpolate(lambda x: np.stack([0.01 * np.maximum(x[0] - 2.0, 0.0) ** 2, 0 * x[0]]))
    problem.u.x.scatter_forward()
    where = r"x = \[3\.\d+ +0?\.\d+ *\] with strain \[ *(3\.0*e-02|0?\.03)"
    with pytest.raises(fe2.NotFinite, match=rf'UFLLaw of tag 2 \("far"\): the stress .* {where}'):
        problem.sigma.update()


@pytest.mark.mpi
def test_a_step_into_nan_is_cut(comm):
    """There is no stress beyond tr ε = 0.03, so the whole way cannot be gone; what was accepted stays below that."""
    brittle = fe2.Energy(lambda e: 50 * ufl.inner(e, e) - ufl.sqrt(0.03 - ufl.tr(e)) / 100)
    problem = fe2.MacroProblem(meshes.bar(comm, size=(4.0, 1.0), n=(4, 2)), fe2.UFLLaw(brittle))
    problem.prescribe("left", (0.0, 0.0))
    problem.prescribe("right", (4 * 0.04, 0.0))
    with pytest.raises(fe2.StepFailed, match=r"smallest step: UFLLaw: the .* is not finite"):
        problem.solve(steps=1, max_cuts=3, log=None)
    assert problem.history[-1].cuts > 0
    assert (problem.sigma.strains()[:, :2].sum(axis=1) < 0.03).all()


@pytest.mark.mpi
def test_results_do_not_depend_on_the_number_of_ranks(law, comm):
    spread, alone = bar(comm, law, steps=2), bar(MPI.COMM_SELF, law, steps=2)
    ours, reference = by_place(spread), by_place(alone)
    assert np.allclose(ours, reference, rtol=0, atol=1e-10 * abs(reference).max())
    force = spread.history[-1].force["right"], alone.history[-1].force["right"]
    assert np.allclose(*force, rtol=0, atol=1e-9 * abs(np.array(force)).max())


def test_the_macro_newton_converges_quadratically(law):
    residuals = np.array(bar(MPI.COMM_SELF, law, steps=1).history[0].residuals)
    relative = residuals / residuals[0]
    fast = [(a, b) for a, b in pairwise(relative) if 1e-6 < a < 1e-2]
    assert fast and all(b < 100 * a**2 for a, b in fast)


# Units, and what is small.


def scaled(size, n, length):
    """A bar `length` times as large as `size`, by its coordinates alone."""
    domain = meshes.bar(MPI.COMM_SELF, size=size, n=n)
    domain.mesh.geometry.x[:] *= length
    return domain


def pulled(material, *, dim=2, length=1.0, traction=8e-4, **options):
    """A bar held at its left and pulled at its right."""
    problem = fe2.MacroProblem(scaled((2.0, 1.0, 1.0)[:dim], (4, 2, 2)[:dim], length), fe2.UFLLaw(material, dim=dim))
    problem.prescribe("left", (0.0,) * dim)
    problem.traction("right", (traction,) + (0.0,) * (dim - 2) + (traction / 10,))
    problem.solve(**{"steps": 2, "log": None, "max_cuts": 0} | options)
    return problem


def stiffening(modulus):
    return fe2.Energy(lambda e, E: E / 2 * (ufl.inner(e, e) + 100 * ufl.inner(e, e) ** 2), parameters={"E": modulus})


def test_a_structure_of_micrometres_moves():
    """At ν = 0 the strain is σ/E everywhere, also in a bar of 2 µm that is written in metres."""
    problem = fe2.MacroProblem(
        meshes.bar(MPI.COMM_SELF, size=(2e-6, 1e-6, 1e-6), n=(4, 2, 2)),
        fe2.UFLLaw(fe2.LinearElastic.from_young_poisson(1000.0, 0.0), dim=3),
    )
    problem.prescribe("left", (0.0, 0.0, 0.0))
    problem.traction("right", (0.8, 0.0, 0.0))
    problem.record("right")
    problem.solve(steps=1, log=None)
    step = problem.history[-1]
    assert np.allclose(step.displacement["right"], [0.8 / 1000.0 * 2e-6, 0.0, 0.0], rtol=1e-10, atol=1e-18)
    assert np.allclose(step.force["right"], [0.8e-12, 0.0, 0.0], rtol=1e-10, atol=1e-24)


@cache
def unit_bar(dim):
    return pulled(stiffening(1.0), dim=dim)


@settings(max_examples=6, deadline=None)
@given(st.floats(-9, 9), st.floats(-6, 12), st.sampled_from([2, 3]))
def test_units_do_not_matter(length, modulus, dim):
    """Displacements go with the length, forces with modulus and area, and Newton's method does the same."""
    length, modulus = 10.0**length, 10.0**modulus
    unit = unit_bar(dim)
    other = pulled(stiffening(modulus), dim=dim, length=length, traction=8e-4 * modulus)
    u = unit.u.x.array
    assert np.allclose(other.u.x.array / length, u, rtol=0, atol=1e-9 * abs(u).max())
    for a, b in zip(unit.history, other.history, strict=True):
        assert len(a.residuals) == len(b.residuals) > 2
        ratio = b.residuals[0] / a.residuals[0]
        assert np.isclose(ratio, modulus * length ** (dim - 1), rtol=1e-9)


def test_plasticity_in_other_units_is_the_same_to_the_last_bit():
    """Scaled by powers of two; other factors round differently, and a point at yield may go either way."""

    def steel(modulus):
        return fe2.J2(bulk=modulus, shear=modulus / 2, yield_stress=5e-4 * modulus, hardening=0.01 * modulus)

    unit = pulled(steel(1.0))
    for length, modulus in ((2.0**-30, 2.0**-20), (2.0**20, 2.0**40)):
        other = pulled(steel(modulus), length=length, traction=8e-4 * modulus)
        assert np.array_equal(other.u.x.array / length, unit.u.x.array)
    assert unit.sigma.regions[0].state[:, 6].max() > 1e-3  # it did yield


@pytest.mark.parametrize("dim", [2, 3])
def test_cell_means_in_other_units_are_the_same_to_the_last_bit(dim):
    """On distorted cells, whose weights differ from point to point, and right by the volumes that DOLFINx finds."""
    law, means = fe2.UFLLaw(stiffening(1.0), dim=dim), []
    for length in (1.0, 2.0**-30, 2.0**20):
        domain = meshes.bar(MPI.COMM_SELF, size=(2.0, 1.0, 1.0)[:dim], n=(4, 2, 2)[:dim])
        x = domain.mesh.geometry.x
        x[:, :dim] += 0.05 * np.sin(7 * x[:, :dim] + x.sum(axis=1, keepdims=True))
        x *= length
        problem = fe2.MacroProblem(domain, law)
        points = len(problem.sigma.cells) * len(problem.sigma.points)
        values = np.sin(np.arange(points))[:, None]
        means.append(problem.sigma.means(values))
    assert np.array_equal(means[0], means[1]) and np.array_equal(means[0], means[2])
    weights = fe2.Body(domain, {tag: stiffening(1.0) for tag in np.unique(domain.cell_tags.values)}, degree=1).weights
    assert np.allclose(means[2][:, 0], np.average(values.reshape(weights.shape), axis=1, weights=weights), rtol=1e-13)


def test_steps_without_change_and_back_to_nothing_converge():
    factors = [0.0, 1.0, 1.0, 0.0, 0.0]
    law = fe2.UFLLaw(MATERIALS[1])
    problem = bar(MPI.COMM_SELF, law, steps=4, max_cuts=0, load=lambda t: factors[round(4 * t)])
    assert [len(s.residuals) for s in problem.history][1] == 1  # it was in equilibrium already
    assert abs(problem.u.x.array).max() < 1e-12 and abs(problem.sigma.stress.x.array).max() < 1e-9


def test_a_law_that_loses_digits_is_solved_to_its_rounding():
    """tr e − ln det(I + 2e)/2 is e:e at small strains, as a difference of numbers near 1; by formula and in a cell."""

    def lossy(e, mu, lam):
        log_j = ufl.ln(ufl.det(ufl.Identity(3) + 2 * e)) / 2
        return mu * (ufl.tr(e) - log_j) + lam / 2 * log_j**2

    material = fe2.Energy(lossy, parameters={"mu": 400.0, "lam": 600.0})
    linear = fe2.LinearElastic(600.0 + 800.0 / 3, 400.0)
    reference = pulled(linear, traction=1.0, steps=1).u.x.array
    for size in (1e-4, 1e-7, 1e-10):
        u = pulled(material, traction=size, steps=1)
        assert np.allclose(u.u.x.array / size, reference, rtol=0, atol=(size + 1e-14 / size) * abs(reference).max())
        assert len(u.history[0].residuals) <= 6
    cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 2))
    exact = fe2.MacroProblem(meshes.bar(MPI.COMM_SELF, size=(2.0, 1.0), n=(2, 1)), fe2.ExactLaw(
        fe2.RVE(cell, {1: material, 2: fe2.LinearElastic(1000.0, 500.0)}, degree=1)
    ))  # fmt: skip
    exact.prescribe("left", (0.0, 0.0))
    exact.traction("right", (1e-7, 1e-7))
    exact.solve(steps=1, max_cuts=0, log=None)
    assert len(exact.history[0].residuals) <= 6


def test_a_point_without_solution_is_named_at_once():
    """No strain beyond e:e = 1e-6; without cuts, what there is to say comes from the first evaluation that fails."""
    brittle = fe2.Energy(lambda e: 50 * ufl.inner(e, e) - 1e-3 * ufl.sqrt(1e-6 - ufl.inner(e, e)))
    cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 2))
    law = fe2.ExactLaw(fe2.RVE(cell, {1: brittle, 2: brittle}, degree=1))
    what = r"smallest step: 1 RVE .*\n  point 0, strain \[.*from the guess: .* in 1 sub-steps, at 1 of the way: "
    with pytest.raises(fe2.StepFailed, match=what):
        bar(MPI.COMM_SELF, law, steps=1, max_cuts=0)


def test_options_of_petsc_come_first():
    options = PETSc.Options("early_")
    options["snes_atol"] = 1e6
    try:
        domain = meshes.bar(MPI.COMM_SELF, size=(2.0, 1.0), n=(2, 1))
        problem = fe2.MacroProblem(domain, fe2.UFLLaw(MATERIALS[1]), options_prefix="early_")
        problem.prescribe("left", (0.0, 0.0))
        problem.traction("right", (1.0, 0.0))
        problem.solve(steps=1, log=None)
        assert len(problem.history[0].residuals) == 1 and (problem.u.x.array == 0.0).all()
    finally:
        del options["snes_atol"]


def test_nothing_is_left_in_the_options_of_petsc():
    options = PETSc.Options("macro_")
    options["snes_linesearch_minlambda"] = 0.1
    try:
        before = PETSc.Options().getAll()
        cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 2))
        bar(MPI.COMM_SELF, fe2.ExactLaw(fe2.RVE(cell, MATERIALS, degree=1)), steps=1)
        assert PETSc.Options().getAll() == before
    finally:
        del options["snes_linesearch_minlambda"]


# Ctrl-C.


@pytest.fixture
def heard():
    """Ctrl-C as a terminal has it: a process in the background of a shell begins with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("where", ["law", "log"])
def test_ctrl_c_is_a_keyboard_interrupt_and_leaves_the_last_step(where, heard):
    class Interrupted(fe2.UFLLaw):
        def evaluate(self, *arguments):
            if where == "law" and problem.history:
                os.kill(os.getpid(), signal.SIGINT)
            return super().evaluate(*arguments)

    def log(line):
        if where == "log" and problem.history:
            os.kill(os.getpid(), signal.SIGINT)

    problem = fe2.MacroProblem(meshes.bar(MPI.COMM_SELF, size=(4.0, 1.0), n=(4, 2)), Interrupted(MATERIALS[1]))
    problem.prescribe("left", (0.0, 0.0))
    problem.traction("right", (1.0, 0.1))
    with pytest.raises(KeyboardInterrupt):
        problem.solve(steps=2, log=log)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(problem.history) == 1
    where, half = "nowhere", problem.u.x.array.copy()
    problem.solve(steps=2, until=0.5, log=None)  # it can go on, and is where it was
    assert np.allclose(problem.u.x.array, half, rtol=0, atol=1e-9 * abs(half).max()) and abs(half).max() > 0


def test_ctrl_c_waits_while_petsc_is_at_work(heard):
    """Between two callbacks nothing is raised; the next one is not called any more, and SIGINT is what it was."""
    called = []
    calls = Callbacks(lambda: called.append("abandoned"))
    callback = calls.guard(lambda: called.append("called"))

    def solve():
        callback()
        os.kill(os.getpid(), signal.SIGINT)
        called.append("petsc")
        callback()

    calls.run(solve)
    assert called == ["called", "petsc", "abandoned"] and isinstance(calls.error, KeyboardInterrupt)
    calls.run(lambda: os.kill(os.getpid(), signal.SIGINT))
    assert isinstance(calls.error, KeyboardInterrupt)
    calls.run(callback)
    assert calls.error is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_any_callback_comes_out_as_it_is(law):
    problem = bar(MPI.COMM_SELF, law, steps=1)

    def breaks(*arguments):
        raise ArithmeticError("broken")

    with pytest.raises(ArithmeticError, match="broken"):
        problem._newton.solve(breaks, fe2.signals.SignalListener())


def test_measures_with_other_tags_in_one_form_are_told():
    domain = halves(MPI.COMM_SELF)
    V = fem.functionspace(domain.mesh, ("Lagrange", 1, (2,)))
    v, du, b = ufl.TestFunction(V), ufl.TrialFunction(V), fem.Constant(domain.mesh, np.array([0.0, 1.0]))
    sigma = fe2.QuadratureLaw(fe2.UFLLaw(MATERIALS[1]), fem.Function(V), cell_tags=domain.cell_tags)
    work = ufl.inner(sigma.stress, fe2.mandel.strain(v)) * sigma.dx
    with pytest.raises(ValueError, match=r"ufl.dot\(b, v\) \* sigma.dx, or make your measure with subdomain_data"):
        sigma.derivative(work - ufl.dot(b, v) * ufl.dx, du)
    same = ufl.Measure("dx", domain=domain.mesh, subdomain_data=domain.cell_tags)
    for dx in (sigma.dx, same, same(2)):
        fem.form(sigma.derivative(work - ufl.dot(b, v) * dx - ufl.dot(b, v) * ufl.ds, du))


def test_a_norm_at_zero_strain_is_named():
    problem = fe2.MacroProblem(
        meshes.bar(MPI.COMM_SELF, size=(2.0, 1.0), n=(2, 1)),
        fe2.UFLLaw(fe2.Energy(lambda e: 50 * ufl.inner(e, e) + ufl.sqrt(ufl.inner(e, e)))),
    )
    with pytest.raises(fe2.NotFinite, match=r"strain \[0. 0. 0.\], at zero strain: the derivative of a root"):
        problem.sigma.update()


@pytest.mark.mpi
def test_an_error_on_one_rank_is_raised_on_all(comm):
    class Breaks:
        strain_size, state_size = 3, 1

        def initial_state(self, n):
            return np.zeros((n, 1))

        def evaluate(self, strain, state, guess, comm):
            with fe2.raise_on_all_ranks(comm):
                if comm.rank == comm.size - 1:
                    raise ArithmeticError("the law broke here")
            return None

    with pytest.raises(ArithmeticError, match="the law broke here"):
        bar(comm, Breaks(), steps=1)


def test_a_step_that_fails_is_cut_and_the_state_rolled_back(law):
    class Moody:
        """The law, but it refuses strains that come too far in one step from the accepted ones."""

        strain_size, state_size = law.strain_size, law.state_size
        initial_state = law.initial_state

        def evaluate(self, strain, state, guess, comm):
            if abs(strain - state[:, :3]).max() > 0.015:
                raise fe2.NotConverged([fe2.Failure(0, strain[0], ("too far",))])
            return law.evaluate(strain, state, guess, comm)

    cut, straight = bar(MPI.COMM_SELF, Moody(), steps=1), bar(MPI.COMM_SELF, law, steps=1)
    assert sum(s.cuts for s in cut.history) > 0 and cut.history[-1].time == 1.0
    assert np.allclose(cut.u.x.array, straight.u.x.array, rtol=0, atol=1e-9 * abs(straight.u.x.array).max())


RUN = """
import sys; sys.path.insert(0, {tests!r})
import meshes, numpy as np, fe2, os, time
from mpi4py import MPI
cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 2))
hard = fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.5, hardening=5.0)
law = fe2.ExactLaw(fe2.RVE(cell, {{1: hard, 2: fe2.LinearElastic(200.0, 80.0)}}, degree=1))
p = fe2.MacroProblem(meshes.bar(MPI.COMM_WORLD, size=(4.0, 1.0), n=(4, 2)), law)
p.prescribe("left", (0.0, 0.0)); p.prescribe("right", (0.08, None))
with open(f"{{sys.argv[2]}}pid{{MPI.COMM_WORLD.rank}}", "w") as file:
    file.write(str(os.getpid()))
def log(line):
    print(line, flush=True)
    time.sleep(float(sys.argv[3]))
p.solve(steps=8, folder=sys.argv[1], restart=True, log=log)
fields = np.concatenate([p.u.x.array, p.sigma.stress.x.array, p.sigma.regions[0].state.ravel()])
np.save(sys.argv[2] + str(MPI.COMM_WORLD.rank), fields)
"""


def start(folder, name, ranks, pause):
    """RUN on some ranks, with files in `folder` and a pause after each line that it prints."""
    script = folder / "run.py"
    script.write_text(RUN.format(tests=str(Path(__file__).parents[1])))
    environment = outside_mpi()
    command = [sys.executable, str(script), str(folder / name), str(folder / f"{name}-"), str(pause)]
    if ranks > 1:
        command = ["mpirun", "-n", str(ranks), *command]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **streams)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run on some ranks that nothing has stopped, gone through once."""

    @cache
    def run(ranks):
        folder = tmp_path_factory.mktemp(f"whole{ranks}")
        finish(start(folder, "whole", ranks, 0))
        return folder

    return run


def finish(run):
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    return output


def until(run, line):
    for found in run.stdout:
        if found.startswith(line):
            return
    raise AssertionError(f"the run ended before {line!r}")


def assert_bit_equal(whole, broken, ranks):
    for rank in range(ranks):
        assert np.array_equal(np.load(whole / f"whole-{rank}.npy"), np.load(broken / f"broken-{rank}.npy"))


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_killed_and_restarted_ends_bit_equal(tmp_path, whole, ranks):
    broken = start(tmp_path, "broken", ranks, 0.4)
    until(broken, "time 0.5")
    time.sleep(0.3)
    # mpirun puts its ranks into process groups of their own.
    for rank in range(ranks):
        os.kill(int((tmp_path / f"broken-pid{rank}").read_text()), signal.SIGKILL)
    os.killpg(broken.pid, signal.SIGKILL)
    broken.communicate()
    assert not (tmp_path / "broken-0.npy").exists()
    assert "continuing at time" in finish(start(tmp_path, "broken", ranks, 0))
    assert_bit_equal(whole(ranks), tmp_path, ranks)


@pytest.mark.parametrize(("ranks", "number"), [(1, signal.SIGUSR1), (2, signal.SIGTERM)])
def test_a_signal_to_one_rank_ends_all_of_them_in_order(tmp_path, whole, ranks, number):
    broken = start(tmp_path, "broken", ranks, 0.3)
    until(broken, "time 0.25")
    os.kill(int((tmp_path / f"broken-pid{ranks - 1}").read_text()), number)
    output, _ = broken.communicate(timeout=60)
    assert broken.returncode == 128 + number, output
    assert f"stopped by {number.name}; restart=True continues from this step" in output
    assert "continuing at time 0.25" in finish(start(tmp_path, "broken", ranks, 0))
    assert_bit_equal(whole(ranks), tmp_path, ranks)


def test_without_a_folder_signals_are_as_they_were(law):
    before = [signal.getsignal(number) for number in fe2.signals.SIGNALS]
    seen = []
    bar(MPI.COMM_SELF, law, steps=1, log=lambda line: seen.extend(signal.getsignal(n) for n in fe2.signals.SIGNALS))
    assert seen == before


@pytest.mark.mpi
def test_a_run_goes_on_with_another_number_of_ranks(comm, mpi_tmp_path):
    """Half of the way on rank 0 alone, the other half on all ranks, with plasticity in cells and by formula."""
    steel = fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.5, hardening=5.0)
    cell = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 2))
    exact = fe2.ExactLaw(fe2.RVE(cell, {1: steel, 2: fe2.LinearElastic(200.0, 80.0)}, degree=1))
    laws = {1: exact, 2: fe2.UFLLaw(steel)}

    def problem(comm):
        problem = fe2.MacroProblem(halves(comm), laws, degree=2)
        problem.prescribe("left", (0.0, 0.0))
        problem.prescribe("right", (0.08, None))
        return problem

    whole, last = problem(MPI.COMM_SELF), problem(comm)
    path = {"steps": 4, "load": lambda t: min(t, 1.5 - t), "log": None}
    whole.solve(**path)
    if comm.rank == 0:
        problem(MPI.COMM_SELF).solve(until=0.5, folder=mpi_tmp_path, **path)
    comm.barrier()
    last.solve(restart=True, folder=mpi_tmp_path, **path)
    assert len(last.history) == len(whole.history) == 4
    reference = by_place(whole)
    assert np.allclose(by_place(last), reference, rtol=0, atol=1e-9 * abs(reference).max())


@pytest.mark.mpi
def test_a_checkpoint_of_another_run_is_refused(law, comm, mpi_tmp_path):
    bar(comm, law, steps=1, folder=mpi_tmp_path)
    with pytest.raises(fe2.CheckpointError, match="other `steps`"):
        bar(comm, law, steps=2, folder=mpi_tmp_path, restart=True)
    with pytest.raises(fe2.CheckpointError, match="no state of UFLLaw: it was written with other laws"):
        bar(comm, fe2.UFLLaw(fe2.SaturatingElastic()), steps=1, folder=mpi_tmp_path, restart=True)

    def again(length, degree):
        problem = fe2.MacroProblem(meshes.bar(comm, size=(length, 1.0), n=(4, 2)), law, degree=degree)
        return problem.solve(steps=1, folder=mpi_tmp_path, restart=True, log=None)

    with pytest.raises(fe2.CheckpointError, match="belongs to another mesh"):
        again(4.4, 1)
    with pytest.raises(fe2.CheckpointError, match=r"displacement has 8 numbers per cell, .* need 18"):
        again(4.0, 2)
    assert again(4.0, 1)[-1].time == 1.0
    if comm.rank == 0:
        (mpi_tmp_path / "checkpoint" / "rank0.h5").write_bytes(b"nothing")
    comm.barrier()
    with pytest.raises(fe2.CheckpointError, match="cannot be read"):
        again(4.0, 1)


def test_wrong_use_is_told(law):
    problem = fe2.MacroProblem(meshes.bar(MPI.COMM_SELF, size=(2.0, 1.0), n=(2, 1)), law)
    for wrong in ((np.nan, 0.0), (1.0, 0.0, 0.0), (1j, 0.0), 1.0):
        for name, apply in {
            r"traction\('right'\)": lambda v: problem.traction("right", v),
            "body_force": problem.body_force,
        }.items():
            with pytest.raises(ValueError, match=f"{name}: .*: need a vector of 2 finite real numbers"):
                apply(wrong)
    with pytest.raises(ValueError, match=r"prescribe\('right'\): .*nan.*: need a vector of 2 finite"):
        problem.prescribe("right", (None, np.nan))
    with pytest.raises(ValueError, match="no boundary has the name 'middle'; the boundaries are"):
        problem.prescribe("middle", (0.0, 0.0))
    with pytest.raises(ValueError, match="1 values for 2 components"):
        problem.prescribe("left", (0.0,))
    with pytest.raises(ValueError, match="restart needs the folder"):
        problem.solve(restart=True)


@pytest.mark.mpi
def test_multigrid_is_told_of_rigid_motions(law, comm):
    """Translations and a rotation are in the span of the near-nullspace of the matrix."""
    problem = bar(comm, law, steps=1)
    A, x = problem._newton._A, problem.V.tabulate_dof_coordinates()
    owned = problem.V.dofmap.index_map.size_local
    vectors = A.getNearNullSpace().getVecs()
    assert len(vectors) == 3
    for motion in (np.array([1.0, 0.0]) + 0 * x[:, :2], np.stack([-x[:, 1], x[:, 0]], 1)):
        rest = A.createVecRight()
        rest.array[:] = motion[:owned].ravel()
        size = rest.norm()
        for vector in vectors:
            rest.axpy(-rest.dot(vector), vector)
        assert rest.norm() < 1e-12 * size


def test_old_names_of_prescribe_and_record_warn_and_work():
    problem = fe2.MacroProblem(meshes.bar(MPI.COMM_SELF, size=(4.0, 1.0), n=(4, 2)), fe2.UFLLaw(MATERIALS[2]))
    with pytest.warns(DeprecationWarning, match="MacroProblem.prescribe"):
        problem.fix("left", (0.0, 0.0))
    problem.prescribe("right", (0.08, 0.0))
    with pytest.warns(DeprecationWarning, match="MacroProblem.record"):
        problem.watch("right")
    problem.solve(steps=1, log=None)
    assert np.allclose(problem.history[0].displacement["right"], (0.08, 0.0))


def test_the_old_name_of_coordinates_warns_and_works(tmp_path):
    domain = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(2, 1))
    law = fe2.ExactLaw(fe2.RVE(domain, {1: MATERIALS[2], 2: MATERIALS[2]}))
    problem = fe2.MacroProblem(meshes.bar(MPI.COMM_SELF, size=(4.0, 1.0), n=(4, 2)), law)
    near = [[0.1, 0.05]]
    (point,) = problem.micro(near)
    with pytest.warns(DeprecationWarning, match=r"^MacroProblem\.micro\(places=.* is now .*\.micro\(coordinates="):
        (found,) = problem.micro(places=near)
    assert np.array_equal(found.coordinates, point.coordinates)
    with pytest.warns(DeprecationWarning, match=r"write_micro\(coordinates=\.\.\.\)$"):
        problem.write_micro(tmp_path, places=near)
    assert (tmp_path / "micro-1.xdmf").exists()


def test_a_problem_that_nobody_has_is_freed():
    """Also without `destroy`: PETSc's references to the methods it calls do not keep it and its communicators alive."""
    law = fe2.UFLLaw(fe2.LinearElastic(3.0, 2.0))
    problem = fe2.MacroProblem(meshes.bar(MPI.COMM_SELF, size=(2.0, 1.0), n=(2, 1)), law)
    problem.prescribe("left", [0.0, 0.0])
    problem.prescribe("right", [0.01, None])
    problem.solve(steps=1, log=None)
    freed = weakref.ref(problem)
    del problem
    assert freed() is None
