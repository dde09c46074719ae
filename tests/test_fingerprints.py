# SPDX-License-Identifier: MIT
"""What an RVE is by parts: each part says what it is for and nothing else, and rounding changes none."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

pytest.importorskip("dolfinx_mpc")

import ufl
from mpi4py import MPI

import fe2
import meshes
from fe2 import fingerprints, sample
from fe2.fingerprints import differences, fingerprint

SOFT, STIFF = fe2.SaturatingElastic(), fe2.LinearElastic.young(2e4, 0.3)


def make(materials=(SOFT, STIFF), *, fractions=(0.5, 0.5), cells=(2, 2), tags=None, move=None, **options):
    cell = meshes.laminate(fractions, MPI.COMM_SELF, cells=cells)
    if move is not None:
        x = cell.mesh.geometry.x
        x[:] = move(x)
        cell = replace(cell, period=None)  # that of the box
    if tags is not None:
        cell = cell.with_tags(np.asarray(tags, dtype=np.int32))
    return fe2.RVE(cell, dict(enumerate(materials, start=1)), **{"degree": 1, **options})


@pytest.fixture(scope="module")
def mark():
    return fingerprint(make())


@pytest.mark.parametrize("other, parts", [
    ({"materials": (fe2.SaturatingElastic(a1=50.001), STIFF)}, "material 1"),
    ({"materials": (SOFT, fe2.LinearElastic.young(2e3, 0.3))}, "material 2"),
    ({"fractions": (0.4, 0.6)}, "mesh"),
    ({"tags": [1, 2, 2, 1]}, "phases"),
    ({"boundary": "uniform traction"}, "boundary (periodic and uniform traction)"),
    ({"degree": 2}, "degree (1 and 2), numbering"),
    ({"plane": "stress"}, "material 1, material 2, plane (strain and stress)"),
    ({"move": lambda x: 2 * x}, "mesh, period"),
])  # fmt: skip
def test_what_differs_is_said(mark, other, parts):
    assert differences(mark, fingerprint(make(**other))) == parts


def test_rounding_place_and_the_way_a_formula_is_written_change_nothing(mark):
    rng = np.random.default_rng(0)
    again = fe2.Energy(lambda e: 1e4 / 1.3 * (ufl.inner(e, e) + 0.3 / 0.4 * ufl.tr(e) ** 2))  # 2e4, 0.3: λ and μ
    moved = make((SOFT, again), move=lambda x: 0.25 + x + 1e-15 * rng.uniform(-1, 1, x.shape))
    found = fingerprint(moved)
    assert not differences(mark, found) and mark["whole"] != found["whole"]


def test_materials_with_state():
    """What yields later differs in its state alone, and the body is left as it was."""

    def plastic(stress):
        return make((fe2.J2(bulk=100.0, shear=40.0, yield_stress=stress, hardening=5.0), STIFF))

    rve = plastic(0.5)
    state = rve.homogenise([0.02, 0.0, 0.01]).state[0]
    body = rve.place(state)
    u, memory = body.u.x.array.copy(), body.memory
    assert differences(fingerprint(rve), fingerprint(plastic(0.51))) == "material 1"
    assert not differences(fingerprint(rve), fingerprint(plastic(0.5)))
    assert np.array_equal(body.u.x.array, u) and np.array_equal(body.memory, memory)


def test_files_of_before_have_one_hash(mark, tmp_path):
    """They are read, belong to their RVE, and are refused for others."""
    rve, path = make(), tmp_path / "s.h5"
    strains = sample.box(2, 2, 0.01, seed=0)
    sample.snapshots(rve, strains, path, MPI.COMM_SELF, progress=False)
    with h5py.File(path, "r+") as file:
        assert json.loads(file.attrs["fingerprint"]) == mark
        file.attrs["fingerprint"] = mark["whole"]
    assert sample.read(path).fingerprint == {"whole": mark["whole"]}
    sample.snapshots(rve, strains, path, MPI.COMM_SELF, progress=False)  # nothing to do
    with pytest.raises(sample.SnapshotError, match="of which differ: mesh, materials, boundary or degree"):
        sample.snapshots(make(degree=2), strains, path, MPI.COMM_SELF, progress=False)
    with h5py.File(path, "r+") as file:
        file.attrs["fingerprint"] = "{half a record"
    with pytest.raises(sample.SnapshotError, match="is damaged: its fingerprint is no record"):
        sample.read(path)


def test_only_parts_that_both_have_are_compared(mark):
    """A part that is added later asks nothing of older files; without any in common they are of two RVEs."""
    assert not differences(mark, {**mark, "later": "new"})
    assert differences(mark, {}) == differences({}, mark) == "mesh, materials, boundary or degree"
    assert not fingerprints.differences({"mesh": "a"}, {"mesh": "a", "whole": "b"})


def test_snapshots_of_materials_with_state_are_refused_before_they_are_made(tmp_path):
    rve = make((SOFT, fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.5, hardening=5.0)))
    with pytest.raises(ValueError, match=r"the material of tag 2, J2, has state: .*homogenise"):
        sample.snapshots(rve, np.zeros((1, 3)), tmp_path / "s.h5", MPI.COMM_SELF)
    assert not list(tmp_path.iterdir())
