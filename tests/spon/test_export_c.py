# SPDX-License-Identifier: MIT
"""A model as C source that stands alone: what a program without Python gets of it."""

import copy
import ctypes
import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
from trained import strains

import spon
from spon.equino.networks import Branch, Potential

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


def branched(model, norms):
    """The model with a branch for all of its stress coefficients, as it is published."""
    other = copy.deepcopy(model)
    scale = torch.linspace(1, 2, other.means.shape[1], dtype=torch.float64)
    other.potential, other.stress = None, Branch(model.upper, scale, widths=(20, 20), activation="swish", norms=norms)
    return other


@pytest.fixture(scope="module", params=["potential", "branch", "branch without norms"])
def exported(request, trained):
    norms = {"branch": 2, "branch without norms": 0}
    return trained.model if request.param == "potential" else branched(trained.model, norms[request.param])


@pytest.fixture(scope="module")
def library(exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("standalone")
    path = spon.export_c(exported, folder, "unit_cell")
    made = folder / "cell.so"
    # Without the freedom that the code is compiled with elsewhere.
    subprocess.run(
        ["cc", "-std=c99", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-O2", "-fPIC", "-shared", str(path),
         "-o", str(made), "-lm"],
        check=True,
    )  # fmt: skip
    return ctypes.CDLL(str(made))


def respond(library, e):
    n, d = e.shape
    stress, tangent = np.empty((n, d)), np.empty((n, d, d))
    pointers = (ctypes.c_void_p(a.ctypes.data) for a in (np.ascontiguousarray(e), stress, tangent))
    outside = library.unit_cell_response(ctypes.c_long(n), *pointers)
    return outside, stress, tangent


@pytest.mark.parametrize("count", [1, 3, 8, 29])
def test_it_is_the_model(exported, library, count):
    e = strains(count)
    outside, stress, tangent = respond(library, e)
    with torch.no_grad():
        expected, expected_tangent = (x.numpy() for x in exported(torch.from_numpy(e)))
    assert outside == 0
    assert np.allclose(stress, expected, rtol=1e-12, atol=1e-13 * abs(expected).max())
    assert np.allclose(tangent, expected_tangent, rtol=1e-12, atol=1e-12 * abs(expected_tangent).max())
    assert exported.potential is None or np.array_equal(tangent, tangent.transpose(0, 2, 1))


def test_no_stress_at_rest_to_the_last_bit(library):
    outside, stress, _ = respond(library, np.zeros((2, 3)))
    assert outside == 0 and (stress == 0.0).all()


def test_strains_outside_of_the_range_are_counted_and_are_no_numbers(trained, library):
    e = strains(5)
    e[1, 2], e[4] = 1.01 * trained.model.upper[2].item(), np.nan
    outside, stress, tangent = respond(library, e)
    assert outside == 2
    assert np.isnan(stress[[1, 4]]).all() and np.isnan(tangent[[1, 4]]).all()
    assert np.isfinite(stress[[0, 2, 3]]).all() and np.isfinite(tangent[[0, 2, 3]]).all()


def test_what_cannot_be_written_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="name = 'unit cell': need an identifier of C"):
        spon.export_c(trained.model, tmp_path, "unit cell")
    other = copy.deepcopy(trained.model)
    other.__class__ = type("Scaled", (spon.EquiNO,), {"forward": lambda self, strain: strain})
    with pytest.raises(ValueError, match=r"the model is a Scaled with a forward of its own; need a spon\.EquiNO"):
        spon.export_c(other, tmp_path)
    other = copy.deepcopy(trained.model)
    other.potential = Potential(torch.eye(3, dtype=torch.float64), other.upper, 1.0, width=6000)
    with pytest.raises(ValueError, match="too wide"):
        spon.export_c(other, tmp_path / "new")
    assert not list(tmp_path.iterdir())
    spon.export_c(trained.model, tmp_path, "UNITSIZE")
    assert "int UNITSIZE_response(" in (tmp_path / "UNITSIZE.h").read_text()
