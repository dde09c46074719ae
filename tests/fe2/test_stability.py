# SPDX-License-Identifier: MIT
"""Stability of RVEs at finite strain: closed forms, Bloch waves on one period, and equilibria on both branches."""

import warnings
from functools import cache

import numpy as np
import pytest
import scipy.linalg
import ufl
from mpi4py import MPI
from dolfinx import fem
from petsc4py import PETSc
from scipy.optimize import brentq

import fe2
import meshes
from fe2.measure import between
from fe2.minimum import weakest

SOFT, STIFF = fe2.NeoHookean(bulk=5 / 3, shear=1.0), fe2.NeoHookean(bulk=500 / 3, shear=100.0)
FOLLOW = fe2.SolverOptions(buckling="follow")
PACKAGES = ("cholmod", "mumps", "petsc")


@cache
def holes(mesh_size=3.0, order=1):
    """One period of a square array of holes with the gaps of Bertoldi & Boyce (2008), in units of the period."""
    hole = meshes.Circle((0.0, 0.0), 4.335 / 9.97, tag=meshes.VOID)
    return meshes.rve(
        [hole], MPI.COMM_SELF, mesh_size=mesh_size / 9.97, order=order, cells_per_gap=2, edges_per_circle=16
    )


@cache
def array(n=2, buckling="report", boundary="periodic"):
    rubber = fe2.NeoHookean(bulk=55.0, shear=1.1)
    options = fe2.SolverOptions(buckling=buckling)
    return fe2.RVE(meshes.tiled(holes(), (n, n)), {1: rubber}, boundary=boundary, solver=options)


@cache
def limit():
    """The equibiaxial path of the array of 2 × 2 holes."""
    return fe2.critical_strain(array(), EQUIBIAXIAL, steps=3, tolerance=1e-8)


EQUIBIAXIAL = np.array([-0.03, 0.0, 0.0, -0.03])


def inclusion(kind):
    circle = meshes.Circle((0.0, 0.0), (0.3 / np.pi) ** 0.5, tag=meshes.VOID if kind == "void" else 2)
    domain = meshes.rve([circle], MPI.COMM_SELF, mesh_size=0.12)
    materials = {"void": {1: SOFT}, "stiff": {1: SOFT, 2: STIFF}, "soft": {1: STIFF, 2: SOFT}}
    return domain, materials[kind]


# Macroscopic stability.


