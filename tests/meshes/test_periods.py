# SPDX-License-Identifier: MIT
"""The period of an RVE: no result depends on the choice of its faces, on its place and on the unit of length."""

import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("dolfinx")
gmsh = pytest.importorskip("gmsh")

import basix  # noqa: E402
from mpi4py import MPI  # noqa: E402
from dolfinx import fem  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import fe2  # noqa: E402
import meshes  # noqa: E402
from meshes import compat  # noqa: E402
from meshes.arrays import Arrays, distribute  # noqa: E402
from meshes.geometry import facet_corners, local_cells, reference  # noqa: E402
from meshes.windings import oriented, windings  # noqa: E402

SELF = MPI.COMM_SELF
E, NU = 1000.0, 0.3
E_FIBRE, NU_FIBRE = 20 * E, 0.2
MATRIX, FIBRE = fe2.LinearElastic.from_young_poisson(E, NU), fe2.LinearElastic.from_young_poisson(E_FIBRE, NU_FIBRE)
PHASES = {1: MATRIX, 2: FIBRE}
STRAIN = np.array([0.01, -0.004, 0.006])
few = settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def solve(tagged, materials=None, strain=None, **options):
    """Stress (d,) and tangent (d, d)."""
    present = {t: PHASES[t] for t in np.unique(tagged.cell_tags.values).tolist()}
    rve = fe2.RVE(tagged, present if materials is None else materials, **options)
    found = rve.homogenise(STRAIN if strain is None else strain)
    return found.stress[0], found.tangent[0]


def same(found, wanted, rtol=1e-9):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(wanted[1]).max() * (1 if b.ndim == 2 else 0.01))


# Voids on the faces.


@pytest.mark.parametrize("roll", [0, 5])
def test_a_strip_between_voids_is_a_bar(roll):
    """Six tenths of the RVE under uniaxial stress in plane strain: S = 0.6 E / (1 − ν²) ε."""
    labels = np.ones((10, 10), int)
    labels[:, :2] = labels[:, -2:] = 0
    tagged = meshes.from_labels(np.roll(labels, roll, axis=1), SELF)
    assert tagged.fractions() == {1: pytest.approx(0.6)}
    stress, tangent = solve(tagged, strain=[0.01, 0.0, 0.0])
    stiffness = 0.6 * E / (1 - NU**2)
    np.testing.assert_allclose(stress, [0.01 * stiffness, 0, 0], atol=1e-10)
    np.testing.assert_allclose(tangent, np.diag([stiffness, 0, 0]), atol=1e-8)


@pytest.mark.parametrize("boundary", ["periodic", "linear displacement", "uniform traction"])
def test_an_island_in_a_void_carries_nothing(boundary):
    labels = np.zeros((9, 9), int)
    labels[2:7, 2:7] = 1
    if boundary != "periodic":
        labels[[0, -1]] = labels[:, [0, -1]] = 2  # a frame, whose response the island does not change
        frame = solve(meshes.from_labels(np.where(labels == 1, 0, labels), SELF), boundary=boundary)
        same(solve(meshes.from_labels(labels, SELF), boundary=boundary), frame)
        return
    for roll in (0, 4):
        stress, tangent = solve(meshes.from_labels(np.roll(labels, (roll, roll), (0, 1)), SELF))
        np.testing.assert_allclose(stress, 0, atol=1e-11 * E)
        np.testing.assert_allclose(tangent, 0, atol=1e-11 * E)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_fibre_in_a_void_is_a_bar_that_may_turn_about_itself(axis):
    labels = np.zeros((3, 4, 4), int)
    labels[:, :2, [0, -1]] = 1  # two voxels wide, across the period
    tagged = meshes.from_labels(np.moveaxis(labels, 0, axis), SELF, spacing=0.5)
    wanted = np.zeros(6)
    wanted[axis] = E / 4
    stress, tangent = solve(tagged, strain=[0.01, 0.01, 0.01, 0.02, 0.02, 0.02], degree=1)
    np.testing.assert_allclose(stress, 0.01 * wanted, atol=1e-10)
    np.testing.assert_allclose(tangent, np.diag(wanted), atol=1e-8)


