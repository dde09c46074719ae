# SPDX-License-Identifier: MIT
"""Snapshots of an RVE as arrays for `spon`."""

import os

import basix.ufl
import numpy as np
import numpy.typing as npt
import scipy.sparse
import ufl
from dolfinx import fem

from coupling.translation import local_laws
from fe2 import mandel
from fe2.body import Body, quadrature_degree
from fe2.fingerprints import differences, fingerprint
from fe2.rve import RVE
from fe2.rve_snapshots import SnapshotError, Snapshots, read
from meshes.compat import collapse
from spon.reduced.snapshots import RVESnapshots, RVESpace

Array = npt.NDArray[np.float64]


def rve_snapshots(rve: RVE, snapshots: Snapshots | str | os.PathLike) -> RVESnapshots:
    """The snapshots of an RVE as `spon.RVESnapshots`, without those that failed.

    Args:
        rve: the RVE of the snapshots.
        snapshots: of `fe2.rve_snapshots.read`, or the file.

    Raises:
        fe2.rve_snapshots.SnapshotError: snapshots of another RVE, no snapshots, none that converged, or a file
            that cannot be read.
        TranslationError: a material that torch cannot evaluate, or one with state.
    """
    if not isinstance(snapshots, Snapshots):
        snapshots = read(snapshots)
    mark = fingerprint(rve)
    if different := differences(snapshots.fingerprint, mark):
        raise SnapshotError(f"the snapshots belong to another RVE; differences: {different}")
    good = ~snapshots.failed
    if not good.any():
        raise SnapshotError("no snapshot converged" if good.size else "there are no snapshots")
    laws, order = local_laws(rve)
    d = rve.strain_size
    fluctuation = snapshots.fluctuation[good]
    shape = (len(fluctuation), order.size, d)
    space = rve_space(rve, order)
    return RVESnapshots(
        laws=laws,
        weights=rve.body.weights.ravel()[order] / rve.volume,
        strain=snapshots.strain[good],
        stress=snapshots.stress[good],
        tangent=snapshots.tangent[good],
        energy=snapshots.energy[good],
        local_strain=np.ascontiguousarray((space.strain_operator @ fluctuation.T).T).reshape(shape),
        local_stress=snapshots.local_stress[good].reshape(shape)[:, order],
        fluctuation=fluctuation,
        order=order,
        fingerprint=mark,
        space=space,
    )


def rve_space(rve: RVE, order: npt.NDArray[np.int64]) -> RVESpace:
    """The displacement space of an RVE as arrays.

    Args:
        rve: the RVE.
        order: (P,) of the points, from `coupling.local_laws`.
    """
    body, d = rve.body, rve.strain_size
    rows = (d * order[:, None] + np.arange(d)).ravel()
    return RVESpace(
        strain_operator=strain_operator(body)[rows],
        nodes=body.V.tabulate_dof_coordinates()[:, : body.dim].copy(),
        phase=_phase(rve),
        period=rve.period if rve.boundary == "periodic" else None,
    )


def strain_operator(body: Body) -> scipy.sparse.csr_matrix:
    """B (cells · points · d, dofs): Mandel strains at the quadrature points of displacements."""
    mesh, q = body.mesh, quadrature_degree(body.mesh, body.V.element.basix_element.degree)
    at_points = fem.functionspace(mesh, basix.ufl.quadrature_element(mesh.basix_cell(), degree=q))
    scalar, dofs = collapse(body.V.sub(0))
    v, u = ufl.TestFunction(at_points), ufl.TrialFunction(scalar)
    direction = fem.Constant(mesh, np.zeros(body.dim))
    dx = ufl.Measure("dx", domain=mesh, metadata={"quadrature_degree": q})
    weighted = fem.form(v * ufl.dot(ufl.grad(u), direction) * dx)
    # A test function is one at its own point and zero at the others: a row is a derivative times the weight.
    inverse = scipy.sparse.diags_array(1 / body.weights.ravel())
    node = np.argsort(dofs // body.dim)
    operator = 0
    for k, unit in enumerate(np.eye(body.dim)):
        direction.value[:] = unit
        derivative = inverse @ fem.assemble_matrix(weighted).to_scipy()
        operator += scipy.sparse.kron(derivative[:, node], mandel.basis(body.dim)[:, :, k])
    operator = scipy.sparse.csr_matrix(operator)
    operator.eliminate_zeros()
    return operator


def _phase(rve: RVE) -> Array:
    """Phase (N,) of the nodes, from −1 to 1, the same at periodic partners."""
    body = rve.body
    here = np.zeros((body.u.x.array.size // body.dim, len(body.materials)), dtype=bool)
    for k, tag in enumerate(body.materials):
        here[body.V.dofmap.list[rve.domain.cell_tags.find(tag)].ravel(), k] = True
    if rve.boundary == "periodic":
        images = rve.unknowns.index[:: body.dim]  # all images of the fixed node have -1
        for k in range(len(body.materials)):
            here[:, k] = np.isin(images, images[here[:, k]])
    return here @ np.linspace(-1, 1, len(body.materials)) / here.sum(axis=1)
