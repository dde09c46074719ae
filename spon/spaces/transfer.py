# SPDX-License-Identifier: MIT
"""Sparse matrices that evaluate fields and transfer them between meshes, from DOLFINx function spaces.

`interpolation(coarse, fine)` is the prolongation P of fields; its transpose P.T restricts residuals and other dual
vectors; `interpolation(fine, coarse)` is the injection of fields.

DOLFINx has no such matrices: `fem.interpolation_matrix` needs both spaces on one mesh, and between meshes
`create_interpolation_data` transfers functions without a matrix.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used

from spon.spaces.geometry import locate, midpoints, pull, push
from spon.spaces.read import family, is_mixed, unblocked
from spon.sparse import SparseOperator

Array = npt.NDArray[np.float64]
Cells = npt.NDArray[np.int32]

# Largest distance of a node of another mesh of the same domain outside the nearest cell, in sizes of that cell: two
# meshes resolve a curved boundary differently.
_REACH = 0.5
# An entry below this fraction of the largest in its row is the rounding of a basis function that vanishes there.
_ROUNDING = 1e-14
# Shift of nodes into their own cell, relative to its size, to choose a side where the source jumps.
_INWARDS = 1e-6


def evaluation(V: Any, points: Array, reach: float = 1e-6) -> SparseOperator:
    """The matrix (points · components, dofs) that evaluates fields, the components of a point in successive rows.

    Components are those of the block (of a symmetric tensor, the independent ones) or, for RT and N1curl, of space.
    Where fields jump, the value is that of one of the cells.

    Args:
        V: a function space of a kind that `spon.read_space` supports, not mixed.
        points: (n, d) [length].
        reach: largest distance of a point outside the nearest cell, in sizes of that cell, whose polynomial is
            continued to the point.

    Raises:
        ValueError: no points, or points of another dimension.
        ValueError: a point that is farther outside; names it.
    """
    points = np.asarray(points, dtype=np.float64)
    d = V.mesh.geometry.dim
    if points.ndim != 2 or points.shape[1] != d or len(points) == 0:
        raise ValueError(f"points has the shape {points.shape}, need (n, {d}) with n > 0")
    return _evaluate(V, locate(V.mesh, points, reach), points)


def interpolation(source: Any, target: Any) -> SparseOperator:
    """The matrix (target dofs, source dofs) that interpolates fields of one space in another, on any two meshes.

    Each node of the target gets the value of the field there. For nodes outside the mesh of the source, as where two
    meshes resolve a curved boundary differently, the polynomial of the nearest cell is continued.

    Args:
        source: a function space of a kind that `spon.read_space` supports, not mixed.
        target: Lagrange or DG, with as many components.

    Raises:
        ValueError: a target that is neither Lagrange nor DG, or with another number of components.
        ValueError: a node that is farther outside than half the size of the nearest cell.
    """
    if is_mixed(target) or family(target) not in ("P", "DG"):
        raise ValueError("the target is neither Lagrange nor DG, whose dofs are values at points: use its parts, or P")
    if _components(source) != target.dofmap.bs:
        raise ValueError(f"fields of the source have {_components(source)} components, the target {target.dofmap.bs}")
    points = target.tabulate_dof_coordinates()[:, : target.mesh.geometry.dim]
    inside = points
    if family(source) != "P":
        # The source may jump at a node: the cell is that on the side of the target's own cell.
        inner = np.zeros_like(points)
        inner[target.dofmap.list] = midpoints(target.mesh)[:, None]
        inside = points + _INWARDS * (inner - points)
    return _evaluate(source, locate(source.mesh, inside, _REACH), points)


def integrals(source: Any, target: Any) -> SparseOperator:
    """The matrix (target nodes · components, source dofs) of ∫ f φ_i, fields of the source against the target's basis.

    It is exact, jumps included, for fields on the target's own mesh with straight cells. Jumps and kinks of fields on
    another mesh, inside the target's cells, are integrated with the error of the quadrature. Components are those of
    `evaluation`.

    Args:
        source: a function space of a kind that `spon.read_space` supports, not mixed.
        target: Lagrange or DG, not mixed.
    """
    at = _at_quadrature(source, target)
    b = target.dofmap.bs
    basis = _evaluate(target, at.cells, at.points).scipy[::b, ::b]
    return _against(basis.T * at.weights, at.fields, _components(source))


def at_points(source: Any, mesh: Any, cells: Cells, points: Array) -> SparseOperator:
    """The matrix (points · components, source dofs) that evaluates fields at points of the cells of a mesh.

    Args:
        source: a function space of a kind that `spon.read_space` supports, not mixed.
        mesh: of the cells. If it is not that of the source, the cell of the source at or nearest to the point is used.
        cells: (points,), the cell of each point.
        points: (points, d) [length].
    """
    return _evaluate(source, cells if source.mesh == mesh else locate(source.mesh, points, _REACH), points)


def patch_means(source: Any, target: Any, tying: Any = None) -> SparseOperator:
    """The matrix (target nodes · components, source dofs) of the means of fields over the cells around a node.

    Args:
        source: a function space of a kind that `spon.read_space` supports, not mixed.
        target: Lagrange or DG, not mixed.
        tying: a SciPy matrix (target nodes, independent nodes). The rows are then those of the independent nodes, and
            the cells around a node are those around all nodes tied to it.
    """
    at = _at_quadrature(source, target)
    nodes = target.dofmap.list
    shape = target.dofmap.index_map.size_local, len(nodes)
    around = scipy.sparse.csr_array(
        (np.ones(nodes.size), (nodes.ravel(), np.arange(len(nodes)).repeat(nodes.shape[1]))), shape
    )
    count = len(at.cells)
    inside = scipy.sparse.csr_array((at.weights, (at.cells, np.arange(count))), shape=(len(nodes), count))
    weighted = around @ inside if tying is None else tying.T @ around @ inside
    return _against(weighted / weighted.sum(axis=1)[:, None], at.fields, _components(source))


def _against(weights: Any, fields: Any, components: int) -> SparseOperator:
    """Weights (n, points), for each component, times the values (points · components, dofs) of fields."""
    return SparseOperator.of(scipy.sparse.kron(weights, scipy.sparse.eye_array(components), format="csr") @ fields)


class _AtQuadrature(NamedTuple):
    """Fields of a space as a matrix (points · components, dofs) at weighted points (points, d) of cells (points,)."""

    fields: Any
    weights: Array
    cells: Cells
    points: Array


def _at_quadrature(source: Any, target: Any) -> _AtQuadrature:
    """Fields of the source at the quadrature points of the target's cells."""
    import basix

    mesh, degrees = target.mesh, [unblocked(V).degree for V in (source, target)]
    kind = unblocked(target).basix_element.cell_type
    reference, weights = basix.make_quadrature(kind, sum(degrees) + (0 if source.mesh == mesh else 2))
    count = len(target.dofmap.list)
    cells = np.arange(count, dtype=np.int32).repeat(len(weights))
    points, jacobian = push(mesh, cells, np.tile(reference, (count, 1)))
    scale = np.sqrt(np.linalg.det(jacobian.transpose(0, 2, 1) @ jacobian))
    fields = at_points(source, mesh, cells, points).scipy
    return _AtQuadrature(fields, np.tile(weights, count) * scale, cells, points)


