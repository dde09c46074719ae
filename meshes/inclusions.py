# SPDX-License-Identifier: MIT
"""RVEs with inclusions, meshed by gmsh with matching opposite faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from mpi4py import MPI

from .arrays import distribute, exterior_facets
from .curved import untangled
from .errors import MeshError
from .gmsh_session import load_gmsh, session
from .occ import SEAMS, match_faces, mesh_arrays, model_phases, only_quads, set_sizes
from .periodic import match, periodic_labels
from .shapes import Circle, Ellipse, Shape, extent, moved, refuse_overlaps, rescaled
from .structured import box_corners
from .tagged import INCLUSION, MATRIX, VOID, TaggedMesh


def rve(
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
    """Periodic RVE with inclusions; an inclusion that leaves on one side enters on the opposite one.

    Args:
        inclusions: bodies that do not overlap; those with tag 0 are voids. The matrix has tag 1.
        comm: communicator of the mesh; gmsh runs on rank 0.
        mesh_size: largest edge length.
        size: lengths of the RVE, (lx, ly) or (lx, ly, lz); sets the dimension.
        center: centre of the RVE; the origin if None.
        shift: vector by which the inclusions are moved (periodically); no effective property depends on it.
        order: degree of the geometry; from 2 on the interfaces are curved (except edges whose curvature would invert
            a cell).
        quads: quadrilaterals (2D only); simplices otherwise.
        edges_per_circle: fewest edges on a full circle of an interface, for any ``mesh_size``.
        cells_per_gap: cells across a gap between inclusions that is narrower than ``cells_per_gap * mesh_size``.
        names: name of a phase → tag; "matrix" for 1 and "inclusion" for 2 if None, "inclusion t" for another tag t.

    Returns:
        The RVE, checked to be periodic.

    Raises:
        MeshError: overlapping inclusions, a shape of the wrong dimension or size, or a failure of gmsh (for example if
            an interface is almost tangent to a face of the RVE: use ``shift``).
    """
    lower, upper, middle = box_corners(size, center)
    dim = len(size)
    # Drawn around the origin with the longest edge 1: OpenCASCADE and gmsh have absolute tolerances.
    unit = float(np.max(upper - lower))
    lower, upper = lower / unit, upper / unit

    def build():
        load_gmsh()  # where it is missing, no attempt below could succeed
        shapes = _placed(inclusions, dim, shift)
        refuse_overlaps(shapes, unit * (upper - lower))
        shapes = [rescaled(shape, middle, unit) for shape in shapes]
        if mesh_size <= 0 or order < 1:
            raise MeshError(f"mesh_size is {mesh_size} and order is {order}; they must be positive")
        if quads and dim == 3:
            raise MeshError("quads=True needs an RVE in 2D; in 3D use quads=False, or from_labels for hexahedra")
        tags = {MATRIX} | {s.tag for s in shapes} - {VOID}
        labels = {"matrix": MATRIX} | {
            ("inclusion" if t == INCLUSION else f"inclusion {t}"): t for t in tags - {MATRIX}
        }

        def attempt(number):
            with session() as gmsh:
                phases = model_phases(gmsh.model, shapes, lower, upper, SEAMS[number])
                match_faces(gmsh.model, lower, upper)
                set_sizes(gmsh, shapes, lower, upper, mesh_size / unit, edges_per_circle, cells_per_gap)
                if quads:
                    only_quads(gmsh.option, number)
                gmsh.model.mesh.generate(dim)
                gmsh.model.mesh.setOrder(order)
                arrays = mesh_arrays(gmsh.model, phases, dim, labels if names is None else names)
            period = np.diag(upper - lower)
            match(arrays.points[exterior_facets(arrays.cells, arrays.cell)], period)
            arrays = untangled(arrays, images=periodic_labels(arrays.points, period))
            return replace(arrays, points=arrays.points * unit + middle, period=period * unit)

        for number in range(len(SEAMS) - 1):
            try:
                return attempt(number)
            except Exception:  # gmsh raises no other class; the error of the last attempt is reported
                continue
        try:
            return attempt(len(SEAMS) - 1)
        except Exception as error:
            raise MeshError(
                f"gmsh made no valid mesh: {error}. Perhaps an interface is almost tangent to a face of "
                "the RVE: move the inclusions with shift, or use a smaller mesh_size"
            ) from error

    return distribute(comm, build)


def _placed(inclusions: Sequence[Shape], dim: int, shift: Sequence[float] | None) -> list[Shape]:
    """The inclusions moved by ``shift``, their dimension and sizes checked."""
    move = np.zeros(dim) if shift is None else np.asarray(shift, dtype=np.float64)
    if move.shape != (dim,):
        raise MeshError(f"shift is {shift}; an RVE in {dim}D needs {dim} entries")
    for i, shape in enumerate(inclusions):
        if len(shape.center) != dim or shape.matrix.shape != (dim, dim):
            raise MeshError(
                f"inclusion {i} ({shape}) does not fit an RVE in {dim}D, whose dimension is the length of size"
            )
        if not np.all(extent(shape) > 0) or not np.linalg.det(np.where(np.isinf(shape.matrix), 1, shape.matrix)) > 0:
            raise MeshError(f"inclusion {i} ({shape}) has no volume; radius and semi_axes must be positive")
        if not isinstance(shape.tag, int) or shape.tag < 0:
            raise MeshError(f"inclusion {i} ({shape}) has the tag {shape.tag}; use 0 for a void, 1, 2, ... for phases")
    return [moved(shape, move) for shape in inclusions]


def benchmark(
    name: str, comm: MPI.Intracomm, *, mesh_size: float = 0.05, order: int = 2, quads: bool = False
) -> TaggedMesh:
    """One of the three RVEs of the EquiNO paper (Eivazi et al., arXiv:2504.07976) on [-0.5, 0.5]².

    The matrix has tag 1, the inclusion 2.

    Args:
        name: "RVE1": circles of radius 0.295863515 at the centre and around the four corners (volume fraction 0.55);
            "RVE2": an ellipse with the semi-axes 0.350 and 0.1756, the longer one at 30° to the x axis;
            "RVE3": circles of radius 0.10 at (-0.25, 0.25), 0.15 at (0.25, 0.15) and 0.10 at (0, -0.25);
            "RVE2-meshed": the ellipse of the authors' mesh, see `AS_MESHED`; their results for RVE2 use it. The results
            of this project use "RVE2", whose stiffness is larger by 0.03 %.
        comm: communicator of the mesh.
        mesh_size: largest edge length.
        order: degree of the geometry.
        quads: quadrilaterals; triangles otherwise.

    Returns:
        The RVE.

    Raises:
        MeshError: unknown name.
    """
    known = BENCHMARKS | AS_MESHED
    if name not in known:
        raise MeshError(f'no benchmark RVE has the name "{name}"; need one of {", ".join(known)}')
    return rve(known[name], comm, mesh_size=mesh_size, order=order, quads=quads)


# Name → inclusions, for `benchmark`: RVE1 to RVE3 of the EquiNO benchmark, in a unit square.
BENCHMARKS: dict[str, tuple[Shape, ...]] = {
    "RVE1": (Circle((0.0, 0.0), 0.295863515), Circle((0.5, 0.5), 0.295863515)),
    "RVE2": (Ellipse((0.0, 0.0), (0.350, 0.1756), 30.0),),
    "RVE3": (Circle((-0.25, 0.25), 0.10), Circle((0.25, 0.15), 0.15), Circle((0.0, -0.25), 0.10)),
}

# In the mesh of RVE2 that comes with the paper's code (github.com/HamidrezaEiv/EquiNO, be71c1f, data/RVE2/grid) the
# interface waves by up to 1 % about an ellipse of 0.35 and 0.175. Least squares over its 192 nodes give the semi-axes
# 0.34971 and 0.17559; these are scaled here to the area of the meshed inclusion, 0.19288. The stiffness is that
# of the mesh to 3e-5.
AS_MESHED: dict[str, tuple[Shape, ...]] = {"RVE2-meshed": (Ellipse((0.0, 0.0), (0.34968, 0.17558), 30.0),)}
