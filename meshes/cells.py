# SPDX-License-Identifier: MIT
"""RVE cells with inclusions, meshed by gmsh so that opposite faces match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import dolfinx.cpp
import dolfinx.mesh
import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from .arrays import Arrays, distribute
from .checks import check_periodic
from .curved import untangled
from .errors import MeshError
from .gmsh_session import ELEMENTS, nodes, session
from .shapes import AXES, Circle, Cylinder, Ellipse, Ellipsoid, Shape, Sphere, extent, images, near_pairs, refuse_overlaps
from .structured import box_corners
from .tagged import INCLUSION, MATRIX, VOID, TaggedMesh


# Where a face of the cell cuts the seam or a pole of a ball's parametrisation at a bad place, OpenCASCADE and gmsh may
# fail; the ball is then drawn again with its poles elsewhere (degrees about x, then about y). It only matters in 3D.
SEAMS = ((0.0, 0.0), (31.0, 17.0), (67.0, 41.0), (103.0, 73.0))


def cell(
    inclusions: Sequence[Shape],
    comm: MPI.Intracomm,
    *,
    mesh_size: float,
    size: Sequence[float] = (1.0, 1.0),
    center: Sequence[float] | None = None,
    shift: Sequence[float] | None = None,
    order: int = 1,
    quads: bool = False,
    edges_per_circle: int = 16,
    cells_per_gap: int = 2,
    names: Mapping[str, int] | None = None,
) -> TaggedMesh:
    """Periodic cell with inclusions; what leaves it on one side enters on the other.

    Args:
        inclusions: bodies that do not overlap; tag 0 is cut out. The matrix has tag 1.
        comm: communicator of the mesh; gmsh runs on rank 0.
        mesh_size: largest edge length.
        size: lengths of the cell, (lx, ly) or (lx, ly, lz); sets the dimension.
        center: centre of the cell; the origin if None.
        shift: vector by which the inclusions are moved (periodically); no effective property depends on it.
        order: degree of the geometry; from 2 on the interfaces are curved (but for the few edges that, curved, would turn a
            flat cell inside out).
        quads: quadrilaterals (2D only); simplices otherwise.
        edges_per_circle: fewest edges on a full circle of an interface, whatever ``mesh_size``.
        cells_per_gap: cells across a gap between inclusions that is narrower than ``cells_per_gap * mesh_size``.
        names: name of a phase → tag; "matrix" for 1 and "inclusion" for 2 if None, "inclusion t" for another tag t.

    Returns:
        The cell, checked to be periodic.

    Raises:
        MeshError: overlapping inclusions, a shape of the wrong dimension or size, or a mesh that gmsh cannot make (for
            example if an interface only just touches a face of the cell: ``shift`` moves it away).
    """
    lower, upper = box_corners(size, center)
    dim = len(size)

    def build():
        shapes = _placed(inclusions, dim, shift)
        refuse_overlaps(shapes, upper - lower)
        if mesh_size <= 0 or order < 1:
            raise MeshError(f"mesh_size is {mesh_size} and order is {order}; they must be positive")
        if quads and dim == 3:
            raise MeshError("quads=True needs a cell in 2D; in 3D use quads=False, or from_labels for hexahedra")
        tags = {MATRIX} | {s.tag for s in shapes} - {VOID}
        labels = {"matrix": MATRIX} | {("inclusion" if t == INCLUSION else f"inclusion {t}"): t for t in tags - {MATRIX}}

        def attempt(seam):
            with session() as gmsh:
                phases = _geometry(gmsh.model, shapes, lower, upper, seam)
                _match_faces(gmsh.model, lower, upper)
                _sizes(gmsh, shapes, lower, upper, mesh_size, edges_per_circle, cells_per_gap)
                gmsh.option.setNumber("Mesh.RecombineAll", int(quads))
                gmsh.option.setNumber("Mesh.RecombinationAlgorithm", 3)  # full quads: no triangle is left over
                gmsh.model.mesh.generate(dim)
                gmsh.model.mesh.setOrder(order)
                arrays = _arrays(gmsh.model, phases, dim, labels if names is None else names)
            on_faces = np.any(np.minimum(abs(arrays.points - lower), abs(arrays.points - upper)) < 1e-8 * max(size), axis=1)
            return untangled(arrays, fixed=on_faces)

        for seam in SEAMS[:-1]:
            try:
                return attempt(seam)
            except Exception:  # gmsh raises no other class; the last attempt tells what is wrong
                continue
        return attempt(SEAMS[-1])

    tagged = distribute(comm, build)
    check_periodic(tagged)
    return tagged


def _placed(inclusions: Sequence[Shape], dim: int, shift: Sequence[float] | None) -> list[Shape]:
    """The inclusions moved by ``shift``, their dimension and sizes checked."""
    move = np.zeros(dim) if shift is None else np.asarray(shift, dtype=np.float64)
    if move.shape != (dim,):
        raise MeshError(f"shift is {shift}; a cell in {dim}D needs {dim} entries")
    for i, shape in enumerate(inclusions):
        if len(shape.center) != dim or shape.matrix.shape != (dim, dim):
            raise MeshError(f"inclusion {i} ({shape}) does not fit a cell in {dim}D, whose dimension is the length of size")
        if not np.all(extent(shape) > 0) or not np.linalg.det(np.where(np.isinf(shape.matrix), 1, shape.matrix)) > 0:
            raise MeshError(f"inclusion {i} ({shape}) has no volume; radius and semi_axes must be positive")
        if not isinstance(shape.tag, int) or shape.tag < 0:
            raise MeshError(f"inclusion {i} ({shape}) has the tag {shape.tag}; use 0 for a void, 1, 2, ... for phases")
    return [replace(s, center=tuple((np.asarray(s.center, dtype=np.float64) + move).tolist())) for s in inclusions]


def _geometry(model, shapes, lower, upper, seam) -> dict[int, list[int]]:
    """Matrix and clipped images of the inclusions as a conforming OpenCASCADE model; phase → entities."""
    occ, dim = model.occ, len(lower)
    size = upper - lower

    def box():
        if dim == 2:
            return dim, occ.addRectangle(*lower, 0.0, *size)
        return dim, occ.addBox(*lower, *size)

    parts, tags = [], []
    for shape in shapes:
        for place in images(shape, lower, upper, size):
            body = [(dim, _draw(occ, shape, place, lower, size, seam))]
            half = extent(shape)
            if np.any(place - half < lower) or np.any(place + half > upper):
                body, _ = occ.intersect(body, [box()])
            parts += body
            tags += [shape.tag] * len(body)
    whole = box()
    phases: dict[int, list[int]] = {}
    if parts:
        _, children = occ.fragment([whole], parts)
        for tag, pieces in zip(tags, children[1:]):
            phases.setdefault(tag, []).extend(entity for _, entity in pieces)
        taken = {entity for entities in phases.values() for entity in entities}
        phases.setdefault(MATRIX, []).extend(entity for _, entity in children[0] if entity not in taken)
        voids = phases.pop(VOID, [])
        occ.remove([(dim, entity) for entity in voids], recursive=True)
    else:
        phases[MATRIX] = [whole[1]]
    occ.synchronize()
    return phases


def _draw(occ, shape, place, lower, size, seam) -> int:
    """One whole inclusion; its number in the OpenCASCADE model."""
    match shape:
        case Circle():
            return occ.addDisk(*place, 0.0, shape.radius, shape.radius)
        case Ellipse():
            # OpenCASCADE wants the longer axis first
            a, b = shape.semi_axes
            body = occ.addDisk(*place, 0.0, max(a, b), min(a, b))
            angle = np.deg2rad(shape.angle + (90.0 if b > a else 0.0))
            occ.rotate([(2, body)], *place, 0.0, 0.0, 0.0, 1.0, angle)
        case Cylinder():
            axis = AXES[shape.axis]
            start, run = np.array(place), np.zeros(3)
            start[axis], run[axis] = lower[axis], size[axis]
            return occ.addCylinder(*start, *run, shape.radius)
        case Sphere() | Ellipsoid():
            radius = shape.radius if isinstance(shape, Sphere) else 1.0
            body = occ.addSphere(0.0, 0.0, 0.0, radius)
            for angle, axis in zip(np.deg2rad(seam), np.eye(3)):
                occ.rotate([(3, body)], 0.0, 0.0, 0.0, *axis, angle)
            if isinstance(shape, Sphere):
                occ.translate([(3, body)], *place)
            else:
                occ.affineTransform([(3, body)], np.column_stack([shape.matrix, place]).ravel())
    return body


def _match_faces(model, lower, upper) -> None:
    """Tell gmsh to copy the mesh of each face at the lower end of a direction to its partner at the upper end."""
    dim, size = len(lower), upper - lower
    close = 1e-4 * np.max(size)  # OpenCASCADE pads the bounding boxes of cut free-form surfaces generously

    def on_plane(axis, value):
        lo, up = np.zeros(3), np.zeros(3)
        lo[:dim], up[:dim] = lower, upper
        lo[axis] = up[axis] = value
        entities = [e for _, e in model.getEntitiesInBoundingBox(*(lo - close), *(up + close), dim - 1)]
        # Centroid and area tell the pieces of a plane apart, but for a disc of area 1/2 amid the rest: that takes the
        # bounding box too, which is padded and so gets a small weight.
        marks = np.empty((len(entities), 10))
        for mark, e in zip(marks, entities):
            mark[:3] = model.occ.getCenterOfMass(dim - 1, e)
            mark[3] = model.occ.getMass(dim - 1, e) / np.max(size) ** (dim - 2)
            mark[4:] = 1e-2 * np.array(model.getBoundingBox(dim - 1, e))
            mark[axis] -= value
            mark[[4 + axis, 7 + axis]] -= 1e-2 * value
        return entities, marks

    for axis in range(dim):
        masters, theirs = on_plane(axis, lower[axis])
        slaves, ours = on_plane(axis, upper[axis])
        distance = np.linalg.norm(theirs[:, None] - ours[None], axis=2) if len(masters) and len(slaves) else np.empty((0, 0))
        if len(masters) != len(slaves) or np.any(distance.min(axis=0, initial=np.inf) > 10 * close):
            raise MeshError(
                f"the inclusions cut the faces {'xyz'[axis]} = min and max into {len(masters)} and {len(slaves)} pieces that "
                "do not match; an interface probably only just touches a face: move the inclusions with shift"
            )
        if not len(masters):
            continue
        translation = np.eye(4)
        translation[axis, 3] = size[axis]
        pairs = distance.argmin(axis=0)
        model.mesh.setPeriodic(dim - 1, slaves, [masters[p] for p in pairs], translation.ravel())


def _sizes(gmsh, shapes, lower, upper, mesh_size, edges_per_circle, cells_per_gap) -> None:
    """Edge lengths: at most ``mesh_size``, less where an interface is curved or two of them are close."""
    for option, value in {
        "MeshSizeMax": mesh_size,
        "MeshSizeFromCurvature": edges_per_circle,
        "MeshSizeFromPoints": 0,
        "RandomSeed": 1,
        "Algorithm": 6,  # frontal Delaunay
        "Algorithm3D": 1,  # Delaunay
        "MaxNumThreads1D": 1,
        "MaxNumThreads2D": 1,
        "MaxNumThreads3D": 1,
    }.items():
        gmsh.option.setNumber(f"Mesh.{option}", value)
    field, balls, size = gmsh.model.mesh.field, [], upper - lower
    for i, j, gap, middle in near_pairs(shapes, size, cells_per_gap * mesh_size):
        # The gap stays below twice its smallest width up to √(r gap) from its middle, r the radius of curvature.
        r = min(_finite_min(shapes[i]), _finite_min(shapes[j]))
        narrow = np.sqrt(r * gap) + gap
        for place in images(Sphere(tuple(middle), narrow) if len(middle) == 3 else Circle(tuple(middle), narrow), lower, upper, size):
            ball = field.add("Ball")
            fine = max(gap, 1e-3 * mesh_size) / cells_per_gap
            x = np.zeros(3)
            x[: len(place)] = place
            for key, value in {
                "VIn": fine, "VOut": mesh_size, "Radius": narrow, "Thickness": 3 * mesh_size,
                "XCenter": x[0], "YCenter": x[1], "ZCenter": x[2],
            }.items():  # fmt: skip
                field.setNumber(ball, key, value)
            balls.append(ball)
    if balls:
        smallest = field.add("Min")
        field.setNumbers(smallest, "FieldsList", balls)
        field.setAsBackgroundMesh(smallest)


def _finite_min(shape: Shape) -> float:
    half = extent(shape)
    return float(half[np.isfinite(half)].min())


def _arrays(model, phases, dim, names) -> Arrays:
    """The mesh that gmsh made, phase by phase."""
    points, row = nodes(model)
    cells, values, kinds = [], [], set()
    for tag, entities in sorted(phases.items()):
        for entity in entities:
            for kind, _, connectivity in zip(*model.mesh.getElements(dim, entity)):
                kinds.add(int(kind))
                cells.append((int(kind), row[connectivity.astype(np.int64)]))
                values.append(tag)
    if len(kinds) != 1:
        raise MeshError(f"gmsh made cells of the types {sorted(kinds)}; one type is needed")
    shape, degree = ELEMENTS[kinds.pop()]
    per_cell = model.mesh.getElementProperties(cells[0][0])[3]
    order = dolfinx.cpp.io.perm_gmsh(dolfinx.mesh.to_type(shape), per_cell)
    blocks = [c.reshape(-1, per_cell)[:, order] for _, c in cells]
    tags = np.repeat(np.array(values, dtype=np.int32), [len(b) for b in blocks])
    return Arrays(points[:, :dim], np.concatenate(blocks), shape, degree, tags, names=dict(names))


def benchmark(name: str, comm: MPI.Intracomm, *, mesh_size: float = 0.05, order: int = 2, quads: bool = False) -> TaggedMesh:
    """One of the three cells of the EquiNO paper (Eivazi et al., arXiv:2504.07976) on [-0.5, 0.5]²; matrix 1, inclusion 2.

    Args:
        name: "RVE1": circles of radius 0.295863515 at the centre and around the four corners (volume fraction 0.55);
            "RVE2": an ellipse with the semi-axes 0.350 and 0.1756, the longer one at 30° to the x axis;
            "RVE3": circles of radius 0.10 at (-0.25, 0.25), 0.15 at (0.25, 0.15) and 0.10 at (0, -0.25).
        comm: communicator of the mesh.
        mesh_size: largest edge length.
        order: degree of the geometry.
        quads: quadrilaterals; triangles otherwise.

    Returns:
        The cell.

    Raises:
        MeshError: no cell of this name.
    """
    if name not in BENCHMARKS:
        raise MeshError(f'there is no benchmark cell "{name}"; there are {", ".join(BENCHMARKS)}')
    return cell(BENCHMARKS[name], comm, mesh_size=mesh_size, order=order, quads=quads)


BENCHMARKS: dict[str, tuple[Shape, ...]] = {
    "RVE1": (Circle((0.0, 0.0), 0.295863515), Circle((0.5, 0.5), 0.295863515)),
    "RVE2": (Ellipse((0.0, 0.0), (0.350, 0.1756), 30.0),),
    "RVE3": (Circle((-0.25, 0.25), 0.10), Circle((0.25, 0.15), 0.15), Circle((0.0, -0.25), 0.10)),
}
