# SPDX-License-Identifier: MIT
"""Structured RVEs, macro geometries and the checks."""

import numpy as np
import pytest

pytest.importorskip("dolfinx")

import dolfinx
import ufl

import meshes
from meshes import compat

pytestmark = pytest.mark.mpi


def length(tagged, name):
    """Length or area of a named part of the boundary."""
    ds = ufl.Measure("ds", domain=tagged.mesh, subdomain_data=tagged.facet_tags)
    form = dolfinx.fem.form(dolfinx.fem.Constant(tagged.mesh, 1.0) * ds(tagged.facet_names[name]))
    return tagged.mesh.comm.allreduce(dolfinx.fem.assemble_scalar(form))


def volume(tagged):
    lower, upper = tagged.box
    return sum(tagged.fractions().values()) * np.prod(upper - lower)


@pytest.mark.parametrize("quads", [True, False])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("cells, normal", [((6, 4), 0), ((3, 7), 1), ((4, 3, 2), 2)])
def test_laminates_have_exact_fractions_and_match(comm, cells, normal, order, quads):
    share = (0.15, 0.6, 0.25)
    tagged = meshes.laminate(share, comm, cells=cells, normal=normal, order=order, quads=quads)
    assert tagged.fractions() == {i: pytest.approx(f, abs=1e-12) for i, f in enumerate(share, start=1)}
    meshes.check_periodic(tagged)
    meshes.check_cells(tagged)
    meshes.check_materials(tagged, [1, 2, 3])


def test_laminate_names_wrong_fractions(comm):
    with pytest.raises(meshes.MeshError, match=r"sum to 1, not 0\.9"):
        meshes.laminate((0.4, 0.5), comm, cells=(2, 2))
    with pytest.raises(meshes.MeshError, match="normal is 2"):
        meshes.laminate((0.5, 0.5), comm, cells=(2, 2), normal=2)


@pytest.mark.parametrize("quads", [True, False])
@pytest.mark.parametrize("order", [1, 2])
def test_cook_membrane_has_its_sides(comm, order, quads):
    tagged = meshes.cook(comm, n=(4, 3), order=order, quads=quads)
    corners = np.array([(0, 0), (48, 44), (48, 60), (0, 44)], dtype=float)
    sides = dict(
        zip(("bottom", "right", "top", "left"), np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1))
    )
    for name, exact in sides.items():
        assert length(tagged, name) == pytest.approx(exact)
    assert volume(tagged) == pytest.approx((44 + 16) / 2 * 48)  # two vertical sides 48 apart


@pytest.mark.parametrize("quads", [True, False])
def test_l_profile_has_its_sides(comm, quads):
    tagged = meshes.l_profile(comm, length=3.0, height=4.0, thickness=1.0, n=2, quads=quads)
    sides = {"left": 4, "bottom": 3, "top": 1, "right": 1, "inner": 3 + 2}
    assert {name: pytest.approx(length(tagged, name)) for name in tagged.facet_names} == sides
    assert volume(tagged) == pytest.approx(3 * 4 - 2 * 3)


@pytest.mark.parametrize("quads", [True, False])
def test_plate_with_hole_is_round_to_its_order(comm, quads):
    exact = {"left": 1.5, "bottom": 0.75, "right": 1.75, "top": 1.0, "hole": np.pi / 2 * 0.25}
    errors = []
    for order in (1, 2):
        tagged = meshes.plate_with_hole(comm, length=1.0, height=1.75, radius=0.25, n=4, order=order, quads=quads)
        for name in ("left", "bottom", "right", "top"):
            assert length(tagged, name) == pytest.approx(exact[name])
        errors.append(abs(length(tagged, "hole") / exact["hole"] - 1))
    # a chord of the angle a is shorter than its arc by a²/24, here a = (π/2)/8
    assert errors[0] == pytest.approx((np.pi / 16) ** 2 / 24, rel=0.01)
    assert errors[1] < 0.01 * errors[0]


@pytest.mark.parametrize("quads", [True, False])
def test_bars_have_their_sides(comm, quads):
    tagged = meshes.bar(comm, size=(4.0, 2.0, 1.0), n=(4, 2, 2), quads=quads)
    sides = {"left": 2, "right": 2, "bottom": 8, "top": 8, "front": 4, "back": 4}
    assert {name: pytest.approx(length(tagged, name)) for name in tagged.facet_names} == sides
    tagged = meshes.bar(comm, size=(4.0, 2.0), n=(4, 2), quads=quads)
    assert {name: pytest.approx(length(tagged, name)) for name in tagged.facet_names} == {
        "left": 2, "right": 2, "bottom": 4, "top": 4,
    }  # fmt: skip