def test_a_particle_in_a_void_carries_nothing():
    labels = np.zeros((3, 3, 4), int)
    labels[:2, 1:, [0, -1]] = 1
    stress, tangent = solve(meshes.from_labels(labels, SELF), strain=[0.01, 0, 0, 0.02, 0.01, 0.02], degree=1)
    np.testing.assert_allclose(stress, 0, atol=1e-11 * E)
    np.testing.assert_allclose(tangent, 0, atol=1e-11 * E)


@given(seed=st.integers(0, 10**6), shift=st.tuples(st.integers(0, 6), st.integers(0, 5)))
@few
def test_rolling_an_image_changes_nothing(seed, shift):
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 3, (7, 6))
    labels[: rng.integers(1, 7), : rng.integers(1, 6)] = 0  # any phases on opposite faces
    wanted = solve(meshes.from_labels(labels, SELF), degree=1)
    same(solve(meshes.from_labels(np.roll(labels, shift, (0, 1)), SELF), degree=1), wanted)


@given(seed=st.integers(0, 10**6))
@few
def test_any_choice_of_the_faces(seed):
    """Rows of an image begin at different places: stepped sides, and parts connected only by the period."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 3, (5, 4))
    labels[1, 1:3] = 0
    starts = rng.integers(0, 6, 4)
    i = np.arange(10)[:, None]
    cut = np.where((i >= starts) & (i < starts + 5), labels[i % 5, np.arange(4)], 0)
    tagged = replace(meshes.from_labels(cut, SELF, spacing=0.2), period=np.diag([1.0, 0.8]))
    same(solve(tagged, degree=1), solve(meshes.from_labels(labels, SELF, spacing=0.2), degree=1))


def test_moving_voids_of_an_rve_changes_little():
    """Other meshes of one microstructure, whose pores the faces cut or not."""
    pores = [meshes.Circle((0.0, 0.0), 0.25, 0), meshes.Ellipse((0.45, 0.4), (0.2, 0.1), 30.0)]
    wanted = solve(meshes.rve(pores, SELF, mesh_size=0.06, order=2))
    found = solve(meshes.rve(pores, SELF, mesh_size=0.06, order=2, shift=(0.33, 0.41)))
    same(found, wanted, rtol=2e-3)


# Size and place.


def rounding(tagged):
    """Largest error |D_ij| of the gradient of the geometry's map where coordinates have the rounding error u = ε/2.

    With coordinates up to X a node is off by u X, and in the Jacobian, Σ_a x_a ∂N_a/∂ξ over the n nodes of a cell, each
    of n products and sums is rounded as well: |D_ij| ≤ (1 + n) u X max Σ_a |∂N_a/∂x_j|.
    """
    points, cells, kind, degree = local_cells(tagged.mesh)
    at, _ = basix.make_quadrature(basix.CellType[kind], 4)
    gradients = reference(kind, degree).tabulate(1, at)[1:, :, :, 0]  # (dim, points, nodes)
    inverse = np.linalg.inv(np.einsum("cai,dqa->cqid", points[cells], gradients))
    largest = np.abs(np.einsum("cqdj,dqa->cqja", inverse, gradients)).sum(axis=3).max()
    return (1 + cells.shape[1]) * np.finfo(float).eps / 2 * np.abs(points).max() * largest


def same_to_rounding(tagged, wanted, strain, korn=2.0, **options):
    """Compare the response with that at the origin, up to the rounding of coordinates.

    If the map from the true to the evaluated shape has the gradient I + D, the energy E:C:E of a macroscale strain E
    changes to first order by the mean of −2 σ:(∇w D) + (σ:ε) tr D, as the fluctuation w is stationary and the period
    prescribed. The mean of |σ| |∇w| is at most √(K κ) E:C:E: by the ratio κ of the largest and the smallest modulus of
    the phases, |σ|² ≤ κ c σ:ε and |ε|² ≤ σ:ε / c, and by Korn's inequality, ∫ |∇w|² ≤ K ∫ |sym ∇w|² ≤ K ∫ |ε|². With
    ‖D‖, |tr D| ≤ dim max |D_ij| thus

        ‖δC‖ ≤ dim max |D_ij| (2 √(K κ) + 1) ‖C‖ and |δS| ≤ ‖δC‖ |E|.

    Args:
        tagged: the RVE at another place or in another unit.
        wanted: stress and tangent at the origin.
        strain: macroscale strain E.
        korn: the constant K; without voids 2, as ∫ |sym ∇w|² = ∫ (|∇w|² + (∇·w)²) / 2 over a period.
        options: of `fe2.RVE`.
    """
    moduli = [c for young, nu in ((E, NU), (E_FIBRE, NU_FIBRE)) for c in (young / (1 + nu), young / (1 - 2 * nu))]
    bound = len(tagged.period) * rounding(tagged) * (2 * np.sqrt(korn * max(moduli) / min(moduli)) + 1)
    allowed = (1e-12 + bound) * np.linalg.norm(wanted[1], 2)  # of the solver, and of the coordinates
    stress, tangent = solve(tagged, strain=strain, **options)
    assert np.linalg.norm(tangent - wanted[1], 2) <= allowed
    assert np.linalg.norm(stress - wanted[0]) <= allowed * np.linalg.norm(strain)


@pytest.mark.parametrize(
    ("make", "korn"),
    [
        (
            lambda size, center: meshes.rve(
                [meshes.Circle(tuple(np.add(center, [0.1 * size, 0.4 * size])), 0.3 * size)],
                SELF, size=(size, size), center=center, mesh_size=0.3 * size, order=2, quads=True,
            ),
            2.0,
        ),
        (
            lambda size, center: meshes.from_labels(
                np.array([[1, 2, 1], [1, 1, 2], [0, 1, 1]]), SELF, spacing=size / 3, center=center, quads=False
            ),
            3.71,  # the largest eigenvalue of ∫ |∇w|² against ∫ |sym ∇w|² on this mesh, with its void
        ),
    ],
    ids=["circle", "labels"],
)  # fmt: skip
@given(power=st.floats(-9, 9), far=st.sampled_from([0.0, 1.0, 1e3, -1e6]))
@few
def test_neither_size_nor_place_matter(make, korn, power, far):
    size = 10.0**power
    same_to_rounding(make(size, (far * size, -far * size)), solve(make(1.0, (0.0, 0.0))), STRAIN, korn)


@given(power=st.floats(-9, 9), far=st.sampled_from([0.0, 1e6]))
@few
def test_neither_size_nor_place_matter_in_3d(power, far):
    def make(size, center):
        labels = np.random.default_rng(1).integers(1, 3, (2, 3, 2))
        return meshes.from_labels(labels, SELF, spacing=size / 3, center=center)

    strain, size = [0.01, 0, 0.002, -0.003, 0, 0.001], 10.0**power
    wanted = solve(make(1.0, None), strain=strain, degree=1)
    same_to_rounding(make(size, (far * size,) * 3), wanted, strain, degree=1)


def test_spheres_and_fibres_of_any_size():
    def make(size):
        shapes = [
            meshes.Sphere((0.2 * size, 0, 0), 0.2 * size),
            meshes.Cylinder((-0.25 * size, 0, 0), "z", 0.15 * size),
        ]
        return meshes.rve(shapes, SELF, size=(size,) * 3, mesh_size=0.8 * size)

    strain = [0.01, 0, 0.002, -0.003, 0, 0.001]
    same(solve(make(2e-8), strain=strain, degree=1), solve(make(1.0), strain=strain, degree=1))


def test_coordinates_without_enough_digits_are_refused():
    with pytest.raises(meshes.MeshError, match="move it to the origin"):
        fe2.RVE(meshes.from_labels([[1, 1], [1, 1]], SELF, center=(1e8, 0.0)), {1: MATRIX})


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_boundaries_of_structures_of_any_size(size):
    bar = meshes.bar(SELF, size=(2 * size, size), n=(4, 2))
    counts = {name: int((bar.facet_tags.values == tag).sum()) for name, tag in bar.facet_names.items()}
    assert counts == {"left": 2, "right": 2, "bottom": 4, "top": 4}


# RVEs that are no boxes.

A1, A2 = np.array([1.0, 0.0]), np.array([0.5, np.sqrt(3) / 2])
HEXAGON = np.array([[np.cos(a), np.sin(a)] for a in np.deg2rad(30 + 60 * np.arange(6))]) / np.sqrt(3)
RHOMBUS = np.array([0 * A1, A1, A1 + A2, A2]) - (A1 + A2) / 2


def polygon(path, corners, radius=0.3, matching=True):
    """A polygon around the origin whose opposite sides match, with a fibre in its middle."""
    gmsh.initialize(readConfigFiles=False, interruptible=False)
    gmsh.option.setNumber("General.Terminal", 0)
    occ, n = gmsh.model.occ, len(corners)
    points = [occ.addPoint(*x, 0.0) for x in corners]
    sides = [occ.addLine(points[i], points[(i + 1) % n]) for i in range(n)]
    outline = occ.addPlaneSurface([occ.addCurveLoop(sides)])
    parts = [(2, occ.addDisk(0, 0, 0, radius, radius))] if radius else []
    if parts:
        occ.fragment([(2, outline)], parts)
    occ.synchronize()
    # Which number a side has after the cut depends on the version of gmsh.
    curves = {tag: np.array(occ.getCenterOfMass(1, tag)[:2]) for _, tag in gmsh.model.getEntities(1)}
    middles = (corners + np.roll(corners, -1, axis=0)) / 2
    sides = [min(curves, key=lambda tag, m=m: np.linalg.norm(curves[tag] - m)) for m in middles]
    if matching:
        for i in range(n // 2):
            j, shift = i + n // 2, corners[i] - corners[(i + n // 2 + 1) % n]
            move = np.eye(4)
            move[:2, 3] = shift
            gmsh.model.mesh.setPeriodic(1, [sides[i]], [sides[j]], move.ravel())
    surfaces = [s for _, s in gmsh.model.getEntities(2)]
    fibres = [s for s in surfaces if gmsh.model.getBoundingBox(2, s)[3] < 0.31] if radius else []
    for tag, members, name in ((1, [s for s in surfaces if s not in fibres], "matrix"), (2, fibres, "fibre")):
        if members:
            gmsh.model.addPhysicalGroup(2, members, tag, name)
    else:
        gmsh.model.mesh.setTransfiniteCurve(sides[0], 5)
    gmsh.option.setNumber("Mesh.MeshSizeMax", 0.08)
    gmsh.model.mesh.generate(2)
    gmsh.model.mesh.setOrder(2)
    gmsh.write(str(path))
    gmsh.finalize()
    return path


def test_one_array_of_fibres_as_hexagon_rhombus_and_rectangle(tmp_path):
    """A hexagonal array is isotropic in its plane: C11 = C22 and, in Mandel's notation, C33 = C11 − C12."""
    hexagon = meshes.read(polygon(tmp_path / "hexagon.msh", HEXAGON), SELF, period=[A1, A2])
    other = meshes.read(tmp_path / "hexagon.msh", SELF, period=[A2, A2 - A1])  # the same lattice
    rhombus = meshes.read(polygon(tmp_path / "rhombus.msh", RHOMBUS), SELF, period=[A1, A2])
    height = np.sqrt(3)
    fibres = [meshes.Circle((0.0, 0.0), 0.3), meshes.Circle((0.5, height / 2), 0.3)]
    rectangle = meshes.rve(fibres, SELF, size=(1.0, height), mesh_size=0.08, order=2)
    wanted = solve(rectangle)
    for tagged in (hexagon, other, rhombus):
        assert tagged.fractions()[2] == pytest.approx(np.pi * 0.09 / (height / 2), rel=1e-4)
        found = solve(tagged)
        same(found, wanted, rtol=1e-4)
        c = found[1]
        np.testing.assert_allclose([c[1, 1], c[2, 2], c[0, 2]], [c[0, 0], c[0, 0] - c[0, 1], 0], atol=2e-4 * c[0, 0])


