# SPDX-License-Identifier: MIT
"""Samples of strains."""

import numpy as np
import pytest

pytest.importorskip("dolfinx")

import fe2
from fe2 import mandel, strain_sampling
from fe2.strain_sampling import box, latin_hypercube, radial, sobol


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


@pytest.mark.parametrize("sample", [box, latin_hypercube, sobol])
@pytest.mark.parametrize("dim", [2, 3])
def test_displacement_gradients_are_stretches_of_the_same_components(sample, dim):
    """H = U − I without rotation, with the Mandel components of the sample at small strain."""
    amplitude = 0.1 * np.arange(1, mandel.size(dim) + 1)
    h = sample(9, dim, amplitude, seed=4, measure="displacement gradient").reshape(9, dim, dim)
    assert np.array_equal(h, h.transpose(0, 2, 1))
    components = np.einsum("kij,nij->nk", mandel.basis(dim), h)
    np.testing.assert_allclose(components, sample(9, dim, amplitude, seed=4), rtol=0, atol=1e-15)


def test_gradients_have_a_component_for_each_dimension():
    for dim in (1, 2, 3):
        g = sobol(8, dim, 200.0, measure="gradient")
        assert g.shape == (8, dim) and 100 < abs(g).max() <= 200
    paths = radial(3, 2, 2, 5.0, measure="gradient").reshape(3, 2, 2)
    np.testing.assert_allclose(np.linalg.norm(paths, axis=2), [[2.5, 5.0]] * 3, rtol=1e-14)
    with pytest.raises(ValueError, match="need one positive number, or 2 of them"):
        box(3, 2, [1.0, 1.0, 1.0], measure="gradient")
    with pytest.raises(ValueError, match="dim = 1: need 2 or 3"):
        box(3, 1, 0.1, measure="displacement gradient")
    with pytest.raises(ValueError, match="measure = 'finite': need one of"):
        box(3, 2, 0.1, measure="finite")
