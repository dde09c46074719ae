# SPDX-License-Identifier: MIT
"""Engineering constants against the laws that they define."""

import numpy as np
import pytest

pytest.importorskip("dolfinx")

import references as ref

import fe2

NAMES = fe2.EngineeringConstants._fields


def test_transversely_isotropic_round_trip():
    """The constants that a stiffness was made of, fibre along each axis; across the fibre G = E/(2(1+ν))."""
    axial, transverse, shear, nu, transverse_nu = 215.0, 144.0, 54.0, 0.2, 0.3
    along = {"E": axial, "nu": nu}
    across = {"E": transverse, "G": transverse / (2 * (1 + transverse_nu)), "nu": transverse_nu}
    for axis in range(3):
        stiffness = fe2.transversely_isotropic(axial, transverse, shear, nu, transverse_nu, axis=axis).stiffness
        constants = fe2.engineering_constants(stiffness)
        for name, value in zip(NAMES, constants):
            kind, axes = name.rstrip("123"), [int(n) - 1 for n in name if n.isdigit()]
            if axis not in axes:
                expected = across[kind]
            elif kind == "G":
                expected = shear
            elif axes[0] == axis:
                expected = along[kind]
            else:  # reciprocity: ν_ta/E_t = ν_at/E_a
                expected = nu * transverse / axial
            assert value == pytest.approx(expected, rel=1e-12), (axis, name)


def test_isotropic():
    """Three equal Young's moduli, shear moduli and Poisson's ratios, for a stack of stiffnesses."""
    pairs = [(68.3, 0.3), (379.3, 0.1), (10.0, -0.2)]
    constants = fe2.engineering_constants([ref.linear(*fe2.bulk_shear(*p))(np.zeros(6))[1] for p in pairs])
    for name, values in zip(NAMES, constants):
        expected = {"E": [e for e, _ in pairs], "G": [e / (2 * (1 + n)) for e, n in pairs], "nu": [n for _, n in pairs]}
        assert values == pytest.approx(expected[name.rstrip("123")], rel=1e-12)


def test_definition():
    """Uniaxial stress and simple shear on a stiffness without symmetry give the constants back."""
    rng = np.random.default_rng(0)
    stiffness = np.eye(6) + (lambda a: a @ a.T)(rng.uniform(-1, 1, (6, 6)))
    constants = fe2.engineering_constants(stiffness)
    for i in range(3):
        strain = fe2.mandel.tensor(np.linalg.solve(stiffness, np.eye(6)[i]))
        assert getattr(constants, f"E{i + 1}") == pytest.approx(1 / strain[i, i])
        for j in range(i + 1, 3):
            assert getattr(constants, f"nu{i + 1}{j + 1}") == pytest.approx(-strain[j, j] / strain[i, i])
            stress = np.zeros((3, 3))
            stress[i, j] = stress[j, i] = 1.0
            shear = fe2.mandel.tensor(np.linalg.solve(stiffness, fe2.mandel.vector(stress)))[i, j]
            assert getattr(constants, f"G{i + 1}{j + 1}") == pytest.approx(1 / (2 * shear))


def test_only_tensors_are_made_vectors():
    for wrong in ([1, 0, 0], 1.0, np.zeros((2, 3)), np.zeros((4, 4))):
        with pytest.raises(ValueError, match=r"shape \(.*\), need \(\.\.\., dim, dim\) with dim 1, 2 or 3"):
            fe2.mandel.vector(wrong)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        fe2.engineering_constants(np.eye(3))
    with pytest.raises(ValueError, match="symmetric"):
        fe2.engineering_constants(np.eye(6) + np.eye(6, k=1))
    with pytest.raises(ValueError, match="finite"):
        fe2.engineering_constants(np.full((6, 6), np.nan))
    with pytest.raises(ValueError, match="eigenvalue"):
        fe2.engineering_constants(np.diag([1.0, 1, 1, 1, 1, -1]))
    with pytest.raises(ValueError, match=r"that of a displacement gradient: the small-strain stiffness is Q C Q.T"):
        fe2.engineering_constants(np.eye(9))


def test_constants_at_finite_strain_are_those_of_the_tangent_at_zero():
    law = fe2.UFLLaw(fe2.NeoHookean(10.0, 3.0), dim=3)
    rest, q = law.initial_state(1), law.measure.stretches(3)
    constants = fe2.engineering_constants(q @ law.evaluate(np.zeros((1, 9)), rest, rest).tangent[0] @ q.T)
    young, shear = 9 * 10.0 * 3.0 / (3 * 10.0 + 3.0), 3.0
    assert np.allclose(constants[:6], [young] * 3 + [shear] * 3, rtol=1e-12)
