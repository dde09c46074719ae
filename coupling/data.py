# SPDX-License-Identifier: MIT
"""From snapshots of an RVE to arrays that `spon` learns from."""

import numpy as np

from coupling.translate import local_laws
from fe2.rve import RVE
from fe2.snapshots import SnapshotError, Snapshots, fingerprint
from spon.cell import CellData


def cell_data(rve: RVE, snapshots: Snapshots) -> CellData:
    """The snapshots of `rve` as `spon.CellData`; those that failed are left out.

    Raises:
        fe2.sample.SnapshotError: snapshots of another RVE, or none that converged. TranslationError: a material that
        torch cannot evaluate, or one with state.
    """
    mark = fingerprint(rve)
    if snapshots.fingerprint != mark:
        raise SnapshotError("the snapshots belong to another RVE (mesh, materials, boundary or degree differ)")
    good = ~snapshots.failed
    if not good.any():
        raise SnapshotError("none of the snapshots converged")
    laws, order = local_laws(rve)
    body, d = rve.body, rve.strain_size
    fluctuation = snapshots.fluctuation[good]
    local_strain = np.empty((len(fluctuation), order.size, d))
    for k, w in enumerate(fluctuation):
        body.u.x.array[:] = w
        local_strain[k] = body.strain().reshape(-1, d)[order]
    return CellData(
        laws=laws,
        weights=body.weights.ravel()[order] / rve.volume,
        strain=snapshots.strain[good],
        stress=snapshots.stress[good],
        tangent=snapshots.tangent[good],
        energy=snapshots.energy[good],
        local_strain=local_strain,
        local_stress=snapshots.local_stress[good].reshape(len(fluctuation), -1, d)[:, order],
        fluctuation=fluctuation,
        order=order,
        fingerprint=mark,
    )

