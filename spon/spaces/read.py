# SPDX-License-Identifier: MIT
"""Reads a function space of DOLFINx as tensors, once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used
import torch

from spon.spaces.geometry import push
from spon.spaces.space import MixedSpace, Space
from spon.sparse import SparseOperator

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
SEMINORMS = {"P": "grad", "DG": "grad", "RT": "div", "N1curl": "curl"}
# Largest distance of tied nodes relative to the mesh, and of their Dirichlet values relative to the largest value; the
# former as in `meshes.check_periodic`.
_CLOSE = 1e-8


def read_space(V: Any, *, bcs: Sequence[Any] = (), periodic: Sequence[int] = ()) -> Space | MixedSpace:
    """The tensors of a `dolfinx.fem.FunctionSpace`; a mixed space is read as its parts.

    Args:
        V: Lagrange or discontinuous Lagrange of any degree and block, Raviart-Thomas, Nédélec of the first kind, or a
            mixed space of these, on a mesh that is not distributed.
        bcs: `dolfinx.fem.DirichletBC`s on V or on parts of it, taken with their present values.
        periodic: axes along which Lagrange dofs on the largest coordinate are tied to those on the smallest.

    Raises:
        ValueError: a mesh that is distributed or of single precision.
        ValueError: an element of another family.
        ValueError: a boundary condition on another space.
        ValueError: an axis along which the nodes are not periodic.
        ValueError: tied dofs with different Dirichlet values, or of which only some have one.
    """
    comm = V.mesh.comm
    if comm.size > 1:
        raise ValueError(f"the mesh is spread over {comm.size} ranks, need one on MPI.COMM_SELF")
    if V.mesh.geometry.x.dtype != np.float64:
        raise ValueError(f"the mesh has coordinates of type {V.mesh.geometry.x.dtype}, need float64")
    count = V.dofmap.index_map.size_local * V.dofmap.index_map_bs
    fixed, lifting = np.zeros(count, dtype=bool), np.zeros(count)
    for bc in bcs:
        if not V._cpp_object.contains(bc.function_space):
            raise ValueError("a Dirichlet condition is on another function space: need one on V")
        fixed[bc.dof_indices()[0]] = True
        bc.set(lifting)
    return _read(V, fixed, lifting, periodic)


def family(V: Any) -> str:
    """The family of V as in `Space.family`.

    Raises:
        ValueError: an element of another family.
    """
    element = unblocked(V)
    name = getattr(element.element_family, "name", element.family_name)
    if name == "P":
        return "DG" if element.discontinuous else "P"
    known = {"RT": "RT", "N1E": "N1curl"}
    if name not in known or element.discontinuous:
        kind = "discontinuous " if element.discontinuous else ""
        raise ValueError(f"the element is of the {kind}family {name!r}, need Lagrange, DG, RT or N1curl")
    return known[name]


def is_mixed(V: Any) -> bool:
    """Whether V is a product of spaces (not a block of equal ones)."""
    return V.ufl_element().family_name == "mixed element"


def unblocked(V: Any) -> Any:
    """The element of V, or of one component if V is a block of equal ones."""
    element = V.ufl_element()
    return element.sub_elements[0] if element.sub_elements else element


def _read(V: Any, fixed: Mask, lifting: Array, periodic: Sequence[int]) -> Space | MixedSpace:
    if is_mixed(V):
        from meshes.compat import collapse

        parts, numbers = [], []
        for k in range(V.num_sub_spaces):
            part, number = collapse(V.sub(k))
            parts.append(_read(part, fixed[number], lifting[number], periodic))
            numbers.append(torch.from_numpy(number))
        return MixedSpace(tuple(parts), tuple(numbers))
    kind, element = family(V), unblocked(V)
    mass, stiffness, integral = _matrices(V, kind)
    points = _points(V, kind)
    master = _masters(points, periodic, kind)
    b = V.dofmap.bs
    master = (b * master[:, None] + np.arange(b)).ravel()
    off = abs(lifting - lifting[master]) > _CLOSE * abs(lifting).max(initial=0.0)
    if (wrong := (fixed != fixed[master]) | off).any():
        dof = int(np.argmax(wrong))
        raise ValueError(
            f"dofs {dof} and {master[dof]} at {points[dof // b].tolist()} and {points[master[dof] // b].tolist()} are "
            "tied, but only one is fixed or their values differ: give both the same Dirichlet value or none"
        )
    lifting = lifting[master]
    independent, column = np.unique(master, return_inverse=True)
    tying = scipy.sparse.csr_array((np.ones(len(master)), column, np.arange(len(master) + 1)))
    return Space(
        family=kind,
        cell=V.mesh.topology.cell_name(),
        degree=element.degree,
        block_size=b,
        seminorm=SEMINORMS[kind],
        volume=_volume(V.mesh),
        cell_dofs=torch.from_numpy(V.dofmap.list.astype(np.int64)),
        points=torch.from_numpy(points),
        neighbours=torch.from_numpy(_neighbours(V.mesh) if kind == "DG" else np.zeros((0, 2), dtype=np.int64)),
        mass=SparseOperator.of(mass),
        stiffness=SparseOperator.of(stiffness),
        integral=torch.from_numpy(integral),
        correction=torch.from_numpy(_correction(mass, integral, tying[:, ~fixed[independent]])),
        fixed=torch.from_numpy(fixed),
        lifting=torch.from_numpy(lifting),
        independent=torch.from_numpy(independent),
        tying=SparseOperator.of(tying),
    )


def _matrices(V: Any, kind: str) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array, Array]:
    """Mass and stiffness matrix (dofs, dofs) and the integrals (dofs, components)."""
    import ufl
    from dolfinx import fem

    from meshes.compat import collapse

    b, size = V.dofmap.bs, int(np.prod(V.value_shape))
    if b > 1:  # one scalar basis for all components
        scalar, dofs = collapse(V.sub(0))
        node, one = np.argsort(dofs), _matrices(scalar, kind)
        integral: Array = np.kron(one[2][node], np.eye(b))  # type: ignore[assignment]  # NumPy's stubs lose the type
        if b == size:  # DOLFINx may not support matrices of such large blocks
            blocks = (scipy.sparse.kron(m[node][:, node], scipy.sparse.eye_array(b)) for m in one[:2])
            mass, stiffness = map(scipy.sparse.csr_array, blocks)
            return mass, stiffness, integral
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)

    def matrix(integrand):
        assembled = fem.assemble_matrix(fem.form(integrand * ufl.dx, dtype=np.float64))
        return scipy.sparse.csr_array(assembled.to_scipy(), copy=True)  # the assembled matrix frees its memory

    mass = matrix(ufl.inner(u, v))
    differential = {"grad": ufl.grad, "div": ufl.div, "curl": ufl.curl}[SEMINORMS[kind]]
    constant = unblocked(V).degree == 0  # UFL simplifies the form to zero, which cannot be assembled
    stiffness = 0 * mass if constant else matrix(ufl.inner(differential(u), differential(v)))
    if b > 1:  # a symmetric tensor, whose off-diagonal components count twice in the norm
        return mass, stiffness, integral
    units = np.eye(size).reshape(-1, *V.value_shape)
    direction = fem.Constant(V.mesh, units[0])
    load = fem.form(ufl.inner(direction, v) * ufl.dx, dtype=np.float64)
    integral = np.empty((mass.shape[0], len(units)))
    for k, unit in enumerate(units):
        direction.value = unit
        integral[:, k] = fem.assemble_vector(load).array
    return mass, stiffness, integral


def _volume(mesh: Any) -> float:
    import ufl
    from dolfinx import fem

    one = fem.Constant(mesh, np.float64(1.0))
    return float(fem.assemble_scalar(fem.form(one * ufl.dx, dtype=np.float64)))


def _points(V: Any, kind: str) -> Array:
    """Coordinates (nodes, d) of the nodes."""
    if kind in ("P", "DG"):
        return V.tabulate_dof_coordinates()[:, : V.mesh.geometry.dim].copy()
    element = unblocked(V).basix_element
    reference = np.zeros((element.dim, V.mesh.topology.dim))
    for dofs, points, weights in zip(element.entity_dofs, element.x, element.M):
        for numbers, x, w in zip(dofs, points, weights):
            for number, used in zip(numbers, abs(w).max(axis=(1, 3)) > 0):
                reference[number] = x[used].mean(axis=0)
    nodes = V.dofmap.list
    coordinates = np.zeros((V.dofmap.index_map.size_local, V.mesh.geometry.dim))
    cells = np.arange(len(nodes), dtype=np.int32)
    for k, point in enumerate(reference):
        coordinates[nodes[:, k]] = push(V.mesh, cells, np.tile(point, (len(nodes), 1))).points
    return coordinates


def _neighbours(mesh: Any) -> npt.NDArray[np.int64]:
    """Cells (pairs, 2) that share a facet."""
    topology = mesh.topology
    topology.create_connectivity(topology.dim - 1, topology.dim)
    cells = topology.connectivity(topology.dim - 1, topology.dim)
    first = cells.offsets[:-1][np.diff(cells.offsets) == 2]
    return np.column_stack([cells.array[first], cells.array[first + 1]]).astype(np.int64)


def _masters(points: Array, periodic: Sequence[int], kind: str) -> npt.NDArray[np.int64]:
    """The master (nodes,) of each node; the node itself if it is independent."""
    master = np.arange(len(points))
    if not len(periodic) or kind == "DG":  # DG has no dofs to tie
        return master
    if kind != "P":
        raise ValueError(f"periodic = {tuple(periodic)}: only Lagrange dofs can be tied, the element is {kind}")
    if not all(0 <= axis < points.shape[1] for axis in periodic):
        raise ValueError(f"periodic = {tuple(periodic)}: need axes between 0 and {points.shape[1] - 1}")
    lower, upper = points.min(axis=0), points.max(axis=0)
    close = _CLOSE * np.max(upper - lower)
    if flat := [axis for axis in periodic if upper[axis] - lower[axis] <= close]:
        raise ValueError(f"periodic = {tuple(periodic)}: the mesh has no extent along axis {flat[0]}")
    axes = list(periodic)
    faces = np.flatnonzero((np.minimum(points - lower, upper - points) <= close)[:, axes].any(axis=1))
    points = points[faces]
    at_lower, at_upper = points - lower <= close, upper - points <= close
    for axis in axes:
        label = _labels(points, lower, upper, [axis])
        for here, there in ((at_lower, at_upper), (at_upper, at_lower)):
            alone = np.flatnonzero(here[:, axis] & ~np.isin(label, label[there[:, axis]]))
            if len(alone):
                across = np.delete(points, axis, axis=1)
                distance = np.linalg.norm(across[there[:, axis]] - across[alone[0]], axis=1).min()
                raise ValueError(
                    f"periodic along axis {axis}: the node at {points[alone[0]].tolist()} has no partner on the "
                    f"opposite face, the nearest is off by {distance:.3g}, need at most {close:.3g}"
                )
    # On edges and corners the master is the node on the smallest coordinates of all periodic axes.
    label, tied = _labels(points, lower, upper, axes), at_upper[:, axes].any(axis=1)
    candidates, first, count = np.unique(label[~tied], return_index=True, return_counts=True)
    found = np.searchsorted(candidates, label[tied])
    if (several := count[found] > 1).any():
        raise ValueError(
            f"periodic = {tuple(periodic)}: the node at {points[tied][several][0].tolist()} could be tied to several "
            "nodes at one point, as where a crack meets a periodic face: merge them"
        )
    master[faces[tied]] = faces[~tied][first[found]]
    return master


def _labels(points: Array, lower: Array, upper: Array, axes: Sequence[int]) -> npt.NDArray[np.int64]:
    """Labels (n,), equal for points that differ by the sizes of the box from `lower` to `upper` along some axes."""
    from meshes import periodic_labels

    size = upper - lower
    # Along the other axes the period exceeds the box by more than the tolerance, so that no nodes are joined.
    return periodic_labels(
        points, np.diag(np.where(np.isin(np.arange(len(size)), axes), size, size + 4 * _CLOSE * size.max()))
    )


def _correction(mass: scipy.sparse.csr_array, integral: Array, free: scipy.sparse.csr_array) -> Array:
    """See `Space.correction`; the columns of `free` (dofs, k) span the fields with all homogeneous conditions."""
    if free.shape[1]:
        matrix, right = free.T @ mass @ free, free.T @ integral
        # Scaled by its diagonal, a mass matrix is well conditioned on any mesh (Wathen, IMA J. Numer. Anal. 7, 1987).
        diagonal = scipy.sparse.diags_array(1 / matrix.diagonal())
        representer = free @ np.column_stack(
            [scipy.sparse.linalg.cg(matrix, b, rtol=1e-14, M=diagonal)[0] for b in right.T]
        )
        gram = integral.T @ representer
        if np.linalg.matrix_rank(gram, hermitian=True) == len(gram):
            return representer @ np.linalg.inv(gram)
    return np.zeros((len(integral), 0))
