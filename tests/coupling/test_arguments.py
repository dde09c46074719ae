# SPDX-License-Identifier: MIT
"""Arguments of laws: all laws refuse, with the same message, what is not finite, not real, or of another shape."""

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
import ufl
from mpi4py import MPI
from dolfinx import fem, mesh

import coupling
import fe2
import meshes

SOFT, STIFF = fe2.SaturatingElastic(), fe2.LinearElastic.from_young_poisson(2e4, 0.3)


@pytest.fixture(scope="module")
def laws(trained):
    """One of each kind, at two points."""
    exact = fe2.ExactLaw(trained.rve)
    rve = fe2.RVE(square(), {1: SOFT, 2: STIFF}, degree=1)
    tags = np.random.default_rng(0).integers(1, 3, (2, 16)).astype(np.int32)
    varying = fe2.VaryingLaw(rve, tags)
    network = coupling.mode_network(rve, half_range=0.04 * np.ones(3), r=3, channels=4)
    return {
        "exact": exact,
        "varying": varying,
        "formula": fe2.UFLLaw(SOFT),
        "surrogate": coupling.SurrogateLaw(trained.model),
        "surrogate that warns": coupling.SurrogateLaw(trained.model, outside="warn"),
        "surrogate and exact": coupling.SurrogateLaw(trained.model, outside=exact),
        "certified": coupling.CertifiedLaw(trained.model, exact),
        "modes": coupling.ModesLaw(network, tags, exact=varying),
        "grid": coupling.GridLaw(tags.reshape(2, 4, 4), {1: SOFT, 2: STIFF}),
    }


def square():
    return meshes.from_labels(np.random.default_rng(1).integers(1, 3, (4, 4)), MPI.COMM_SELF)


KINDS = ("exact", "varying", "formula", "surrogate", "surrogate that warns", "surrogate and exact", "certified",
         "modes", "grid")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_no_law_takes_what_it_cannot(laws, kind):
    law, good = laws[kind], 1e-3 * np.ones((2, 3))
    state = law.initial_state(2)
    assert np.isfinite(law.evaluate(good, state, state, MPI.COMM_SELF).stress).all()
    for wrong, message in {
        "NaN": (np.array([[0, 0, 0], [0, np.nan, 0]]), r"the strain of point 1 is \[0.0, nan, 0.0\], need finite"),
        "infinite": (np.array([[np.inf, 0, 0], [0, 0, 0]]), "the strain of point 0 is"),
        "complex": (good + 0j, "strains are of the type complex128, need real numbers"),
        "3D": (np.zeros((2, 6)), r"shape \(2, 6\), need \(n, 3\) Mandel components"),
        "tensors": (np.zeros((2, 2, 2)), r"fe2\.mandel\.vector makes them of symmetric tensors, and F − I is no"),
        "one tensor": (np.eye(2), r"shape \(2, 2\), need \(n, 3\).*F − I"),
        "one strain": (np.zeros(3), r"shape \(3,\)"),
    }.values():
        with pytest.raises(ValueError, match=message):
            law.evaluate(wrong, state, state, MPI.COMM_SELF)
    more = np.hstack([state, np.zeros((2, 1))])
    for which, rows in (("state", (more, state)), ("guess", (state, more)), ("state", (state[:1], state))):
        need = rf"{type(law).__name__}: {which} has the shape .*, need \(2, {law.state_size}\) real"
        with pytest.raises(ValueError, match=need):
            law.evaluate(good, *rows, MPI.COMM_SELF)


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("formula", "surrogate", "surrogate that warns")])
def test_no_law_takes_rows_that_are_not_finite(laws, kind):
    """Such as those of points that failed, handed back; laws of the others have no rows."""
    law, good = laws[kind], 1e-3 * np.ones((2, 3))
    rows = law.initial_state(2)
    bad = rows.copy()
    bad[1, -1] = np.nan
    for which, given in (("state", (bad, rows)), ("guess", (rows, bad))):
        last = law.state_size - 1
        message = rf"{type(law).__name__}: the row of point 1 of {which} has nan as its number {last}, need"
        with pytest.raises(ValueError, match=message):
            law.evaluate(good, *given, MPI.COMM_SELF)


def test_failed_points_have_no_rows_to_go_on_from():
    rve = fe2.RVE(square(), {1: SOFT, 2: STIFF}, degree=1, solver=fe2.SolverOptions(max_iterations=1, max_substeps=1))
    failed = rve.homogenise([[0.0, 0.0, 0.0], [0.02, 0.0, 0.0]], on_failure="report")
    assert [f.point for f in failed.failures] == [1]
    with pytest.raises(ValueError, match=r"RVE: the row of point 1 of state has nan .* failed has no row"):
        rve.homogenise(np.zeros((2, 3)), failed.state)


