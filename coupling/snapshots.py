# SPDX-License-Identifier: MIT
"""Snapshots of an RVE as arrays for `spon`."""

import os

import basix.ufl
import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
import ufl
from dolfinx import fem

from coupling.translation import local_laws
from fe2.body import Body, quadrature_degree
from fe2.fingerprints import differences, fingerprint
from fe2.rve import RVE
from fe2.rve_snapshots import SnapshotError, Snapshots, read
from meshes.compat import collapse
from spon.constitutive import Measure
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
    shape = (int(good.sum()), order.size, d)
    names = ("strain", "stress", "tangent", "fluctuation", "local_stress")
    fields = {name: getattr(snapshots, name)[good] for name in names}
    if rve.measure.finite:
        fields = _without_rotation(laws.measure, fields)
    space = rve_space(rve, order)
    fluctuation = fields["fluctuation"]
    return RVESnapshots(
        laws=laws,
        weights=rve.body.weights.ravel()[order] / rve.volume,
        strain=fields["strain"],
        stress=fields["stress"],
        tangent=fields["tangent"],
        energy=snapshots.energy[good],
        local_strain=np.ascontiguousarray((space.strain_operator @ fluctuation.T).T).reshape(shape),
        local_stress=fields["local_stress"].reshape(shape)[:, order],
        fluctuation=fluctuation,
        order=order,
        fingerprint=mark,
        space=space,
    )


def _without_rotation(measure: Measure, fields: dict[str, Array]) -> dict[str, Array]:
    """Snapshots at F = R U turned back to F = U: P → RᵀP for all stresses, w → Rᵀw for fluctuations."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in fields.items()}
    strain = tensors["strain"]
    back = measure.rotations(strain).mT
    n, dim = back.shape[:2]
    # P(H) = R P(U) is a function of F = R U, so that dP/dU = Rᵀ (dP/dF) R in the first index of P and of F.
    tangent = tensors["tangent"].reshape(n, dim, dim, dim, dim)
    tangent = torch.einsum("nai,nijkl,nbk->najbl", back, tangent, back).reshape(n, dim * dim, dim * dim)
    nodes = tensors["fluctuation"].reshape(n, -1, dim)
    return {
        "strain": measure.stretch(strain).numpy(),
        "stress": measure.rotated(back, tensors["stress"][:, None])[:, 0].numpy(),
        "tangent": tangent.numpy(),
        "fluctuation": (nodes @ back.mT).reshape(n, -1).numpy(),
        "local_stress": measure.rotated(back, tensors["local_stress"].reshape(n, -1, dim * dim)).numpy(),
    }


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
    """B (cells · points · d, dofs): strains at the quadrature points of displacements, those of `Body.strain`.

    Raises:
        ValueError: the mean dilatation at finite strain, which is not linear in the displacement.
    """
    if body.dilatation is not None and body.measure.finite:
        raise ValueError(
            'element = "mean dilatation": at finite strain the strain that the materials are given is not linear in '
            "the displacement, and no law can be learned of such an RVE; learn that of the plain element"
        )
    mesh, q = body.mesh, quadrature_degree(body.mesh, body.V.element.basix_element.degree)
    at_points = fem.functionspace(mesh, basix.ufl.quadrature_element(mesh.basix_cell(), degree=q))
    components, basis = body.measure.components(body.dim), body.measure.basis(body.dim)
    scalar, dofs = collapse(body.V.sub(0)) if components > 1 else (body.V, np.arange(body.u.x.array.size))
    v, u = ufl.TestFunction(at_points), ufl.TrialFunction(scalar)
    direction = fem.Constant(mesh, np.zeros(body.dim))
    dx = ufl.Measure("dx", domain=mesh, metadata={"quadrature_degree": q})
    weighted = fem.form(v * ufl.dot(ufl.grad(u), direction) * dx)
    # A test function is one at its own point and zero at the others: a row is a derivative times the weight.
    inverse = scipy.sparse.diags_array(1 / body.weights.ravel())
    node = np.argsort(dofs // components)
    operator = 0
    for k, unit in enumerate(np.eye(body.dim)):
        direction.value[:] = unit
        derivative = inverse @ fem.assemble_matrix(weighted).to_scipy()
        operator += scipy.sparse.kron(derivative[:, node], basis[:, :, k])
    if body.dilatation is not None:
        # The trace tᵀ B of each point becomes the mean dilatation of the cell.
        trace = np.trace(basis, axis1=1, axis2=2)[:, None]
        points = scipy.sparse.eye_array(body.weights.size)
        deviator = scipy.sparse.kron(points, np.eye(len(trace)) - trace @ trace.T / body.dim)
        operator = deviator @ operator + scipy.sparse.kron(points, trace / body.dim) @ body.dilatation.operator()
    operator = scipy.sparse.csr_matrix(operator)
    operator.eliminate_zeros()
    return operator


def _phase(rve: RVE) -> Array:
    """Phase (N,) of the nodes, from −1 to 1, the same at periodic partners."""
    body = rve.body
    components = body.measure.components(body.dim)
    here = np.zeros((body.u.x.array.size // components, len(body.materials)), dtype=bool)
    for k, tag in enumerate(body.materials):
        here[body.V.dofmap.list[rve.domain.cell_tags.find(tag)].ravel(), k] = True
    if rve.boundary == "periodic":
        images = rve.unknowns.index[::components]  # all images of the fixed node have -1
        for k in range(len(body.materials)):
            here[:, k] = np.isin(images, images[here[:, k]])
    return here @ np.linspace(-1, 1, len(body.materials)) / here.sum(axis=1)