def test_macro_geometries_name_wrong_sizes(comm):
    with pytest.raises(meshes.MeshError, match="radius is 2"):
        meshes.plate_with_hole(comm, radius=2.0)
    with pytest.raises(meshes.MeshError, match="thickness is 200"):
        meshes.l_profile(comm, thickness=200.0)
    with pytest.raises(meshes.MeshError, match="same 2 or 3"):
        meshes.bar(comm, size=(1.0, 1.0), n=(1, 1, 1))


def labels_of(tagged, shape):
    """The labels that a mesh was made of, from the midpoints of its cells; gathered on all ranks."""
    mesh = tagged.mesh
    lower, upper = tagged.box
    middle = dolfinx.mesh.compute_midpoints(mesh, mesh.topology.dim, tagged.cell_tags.indices)[:, : len(shape)]
    index = np.floor((middle - lower) / (upper - lower) * shape).astype(int)
    found = np.zeros(shape, dtype=int)
    for i, v in mesh.comm.allgather((index, tagged.cell_tags.values)):
        found[tuple(i.T)] = v
    return found


@pytest.mark.parametrize("quads", [True, False])
@pytest.mark.parametrize("shape", [(5, 4), (4, 3, 2)])
def test_labels_make_a_round_trip(comm, shape, quads):
    labels = np.random.default_rng(1).integers(0, 4, shape)
    labels[(0,) * len(shape)] = labels[(-1,) * len(shape)] = 1  # the corners stay, and so the bounding box
    tagged = meshes.from_labels(labels, comm, spacing=0.5, quads=quads)
    np.testing.assert_array_equal(labels_of(tagged, shape), labels)
    np.testing.assert_allclose(np.diff(tagged.box, axis=0)[0], 0.5 * np.array(shape))
    for tag, fraction in tagged.fractions().items():
        assert fraction == pytest.approx(np.mean(labels == tag))


@pytest.mark.parametrize(
    "labels, hint",
    [(np.zeros((2, 2), int), "void"), (np.ones((2, 2)), "integers"), (-np.ones((2, 2), int), "-1"), ([1], "shape")],
)
def test_wrong_labels_are_named(comm, labels, hint):
    with pytest.raises(meshes.MeshError, match=hint):
        meshes.from_labels(labels, comm)


def test_pictures_stand_upright(comm, mpi_tmp_path):
    Image = pytest.importorskip("PIL.Image")
    grey = np.array([[10, 200, 200], [10, 10, 90]], dtype=np.uint8)  # row 0 is the top
    path = mpi_tmp_path / "picture.png"
    if comm.rank == 0:
        Image.fromarray(grey).save(path)
        Image.fromarray(grey.astype(np.uint16) * 257).save(mpi_tmp_path / "deep.png")
        np.save(mpi_tmp_path / "array.npy", np.array([[1, 2, 2], [1, 1, 3]]))
    upright = np.array([[1, 1], [1, 3], [2, 3]])  # [x, y], y upwards
    tagged = meshes.from_image(path, comm, thresholds=(50, 150))
    np.testing.assert_array_equal(labels_of(tagged, (3, 2)), [[1, 1], [1, 3], [2, 3]])
    tagged = meshes.from_image(path, comm, levels={10: 1, 90: 2, 200: 3})
    np.testing.assert_array_equal(labels_of(tagged, (3, 2)), upright)
    tagged = meshes.from_image(mpi_tmp_path / "deep.png", comm, levels={2570: 1, 23130: 2, 51400: 3})
    np.testing.assert_array_equal(labels_of(tagged, (3, 2)), upright)
    tagged = meshes.from_image(mpi_tmp_path / "array.npy", comm)
    np.testing.assert_array_equal(labels_of(tagged, (2, 3)), [[1, 2, 2], [1, 1, 3]])
    with pytest.raises(meshes.MeshError, match=r"\[200\] have no entry"):
        meshes.from_image(path, comm, levels={10: 1, 90: 2})
    with pytest.raises(meshes.MeshError, match="no such file"):
        meshes.from_image(mpi_tmp_path / "none.png", comm)


def raw_mesh(comm, points, cells, cell):
    """A tagged mesh straight from arrays on rank 0."""
    from meshes.arrays import Arrays, distribute

    cells = np.array(cells)
    points = np.array(points, dtype=float)
    return distribute(comm, lambda: Arrays(points, cells, cell, 1, np.ones(len(cells), np.int32)))


