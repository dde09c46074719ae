# SPDX-License-Identifier: MIT
"""Samples of strains."""

import numpy as np
import pytest

pytest.importorskip("dolfinx")

import fe2
from fe2 import strain_sampling


@pytest.mark.parametrize("function", [strain_sampling.box, strain_sampling.latin_hypercube, strain_sampling.sobol])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_samples_fill_the_box_and_are_reproducible(function, dim):
    d = {1: 1, 2: 3, 3: 6}[dim]
    amplitude = 0.01 * np.arange(1, d + 1)
    strains = function(100, dim, amplitude, seed=5)
    assert strains.shape == (100, d)
    assert (abs(strains) <= amplitude).all()
    assert (strains.max(axis=0) > 0.8 * amplitude).all() and (strains.min(axis=0) < -0.8 * amplitude).all()
    np.testing.assert_array_equal(strains, function(100, dim, amplitude, seed=5))
    assert not np.array_equal(strains, function(100, dim, amplitude, seed=6))


def test_latin_hypercube_has_one_value_in_each_stratum():
    strains = strain_sampling.latin_hypercube(10, 2, 1.0, seed=0)
    np.testing.assert_array_equal(np.sort(np.floor((strains + 1) * 5), axis=0), np.tile(np.arange(10)[:, None], 3))


def test_sobol_of_one_and_of_growing_n_is_one_sequence():
    one, nine = (strain_sampling.sobol(n, 2, 1.0, seed=0) for n in (1, 9))
    np.testing.assert_array_equal(one, nine[:1])


def test_radial_paths_grow_along_fixed_directions():
    strains = strain_sampling.radial(4, 5, 2, 0.1, seed=1).reshape(4, 5, 3)
    np.testing.assert_allclose(np.linalg.norm(strains, axis=2), np.tile(0.02 * np.arange(1, 6), (4, 1)), rtol=1e-13)
    np.testing.assert_allclose(strains[:, 1:] / np.arange(2, 6)[:, None], strains[:, :1].repeat(4, 1), rtol=1e-12)
    np.testing.assert_array_equal(strains.reshape(-1, 3), strain_sampling.radial(4, 5, 2, 0.1, seed=1))


@pytest.mark.parametrize("n, dim, amplitude", [(0, 2, 1.0), (3, 4, 1.0), (3, 2, -1.0), (3, 2, [1, 1]), (3, 2, np.inf)])
def test_samples_refuse_wrong_arguments(n, dim, amplitude):
    with pytest.raises(ValueError, match="need"):
        strain_sampling.box(n, dim, amplitude, seed=0)


def test_the_old_module_of_samples_and_snapshots_warns_with_the_new_names():
    with pytest.warns(DeprecationWarning, match=r"fe2\.strain_sampling\.sobol"):
        assert fe2.sample.sobol is strain_sampling.sobol
    with pytest.warns(DeprecationWarning, match=r"fe2\.rve_snapshots\.compute"):
        assert fe2.sample.snapshots is fe2.rve_snapshots.compute


FUNCTIONS = [strain_sampling.box, strain_sampling.latin_hypercube, strain_sampling.sobol]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dim", [2, 3])
def test_displacement_gradients_are_pure_stretches(function, dim):
    """H = U − I is symmetric, its Mandel components fill the box as those of small strains do, and U is positive."""
    d = fe2.mandel.size(dim)
    amplitude = 0.02 * np.arange(1, d + 1)
    h = function(40, dim, amplitude, seed=4, measure="displacement gradient").reshape(40, dim, dim)
    assert np.array_equal(h, h.swapaxes(1, 2))
    assert np.allclose(fe2.mandel.vector(h), function(40, dim, amplitude, seed=4), rtol=0, atol=1e-15)
    assert (np.linalg.eigvalsh(np.eye(dim) + h) > 0).all()
    one = function(40, dim, 0.1, seed=4, measure=fe2.DISPLACEMENT_GRADIENT)
    assert one.shape == (40, dim * dim) and abs(one).max() <= 0.1


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dim", [2, 3])
def test_gradients_have_a_component_for_each_direction(function, dim):
    g = function(40, dim, 5.0 * np.arange(1, dim + 1), measure="gradient")
    assert g.shape == (40, dim) and (abs(g) <= 5.0 * np.arange(1, dim + 1)).all() and abs(g).max() > 0.9 * 5 * dim


def test_radial_paths_of_stretches():
    h = strain_sampling.radial(4, 5, 3, 0.3, seed=1, measure="displacement gradient").reshape(-1, 3, 3)
    assert np.allclose(fe2.mandel.vector(h), strain_sampling.radial(4, 5, 3, 0.3, seed=1), rtol=0, atol=1e-15)
    assert np.allclose(np.linalg.norm(h[4::5], axis=(1, 2)), 0.3, rtol=1e-13)


def test_stretches_that_are_not_positive_are_refused():
    """In two dimensions the smallest eigenvalue of the corner (−a, −a, a) of U − I is −a (1 + 1/√2)."""
    for amplitude in (0.58, 0.59):
        positive = amplitude * (1 + np.sqrt(0.5)) < 1
        if positive:
            strain_sampling.box(5, 2, amplitude, measure="displacement gradient")
        else:
            with pytest.raises(ValueError, match=r"stretches U with the eigenvalue -0\.00\d+; all must be positive"):
                strain_sampling.box(5, 2, amplitude, measure="displacement gradient")
    with pytest.raises(ValueError, match="need not be positive"):
        strain_sampling.radial(2, 2, 2, 1.0, measure="displacement gradient")
    with pytest.raises(ValueError, match="need one positive number, or 3 of them"):
        strain_sampling.sobol(2, 2, [0.1, 0.1, 0.1, 0.1], measure="displacement gradient")
    with pytest.raises(ValueError, match="measure = 'strain': need one of"):
        strain_sampling.sobol(2, 2, 0.1, measure="strain")