def curl(potential: Any, velocity: Any) -> SparseOperator:
    """The matrix (velocity dofs, potential dofs) of the curl (∂ψ/∂y, −∂ψ/∂x) in the plane, whose divergence is zero.

    It is exact: the contravariant Piola map transforms the curl on the reference cell to that on the cell.

    Args:
        potential: scalar Lagrange.
        velocity: Raviart-Thomas of at least its degree, on the same mesh.

    Raises:
        ValueError: other spaces.
    """
    # `dolfinx.fem.discrete_curl` (from 0.10) is for Nédélec spaces in 3D, `discrete_gradient` maps to Nédélec: neither
    # maps a scalar potential to Raviart-Thomas.
    mesh = potential.mesh
    if velocity.mesh != mesh or mesh.geometry.dim != 2 or mesh.topology.dim != 2:
        raise ValueError("potential and velocity need one mesh, in the plane")
    psi, v = unblocked(potential).basix_element, unblocked(velocity).basix_element
    wrong = is_mixed(potential) or is_mixed(velocity) or family(potential) != "P" or family(velocity) != "RT"
    if wrong or potential.dofmap.bs > 1 or v.degree < psi.degree:
        raise ValueError("the curl maps scalar Lagrange to Raviart-Thomas of at least its degree")
    _, along_x, along_y = psi.tabulate(1, v.points)[..., 0]
    local = v.interpolation_matrix @ np.concatenate([along_y, -along_x])
    cells = np.arange(len(velocity.dofmap.list), dtype=np.int32)
    matrices = np.linalg.inv(_orientations(velocity, cells).transpose(0, 2, 1)) @ local
    # Cells agree on the dofs that they share: each row comes from one of them.
    rows, first = np.unique(velocity.dofmap.list, return_index=True)
    cell, local_dof = np.divmod(first, v.dim)
    values, columns = matrices[cell, local_dof], potential.dofmap.list[cell]
    values[abs(values) < _ROUNDING * abs(values).max(axis=1, keepdims=True)] = 0.0
    entries = values.ravel(), columns.ravel(), np.arange(len(rows) + 1) * psi.dim
    shape = len(rows), potential.dofmap.index_map.size_local
    return SparseOperator.of(scipy.sparse.csr_array(entries, shape=shape))


