# SPDX-License-Identifier: MIT
"""Boundary conditions of an RVE: the unknowns among the fluctuation's degrees of freedom.

The displacement is u = E·x + w. Under each condition, every degree of freedom of w
either equals one unknown or is zero. The uniform traction condition adds the constraint that w has no mean strain.
For a scalar field read "potential" for displacement and "constant" for rigid motion.

Parts of the solid that are connected neither inside the RVE nor across its period are held one by one against the rigid
motions that the condition leaves them, so that they carry no load and the stiffness is not singular.

At finite strain a part follows E only along the vectors that connect it with itself: with the projector P onto them,
u = E·P x + w there, since w could not undo a large strain across them where it is held. Under uniform tractions the
mean of w's gradient fixes the rotation, too, but the stiffness alone is singular: it gets pins, see `fe2.condensed`.
"""

import warnings
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh

import meshes
from fe2.measure import Measure
from meshes import Seam

Array = npt.NDArray[np.float64]

# Departure of ∫ n ⊗ x / V from the identity that counts as rounding of the coordinates; a void on a face makes it about
# the void's share of the face.
_OPEN = 1e-6
# Lattice vectors are parallel if their directions differ by less than this.
_PARALLEL = 1e-9


@dataclass(frozen=True, slots=True)
class Unknowns:
    """Degrees of freedom of the fluctuation in terms of the unknowns.

    Args:
        index: (dofs,) unknown that a degree of freedom equals, -1 where it is zero.
        size: number of unknowns.
        period: (dim, dim) lattice vectors of the RVE.
        places: (nodes, dim) from the middle of the RVE; E takes a node with it as if it were there.
        constraint: (d, size) rows G of the side condition G w = 0, or None.
        pins: unknowns that would hold the body against rotation, however it is turned, where the side condition alone
            does: without it the stiffness of an unloaded body is singular.
    """

    index: npt.NDArray[np.int64]
    size: int
    period: npt.NDArray[np.float64]
    places: npt.NDArray[np.float64]
    constraint: npt.NDArray[np.float64] | None = None
    pins: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def expand(self, unknowns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Fluctuation (..., dofs) of `unknowns` (..., size)."""
        padded = np.concatenate([unknowns, np.zeros((*unknowns.shape[:-1], 1))], axis=-1)
        return padded[..., self.index]

    def gather(self, forces: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Transpose of `expand`: forces (dofs,) or (dofs, k) summed onto the unknowns, (size,) or (size, k)."""
        kept = self.index >= 0
        if forces.ndim == 1:
            return np.bincount(self.index[kept], forces[kept], minlength=self.size).astype(np.float64, copy=False)
        return np.stack([self.gather(column) for column in forces.T], axis=1)


def _number(parent: npt.NDArray[np.int64], fixed: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], int]:
    """Consecutive numbers for the free roots of `parent`, passed on to the dofs that follow them."""
    roots = (parent == np.arange(parent.size)) & ~fixed
    number = np.full(parent.size, -1, dtype=np.int64)
    number[roots] = np.arange(roots.sum())
    return number[parent], int(roots.sum())


def periodic(V: fem.FunctionSpace, domain: meshes.TaggedMesh, measure: Measure) -> Unknowns:
    """Periodic fluctuation: the same at all points that differ by lattice vectors.

    Args:
        V: Lagrange space of the field on the RVE's mesh.
        domain: the RVE, on one rank.
        measure: of the field.

    Raises:
        meshes.MeshError: see `meshes.seam`, or a node on the boundary without partner.
    """
    seam = meshes.seam(domain)
    x = _nodes(V)
    label = _same_point(V, seam, x)
    first = np.full(label.max() + 1, len(x))
    np.minimum.at(first, label, np.arange(len(x)))
    parent = first[label]
    paired = _nodes_on(V, seam.facets[seam.pairs])
    alone = paired[np.bincount(label)[label[paired]] < 2]
    if alone.size:
        raise meshes.MeshError(
            f"{alone.size} nodes on the sides of the RVE have no partner across the period {seam.period.tolist()}, "
            f"the first at {x[alone[0]].tolist()} from the middle of the RVE"
        )
    turns = x @ np.linalg.inv(seam.period)
    shift = np.rint(turns - turns[parent]).astype(np.int64)
    held = _hold_parts(V, x, measure, parent, shift, seam.period)
    size = held.fixed.shape[1]
    tied = (size * parent[:, None] + np.arange(size)).ravel()
    return Unknowns(*_number(tied, held.fixed.ravel()), seam.period, held.places)