def test_a_mesh_that_does_not_match_is_told_where(comm):
    # the node in the middle of the left side has no partner on the right
    points = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 0.4)]
    tagged = raw_mesh(comm, points, [(0, 1, 4), (4, 1, 3), (4, 3, 2)], "triangle")
    wanted = r"1 nodes there have no partner, the first at \(0, 0\.4\), whose nearest is 0\.4 "
    with pytest.raises(meshes.MeshError, match=wanted):
        meshes.check_periodic(tagged)


def test_faces_with_other_diagonals_do_not_match(comm):
    """The unit cube as five tetrahedra: all corners have partners, the diagonals of opposite faces cross."""
    points = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    cells = [(0, 3, 5, 6), (1, 0, 3, 5), (2, 0, 3, 6), (4, 0, 5, 6), (7, 3, 5, 6)]
    wanted = r"12 facets of its boundary meet solid .* around \(0, 0\.333333333, 0\.666666667\)"
    with pytest.raises(meshes.MeshError, match=wanted):
        meshes.check_periodic(raw_mesh(comm, points, cells, "tetrahedron"))


def test_inverted_and_flat_cells_are_counted(comm):
    points = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (2, 1)]
    good = raw_mesh(comm, points, [(0, 1, 2, 3), (1, 4, 3, 5)], "quadrilateral")
    meshes.check_cells(good)
    bow_tie = raw_mesh(comm, points, [(0, 1, 2, 3), (1, 4, 5, 3)], "quadrilateral")
    with pytest.raises(meshes.MeshError, match=r"1 of 2 cells are inverted or flat, the first of them \[1\]"):
        meshes.check_cells(bow_tie)
    flat = raw_mesh(comm, [(0, 0), (1, 0), (0, 1), (0.5, 0.5)], [(0, 1, 2), (1, 2, 3)], "triangle")
    with pytest.raises(meshes.MeshError, match=r"\[1\]"):
        meshes.check_cells(flat)


def test_a_node_moved_through_a_side_blames_one_cell(comm):
    """The cell that is turned over overlaps all of its neighbours, and each of these overlaps but that one."""
    from meshes.arrays import Arrays, distribute
    from meshes.grid import grid

    arrays = grid([np.linspace(0, 1, 5)] * 2, np.ones((4, 4), int), order=1, quads=False)
    points = arrays.points.copy()
    (node,) = np.flatnonzero(np.all(np.isclose(points, 0.5), axis=1))
    points[node] += (0.3, 0.1)  # from one side of its neighbour in x, at 0.25, to the other
    now, before = (np.linalg.det(np.diff(x[arrays.cells], axis=1)) for x in (points, arrays.points))
    (turned,) = np.flatnonzero(now * before < 0)
    tags = np.ones(len(now), np.int32)
    mesh = distribute(comm, lambda: Arrays(points, arrays.cells, "triangle", 1, tags))
    with pytest.raises(meshes.MeshError, match=rf"1 of 32 cells are inverted or flat, the first of them \[{turned}\]"):
        meshes.check_cells(mesh)


def test_a_phase_without_material_is_named(comm):
    tagged = meshes.laminate((0.5, 0.5), comm, cells=(4, 4))
    with pytest.raises(meshes.MeshError, match=r'tag 2 \("layer 2"\) has no material, but 8 cells.*\[1, 5\]'):
        meshes.check_materials(tagged, {1: "steel", 5: "air"})


def test_geometry_is_read_the_same_way_in_every_version(comm):
    tagged = meshes.bar(comm, n=(3, 2), order=2)
    assert compat.coordinate_map(tagged.mesh).degree == 2
    assert compat.geometry_dofmap(tagged.mesh).shape[1] == 9


def test_labels_that_are_no_tags_are_refused(comm):
    with pytest.raises(meshes.MeshError, match=r"labels run from 1 to 3000000000; .* up to 2147483647"):
        meshes.from_labels(np.array([[1, 3_000_000_000]]), comm)
    tagged = meshes.from_labels([[1, 2**31 - 1]], comm)
    assert tagged.fractions() == {1: pytest.approx(0.5), 2**31 - 1: pytest.approx(0.5)}
    count = len(tagged.cell_tags.values)
    for wrong in (2**31, -1):
        if count:
            with pytest.raises(meshes.MeshError, match=f"{wrong}.*need 0 to 2147483647"):
                tagged.with_tags(np.full(count, wrong))