def test_a_laminate_compressed_along_its_layers_loses_ellipticity_where_the_closed_form_does():
    """Incompressible neo-Hookean layers, fractions c and moduli μ, stretched by λ along them in plane strain.

    With t = F T along the layers (normal N) and s = t·F N, the shears a ∝ t of the layers of least energy leave

        W = μ_a/2 (|t|² + 1/|t|²) + μ_h/2 s²/|t|²,   μ_a = Σ c μ,  1/μ_h = Σ c/μ.

    In F = λ T⊗T + N⊗N/λ + ε N⊗T, a wave along the layers, it is |t|² = λ² + ε² and s = ε/λ, so that the factor of ε²/2,
    μ_a (1 − 1/λ⁴) + μ_h/λ⁴, vanishes at λ⁴ = 1 − μ_h/μ_a (Triantafyllidis & Maker, J. Appl. Mech. 52, 1985, 794–800).
    """
    fractions, moduli = np.array([0.4, 0.6]), np.array([10.0, 1.0])
    exact = (1 - 1 / (fractions / moduli).sum() / (fractions @ moduli)) ** 0.25
    stretch = np.linspace(1.0, 0.85, 31)[1:]
    path = np.column_stack([stretch - 1, 0 * stretch, 0 * stretch, 1 / stretch - 1])
    domain = meshes.laminate(fractions, MPI.COMM_SELF, cells=(1, 5), normal=1)
    errors = []
    for bulk in (1e3, 1e4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nearly incompressible, but uniform in each layer
            rve = fe2.RVE(domain, {k + 1: fe2.NeoHookean(bulk=bulk * m, shear=m) for k, m in enumerate(moduli)})
        found = fe2.critical_strain(rve, path)
        assert not found.found and found.mode is None and np.isnan(found.strain).all()
        assert np.abs(found.amplitude) == pytest.approx([0.0, 1.0], abs=1e-3)
        assert np.abs(found.normal) == pytest.approx([1.0, 0.0], abs=1e-3)
        assert (found.ellipticity[found.fractions < found.macroscopic_fraction - 1e-5] > 0).all()
        errors.append(abs(1 + found.macroscopic_strain[0] - exact))
        rve.destroy()
    # Compressibility μ/K is all that differs.
    assert errors[1] < 2e-4 and errors[1] < 0.2 * errors[0]


def test_ellipticity_of_tensors_in_closed_form():
    # Isotropic: μ for m ⊥ n. Cubic: (C11 − C12)/2 for n along [110] and m along [1-10], if that is below C44.
    bulk, shear = 7.0, 2.0
    isotropic = 3 * bulk * np.outer([1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]) / 3
    isotropic = isotropic + 2 * shear * (np.eye(6) - np.outer([1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]) / 3)
    assert fe2.ellipticity(isotropic, fe2.SMALL_STRAIN).least == pytest.approx(shear)
    c11, c12, c44 = 5.0, 4.0, 3.0
    cubic = np.zeros((6, 6))
    cubic[:3, :3] = c12
    cubic[range(6), range(6)] = [c11] * 3 + [2 * c44] * 3
    found = fe2.ellipticity(cubic, fe2.SMALL_STRAIN)
    assert found.least == pytest.approx((c11 - c12) / 2, rel=1e-10)
    assert sorted(np.abs(found.normal)) == pytest.approx([0.0, 0.5**0.5, 0.5**0.5], abs=1e-5)
    assert found.amplitude @ found.normal == pytest.approx(0.0, abs=1e-5)
    # A tangent of the displacement gradient: C = 1 has m⊗n : C : m⊗n = 1, and dyads a⊗b subtract from it.
    a, b = np.array([0.6, 0.8]), np.array([0.8, -0.6])
    dyad = np.outer(a, b).ravel()
    found = fe2.ellipticity(np.eye(4) - 1.5 * np.outer(dyad, dyad), fe2.DISPLACEMENT_GRADIENT)
    assert found.least == pytest.approx(-0.5)
    assert abs(found.amplitude @ a) == pytest.approx(1.0) and abs(found.normal @ b) == pytest.approx(1.0)
    assert fe2.ellipticity(np.diag([3.0, 2.0]), fe2.GRADIENT).least == pytest.approx(2.0)
    with pytest.raises(ValueError, match=r"need \(d, d\) finite"):
        fe2.ellipticity(np.ones((4, 3)), fe2.DISPLACEMENT_GRADIENT)


# Microscopic stability.


def lowest_of_bloch_wave(state):
    """Lowest eigenvalue of the stiffness of one period for fluctuations that change sign from period to period.

    Its own forms and ties, and a dense eigenvalue problem with the identity.
    """
    rve = array(1)
    mesh, u = rve.domain.mesh, rve.displacement(state)
    V = u.function_space
    f = ufl.Identity(3) + ufl.as_tensor(
        [[ufl.grad(u)[i, j] if max(i, j) < 2 else 0.0 for j in range(3)] for i in range(3)]
    )
    log, mu, bulk = ufl.ln(ufl.det(f)), 1.1, 55.0
    psi = mu / 2 * (ufl.inner(f, f) - 3 - 2 * log) + (bulk - 2 * mu / 3) / 2 * log**2
    dx = ufl.dx(domain=mesh, metadata={"quadrature_degree": 2})
    v, du = ufl.TestFunction(V), ufl.TrialFunction(V)
    form = fem.form(ufl.derivative(ufl.derivative(psi * dx, u, v), u, du))
    k = fem.assemble_matrix(form).to_dense()
    x = V.tabulate_dof_coordinates()[:, :2]
    label = meshes.periodic_labels(x, np.eye(2))
    _, first = np.unique(label, return_index=True)
    sign = (-1.0) ** np.rint(x - x[first[label]]).sum(axis=1)
    ties = np.kron((label[:, None] == np.arange(label.max() + 1)) * sign[:, None], np.eye(2))
    return scipy.linalg.eigh(ties.T @ k @ ties, eigvals_only=True, subset_by_index=(0, 0))[0]


def test_an_array_of_holes_buckles_where_the_bloch_wave_of_one_period_does():
    one = array(1)

    def lowest(fraction):
        return lowest_of_bloch_wave(one.homogenise(fraction * EQUIBIAXIAL).state[0])

    expected = brentq(lowest, 0.1, 1.0, xtol=1e-10)
    found = limit()
    assert found.found and found.fraction == pytest.approx(expected, abs=1e-6)
    assert np.allclose(found.strain, found.fraction * EQUIBIAXIAL)
    # The pattern: period 2 in both directions, as neighbours are turned to opposite sides.
    rve = array()
    x, m = rve.body.V.tabulate_dof_coordinates()[:, :2], found.mode.x.array.reshape(-1, 2)
    label = meshes.periodic_labels(x, np.eye(2))
    _, first = np.unique(label, return_index=True)
    sign = (-1.0) ** np.rint(x - x[first[label]]).sum(axis=1)
    there = label == label[0]
    shift = (m[there & (sign > 0)][0] + m[there & (sign < 0)][0]) / 2  # one node is held against translation
    turned = (m - shift) * sign[:, None]
    assert np.allclose(turned, turned[first[label]], atol=1e-4)
    assert np.abs(m).max() == pytest.approx(1.0)


def test_the_history_of_the_stiffness_begins_at_one_and_ends_at_zero():
    found = limit()
    assert found.stiffness[0] == pytest.approx(1.0) and (np.diff(found.fractions) > 0).all()
    assert abs(found.stiffness[np.abs(found.fractions - found.fraction).argmin()]) < 1e-6
    assert (np.diff(found.stiffness) < 0).all()
    assert (found.ellipticity > 0).all() and np.isnan(found.macroscopic_fraction)
    last = array().layout.view(found.state, "strain")
    assert np.allclose(last, found.strain, atol=1e-8)


@pytest.mark.slow
def test_more_periods_buckle_no_later_and_the_longest_waves_where_the_tangent_loses_ellipticity():
    """1, 2 and 4 periods have each other's modes. Those of 3 are longer waves, whose limit is that of the tangent."""
    found = {n: fe2.critical_strain(array(n), [-0.1, 0.0, 0.0, -0.1], steps=20) for n in (1, 2, 3, 4)}
    micro = {n: -f.strain[0] for n, f in found.items()}
    assert micro[4] == pytest.approx(micro[2], rel=1e-3) and micro[2] < micro[3] < micro[1]
    macro = [-found[n].macroscopic_strain[0] for n in (1, 3)]
    assert macro[0] == pytest.approx(macro[1], rel=1e-3)  # the tangent of any number of periods
    assert macro[0] < micro[3] < 1.02 * macro[0] and micro[1] > 2 * macro[0]


@pytest.mark.slow
def test_the_critical_strains_of_a_sheet_with_holes_do_not_depend_on_the_mesh():
    """The sheet of Mullin et al. (Phys. Rev. Lett. 99, 2007, 084301) in plane strain: holes of 4.335 mm every 9.97 mm.

    The reference is the finest of three meshes; the energy is that of the demo. The pattern under equal compression is
    found at less than half the uniaxial strain.
    """

    def rubber(f, c1, c2, bulk):
        j, excess = ufl.det(f), ufl.inner(f, f) - 3
        return c1 * excess + c2 * excess**2 - 2 * c1 * ufl.ln(j) + bulk / 2 * (j - 1) ** 2

    material = fe2.Energy(rubber, parameters={"c1": 0.55, "c2": 0.3, "bulk": 55.0}, measure="displacement gradient")
    found = []
    for size, gap in ((2.0, 4), (0.7, 4), (0.7, 8)):
        hole = meshes.Circle((0.0, 0.0), 4.335, tag=meshes.VOID)
        period = meshes.rve([hole], MPI.COMM_SELF, size=(9.97, 9.97), mesh_size=size, order=2, cells_per_gap=gap)
        rve = fe2.RVE(meshes.tiled(period, (2, 2)), {1: material})
        equal = fe2.critical_strain(rve, [-0.03, 0.0, 0.0, -0.03], steps=3)
        path, lateral, state = [], 0.0, None
        for strain in -np.arange(0.005, 0.036, 0.005):  # no stress across
            for _ in range(8):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", fe2.UnstableWarning)
                    h = rve.homogenise([lateral, 0.0, 0.0, strain], state)
                lateral -= h.stress[0, 0] / h.tangent[0, 0, 0]
            assert abs(h.stress[0, 0]) < 1e-9
            state = h.state
            path.append([lateral, 0.0, 0.0, strain])
        uniaxial = fe2.critical_strain(rve, path, steps=len(path))
        assert np.isnan(uniaxial.macroscopic_fraction)
        found.append([-equal.strain[3], -uniaxial.strain[3]])
        rve.destroy()
    assert found[0] == pytest.approx(found[2], rel=3e-3)
    assert found[1] == pytest.approx(found[2], rel=1.5e-3)
    assert found[2] == pytest.approx([0.01143, 0.02987], rel=2e-3)


def test_one_period_alone_and_a_short_path_are_stable():
    short = fe2.critical_strain(array(), 0.5 * limit().strain, steps=2)
    assert not short.found and (short.stiffness > 0).all() and short.fractions[-1] == 1.0
    one = fe2.critical_strain(array(1), 1.5 * limit().strain, steps=2)
    assert not one.found  # the pattern does not fit


def test_a_path_may_begin_at_a_state_and_turn():
    rve, end = array(), limit().strain
    (state,) = rve.homogenise(0.5 * end).state
    found = fe2.critical_strain(rve, [0.7 * end, 0.75 * end, 1.2 * end], state=state, steps=2, tolerance=1e-8)
    assert np.allclose(found.strain, end, atol=1e-7)
    assert found.fraction == pytest.approx(0.5 / 0.7, abs=1e-5)


def test_equilibria_beyond_it_are_reported_beside_stable_neighbours():
    strains = np.outer([0.5, 0.9, 1.1, 1.5], limit().strain)
    with pytest.warns(fe2.UnstableWarning, match="buckled"):
        h = array().homogenise(strains)
    assert h.unstable.tolist() == [False, False, True, True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = array().homogenise(strains[1])
        warnings.simplefilter("ignore")
        silent = array(buckling="unchecked").homogenise(strains)
    assert np.allclose(silent.stress, h.stress, rtol=1e-8, atol=1e-12)
    assert np.allclose(silent.tangent, h.tangent, rtol=1e-6, atol=1e-8)
    assert np.allclose(alone.stress[0], h.stress[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_of_factors_sees_an_indefinite_stiffness(package, monkeypatch):
    if package != "petsc" and not PETSc.Sys.hasExternalPackage(package):
        pytest.skip(f"PETSc has no {package}")
    monkeypatch.setattr("fe2.factor._has", lambda name: name == package)
    rve = fe2.RVE(array().domain, array().body.materials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fe2.UnstableWarning)
        h = rve.homogenise(np.outer([0.99, 1.01], limit().strain))
    assert h.unstable.tolist() == [False, True]
    rve.destroy()


@pytest.mark.parametrize("boundary", ["periodic", "uniform traction"])
def test_the_weakest_mode_is_that_of_a_dense_eigenvalue_problem(boundary):
    domain, materials = inclusion("stiff")
    rve = fe2.RVE(domain, materials, boundary=boundary)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fe2.UnstableWarning)
        (state,) = rve.homogenise([-0.2, 0.1, 0.0, 0.1]).state
    stiffness = rve.stiffness
    values = stiffness.reduce(rve.set_state(state).stiffness())
    for shift in (0.0, -1.3):  # definite, and with negative eigenvalues
        k = values + shift * rve.zero_stiffness
        found = weakest(stiffness, k, rve.zero_stiffness)
        g = rve.unknowns.constraint
        free = np.eye(rve.unknowns.size) if g is None else scipy.linalg.null_space(g)
        dense = [free.T @ stiffness.multiply(v, free.T.copy()).T for v in (k, rve.zero_stiffness)]
        expected = scipy.linalg.eigh(*dense, eigvals_only=True)[0]
        assert found.stiffness == pytest.approx(expected, rel=1e-7)
        quotient = [found.mode @ stiffness.multiply(v, found.mode[None])[0] for v in (k, rve.zero_stiffness)]
        assert quotient[0] / quotient[1] == pytest.approx(expected, rel=1e-7)
        if g is not None:
            assert np.abs(g @ found.mode).max() < 1e-9 * np.abs(g).max()
    rve.destroy()


def test_uniform_traction_bears_compression_and_rotation():
    """Its side condition prescribes the mean rotation, and nothing else holds it: H = Q − I has no stress."""
    domain, materials = inclusion("stiff")
    rves = [fe2.RVE(domain, materials, boundary=b) for b in ("uniform traction", "periodic", "linear displacement")]
    strains = np.array([[-0.05, 0.0, 0.0, 0.02], [-0.02, 0.3, 0.1, 0.1]])
    energies = np.array([rve.homogenise(strains).energy for rve in rves])
    assert (np.diff(energies, axis=0) > 0).all()
    q = np.array([[np.cos(1.0), -np.sin(1.0)], [np.sin(1.0), np.cos(1.0)]])
    turned = (q @ (np.eye(2) + strains[0].reshape(2, 2)) - np.eye(2)).ravel()
    here, there = rves[0].homogenise([strains[0], turned]).stress.reshape(2, 2, 2)
    assert np.allclose(there, q @ here, rtol=0, atol=1e-8)
    assert np.allclose(rves[0].homogenise((q - np.eye(2)).ravel()).stress, 0.0, atol=1e-10)
    for rve in rves:
        rve.destroy()


# The way on.


def test_followed_equilibria_are_minima_below_the_unstable_ones():
    strains = np.outer([0.9, 1.2, 1.6], limit().strain)
    rve = array(buckling="follow")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        h = rve.homogenise(strains)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        primary = array().homogenise(strains)
    assert not h.unstable.any()
    assert h.energy[0] == pytest.approx(primary.energy[0], rel=1e-10)
    assert (h.energy[1:] < 0.99 * primary.energy[1:]).all()
    assert (np.abs(h.stress[1:, 0]) < 0.9 * np.abs(primary.stress[1:, 0])).all()
    assert (h.residual < 1e-10).all()
    # The stress is the derivative of the energy on the branch, and the tangent that of the stress.
    step, direction = 1e-6, np.array([0.5, 0.1, -0.2, 0.8])
    near = rve.homogenise(
        [strains[2] + step * direction, strains[2] - step * direction], h.state[[2, 2]], guess=h.state[[2, 2]]
    )
    assert (near.energy[0] - near.energy[1]) / (2 * step) == pytest.approx(h.stress[2] @ direction, rel=1e-6)
    assert (near.stress[0] - near.stress[1]) / (2 * step) == pytest.approx(h.tangent[2] @ direction, rel=1e-5)


def test_the_branch_is_kept_and_left_with_the_state():
    rve, end = array(buckling="follow"), limit().strain
    (buckled,) = rve.homogenise(1.2 * end).state
    on = rve.homogenise(1.5 * end, buckled[None])
    assert on.iterations[0] <= 12
    back = rve.homogenise(0.8 * end, on.state)
    straight = rve.homogenise(0.8 * end)
    assert np.allclose(back.stress, straight.stress, rtol=1e-7, atol=1e-12)
    assert back.energy[0] == pytest.approx(straight.energy[0], rel=1e-9)


def test_free_strains_follow_the_buckled_state():
    """Compression with free sides: beyond the critical strain the sheet stops to widen, and gets narrower."""
    free, state, widths = np.nan, None, []
    rve = array(buckling="follow")
    for strain in (-0.02, -0.04, -0.06):
        h = rve.homogenise([free, 0.0, 0.0, strain], state, stress=[0.0, free, free, free])
        state = h.state
        assert not h.unstable[0] and abs(h.stress[0, 0]) < 1e-10 * abs(h.stress[0, 3])
        widths.append(h.strain[0, 0])
        held = rve.homogenise(h.strain, state)
        assert np.allclose(held.stress, h.stress, rtol=1e-7, atol=1e-10)
    assert widths[0] > 0 > widths[2] and widths[1] < widths[0]


def test_critical_strains_are_those_of_the_path_that_is_not_followed():
    found = fe2.critical_strain(array(buckling="follow"), EQUIBIAXIAL, steps=3, tolerance=1e-8)
    assert found.fraction == pytest.approx(limit().fraction, abs=1e-7)
    assert array(buckling="follow").descent is not None


def test_fe2_goes_on_in_the_buckled_state():
    """A square under uniform strain beyond the bifurcation has the stress of the RVE in its minimum, at every point."""
    rve, end = array(buckling="follow"), 1.5 * limit().strain[0]
    structure = meshes.bar(MPI.COMM_SELF, size=(1.0, 1.0), n=(1, 1))
    problem = fe2.MacroProblem(structure, fe2.ExactLaw(rve), degree=1)
    for side in ("left", "right", "bottom", "top"):
        axis = 0 if side in ("left", "right") else 1
        value = [None, None]
        value[axis] = end if side in ("right", "top") else 0.0
        problem.prescribe(side, tuple(value))
    problem.record("right")
    problem.solve(steps=3)
    stress = problem.sigma.stresses()
    expected = rve.homogenise([end, 0.0, 0.0, end])
    # Either sign of the pattern is a minimum; both have the same stress.
    assert np.allclose(stress, expected.stress[0], rtol=1e-6, atol=1e-9)


# Robustness.


@pytest.mark.parametrize("kind", ["void", "stiff", "soft"])
@pytest.mark.parametrize(
    "strain",
    [[-0.4, 0.0, 0.0, 0.5], [0.0, 0.8, 0.0, 0.0], [-0.3, 0.0, 0.0, 0.0], [-0.3, 0.4, -0.2, 0.3]],
    ids=["stretched", "sheared", "compressed", "mixed"],
)
def test_large_strains_are_reached_in_one_call(kind, strain):
    domain, materials = inclusion(kind)
    rve = fe2.RVE(domain, materials, solver=FOLLOW)
    h = rve.homogenise(strain)
    body = rve.set_state(h.state[0])
    assert not body.inverted and not h.unstable[0]
    assert h.residual[0] <= 1e-11 and h.iterations[0] < 200
    mean = np.einsum("cq,cqk->k", body.weights, body.stress()) / rve.volume
    assert np.allclose(mean, h.stress[0], rtol=1e-9, atol=1e-9 * np.abs(h.stress).max())
    rve.destroy()


def test_strains_on_the_way_turn_by_equal_angles():
    def rows(angle, stretch):
        c, s = np.cos(angle), np.sin(angle)
        return (np.array([[c, -s], [s, c]]) @ np.diag(stretch) - np.eye(2)).ravel()

    first, last = rows(0.2, [0.9, 1.1]), rows(2.2, [1.3, 0.7])
    found = between(first, last, 0.25, fe2.DISPLACEMENT_GRADIENT)
    assert np.allclose(found, rows(0.7, [1.0, 1.0]), rtol=0, atol=1e-14)
    # In 3D about an axis: one rotation of 1.2 in two halves of 0.6.
    axis = np.array([1.0, 2.0, -2.0]) / 3
    skew = np.cross(np.eye(3), axis)
    turn = scipy.linalg.expm(1.2 * skew)
    half = between(np.zeros(9), (turn - np.eye(3)).ravel(), 0.5, fe2.DISPLACEMENT_GRADIENT)
    assert np.allclose(half.reshape(3, 3) + np.eye(3), scipy.linalg.expm(0.6 * skew), rtol=0, atol=1e-14)
    assert (between(np.zeros(3), np.ones(3), 0.5, fe2.SMALL_STRAIN) == 0.5).all()


def test_a_point_that_needs_sub_steps_does_not_depend_on_its_neighbours():
    domain, materials = inclusion("stiff")
    rve = fe2.RVE(domain, materials)
    strains = np.array([[0.01, 0.0, 0.0, 0.0], [-0.4, 0.0, 0.0, 0.5], [0.0, 0.1, 0.0, 0.0]])
    together = rve.homogenise(strains)
    for k in range(3):
        alone = rve.homogenise(strains[k])
        assert np.allclose(alone.stress[0], together.stress[k], rtol=1e-8, atol=1e-10)
    rve.destroy()


def test_load_steps_are_cut_where_the_rve_has_no_equilibrium():
    """A step to det F < 0 of the RVE itself is cut until the rest of the way; the end is that of small steps."""
    rve = fe2.RVE(holes(), {1: SOFT}, solver=fe2.SolverOptions(max_substeps=1, max_iterations=4))
    results = []
    for steps in (1, 8):
        problem = fe2.MacroProblem(meshes.bar(MPI.COMM_SELF, size=(1.0, 1.0), n=(1, 1)), fe2.ExactLaw(rve), degree=1)
        problem.prescribe("left", (0.0, 0.0))
        problem.prescribe("right", (0.6, 0.0))
        problem.record("right")
        history = problem.solve(steps=steps)
        results.append((len(history), problem.sigma.stresses()))
    assert results[0][0] > 1
    assert np.allclose(results[0][1], results[1][1], rtol=1e-6, atol=1e-9)


# Errors.


def test_wrong_arguments():
    rve = array()
    with pytest.raises(ValueError, match="does not leave the strain"):
        fe2.critical_strain(rve, np.zeros(4))
    with pytest.raises(ValueError, match="must be positive"):
        fe2.critical_strain(rve, EQUIBIAXIAL, steps=0)
    with pytest.raises(ValueError, match="is unstable"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = rve.homogenise(1.5 * limit().strain).state[0]
        fe2.critical_strain(rve, EQUIBIAXIAL, state=state)
    with pytest.raises(ValueError, match="buckling = 'ask': need"):
        fe2.SolverOptions(buckling="ask")
    free = fe2.Stress(lambda f: f - ufl.inv(f).T, measure="displacement gradient")
    domain, _ = inclusion("void")
    with pytest.raises(ValueError, match="materials with an energy"):
        fe2.critical_strain(fe2.RVE(domain, {1: free}), EQUIBIAXIAL)
    with pytest.raises(ValueError, match="has a stress alone"):
        fe2.RVE(domain, {1: free}, solver=FOLLOW)