@pytest.mark.mpi
def test_failures_name_the_points_of_the_caller(comm):
    """The last point of a rank is where there is a root of a negative number."""

    def dies(size):
        def energy(e, size):
            return size * (5 * ufl.inner(e, e) + ufl.tr(e) - ufl.sqrt(1 + 2 * ufl.tr(e)))

        return fe2.Energy(energy, {"size": size})

    rve = fe2.RVE(square(), {1: dies(1.0), 2: dies(10.0)}, degree=1)
    exact = fe2.ExactLaw(rve)
    varying = fe2.VaryingLaw(rve, np.tile(np.array([1, 2] * 8, dtype=np.int32), (4, 1)))
    for law in (exact, varying):
        strain = np.zeros((4, 3))
        if comm.rank == comm.size - 1:
            strain[3, 0] = -0.9
        state = law.initial_state(4)
        with pytest.raises(fe2.NotConverged) as caught:
            law.evaluate(strain, state, state, comm)
        (failure,) = caught.value.failures
        place = "point 3" if comm.size == 1 else f"point 3 of rank {comm.size - 1}"
        assert failure.point == 3 and str(failure).startswith(f"{place}, strain [-0.9  0.   0. ]: from")
        assert f"  {place}, strain" in str(caught.value)
    # The first rank has more work than the others, which solve some of its points with the exact law.
    if comm.size > 1:
        strain = np.zeros((4, 3))
        if comm.rank == 0:
            strain[3, 0] = -0.9
        guess = exact.initial_state(4)
        exact.layout.view(guess, "work")[:] = 50.0 if comm.rank == 0 else 1.0
        with pytest.raises(fe2.NotConverged, match="point 3 of rank 0, strain"):
            exact.evaluate(strain, exact.initial_state(4), guess, comm)


def test_numbers_of_other_types_are_taken(laws):
    """Whole numbers and single precision, which float64 holds exactly."""
    law = laws["formula"]
    state = law.initial_state(2)
    for strain in (np.zeros((2, 3), int), np.full((2, 3), 0.125, np.float32)):
        right = law.evaluate(strain.astype(float), state, state)
        assert np.array_equal(law.evaluate(strain, state, state).stress, right.stress)


@pytest.mark.mpi
def test_what_is_wrong_on_one_rank_is_raised_on_all(comm, trained):
    exact = fe2.ExactLaw(trained.rve)
    for law in (exact, fe2.UFLLaw(SOFT), coupling.SurrogateLaw(trained.model, outside="warn"),
                coupling.CertifiedLaw(trained.model, exact)):  # fmt: skip
        strain = np.zeros((1, 3))
        if comm.rank == comm.size - 1:
            strain[0, 1] = np.nan
        state = law.initial_state(1)
        with pytest.raises(ValueError, match="the strain of point 0 is"):
            law.evaluate(strain, state, state, comm)


def test_functions_of_points_refuse_the_same(laws):
    law = laws["formula"]
    respond, external = coupling.PointLaw(law, 2), coupling.ExternalLaw(law)
    for wrong in (np.zeros((2, 3), complex), np.full((2, 3), np.nan), np.zeros((2, 2, 2)), np.zeros((2, 3, 2))):
        with pytest.raises(ValueError, match=r"need (real|finite|\(2, 3\))"):
            respond(wrong)
        with pytest.raises(ValueError, match=r"need (real|finite|\(cells, points, 3\))"):
            external((0,))(wrong)


def test_a_deformation_gradient_is_no_strain():
    """F, C = FᵀF and the like are those of the identity at rest; other strains, also such as of heat, are not."""
    domain = mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    u = fem.Function(fem.functionspace(domain, ("P", 1, (2,))))
    u.x.array[:] = np.random.default_rng(0).uniform(-1e-2, 1e-2, u.x.array.size)
    moved, F = u.x.array.copy(), ufl.Identity(2) + ufl.grad(u)
    for tensor in (ufl.sym(F), F.T * F):
        with pytest.raises(ValueError, match=r"at zero displacement is \[1\.0, 1\.0, 0\.0\], that of the identity"):
            fe2.QuadratureLaw(fe2.UFLLaw(SOFT), u, strain=fe2.mandel.ufl_vector(tensor))
    heat = fem.Constant(domain, 0.01) * ufl.Identity(2)
    for tensor in ((F.T * F - ufl.Identity(2)) / 2, ufl.sym(ufl.grad(u)) - heat):
        fe2.QuadratureLaw(fe2.UFLLaw(SOFT), u, strain=fe2.mandel.ufl_vector(tensor))
    assert np.array_equal(u.x.array, moved)


@pytest.mark.parametrize("part", ["lower", "upper"])
def test_the_trained_range_includes_its_ends(trained, laws, part):
    """The next number beyond is outside, the end itself inside."""
    end = getattr(trained.model, part).numpy()
    law, certified = laws["surrogate"], laws["certified"]
    for k in range(3):
        inside = np.zeros((1, 3))
        inside[0, k] = end[k]
        beyond = np.nextafter(inside, 2 * inside)
        with torch.no_grad():
            right = trained.model(torch.from_numpy(inside))[0].numpy()
        none = law.initial_state(1)
        assert np.allclose(law.evaluate(inside, none, none).stress, right, rtol=1e-12, atol=1e-12 * abs(right).max())
        with pytest.raises(coupling.OutsideRange, match=f"farthest is component {k} of point 0"):
            law.evaluate(beyond, none, none)
        rows = certified.initial_state(1)
        certified.evaluate(inside, rows, rows)
        assert not certified.is_outside[0]
        certified.evaluate(beyond, rows, rows)
        assert certified.is_outside[0] and certified.tier[0] > 0