@pytest.mark.parametrize("boundary", ["linear displacement", "uniform traction"])
def test_other_conditions_on_a_hexagon(boundary, tmp_path):
    """A uniform hexagon has the stiffness of its material whatever the condition."""
    tagged = meshes.read(polygon(tmp_path / "plain.msh", HEXAGON, radius=0), SELF, period=[A1, A2])
    same(solve(tagged, {1: MATRIX}, boundary=boundary), solve(meshes.from_labels([[1]], SELF), {1: MATRIX}))


@pytest.mark.parametrize("corners", [HEXAGON, RHOMBUS], ids=["hexagon", "rhombus"])
def test_a_period_that_cannot_be_told_is_asked_for(corners, tmp_path):
    tagged = meshes.read(polygon(tmp_path / "cell.msh", corners), SELF)
    for boundary in ("periodic", "linear displacement"):
        with pytest.raises(meshes.MeshError, match=r"period is not certain.*period=\[\["):
            fe2.RVE(tagged, PHASES, boundary=boundary)


def test_sides_that_do_not_match_are_refused(tmp_path):
    tagged = meshes.read(polygon(tmp_path / "cell.msh", HEXAGON, matching=False), SELF, period=[A1, A2])
    with pytest.raises(meshes.MeshError, match=r"not periodic: .* edges of its boundary meet solid"):
        fe2.RVE(tagged, PHASES)


