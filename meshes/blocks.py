# SPDX-License-Identifier: MIT
"""Contents of a mesh file of any format (nodes, blocks of cells, named sets), and their assembly into one mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .arrays import UNTAGGED, Arrays, exterior_facets, facet_vertices
from .errors import MeshError
from .repeats import coincident_pairs, groups, merged, refuse_coincident, refuse_repeated, shortest_edge

TDIM = {"point": 0, "interval": 1, "triangle": 2, "quadrilateral": 2, "tetrahedron": 3, "hexahedron": 3}


@dataclass(frozen=True, slots=True)
class Block:
    """Cells of one type.

    Args:
        cell: name of the reference cell.
        degree: degree of the geometry.
        nodes: (m, k) rows of the points, in DOLFINx order.
    """

    cell: str
    degree: int
    nodes: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NamedSet:
    """Cells of a file that belong together.

    Args:
        name: its name, or None for a set that has only a number.
        tag: its number in the file, or None for a set that has only a name.
        members: for each block of the file the indices of its members.
        on_request: whether it becomes a tag only if requested by name.
    """

    name: str | None
    tag: int | None
    members: Sequence[npt.NDArray[np.integer]]
    on_request: bool = False


@dataclass(frozen=True, slots=True)
class Blocks:
    """The contents of a mesh file.

    Args:
        points: (n, 2) or (n, 3) node coordinates.
        blocks: cells, of all dimensions.
        sets: named or numbered sets of cells, of all dimensions.
        node_sets: name → rows of the points.
    """

    points: npt.NDArray[np.float64]
    blocks: Sequence[Block]
    sets: Sequence[NamedSet] = ()
    node_sets: Mapping[str, npt.NDArray[np.integer]] = field(default_factory=dict)


def assemble(
    file: Blocks, *, dim: int | None, sets: Sequence[str] | None, boundaries: Sequence[str], coincident: str = "error"
) -> Arrays:
    """Assemble the cells of one dimension with their tags, and the cells one dimension below as tagged facets.

    Args:
        file: the contents of a file.
        dim: dimension of the cells; the highest in the file if None.
        sets: names of the sets that become tags; all but those on request if None.
        boundaries: names of node sets that become facet tags.
        coincident: treatment of coincident nodes: "error", "merge" or "keep".

    Returns:
        The mesh as arrays.

    Raises:
        MeshError: no cells, cells of several types or repeated cells, points out of the plane, coincident nodes,
            missing sets or sets that overlap partly.
    """
    if not file.blocks or not sum(len(b.nodes) for b in file.blocks):
        raise MeshError("the file has no cells")
    tdim = max(TDIM[b.cell] for b in file.blocks if len(b.nodes)) if dim is None else dim
    chosen = [i for i, b in enumerate(file.blocks) if TDIM[b.cell] == tdim and len(b.nodes)]
    cell, degree = _only_type(file, chosen, tdim)
    cells = np.concatenate([file.blocks[i].nodes for i in chosen])
    points = _in_space(file.points, cells, tdim)
    number = _one_node_per_place(points, cells, cell, coincident)
    cells = number[cells]
    refuse_repeated(cells, cell)

    known = {s.name for s in file.sets if s.name is not None}
    missing = [name for name in sets or () if name not in known]
    missing += [name for name in boundaries if name not in file.node_sets]
    if missing:
        raise MeshError(
            f"the file has no set {missing}; its cell sets are {sorted(known)}, node sets {sorted(file.node_sets)}"
        )
    wanted = [s for s in file.sets if (not s.on_request if sets is None else s.name in sets)]
    values, names = _tagged(_among(wanted, file, chosen), len(cells))
    if np.all(values == UNTAGGED):
        values[:] = 1

    facet_blocks = [i for i, b in enumerate(file.blocks) if TDIM[b.cell] == tdim - 1 and len(b.nodes)]
    corners = facet_vertices(cell).shape[1]
    facets = np.concatenate(
        [np.empty((0, corners), dtype=np.int64)] + [number[file.blocks[i].nodes[:, :corners]] for i in facet_blocks]
    )
    facets, on = _each_once(facets, _among(wanted, file, facet_blocks))
    facet_values, facet_names = _tagged(on, len(facets))
    if boundaries:
        if np.any(facet_values != UNTAGGED):
            raise MeshError(
                f"boundaries={list(boundaries)} is given, but the file has tagged facets {facet_names} already"
            )
        facets = exterior_facets(cells, cell)
        on = [
            (NamedSet(b, None, []), np.flatnonzero(np.all(np.isin(facets, number[file.node_sets[b]]), axis=1)))
            for b in boundaries
        ]
        facet_values, facet_names = _tagged(on, len(facets))
    tagged = facet_values != UNTAGGED
    facets, facet_values = facets[tagged], facet_values[tagged]
    _refuse_strangers(facets, cells, cell)
    return Arrays(points, cells, cell, degree, values, facets, facet_values, names, facet_names)


def _only_type(file: Blocks, chosen: Sequence[int], tdim: int) -> tuple[str, int]:
    """Reference cell and degree of the chosen blocks."""
    counts: dict[tuple[str, int], int] = {}
    for i in chosen:
        kind = (file.blocks[i].cell, file.blocks[i].degree)
        counts[kind] = counts.get(kind, 0) + len(file.blocks[i].nodes)
    if len(counts) != 1 or tdim < 2:
        found = ", ".join(f"{n} {cell}s of degree {degree}" for (cell, degree), n in counts.items()) or "none"
        raise MeshError(
            f"cells of dimension {tdim} in the file: {found}; needed are cells of one type, of dimension 2 or 3"
        )
    return next(iter(counts))


def _in_space(points, cells, tdim):
    """Points with as many coordinates as the cells have dimensions."""
    used = points[np.unique(cells)]
    if not np.all(np.isfinite(used)):
        raise MeshError(f"{np.sum(~np.all(np.isfinite(used), axis=1))} nodes have coordinates that are not finite")
    spread = np.ptp(used[:, tdim:], axis=0)
    if np.any(spread > 1e-10 * np.max(np.ptp(used, axis=0))):
        raise MeshError(
            f"the cells are of dimension {tdim}, but their nodes spread over {spread.max():.3g} in z; "
            "only plane meshes in x and y are read in 2D, no shells"
        )
    return points[:, :tdim]


def _one_node_per_place(points, cells, cell, coincident):
    """For each node the node that replaces it, see `assemble`."""
    number = np.arange(len(points))
    if coincident == "keep":
        return number
    vertices = cells[:, : facet_vertices(cell).max() + 1]
    used = np.unique(vertices if coincident == "error" else cells)  # cells are connected by their vertices alone
    pairs, close = coincident_pairs(points[used], shortest_edge(points, vertices))
    if coincident == "error":
        refuse_coincident(points[used], pairs, close)
    number[used] = used[merged(len(used), pairs)]
    return number


def _among(sets, file, chosen):
    """The sets with members in the chosen blocks, and the indices (n,) of these members in the concatenated blocks."""
    starts = np.cumsum([0] + [len(file.blocks[i].nodes) for i in chosen])
    members = []
    for s in sets:
        parts = [np.asarray(s.members[i], dtype=np.int64) + start for i, start in zip(chosen, starts)]
        inside = np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
        if len(inside):
            members.append((s, inside))
    return members


def _each_once(facets, members):
    """The facets without duplicates, and the members of sets among them."""
    if not len(facets):
        return facets, members
    which, _ = groups(facets)
    _, first = np.unique(which, return_index=True)
    return facets[first], [(s, np.unique(which[inside])) for s, inside in members]


def _tagged(members, count):
    """Tag of each of ``count`` cells, and the names of the tags.

    Of nested sets the inner one determines the tag; sets with the same members share a tag; sets that overlap partly
    are rejected.
    """
    values = np.full(count, UNTAGGED, dtype=np.int32)
    taken = {s.tag for s, _ in members if s.tag is not None}
    free = (tag for tag in range(1, len(members) + len(taken) + 1) if tag not in taken)
    tags = [s.tag if s.tag is not None else next(free) for s, _ in members]
    layers = sorted(range(len(members)), key=lambda k: -len(members[k][1]))  # stable: file order among equals
    for n, k in enumerate(layers):
        mine = np.zeros(count, dtype=bool)
        mine[members[k][1]] = True
        for j in layers[:n]:
            common = np.count_nonzero(mine[members[j][1]])
            if common == len(members[k][1]) == len(members[j][1]):
                tags[k] = tags[j]
            elif common not in (0, len(members[k][1])):
                raise MeshError(
                    f'the sets "{members[j][0].name or tags[j]}" ({len(members[j][1])} members) and '
                    f'"{members[k][0].name or tags[k]}" ({len(members[k][1])}) share {common}; tags must be unique: '
                    "choose the ones to use with sets=(...)"
                )
        values[mine] = tags[k]
    present = set(np.unique(values).tolist())
    names: dict[str, int] = {}
    for (s, _), tag in zip(members, tags):
        if s.name is not None and tag in present and names.setdefault(s.name, tag) != tag:
            raise MeshError(
                f'two sets have the name "{s.name}" (tags {names[s.name]} and {tag}); their names must differ'
            )
    return values, names


def _refuse_strangers(facets, cells, cell):
    """Raise MeshError for tagged facets that are a side of no cell: DOLFINx would drop them silently."""
    if not len(facets):
        return
    sides = np.sort(cells[:, facet_vertices(cell)].reshape(-1, facets.shape[1]), axis=1)
    distinct = len(np.unique(sides, axis=0))
    strangers = len(np.unique(np.concatenate([sides, np.sort(facets, axis=1)]), axis=0)) - distinct
    if strangers:
        raise MeshError(f"{strangers} of {len(facets)} tagged facets are sides of no {cell}")


def serendipity_completed(
    points: npt.NDArray[np.float64], nodes: npt.NDArray[np.int64], cell: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """8-node quadrilaterals to 9 nodes, 20-node hexahedra to 27, by the serendipity map at the missing nodes.

    Args:
        points: (n, d) nodes.
        nodes: (m, 8) or (m, 20) in VTK order (corners, then edges).
        cell: "quadrilateral" or "hexahedron".

    Returns:
        Points, new ones at the end, and nodes (m, 9) or (m, 27) in VTK order.
    """
    # In the middle of a quadrilateral the corners weigh -1/4 and the edge nodes 1/2 (Zienkiewicz & Taylor, serendipity
    # shape functions); on a face of the hexahedron as well; in its middle -1/4 and 1/4.
    if cell == "quadrilateral":
        middle = -0.25 * points[nodes[:, :4]].sum(axis=1) + 0.5 * points[nodes[:, 4:]].sum(axis=1)
        return np.vstack([points, middle]), np.column_stack([nodes, len(points) + np.arange(len(nodes))])
    faces = nodes[:, HEXAHEDRON_FACES]  # (m, 6, 8)
    flat = faces.reshape(-1, 8)
    _, first, which = np.unique(np.sort(flat[:, :4], axis=1), axis=0, return_index=True, return_inverse=True)
    shared = flat[first]
    on_faces = -0.25 * points[shared[:, :4]].sum(axis=1) + 0.5 * points[shared[:, 4:]].sum(axis=1)
    inside = -0.25 * points[nodes[:, :8]].sum(axis=1) + 0.25 * points[nodes[:, 8:]].sum(axis=1)
    face_nodes = len(points) + which.reshape(-1, 6)
    inner = len(points) + len(on_faces) + np.arange(len(nodes))
    return np.vstack([points, on_faces, inside]), np.column_stack([nodes, face_nodes, inner])


# Corners and edge nodes of the faces of VTK's quadratic hexahedron, in the order in which VTK's 27-node one has its
# face nodes.
HEXAHEDRON_FACES = np.array([
    [0, 4, 7, 3, 16, 15, 19, 11],
    [1, 2, 6, 5, 9, 18, 13, 17],
    [0, 1, 5, 4, 8, 17, 12, 16],
    [3, 2, 6, 7, 10, 18, 14, 19],
    [0, 1, 2, 3, 8, 9, 10, 11],
    [4, 5, 6, 7, 12, 13, 14, 15],
])  # fmt: skip