def linear_displacement(V: fem.FunctionSpace, domain: meshes.TaggedMesh, measure: Measure) -> Unknowns:
    """No fluctuation on the faces of the RVE, so that u = E·x there; arguments as for `periodic`.

    Raises:
        meshes.MeshError: see `meshes.faces`.
    """
    period = meshes.known_period(domain)
    domain = replace(domain, period=period)
    x = _nodes(V)
    prescribed = np.zeros(len(x), dtype=bool)
    prescribed[_nodes_on(V, meshes.faces(domain))] = True
    held = _hold_parts(V, x, measure, skip=prescribed)
    fixed = prescribed[:, None] | held.fixed
    return Unknowns(*_number(np.arange(fixed.size), fixed.ravel()), period, held.places)


def uniform_traction(V: fem.FunctionSpace, domain: meshes.TaggedMesh, measure: Measure) -> Unknowns:
    """Free fluctuation without mean strain, so that the tractions on the RVE are those of a uniform stress.

    Arguments as for `periodic`.

    Raises:
        meshes.MeshError: see `meshes.faces`; or voids on the faces, since the tractions of a uniform stress on the rest
            of them have a resultant force or moment.
    """
    period = meshes.known_period(domain)
    domain = replace(domain, period=period)
    mesh, x = V.mesh, _nodes(V)
    dim = x.shape[1]
    faces = meshes.faces(domain)
    outside = np.zeros(len(x), dtype=bool)
    outside[_nodes_on(V, faces)] = True
    held = _hold_parts(V, x, measure, turned=outside)
    _refuse_open_faces(domain, period, faces)
    outer = dmesh.meshtags(mesh, dim - 1, np.sort(faces), np.ones(faces.size, dtype=np.int32))
    ds = ufl.Measure("ds", domain=mesh, subdomain_data=outer, subdomain_id=1)
    basis = measure.basis(dim)
    unit = fem.Constant(mesh, np.zeros(basis[0].shape))
    v, n = ufl.TestFunction(V), ufl.FacetNormal(mesh)
    mean_strain = fem.form(ufl.inner(ufl.dot(unit, n), ufl.as_vector([v]) if measure.scalar else v) * ds)
    rows = []
    for tensor in basis:
        unit.value[:] = tensor
        rows.append(fem.assemble_vector(mean_strain).array.copy())
    unknowns = Unknowns(*_number(np.arange(held.fixed.size), held.fixed.ravel()), period, held.places)
    pins = unknowns.index[held.pins.ravel()]
    return replace(unknowns, constraint=unknowns.gather(np.stack(rows, axis=1)).T, pins=pins)


def _refuse_open_faces(domain: meshes.TaggedMesh, period: Array, faces: npt.NDArray[np.int32]) -> None:
    """Raise MeshError unless ∫ n ⊗ x over the faces is the volume times the identity, as it is over a whole outline."""
    mesh, dim = domain.mesh, domain.mesh.geometry.dim
    outer = dmesh.meshtags(mesh, dim - 1, np.sort(faces), np.ones(faces.size, dtype=np.int32))
    ds = ufl.Measure("ds", domain=mesh, subdomain_data=outer, subdomain_id=1)
    lower, upper = domain.box
    x, n = ufl.SpatialCoordinate(mesh) - ufl.as_vector((lower + upper) / 2), ufl.FacetNormal(mesh)
    row = fem.Constant(mesh, np.zeros(dim))
    column = fem.Constant(mesh, np.zeros(dim))
    moment = fem.form(ufl.dot(row, n) * ufl.dot(column, x) * ds)
    found = np.empty((dim, dim))
    for i, j in np.ndindex(dim, dim):
        row.value[:], column.value[:] = np.eye(dim)[i], np.eye(dim)[j]
        found[i, j] = fem.assemble_scalar(moment)
    volume = abs(float(np.linalg.det(period)))
    if not np.allclose(found / volume, np.eye(dim), rtol=0, atol=_OPEN):
        raise meshes.MeshError(
            "voids open on the faces of the RVE, where the tractions of a uniform stress would have to act: use the "
            "boundary condition 'periodic', or 'linear displacement', or move the voids away from the faces"
        )


# Nodes.


def _nodes(V: fem.FunctionSpace) -> Array:
    """Coordinates (nodes, dim) of the nodes from the middle of the RVE, where differences are accurate."""
    x = V.tabulate_dof_coordinates()[:, : V.mesh.geometry.dim]
    return x - (x.min(axis=0) + x.max(axis=0)) / 2