# Given and missing periods.


def saved(path, labels, **options):
    """A mesh file without a period, of an image."""
    import meshio

    tagged = meshes.from_labels(labels, SELF, quads=False, **options)
    cells = compat.geometry_dofmap(tagged.mesh)
    tags = np.empty(len(cells), int)
    tags[tagged.cell_tags.indices] = tagged.cell_tags.values
    meshio.Mesh(tagged.mesh.geometry.x, [("triangle", cells)], cell_data={"phase": [tags]}).write(path)
    return path


def test_periods_that_do_not_fit_are_refused(tmp_path):
    path = saved(tmp_path / "solid.vtu", [[1, 2], [2, 1]])
    with pytest.raises(meshes.MeshError, match="overlaps its translates"):
        meshes.read(path, SELF, period=(0.5, 1.0))
    with pytest.raises(meshes.MeshError, match="need 2 lattice vectors"):
        meshes.read(path, SELF, period=[1.0, 1.0, 1.0])
    for wrong in (1.0, "hex", [[1.0, 0.0], [1.0]], [1.0, np.nan], [1.0, 0.0]):
        with pytest.raises(meshes.MeshError, match=r"period is .*: need 2 lattice vectors, .* or 2 lengths"):
            meshes.read(path, SELF, period=wrong)
    with pytest.raises(meshes.MeshError, match="not independent"):
        meshes.read(path, SELF, period=[[1.0, 0.0], [2.0, 0.0]])
    with pytest.warns(meshes.PeriodWarning, match=r"spans 0\.9\d* of the period along lattice vector 0"):
        meshes.read(path, SELF, period=(1.1, 1.0))


