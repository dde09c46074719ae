# SPDX-License-Identifier: MIT
"""Boundary conditions of an RVE, as what they leave of the fluctuation's degrees of freedom.

The displacement is u = E·x + w. Each condition names the unknowns that w is made of: every degree of freedom of w
either equals one unknown or is zero. The uniform traction condition adds the constraint that w has no mean strain.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh

from fe2 import mandel


@dataclass(frozen=True, slots=True)
class Unknowns:
    """Degrees of freedom of the fluctuation in terms of the unknowns.

    index: (dofs,) unknown that a degree of freedom equals, -1 where it is zero. size: number of unknowns.
    constraint: (d, size) rows G of the side condition G w = 0, or None.
    """

    index: npt.NDArray[np.int64]
    size: int
    constraint: npt.NDArray[np.float64] | None = None

    def expand(self, unknowns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Fluctuation (..., dofs) of `unknowns` (..., size)."""
        padded = np.concatenate([unknowns, np.zeros((*unknowns.shape[:-1], 1))], axis=-1)
        return padded[..., self.index]

    def gather(self, forces: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Transpose of `expand`: forces (dofs,) or (dofs, k) summed onto the unknowns, (size,) or (size, k)."""
        kept = self.index >= 0
        if forces.ndim == 1:
            return np.bincount(self.index[kept], forces[kept], minlength=self.size)
        return np.stack([self.gather(column) for column in forces.T], axis=1)


def _number(parent: npt.NDArray[np.int64], fixed: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], int]:
    """Consecutive numbers for the free roots of `parent`, passed on to the dofs that follow them."""
    roots = (parent == np.arange(parent.size)) & ~fixed
    number = np.full(parent.size, -1, dtype=np.int64)
    number[roots] = np.arange(roots.sum())
    return number[parent], int(roots.sum())


def _faces(x: npt.NDArray[np.float64], box, upper_only: bool = False) -> npt.NDArray[np.bool_]:
    """Which points (n, 3) lie on the faces of the box."""
    lower, upper = box
    dim = len(lower)
    tolerance = 1e-8 * (upper - lower).max()
    on = abs(x[:, :dim] - upper) < tolerance
    if not upper_only:
        on |= abs(x[:, :dim] - lower) < tolerance
    return on.any(axis=1)


def periodic(V: fem.FunctionSpace, box) -> Unknowns:
    """Periodic fluctuation, tied by dolfinx_mpc; its value at one node is zero (rigid translation).

    Args:
        V: vector Lagrange space on the cell. box: (lower, upper) corners of the period.

    Raises:
        ValueError: some node on an upper face has no single partner on the lower one.
    """
    import dolfinx_mpc

    lower, upper = box
    dim, tolerance = len(lower), 1e-8 * (upper - lower).max()

    def partner(x):
        y = x.copy()
        for i in range(dim):
            y[i, abs(x[i] - upper[i]) < tolerance] = lower[i]
        return y

    mpc = dolfinx_mpc.MultiPointConstraint(V)
    mpc.create_periodic_constraint_geometrical(V, lambda x: _faces(x.T, box, upper_only=True), partner, [])
    mpc.finalize()
    parent = np.arange(V.dofmap.index_map.size_local * V.dofmap.index_map_bs)
    coefficients, offsets = mpc.coefficients()
    for slave in mpc.slaves:
        weights = coefficients[offsets[slave] : offsets[slave + 1]]
        masters = mpc.masters.links(slave)[abs(weights) > 1e-6]
        if masters.size != 1:
            x = V.tabulate_dof_coordinates()[slave // V.dofmap.index_map_bs, :dim]
            raise ValueError(f"the node at {x} has no single periodic partner: the mesh is not periodic-conforming")
        parent[slave] = masters[0]
    fixed = np.zeros(parent.size, dtype=bool)
    fixed[parent[: V.dofmap.index_map_bs]] = True
    return Unknowns(*_number(parent, fixed))


def linear_displacement(V: fem.FunctionSpace, box) -> Unknowns:
    """No fluctuation on the faces of the box, so that u = E·x there. Arguments as for `periodic`."""
    on_faces = np.repeat(_faces(V.tabulate_dof_coordinates(), box), V.dofmap.index_map_bs)
    return Unknowns(*_number(np.arange(on_faces.size), on_faces))


def uniform_traction(V: fem.FunctionSpace, box) -> Unknowns:
    """Free fluctuation without mean strain, so that the tractions on the box are those of a uniform stress.

    The rigid motions are taken out by pinning the degrees of freedom that determine them best. Arguments as for
    `periodic`.
    """
    mesh, dim = V.mesh, len(box[0])
    x = V.tabulate_dof_coordinates()[:, :dim]
    modes = [np.broadcast_to(e, x.shape) for e in np.eye(dim)]
    for i in range(dim):
        for j in range(i):
            spin = np.zeros((dim, dim))
            spin[i, j], spin[j, i] = 1.0, -1.0
            modes.append((x - x.mean(axis=0)) @ spin.T / np.ptp(x))
    rigid = np.stack([m.ravel() for m in modes])
    pivots = scipy.linalg.qr(rigid, mode="r", pivoting=True)[1][: len(rigid)]
    fixed = np.zeros(x.size, dtype=bool)
    fixed[pivots] = True

    faces = dmesh.locate_entities_boundary(mesh, dim - 1, lambda y: _faces(y.T, box))
    faces = faces[_faces(dmesh.compute_midpoints(mesh, dim - 1, faces), box)]
    outer = dmesh.meshtags(mesh, dim - 1, np.sort(faces), np.ones(faces.size, dtype=np.int32))
    ds = ufl.Measure("ds", domain=mesh, subdomain_data=outer, subdomain_id=1)
    unit = fem.Constant(mesh, np.zeros((dim, dim)))
    v, n = ufl.TestFunction(V), ufl.FacetNormal(mesh)
    mean_strain = fem.form(ufl.inner(unit, ufl.outer(v, n)) * ds)
    rows = []
    for tensor in mandel.basis(dim):
        unit.value[:] = tensor
        rows.append(fem.assemble_vector(mean_strain).array.copy())
    unknowns = Unknowns(*_number(np.arange(fixed.size), fixed))
    return Unknowns(unknowns.index, unknowns.size, unknowns.gather(np.stack(rows, axis=1)).T)


CONDITIONS = {
    "periodic": periodic,
    "linear displacement": linear_displacement,
    "uniform traction": uniform_traction,
}
