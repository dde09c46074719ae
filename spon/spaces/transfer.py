# SPDX-License-Identifier: MIT
"""Sparse matrices that evaluate fields and carry them between meshes, read from DOLFINx function spaces.

One matrix has three uses. `interpolation(coarse, fine)` is the prolongation P of fields; its transpose P.T restricts
what is dual, such as residuals; `interpolation(fine, coarse)` is the injection of fields.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from spon.spaces.geometry import locate, midpoints, pull, push
from spon.spaces.read import family, is_mixed, unblocked
from spon.sparse import SparseOperator

Array = npt.NDArray[np.float64]


def evaluation(V: Any, points: Array, reach: float = 1e-6) -> SparseOperator:
    """The matrix (points · components, dofs) that evaluates fields of V, the components of a point in a row.

    Components are those of the block (of a symmetric tensor, its independent ones) or, for RT and N1curl, of space.
    Where fields jump, the value is that of one of the cells.

    Args:
        V: a function space that `spon.read_space` knows, and not mixed. points: (n, d) [length].
        reach: how far outside of the nearest cell a point may be, in sizes of that cell, whose polynomial it takes.

    Raises:
        ValueError: no points, or naming a point that is farther outside.
    """
    points = np.asarray(points, dtype=np.float64)
    d = V.mesh.geometry.dim
    if points.ndim != 2 or points.shape[1] != d or len(points) == 0:
        raise ValueError(f"points has the shape {points.shape}, need (n, {d}) with n > 0")
    return _evaluate(V, locate(V.mesh, points, reach), points)


def interpolation(source: Any, target: Any) -> SparseOperator:
    """The matrix (target dofs, source dofs) that interpolates fields of one space in another, on any two meshes.

    Each node of the target takes the value of the field there. Nodes outside of the source's mesh, as they occur where
    two meshes resolve a curved boundary differently, take the polynomial of the nearest cell.

    Args:
        source, target: function spaces with equal components, which `spon.read_space` knows; not mixed. The target is
            Lagrange or DG, whose dofs are values.

    Raises:
        ValueError: another target, different components, or a node that is farther outside than half the size of the
            nearest cell.
    """
    if is_mixed(target) or family(target) not in ("P", "DG"):
        raise ValueError("the target is neither Lagrange nor DG, whose dofs are values at points: take its parts, or P")
    if _components(source) != target.dofmap.bs:
        raise ValueError(f"fields of the source have {_components(source)} components, the target {target.dofmap.bs}")
    points = target.tabulate_dof_coordinates()[:, : target.mesh.geometry.dim]
    seen_from = points
    if family(source) != "P":
        # The source may jump at a node: the cell is that on the side of the target's own cell.
        inner = np.zeros_like(points)
        inner[target.dofmap.list] = midpoints(target.mesh)[:, None]
        seen_from = points + 1e-6 * (inner - points)
    return _evaluate(source, locate(source.mesh, seen_from, 0.5), points)


def integrals(source: Any, target: Any) -> SparseOperator:
    """The matrix (target nodes · components, source dofs) of ∫ f φ_i, fields of the source against the target's basis.

    Exact for fields on the target's own mesh with straight cells, and whatever they do between nodes: jumps too. On
    another mesh its jumps and kinks inside of the target's cells are seen as the quadrature sees them. Components are
    those of `evaluation`.

    Args:
        source: a function space that `spon.read_space` knows. target: Lagrange or DG. Neither is mixed.
    """
    fields, weights, cells, points = _at_quadrature(source, target)
    b = target.dofmap.bs
    basis = _evaluate(target, cells, points).scipy[::b, ::b]
    return _against(basis.T * weights, fields, _components(source))


def at_points(source: Any, mesh: Any, cells: npt.NDArray[np.int32], points: Array) -> SparseOperator:
    """The matrix (points · components, source dofs) of the values of fields at points of the cells of a mesh.

    On the source's own mesh they are those of the cell; on another one, of a cell that has the point, or the nearest.
    """
    return _evaluate(source, cells if source.mesh == mesh else locate(source.mesh, points, 0.5), points)


def patch_means(source: Any, target: Any, tying: Any = None) -> SparseOperator:
    """The matrix (target nodes · components, source dofs) of the means of fields over the cells around a node.

    Arguments as for `integrals`. tying: (target nodes, independent ones), a SciPy matrix; rows are then for those, and
    the cells around a node those around all that are tied to it.
    """
    fields, weights, cells, _ = _at_quadrature(source, target)
    nodes = target.dofmap.list
    shape = target.dofmap.index_map.size_local, len(nodes)
    around = scipy.sparse.csr_array(
        (np.ones(nodes.size), (nodes.ravel(), np.arange(len(nodes)).repeat(nodes.shape[1]))), shape
    )
    inside = scipy.sparse.csr_array((weights, (cells, np.arange(len(cells)))), shape=(len(nodes), len(cells)))
    weighted = around @ inside if tying is None else tying.T @ around @ inside
    return _against(weighted / weighted.sum(axis=1)[:, None], fields, _components(source))


def _against(weights: Any, fields: Any, components: int) -> SparseOperator:
    """Weights (n, points), for each component, times the values (points · components, dofs) of fields."""
    return SparseOperator.of(scipy.sparse.kron(weights, scipy.sparse.eye_array(components), format="csr") @ fields)


def _at_quadrature(source: Any, target: Any) -> tuple[Any, Array, npt.NDArray[np.int32], Array]:
    """At the quadrature points of the target's cells: values (points · components, dofs) of fields of the source,
    weights (points,), cells (points,) and the points (points, d) themselves."""
    import basix

    mesh, degrees = target.mesh, [unblocked(V).degree for V in (source, target)]
    kind = unblocked(target).basix_element.cell_type
    reference, weights = basix.make_quadrature(kind, sum(degrees) + (0 if source.mesh == mesh else 2))
    count = len(target.dofmap.list)
    cells = np.arange(count, dtype=np.int32).repeat(len(weights))
    points, jacobian = push(mesh, cells, np.tile(reference, (count, 1)))
    scale = np.sqrt(np.linalg.det(jacobian.transpose(0, 2, 1) @ jacobian))
    return at_points(source, mesh, cells, points).scipy, np.tile(weights, count) * scale, cells, points


def curl(potential: Any, velocity: Any) -> SparseOperator:
    """The matrix (velocity dofs, potential dofs) of the curl (∂ψ/∂y, −∂ψ/∂x), whose divergence is zero.

    It is exact: the contravariant map of Raviart-Thomas carries the curl on the reference cell to that on the cell.

    Args:
        potential: scalar Lagrange. velocity: Raviart-Thomas of at least its degree on the same mesh, of the plane.

    Raises:
        ValueError: other spaces.
    """
    mesh = potential.mesh
    if velocity.mesh != mesh or mesh.geometry.dim != 2 or mesh.topology.dim != 2:
        raise ValueError("potential and velocity need one mesh, in the plane")
    psi, v = unblocked(potential).basix_element, unblocked(velocity).basix_element
    wrong = is_mixed(potential) or is_mixed(velocity) or family(potential) != "P" or family(velocity) != "RT"
    if wrong or potential.dofmap.bs > 1 or v.degree < psi.degree:
        raise ValueError("the curl takes scalar Lagrange to Raviart-Thomas of at least its degree")
    _, along_x, along_y = psi.tabulate(1, v.points)[..., 0]
    local = v.interpolation_matrix @ np.concatenate([along_y, -along_x])
    cells = np.arange(len(velocity.dofmap.list), dtype=np.int32)
    matrices = np.linalg.inv(_turns(velocity, cells).transpose(0, 2, 1)) @ local
    # Two cells agree on the dofs that they share: one of them writes the row.
    rows, first = np.unique(velocity.dofmap.list, return_index=True)
    cell, place = np.divmod(first, v.dim)
    values, columns = matrices[cell, place], potential.dofmap.list[cell]
    values[abs(values) < 1e-14 * abs(values).max(axis=1, keepdims=True)] = 0.0
    entries = values.ravel(), columns.ravel(), np.arange(len(rows) + 1) * psi.dim
    shape = len(rows), potential.dofmap.index_map.size_local
    return SparseOperator.of(scipy.sparse.csr_array(entries, shape=shape))


def _components(V: Any) -> int:
    if is_mixed(V):
        raise ValueError("the space is mixed: take its parts, V.sub(k).collapse()[0]")
    return V.mesh.geometry.dim if family(V) in ("RT", "N1curl") else V.dofmap.bs


def _evaluate(V: Any, cells: npt.NDArray[np.int32], points: Array) -> SparseOperator:
    """Rows for the points, each in its own cell, from the basis functions of the cell."""
    c, b = _components(V), V.dofmap.bs
    nodes = V.dofmap.list[cells]
    values = _basis(V, cells, pull(V.mesh, cells, points))
    # What is smaller comes from rounding in a basis function that vanishes at the point. (Piola maps have units.)
    values[abs(values) < 1e-14 * abs(values).max(axis=(1, 2), keepdims=True)] = 0.0
    n, k, size = values.shape
    if b > 1:  # one scalar basis for all components
        columns = np.broadcast_to(b * nodes[:, None, :] + np.arange(b)[:, None], (n, b, k))
        values = np.broadcast_to(values[:, None, :, 0], (n, b, k))
    else:
        columns = np.broadcast_to(nodes[:, None, :], (n, size, k))
        values = values.transpose(0, 2, 1)
    count = V.dofmap.index_map.size_local * b
    entries = values.ravel(), columns.ravel(), np.arange(n * c + 1) * k
    return SparseOperator.of(scipy.sparse.csr_array(entries, shape=(n * c, count)))


def _basis(V: Any, cells: npt.NDArray[np.int32], reference: Array) -> Array:
    """Basis functions (n, k, components) of V in the cells, without block, at one reference point each."""
    element = unblocked(V).basix_element
    values = element.tabulate(0, reference)[0]
    if family(V) in ("P", "DG"):  # scalars: neither turned nor mapped
        return values
    values = _turns(V, cells) @ values
    jacobian = push(V.mesh, cells, reference).jacobian
    return element.push_forward(values, jacobian, np.linalg.det(jacobian), np.linalg.inv(jacobian))


def _turns(V: Any, cells: npt.NDArray[np.int32]) -> Array:
    """Matrices (n, dofs, dofs) from the reference basis to one that cells which share edges and faces agree on."""
    element = unblocked(V).basix_element
    if not V.element.needs_dof_transformations:
        return np.broadcast_to(np.eye(element.dim), (len(cells), element.dim, element.dim))
    V.mesh.topology.create_entity_permutations()
    ways, which = np.unique(V.mesh.topology.get_cell_permutation_info()[cells], return_inverse=True)  # few occur
    turns = np.empty((len(ways), element.dim, element.dim))
    for turn, way in zip(turns, ways):
        flat = np.eye(element.dim).ravel()
        V.element.T_apply(flat, np.array([way], dtype=np.uint32), element.dim)
        turn[:] = flat.reshape(turn.shape)
    return turns[which]
