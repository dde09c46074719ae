# SPDX-License-Identifier: MIT
"""RVEs with inclusions in gmsh: OpenCASCADE geometry, matching faces, edge lengths, and the mesh as arrays."""

from __future__ import annotations

import dolfinx.cpp
import dolfinx.mesh
import numpy as np

from .arrays import Arrays
from .errors import MeshError
from .gmsh_session import ELEMENTS, nodes
from .shapes import AXES, Circle, Cylinder, Ellipse, Ellipsoid, Shape, Sphere, extent, images, near_pairs
from .tagged import MATRIX, VOID

# OpenCASCADE and gmsh may fail where a face of the RVE cuts the seam or a pole of a sphere's parametrisation; the
# sphere is then drawn again with rotated poles (degrees about x, then about y).
SEAMS = ((0.0, 0.0), (31.0, 17.0), (67.0, 41.0), (103.0, 73.0))


def model_phases(model, shapes, lower, upper, seam) -> dict[int, list[int]]:
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
            # OpenCASCADE takes the longer axis first
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
            for angle, direction in zip(np.deg2rad(seam), np.eye(3)):
                occ.rotate([(3, body)], 0.0, 0.0, 0.0, *direction, angle)
            if isinstance(shape, Sphere):
                occ.translate([(3, body)], *place)
            else:
                occ.affineTransform([(3, body)], np.column_stack([shape.matrix, place]).ravel())
    return body


def match_faces(model, lower, upper) -> None:
    """Make gmsh copy the mesh of each lower face to the opposite upper face."""
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
        distance = (
            np.linalg.norm(theirs[:, None] - ours[None], axis=2) if len(masters) and len(slaves) else np.empty((0, 0))
        )
        if len(masters) != len(slaves) or np.any(distance.min(axis=0, initial=np.inf) > 10 * close):
            raise MeshError(
                f"the faces {'xyz'[axis]} = min and max are cut into {len(masters)} and {len(slaves)} pieces that "
                "do not match; an interface is probably almost tangent to a face: move the inclusions with shift"
            )
        if not len(masters):
            continue
        translation = np.eye(4)
        translation[axis, 3] = size[axis]
        pairs = distance.argmin(axis=0)
        model.mesh.setPeriodic(dim - 1, slaves, [masters[p] for p in pairs], translation.ravel())


def set_sizes(gmsh, shapes, lower, upper, mesh_size, edges_per_circle, cells_per_gap) -> None:
    """Set edge lengths: at most ``mesh_size``, less along curved interfaces and in narrow gaps."""
    gmsh.option.setNumber("Mesh.MeshSizeMax", mesh_size)
    gmsh.option.setNumber("Mesh.MeshSizeFromCurvature", edges_per_circle)
    gmsh.option.setNumber("Mesh.MeshSizeFromPoints", 0)
    field, narrows, size = gmsh.model.mesh.field, [], upper - lower
    for i, j, gap, middle in near_pairs(shapes, size, cells_per_gap * mesh_size):
        # At the distance s from its middle the gap is s²/r wider, r the radius of curvature: by a quarter at `reach`.
        reach = np.sqrt(min(_smallest(shapes[i]), _smallest(shapes[j])) * gap) / 2
        along = np.isinf(extent(shapes[i])) & np.isinf(
            extent(shapes[j])
        )  # the gap of parallel fibres is as long as they
        for place in images(_around(middle, reach, along), lower, upper, size):
            narrow = field.add("Cylinder" if np.any(along) else "Ball")
            x = np.zeros(3)
            x[: len(place)] = place
            values = {"VIn": max(gap, 1e-3 * mesh_size) / cells_per_gap, "VOut": mesh_size, "Radius": reach}
            values |= {f"{n}Center": c for n, c in zip("XYZ", x)}
            if np.any(along):
                values |= {f"{n}Axis": a for n, a in zip("XYZ", np.where(along, size, 0.0))}
            else:
                values["Thickness"] = 2 * mesh_size
            for key, value in values.items():
                field.setNumber(narrow, key, value)
            narrows.append(narrow)
    if narrows:
        smallest = field.add("Min")
        field.setNumbers(smallest, "FieldsList", narrows)
        field.setAsBackgroundMesh(smallest)


def only_quads(option, attempt: int) -> None:
    """Set the options for quadrilaterals only.

    gmsh's full-quad recombination (algorithm 3) sometimes leaves triangles or folds cells. The next attempts subdivide
    a coarse mesh of triangles and quadrilaterals, the last one a coarse mesh of triangles: always possible, but less
    regular.
    """
    last = attempt == len(SEAMS) - 1
    option.setNumber("Mesh.RecombineAll", 0 if last else 1)
    option.setNumber("Mesh.RecombinationAlgorithm", 3 if attempt == 0 else attempt % 2)
    option.setNumber("Mesh.SubdivisionAlgorithm", 0 if attempt == 0 else 1)
    option.setNumber("Mesh.MeshSizeFactor", 1 if attempt == 0 else 2)


def _around(middle, reach, along) -> Shape:
    """The neighbourhood of a gap as a shape, which has periodic images."""
    if np.any(along):
        return Cylinder(tuple(middle), "xyz"[int(np.argmax(along))], reach)
    return Circle(tuple(middle), reach) if len(middle) == 2 else Sphere(tuple(middle), reach)


def _smallest(shape: Shape) -> float:
    half = extent(shape)
    return float(half[np.isfinite(half)].min())


def mesh_arrays(model, phases, dim, names) -> Arrays:
    """The mesh of gmsh, phase by phase."""
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