def test_a_box_with_voids_on_its_faces_is_doubtful(tmp_path):
    labels = np.ones((4, 4), int)
    labels[0, :2] = 0
    tagged = meshes.read(saved(tmp_path / "porous.vtu", labels), SELF)
    with pytest.warns(meshes.PeriodWarning, match=r"across x are solid to 50%.*period=") as warned:
        found = solve(tagged)
    assert len(warned) == 1
    same(found, solve(meshes.from_labels(labels, SELF, quads=False)))
    again = meshes.read(tmp_path / "porous.vtu", SELF, period=(1.0, 1.0))
    same(solve(again), found)


def test_solid_that_does_not_reach_the_faces_takes_no_condition_there():
    labels = np.ones((4, 4), int)
    labels[:, 0] = 0
    tagged = meshes.from_labels(labels, SELF)
    with pytest.raises(meshes.MeshError, match=r"spans \[1\.0, 0\.75\] of the period"):
        fe2.RVE(tagged, {1: MATRIX}, boundary="linear displacement")


def test_a_crack_stays_open_where_it_crosses_the_seam():
    """A parallelogram cut along x all the way, in its middle: a bar, whose halves only the period puts together."""
    points, cells = [], []
    for a, b in ((0.0, 0.5), (0.5, 1.0)):  # which share no nodes at y = 0.5
        base = len(points)
        points += [(x + 0.4 * y, y) for y in np.linspace(a, b, 3) for x in (0.0, 0.5, 1.0)]
        cells += [[base + 3 * j + i + k for k in (0, 1, 3, 4)] for j in range(2) for i in range(2)]
    tags, period = np.ones(len(cells), np.int32), np.array([[1.0, 0.0], [0.4, 1.0]])
    tagged = distribute(
        SELF, lambda: Arrays(np.array(points), np.array(cells), "quadrilateral", 1, tags, period=period)
    )
    stress, tangent = solve(tagged, strain=[0.01, 0, 0])
    stiffness = E / (1 - NU**2)
    np.testing.assert_allclose(stress, [0.01 * stiffness, 0, 0], atol=1e-9)
    np.testing.assert_allclose(tangent, np.diag([stiffness, 0, 0]), atol=1e-7)


