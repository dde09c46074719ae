# SPDX-License-Identifier: MIT
"""What an RVE is by parts: each part says what it is for and nothing else, and rounding changes none."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

pytest.importorskip("dolfinx")

import ufl
from mpi4py import MPI

import fe2
import meshes
from fe2 import fingerprints, rve_snapshots, strain_sampling
from fe2.fingerprints import differences, fingerprint

SOFT, STIFF = fe2.SaturatingElastic(), fe2.LinearElastic.from_young_poisson(2e4, 0.3)


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
    ({"materials": (SOFT, fe2.LinearElastic.from_young_poisson(2e3, 0.3))}, "material 2"),
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
    body = rve.set_state(state)
    u, memory = body.u.x.array.copy(), body.memory
    assert differences(fingerprint(rve), fingerprint(plastic(0.51))) == "material 1"
    assert not differences(fingerprint(rve), fingerprint(plastic(0.5)))
    assert np.array_equal(body.u.x.array, u) and np.array_equal(body.memory, memory)


def test_files_of_before_have_one_hash(mark, tmp_path):
    """They are read, belong to their RVE, and are refused for others."""
    rve, path = make(), tmp_path / "s.h5"
    strains = strain_sampling.box(2, 2, 0.01, seed=0)
    rve_snapshots.compute(rve, strains, path, MPI.COMM_SELF, progress=False)
    with h5py.File(path, "r+") as file:
        assert json.loads(file.attrs["fingerprint"]) == mark
        file.attrs["fingerprint"] = mark["whole"]
    assert rve_snapshots.read(path).fingerprint == {"whole": mark["whole"]}
    rve_snapshots.compute(rve, strains, path, MPI.COMM_SELF, progress=False)  # nothing to do
    with pytest.raises(rve_snapshots.SnapshotError, match="differences: mesh, materials, boundary or degree"):
        rve_snapshots.compute(make(degree=2), strains, path, MPI.COMM_SELF, progress=False)
    with h5py.File(path, "r+") as file:
        file.attrs["fingerprint"] = "{half a record"
    with pytest.raises(rve_snapshots.SnapshotError, match="is damaged: its fingerprint is no record"):
        rve_snapshots.read(path)


def test_only_parts_that_both_have_are_compared(mark):
    """A part that is added later asks nothing of older files; without any in common they are of two RVEs."""
    assert not differences(mark, {**mark, "later": "new"})
    assert differences(mark, {}) == differences({}, mark) == "mesh, materials, boundary or degree"
    assert not fingerprints.differences({"mesh": "a"}, {"mesh": "a", "whole": "b"})


def test_snapshots_of_materials_with_state_are_refused_before_they_are_made(tmp_path):
    rve = make((SOFT, fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.5, hardening=5.0)))
    with pytest.raises(ValueError, match=r"the material of tag 2, J2, has state: .*homogenise"):
        rve_snapshots.compute(rve, np.zeros((1, 3)), tmp_path / "s.h5", MPI.COMM_SELF)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def place():
    """Of the cell of `one`, which materials that differ from place to place are written in."""
    cell = meshes.from_labels(np.ones((4, 4), int), MPI.COMM_SELF)
    return cell, ufl.SpatialCoordinate(cell.mesh)


def one(place, material):
    return fingerprint(fe2.RVE(place[0], {1: material}, degree=1))


def test_where_a_material_varies_is_seen(place):
    """Their means over the cell are the same, and some are mirror images of others."""

    def stiffness(e, **amplitudes):
        x, y = (2 * np.pi * place[1][i] for i in range(2))
        waves = {"a": ufl.sin(x), "b": ufl.sin(y), "c": ufl.cos(x)}
        g = 1 + sum(amplitudes[name] * wave for name, wave in waves.items())
        return g * (300 * ufl.tr(e) ** 2 + 400 * ufl.inner(ufl.dev(e), ufl.dev(e)))

    graded = [(0.9, 0, 0), (-0.9, 0, 0), (0, 0.9, 0), (0, 0, 0.9), (1e-5, 0, 0), (0, 0, 0)]
    marks = [one(place, fe2.Energy(stiffness, dict(zip("abc", g, strict=True)))) for g in graded]
    for k, mark in enumerate(marks):
        assert all(differences(mark, other) == "material 1" for other in marks[:k])
    again = fe2.Energy(stiffness, dict(zip("abc", (0.9 * (1 + 2e-15), 0, 0), strict=True)))
    assert not differences(marks[0], one(place, again))


def test_a_change_in_one_of_many_points_is_seen_and_rounding_is_not():
    """Of 80,000 points with three components; what rounding does to a sum is a thousandth of what is told apart."""
    rng = np.random.default_rng(0)
    summary, field = fingerprints._Summary(), rng.uniform(50.0, 100.0, (20_000, 4, 3))
    right = summary(field)
    changed = field.copy()
    changed[12_345, 2, 1] *= 1.001
    step = fingerprints._RESOLUTION * abs(right).max()
    assert (abs(summary(changed) - right)[3:] > 10 * step).all()
    noisy = field * (1 + 1e-14 * rng.uniform(-1, 1, field.shape))
    assert (abs(summary(noisy) - right) < 1e-3 * step).all()


def test_all_directions_and_both_signs_are_seen(place):
    """Stiffness along any tensor, also if others do not feel it, and fibres that carry tension or compression alone."""

    def energy(e, n, m, k, tension, compression):
        along = n * e[0, 0] + m * e[1, 1] + k * e[0, 1]
        part = ufl.conditional(ufl.gt(along, 0), tension, compression) * along**2
        return 300 * ufl.tr(e) ** 2 + 400 * ufl.inner(e, e) + part

    def mark(n, tension, compression):
        values = dict(zip(("n", "m", "k"), n, strict=True), tension=tension, compression=compression)
        return one(place, fe2.Energy(energy, values))

    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    plain = mark(axes[0], 0.0, 0.0)
    for n in axes:
        assert differences(plain, mark(n, 20.0, 20.0)) == "material 1"
        assert differences(mark(n, 20.0, 0.0), mark(n, 0.0, 20.0)) == "material 1"
