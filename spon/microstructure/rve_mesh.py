# SPDX-License-Identifier: MIT
"""The mesh that all RVEs share, as matrices, and the response of a homogeneous medium on it."""

from dataclasses import dataclass

import scipy  # its parts are imported when they are first used
import torch
from torch import Tensor

from spon.constitutive.phase_law import PhaseLaw
from spon.sparse import SparseOperator


@dataclass(frozen=True, slots=True, eq=False)
class RVEMesh:
    """A periodic mesh with P quadrature points, as matrices.

    Args:
        strains: (P d, dofs), Mandel strains at the points of displacements.
        tying: (dofs, unknowns), periodic displacements of unknowns.
        interpolation: (P, nodes), values at the points of a nodal field of the network.
        weights: (P,), the mean of a field being Σ_p w_p field_p.
        cells: (P,), the cell of the mesh that contains each point.
    """

    strains: SparseOperator
    tying: SparseOperator
    interpolation: SparseOperator
    weights: Tensor
    cells: Tensor


def homogeneous_compliance(mesh: RVEMesh, law: PhaseLaw) -> Tensor:
    """Displacements (dofs, dofs) per unit force of a homogeneous periodic RVE with one node fixed.

    Args:
        mesh: of the RVE.
        law: of the medium, with the tangent at zero strain.
    """
    d = law.strain_size
    stiffness = law.tangent(torch.zeros(1, d, dtype=torch.float64))[0].numpy()
    dim = {3: 2, 6: 3}[d]
    free = mesh.tying.scipy[:, dim:]
    strains = mesh.strains.scipy @ free
    weighted = scipy.sparse.kron(scipy.sparse.diags_array(mesh.weights.numpy()), stiffness, format="csr") @ strains
    unit = torch.from_numpy(free.toarray())
    return unit @ torch.linalg.solve(torch.from_numpy((strains.T @ weighted).toarray()), unit.T)