@pytest.mark.mpi
def test_all_ranks_see_the_same_seam(comm):
    labels = np.ones((6, 6), int)
    labels[:2, 1:3] = 0
    for order, quads in ((1, True), (2, False)):
        tagged = meshes.from_labels(labels, comm, order=order, quads=quads, spacing=1e-6)
        seam = meshes.seam(tagged)
        assert len(seam.pairs) == 4 + 6 and seam.free.sum() == 4 + 2 + 2
    with pytest.raises(meshes.MeshError, match="move it to the origin"):
        meshes.check_periodic(meshes.from_labels(labels, comm, center=(1e9, 0)))


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_every_node_of_a_paired_facet_is_tied(degree):
    """As many unknowns as a periodic space of that degree has, two components each, and one node held."""
    tagged = meshes.from_labels(np.ones((3, 4), int), SELF, spacing=1e-7)
    rve = fe2.RVE(tagged, {1: MATRIX}, **{} if degree == 2 else {"degree": degree})  # the default is 2
    assert rve.unknowns.size == 2 * (3 * 4 * degree**2 - 1)
    assert isinstance(rve.displacement(rve.initial_state(1)[0]), fem.Function)


SKEW = np.sqrt(3) / 2


@pytest.mark.parametrize("period, message", [
    ([[1, 0], [0, SKEW]], "overlaps its translate"),  # the right area
    ([[1, 0], [0, -1]], "overlaps its translate"),
    ([[0, 1], [-SKEW, 0.5]], "overlaps its translate"),  # turned
    ([[1, 0], [0.5, 0.867]], r"is off: 8 sides .* partner \[.*, -0\.0009745"),
    ([[1.001, 0], [0.5005, 1.001 * SKEW]], r"is off: .* partner \[0\.000"),
])  # fmt: skip
def test_periods_of_another_cell_are_refused(period, message, tmp_path):
    tagged = meshes.read(polygon(tmp_path / "cell.msh", HEXAGON), SELF, period=period)
    with pytest.raises(meshes.MeshError, match=message):
        fe2.RVE(tagged, PHASES)


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 2)])
def test_boxes_that_overlap_are_refused(shape):
    tagged = meshes.from_labels(np.ones(shape, int), SELF)
    period = np.diag([0.5, 2.0, 1.0][: len(shape)])
    with pytest.raises(meshes.MeshError, match=r"overlaps its translate by|meet solid of its translates"):
        meshes.seam(replace(tagged, period=period))


def test_solid_that_does_not_run_through_is_warned_of_wherever_it_is():
    strip, crossing = np.zeros((4, 4), int), np.zeros((4, 4), int)
    strip[:, 1:3] = crossing[:, 1:3] = crossing[1:3] = 1
    for roll in range(4):
        with pytest.warns(meshes.PeriodWarning, match="does not run through the RVE in all directions"):
            fe2.RVE(meshes.from_labels(np.roll(strip, roll, axis=1), SELF), {1: MATRIX})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fe2.RVE(meshes.from_labels(np.roll(crossing, roll, axis=1), SELF), {1: MATRIX})