def _components(V: Any) -> int:
    if is_mixed(V):
        raise ValueError("the space is mixed: use its parts, V.sub(k).collapse()[0]")
    return V.mesh.geometry.dim if family(V) in ("RT", "N1curl") else V.dofmap.bs


def _evaluate(V: Any, cells: Cells, points: Array) -> SparseOperator:
    """The matrix (points · components, dofs) that evaluates fields at points, each in a given cell."""
    c, b = _components(V), V.dofmap.bs
    nodes = V.dofmap.list[cells]
    values = _basis(V, cells, pull(V.mesh, cells, points))
    values[abs(values) < _ROUNDING * abs(values).max(axis=(1, 2), keepdims=True)] = 0.0
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


def _basis(V: Any, cells: Cells, reference: Array) -> Array:
    """Values (n, k, components) of the k basis functions of each cell, without block, at one reference point each."""
    element = unblocked(V).basix_element
    values = element.tabulate(0, reference)[0]
    if family(V) in ("P", "DG"):  # scalars need no orientation and no Piola map
        return values
    values = _orientations(V, cells) @ values
    jacobian = push(V.mesh, cells, reference).jacobian
    return element.push_forward(values, jacobian, np.linalg.det(jacobian), np.linalg.inv(jacobian))


def _orientations(V: Any, cells: Cells) -> Array:
    """Matrices (n, dofs, dofs) from the reference basis to one that is the same on shared edges and faces."""
    element = unblocked(V).basix_element
    if not V.element.needs_dof_transformations:
        return np.broadcast_to(np.eye(element.dim), (len(cells), element.dim, element.dim))
    V.mesh.topology.create_entity_permutations()
    ways, which = np.unique(V.mesh.topology.get_cell_permutation_info()[cells], return_inverse=True)  # few occur
    matrices = np.empty((len(ways), element.dim, element.dim))
    for matrix, way in zip(matrices, ways):
        flat = np.eye(element.dim).ravel()
        V.element.T_apply(flat, np.array([way], dtype=np.uint32), element.dim)
        matrix[:] = flat.reshape(matrix.shape)
    return matrices[which]