class Wrong:
    """A law that returns what it was made with."""

    strain_size, state_size = 3, 0

    def __init__(self, **wrong):
        self.wrong = wrong

    def initial_state(self, n):
        return np.zeros((n, 0))

    def evaluate(self, strain, state, guess, comm=MPI.COMM_SELF):
        n = len(strain)
        right = {"stress": strain.copy(), "tangent": np.tile(np.eye(3), (n, 1, 1)), "state": state}
        return fe2.Response(**right | {name: make(right[name]) for name, make in self.wrong.items()})


def not_a_number_at_1(stress):
    stress[1] = np.nan
    return stress


@pytest.mark.parametrize("wrong, message", [
    ({"stress": lambda s: s[:, :2]}, r"Wrong: the stress that it returned has shape \(16, 2\), need \(16, 3\)"),
    ({"stress": lambda s: s[:4]}, r"the stress that it returned has shape \(4, 3\), need \(16, 3\)"),
    ({"tangent": lambda c: c[:, 0]}, r"the tangent that it returned has shape \(16, 3\), need \(16, 3, 3\)"),
    ({"state": lambda a: np.zeros((len(a), 1))}, r"the state that it returned has shape \(16, 1\), need \(16, 0\)"),
    ({"stress": not_a_number_at_1}, r"stress .* not finite at 1 of 16 points, the first .* at x = \[0\.2\d* 0\.78"),
])  # fmt: skip
def test_what_a_law_returns_is_checked(wrong, message):
    domain = meshes.bar(MPI.COMM_SELF, size=(4.0, 1.0), n=(4, 1))
    u = fem.Function(fem.functionspace(domain.mesh, ("P", 1, (2,))))
    u.interpolate(lambda x: np.outer([0.01, 0.003], np.maximum(1 - x[0], 0)))  # at rest but for the first cell
    error = fe2.NotFinite if "finite" in message else ValueError
    with pytest.raises(error, match=message) as caught:
        fe2.QuadratureLaw(Wrong(**wrong), u).update()
    # The strain of that point is not zero, so that nothing is known of the cause.
    assert "zero" not in str(caught.value)


def test_laws_know_the_coordinates_of_their_points():
    """Gauss points of the cells; an affine field of the coordinates is what the strains of its primitive are."""
    domain = meshes.bar(MPI.COMM_SELF, size=(3.0, 1.0), n=(3, 2))
    x = fe2.law_coordinates(domain, degree=2)
    u = fem.Function(fem.functionspace(domain.mesh, ("P", 2, (2,))))
    u.interpolate(lambda x: np.array([x[0] ** 2 / 2, x[1] ** 2 / 2]))
    sigma = fe2.QuadratureLaw(Wrong(), u)
    np.testing.assert_allclose(x, sigma.coordinates(), rtol=0, atol=1e-14)
    np.testing.assert_allclose(x, sigma.strains()[:, :2], rtol=0, atol=1e-13)


def test_the_first_phase_without_material_is_named():
    rve = fe2.RVE(square(), {1: SOFT, 2: STIFF}, degree=1)
    with pytest.raises(ValueError, match=r"tag 7 has no material; the tags with material are \[1, 2\]"):
        fe2.VaryingLaw(rve, np.array([[1] * 15 + [7], [9] + [2] * 15], dtype=np.int32))


def test_old_names_of_methods_warn(trained):
    """They work for one release."""
    rve = fe2.RVE(square(), {1: SOFT, 2: STIFF}, degree=1)
    exact, varying = fe2.ExactLaw(rve), fe2.VaryingLaw(rve, np.ones((1, 16), dtype=np.int32))
    problem = fe2.MacroProblem(meshes.bar(MPI.COMM_SELF, size=(1.0, 1.0), n=(1, 1)), exact)
    (point,) = problem.micro([0.1, 0.1])
    row = exact.initial_state(1)[0]
    for old, new, call, right in (
        ("RVE.place", "RVE.set_state", lambda: rve.place(rve.initial_state(1)[0]), rve.body),
        ("ExactLaw.place", "ExactLaw.set_state", lambda: exact.place(row), rve.body),
        ("VaryingLaw.cell", "VaryingLaw.rve_at", lambda: varying.cell(0), varying.rve_at(0)),
        ("VaryingLaw.place", "VaryingLaw.set_state", lambda: varying.place(varying.initial_state(1)[0]),
         varying.rve_at(0).body),
        ("MicroPoint.place", "MicroPoint.coordinates", lambda: point.place, point.coordinates),
    ):  # fmt: skip
        with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
            assert call() is right
    with pytest.warns(DeprecationWarning, match=r"QuadratureLaw\.places is now QuadratureLaw\.coordinates"):
        assert np.array_equal(problem.sigma.places(), problem.sigma.coordinates())