def test_uniform_tractions_need_whole_faces():
    labels = np.array([[1, 0, 1], [1, 1, 1], [1, 1, 1]])
    for porous in (labels, labels.T):
        with pytest.raises(meshes.MeshError, match="voids open on the faces of the RVE"):
            fe2.RVE(meshes.from_labels(porous, SELF), {1: MATRIX}, boundary="uniform traction")


@pytest.mark.parametrize("boundary", ["periodic", "linear displacement"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1)])
def test_a_cell_without_unknowns_is_its_material(shape, boundary):
    strain = np.array([0.01, 0.0, 0.002, 0.0, 0.0, 0.001][: 3 if len(shape) == 2 else 6])
    stress, tangent = solve(meshes.from_labels(np.ones(shape, int), SELF), strain=strain, degree=1, boundary=boundary)
    k, g, d = E / (3 - 6 * NU), E / (2 + 2 * NU), len(strain)
    one = np.concatenate([np.ones(len(shape)), np.zeros(d - len(shape))])
    right = (k - 2 * g / 3) * np.outer(one, one) + 2 * g * np.eye(d)
    np.testing.assert_allclose(tangent, right, atol=1e-9)
    np.testing.assert_allclose(stress, right @ strain, atol=1e-11)


def test_warnings_are_shown(tmp_path):
    """FFCx of DOLFINx 0.9 redirects warnings to a log without a handler; a process with `meshes` prints them."""
    code = "import warnings, meshes; warnings.warn('look here')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "UserWarning: look here" in found.stderr


@pytest.mark.parametrize("shape", [(2, 3), (2, 2, 3)])
def test_what_is_inside_sees_all_of_the_boundary(shape):
    tagged = meshes.from_labels(np.ones(shape, int), SELF, spacing=1e-9)
    dim = len(shape)
    facets = meshes.seam(tagged).facets
    surface = oriented(facet_corners(tagged.mesh, facets), np.zeros((len(facets), dim)))
    lower, upper = tagged.box
    inside = lower + (upper - lower) * np.random.default_rng(0).uniform(0.1, 0.9, (5, dim))
    np.testing.assert_allclose(windings(inside, surface), 1, atol=1e-12)
    np.testing.assert_allclose(windings(inside + 2 * upper, surface), 0, atol=1e-12)


def test_a_sheared_block_is_its_material():
    tagged = meshes.from_labels(np.ones((2, 2, 2), int), SELF)
    x = tagged.mesh.geometry.x
    x[:, 0] += 0.3 * x[:, 1] - 0.4 * x[:, 2]
    sheared = replace(tagged, period=[[1.0, 0.0, 0.0], [0.3, 1.0, 0.0], [-0.4, 0.0, 1.0]])
    strain = [0.01, 0.0, 0.002, 0.003, 0.0, 0.001]
    whole = meshes.from_labels([[[1]]], SELF)
    for boundary in ("periodic", "linear displacement", "uniform traction"):
        same(solve(sheared, strain=strain, degree=1, boundary=boundary), solve(whole, strain=strain, degree=1))


def test_the_old_name_of_the_rve_warns_and_works():
    domain = meshes.laminate((0.5, 0.5), MPI.COMM_SELF, cells=(4, 2))
    for function in (meshes.faces, meshes.known_period, lambda **given: meshes.seam(**given).facets):
        with pytest.warns(DeprecationWarning, match=r"\(cell=\.\.\.\) is now \w+\(rve=\.\.\.\)$"):
            found = function(cell=domain)
        assert np.array_equal(found, function(rve=domain))
    disc = [meshes.Circle((0.5, 0.5), 0.3)]
    with pytest.warns(DeprecationWarning, match=r"^mark\(cell=\.\.\.\) is now mark\(rve=\.\.\.\)$"):
        found = meshes.mark(cell=domain, inclusions=disc)
    assert np.array_equal(found, meshes.mark(domain, disc))