def _nodes_on(V: fem.FunctionSpace, facets: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Nodes on facets, ascending."""
    found = fem.locate_dofs_topological(V, V.mesh.topology.dim - 1, np.unique(facets).astype(np.int32))
    return np.sort(found).astype(np.int64)


def _same_point(V: fem.FunctionSpace, seam: Seam, x: Array) -> npt.NDArray[np.int64]:
    """Labels (nodes,) that nodes x (nodes, dim) share with their images across the period."""
    boundary = _nodes_on(V, seam.facets)
    here = meshes.periodic_labels(x[boundary], seam.period)
    turns = x[boundary] @ np.linalg.inv(seam.period)
    _, first = np.unique(here, return_index=True)
    images = np.column_stack([here, np.rint(turns - turns[first][here])])
    _, inverse, count = np.unique(images, axis=0, return_inverse=True, return_counts=True)
    # Several nodes at one point are the sides of a crack: there a node is tied to the node of its facet's partner.
    cracked = np.isin(here, here[count[inverse.ravel()] > 1])
    whole = ~cracked
    edges = [np.stack([boundary[whole], boundary[first[here[whole]]]], axis=1)]
    if cracked.any():
        torn = boundary[cracked]
        for k, shift in enumerate(seam.shifts):
            ours, theirs = (_nodes_on(V, seam.facets[seam.pairs[k, [side]]]) for side in (0, 1))
            if np.isin(ours, torn).any():
                away = x[ours][:, None] + shift @ seam.period - x[theirs]
                edges.append(np.stack([ours, theirs[np.linalg.norm(away, axis=2).argmin(axis=1)]], axis=1))
    return _connected(len(x), np.concatenate(edges))


def _connected(count: int, edges: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Labels (count,) of the connected components of a graph with the edges (e, 2)."""
    graph = scipy.sparse.coo_array((np.ones(len(edges), dtype=bool), tuple(edges.T)), shape=(count, count))
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[1].astype(np.int64)


# Rigid motions.


class _Held(NamedTuple):
    """How parts of the solid are held.

    Attributes:
        fixed: (nodes, components) values that are zero.
        pins: (nodes, components) values that would hold turned parts against rotation.
        places: (nodes, dim) see `Unknowns`.
    """

    fixed: npt.NDArray[np.bool_]
    pins: npt.NDArray[np.bool_]
    places: Array


def _hold_parts(
    V: fem.FunctionSpace,
    x: Array,
    measure: Measure,
    parent=None,
    shift=None,
    period=None,
    *,
    skip: npt.NDArray[np.bool_] | None = None,
    turned: npt.NDArray[np.bool_] | None = None,
) -> _Held:
    """Hold each part of the solid against its rigid motions.

    Args:
        V: space of the field.
        x: (nodes, dim) coordinates.
        measure: of the field.
        parent: (nodes,) the node that each one equals; no nodes are tied if None.
        shift: (nodes, dim) integer multiples of the lattice vectors between the two.
        period: (dim, dim) lattice vectors.
        skip: (nodes,) parts with one of these are held already.
        turned: (nodes,) the mean displacement gradient of parts with one of these is prescribed, at finite strain with
            its rotation.
    """
    dim = x.shape[1]
    components = measure.components(dim)
    nodes = V.dofmap.list
    edges = np.stack([np.broadcast_to(nodes[:, :1], nodes.shape), nodes], axis=2).reshape(-1, 2)
    piece = _connected(len(x), edges)
    root = np.ones(len(x), dtype=bool)
    part, offset, windings = piece, np.zeros(x.shape), [np.zeros((0, dim))] * (piece.max() + 1)
    if parent is not None:
        root = parent == np.arange(len(x))
        ties = np.column_stack([piece[parent], piece, shift])[~root]
        part_of, offset_of, windings = _unwrap(piece.max() + 1, np.unique(ties, axis=0))
        part, offset = part_of[piece], offset_of[piece] @ period
        windings = [w @ period for w in windings]
        through = np.concatenate([*windings, np.zeros((1, dim))]) / np.linalg.norm(period)
        if np.linalg.matrix_rank(through) < dim:
            warnings.warn(
                "the solid does not run through the RVE in all directions and carries no load across the others; if it "
                f"should, the period differs from {period.tolist()}",
                meshes.PeriodWarning,
                stacklevel=5,
            )
    fixed = np.zeros((len(x), components), dtype=bool)
    held = _Held(fixed, fixed.copy(), x.copy())
    order = np.argsort(part, kind="stable")
    for mine, vectors in zip(np.split(order, np.flatnonzero(np.diff(part[order])) + 1), windings, strict=True):
        if skip is not None and skip[mine].any():
            continue
        free, own = mine[root[mine]], x + offset
        spins = np.zeros((0, dim, dim)) if measure.scalar else _spins(vectors, dim)
        if measure.finite and turned is not None and turned[mine].any():
            held.fixed[free[0]] = True
            held.pins[free] = _turning(own[free], spins)
            continue
        held.fixed[free] = _held(own[free], spins, components)
        if measure.finite:
            _, sizes, axes = np.linalg.svd(np.concatenate([vectors, np.zeros((1, dim))]))
            along = axes[: int((sizes > _PARALLEL * sizes[0]).sum())]
            if len(along) < dim:
                middle = own[mine].mean(axis=0)
                held.places[mine] = (own[mine] - middle) @ along.T @ along + middle - offset[mine]
    return held


def _unwrap(count: int, ties: npt.NDArray[np.int64]):
    """Pieces of solid put together across the period.

    Args:
        count: number of pieces.
        ties: (t, 2 + dim) two pieces and the lattice shift from the first to the second.

    Returns:
        The part (count,) of each piece, the lattice shift (count, dim) to its position in the part, and for each part
        the lattice vectors (w, dim) by which it is connected with itself.
    """
    part, offset = np.full(count, -1), np.zeros((count, ties.shape[1] - 2), dtype=np.int64)
    neighbours: list[list[tuple[int, npt.NDArray[np.int64]]]] = [[] for _ in range(count)]
    for tie in ties:
        a, b, shift = int(tie[0]), int(tie[1]), tie[2:]
        neighbours[a].append((b, -shift))
        neighbours[b].append((a, shift))
    windings: list[Array] = []
    for start in range(count):
        if part[start] >= 0:
            continue
        part[start], queue, loops = len(windings), [start], []
        while queue:
            a = queue.pop()
            for b, step in neighbours[a]:
                if part[b] < 0:
                    part[b], offset[b] = part[a], offset[a] + step
                    queue.append(b)
                loops.append(offset[a] + step - offset[b])
        windings.append(np.array([w for w in loops if w.any()], dtype=float).reshape(-1, offset.shape[1]))
    return part, offset, windings


def _spins(vectors: Array, dim: int) -> Array:
    """Free rotations (s, dim, dim), as skew matrices, of a part that is connected with itself by vectors (w, dim)."""
    if dim == 2:
        return np.array([[[0.0, -1.0], [1.0, 0.0]]])[: 0 if len(vectors) else 1]
    skew = (
        np.cross(np.eye(3)[:, None], np.eye(3)).transpose(0, 2, 1).astype(np.float64, copy=False)
    )  # skew[k] v = e_k × v
    if not len(vectors):
        return skew
    # A rotation about ω is periodic if it moves no such vector: ω × t = 0.
    moved: Array = np.einsum("kij,wj->wik", skew, vectors / np.linalg.norm(vectors, axis=1).max()).reshape(-1, 3)
    axes = scipy.linalg.null_space(moved, rcond=_PARALLEL).T
    spins: Array = np.tensordot(axes, skew, axes=1)
    return spins


def _held(x: Array, spins: Array, components: int) -> npt.NDArray[np.bool_]:
    """Values (m, components) of nodes x (m, dim) that fix translations and `spins` (s, dim, dim), best conditioned."""
    held = np.zeros((len(x), components), dtype=bool)
    if not len(spins):
        held[0] = True
        return held
    modes = [np.broadcast_to(e, x.shape) for e in np.eye(x.shape[1])]
    modes += [(x - x.mean(axis=0)) @ spin.T / np.ptp(x) for spin in spins]
    rigid = np.stack([m.ravel() for m in modes])
    held.ravel()[scipy.linalg.qr(rigid, mode="r", pivoting=True)[1][: len(rigid)]] = True
    return held


def _turning(x: Array, spins: Array) -> npt.NDArray[np.bool_]:
    """Values (m, dim) of nodes x (m, dim) that fix `spins` (s, dim, dim) about the first node, however it is turned."""
    fixing = np.zeros(x.shape, dtype=bool)
    if len(spins):
        modes = np.stack([((x - x[0]) @ spin.T).ravel() for spin in spins]) / np.ptp(x)
        fixing.ravel()[scipy.linalg.qr(modes, mode="r", pivoting=True)[1][: len(spins)]] = True
        fixing[fixing.any(axis=1)] = True
    return fixing


CONDITIONS = {
    "periodic": periodic,
    "linear displacement": linear_displacement,
    "uniform traction": uniform_traction,
}
