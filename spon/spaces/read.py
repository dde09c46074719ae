# SPDX-License-Identifier: MIT
"""Reading a function space of DOLFINx once and for all."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from scipy.sparse.linalg import cg
from scipy.spatial import cKDTree

from spon.spaces.geometry import push
from spon.spaces.space import MixedSpace, Space
from spon.sparse import SparseOperator

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
SEMINORMS = {"P": "grad", "DG": "grad", "RT": "div", "N1curl": "curl"}


def read_space(V: Any, *, bcs: Sequence[Any] = (), periodic: Sequence[int] = ()) -> Space | MixedSpace:
    """The space of a `dolfinx.fem.FunctionSpace`; a mixed one is read as its parts.

    Args:
        V: Lagrange or discontinuous Lagrange of any degree and block, Raviart-Thomas, Nédélec of the first kind, or a
            mixed space of these, on a mesh that is not distributed.
        bcs: `dolfinx.fem.DirichletBC` on V or on parts of it, whose present values are taken.
        periodic: axes along which Lagrange dofs on the largest coordinate are tied to those on the smallest.

    Raises:
        ValueError: a mesh that is distributed or of single precision, another element, a condition on another space, an
            axis along which the nodes are not periodic, or tied dofs of which some are fixed and others not.
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
            raise ValueError("a Dirichlet condition is on another function space than the one that is read")
        fixed[bc.dof_indices()[0]] = True
        bc.set(lifting)
    return _read(V, fixed, lifting, periodic)


def family(V: Any) -> str:
    """The family of V as in `Space.family`; raises ValueError for an element that is not known."""
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
    """Whether V is a product of spaces, and no block of equal ones."""
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
    off = abs(lifting - lifting[master]) > 1e-8 * abs(lifting).max(initial=0.0)  # beyond rounding, as for the places
    if (wrong := (fixed != fixed[master]) | off).any():
        dof = int(np.argmax(wrong))
        raise ValueError(
            f"dofs {dof} and {master[dof]} at {points[dof // b].tolist()} and {points[master[dof] // b].tolist()} are "
            "tied, but only one is fixed or their values differ: give both the same Dirichlet value or none"
        )
    lifting = lifting[master]
    independent, place = np.unique(master, return_inverse=True)
    tying = scipy.sparse.csr_array((np.ones(len(master)), place, np.arange(len(master) + 1)))
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
        integral = np.kron(one[2][node], np.eye(b))
        if b == size:  # DOLFINx may have no matrices of so large blocks
            blocks = (scipy.sparse.kron(m[node][:, node], scipy.sparse.eye_array(b)) for m in one[:2])
            mass, stiffness = map(scipy.sparse.csr_array, blocks)
            return mass, stiffness, integral
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)

    def matrix(integrand):
        assembled = fem.assemble_matrix(fem.form(integrand * ufl.dx, dtype=np.float64))
        return scipy.sparse.csr_array(assembled.to_scipy(), copy=True)  # the memory goes with the assembled matrix

    mass = matrix(ufl.inner(u, v))
    differential = {"grad": ufl.grad, "div": ufl.div, "curl": ufl.curl}[SEMINORMS[kind]]
    constant = unblocked(V).degree == 0  # a form that UFL finds to be zero cannot be assembled
    stiffness = 0 * mass if constant else matrix(ufl.inner(differential(u), differential(v)))
    if b > 1:  # a symmetric tensor, in whose norm what is off the diagonal counts twice
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
    """Where the nodes stand (nodes, d)."""
    if kind in ("P", "DG"):
        return V.tabulate_dof_coordinates()[:, : V.mesh.geometry.dim].copy()
    element = unblocked(V).basix_element
    places = np.zeros((element.dim, V.mesh.topology.dim))
    for dofs, points, weights in zip(element.entity_dofs, element.x, element.M):
        for numbers, x, w in zip(dofs, points, weights):
            for number, used in zip(numbers, abs(w).max(axis=(1, 3)) > 0):
                places[number] = x[used].mean(axis=0)
    nodes = V.dofmap.list
    found = np.zeros((V.dofmap.index_map.size_local, V.mesh.geometry.dim))
    for k, place in enumerate(places):
        cells = np.arange(len(nodes), dtype=np.int32)
        found[nodes[:, k]] = push(V.mesh, cells, np.tile(place, (len(nodes), 1))).points
    return found


def _neighbours(mesh: Any) -> npt.NDArray[np.int64]:
    """Cells (pairs, 2) that share a facet."""
    topology = mesh.topology
    topology.create_connectivity(topology.dim - 1, topology.dim)
    cells = topology.connectivity(topology.dim - 1, topology.dim)
    first = cells.offsets[:-1][np.diff(cells.offsets) == 2]
    return np.column_stack([cells.array[first], cells.array[first + 1]]).astype(np.int64)


def _masters(points: Array, periodic: Sequence[int], kind: str) -> npt.NDArray[np.int64]:
    """The master (nodes,) of each node, itself if it has none."""
    master = np.arange(len(points))
    if not len(periodic) or kind == "DG":  # which has no dofs to tie
        return master
    if kind != "P":
        raise ValueError(f"periodic = {tuple(periodic)}: only Lagrange dofs can be tied, the element is {kind}")
    if not all(0 <= axis < points.shape[1] for axis in periodic):
        raise ValueError(f"periodic = {tuple(periodic)}: need axes between 0 and {points.shape[1] - 1}")
    lower, upper = points.min(axis=0), points.max(axis=0)
    close = 1e-8 * np.max(upper - lower)  # as in meshes.check_periodic
    wrapped = points.copy()
    for axis in periodic:
        on_lower, on_upper = (np.flatnonzero(abs(points[:, axis] - end[axis]) <= close) for end in (lower, upper))
        wrapped[on_upper, axis] = lower[axis]
        for here, there in ((on_lower, on_upper), (on_upper, on_lower)):
            across = points * (np.arange(points.shape[1]) != axis)
            distance, _ = cKDTree(across[there]).query(across[here])
            if (distance > close).any():
                place = points[here[np.argmax(distance)]].tolist()
                raise ValueError(
                    f"periodic along axis {axis}: the node at {place} has no partner on the opposite face, the nearest "
                    f"is off by {distance.max():.3g}, need {close:.3g} at most"
                )
    # Edges and corners take the node on the smallest coordinates of all periodic axes.
    keep = np.flatnonzero((wrapped == points).all(axis=1))
    _, nearest = cKDTree(points[keep]).query(wrapped)
    return keep[nearest]


def _correction(mass: scipy.sparse.csr_array, integral: Array, free: scipy.sparse.csr_array) -> Array:
    """See `Space.correction`; `free` (dofs, k) is what spans the fields that meet all homogeneous conditions."""
    if free.shape[1]:
        matrix, right = free.T @ mass @ free, free.T @ integral
        # Scaled by its diagonal, a mass matrix is well conditioned on any mesh (Wathen, IMA J. Numer. Anal. 7, 1987).
        diagonal = scipy.sparse.diags_array(1 / matrix.diagonal())
        representer = free @ np.column_stack([cg(matrix, b, rtol=1e-14, M=diagonal)[0] for b in right.T])
        gram = integral.T @ representer
        if np.linalg.matrix_rank(gram, hermitian=True) == len(gram):
            return representer @ np.linalg.inv(gram)
    return np.zeros((len(integral), 0))
