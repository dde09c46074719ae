# SPDX-License-Identifier: MIT
"""Fields of the RVE at one point of a structure, by any law, and their file."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from dolfinx import fem

from fe2.rve import RVE
from fe2.xdmf import Series, at_nodes

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class MicroFields:
    """Fields of an RVE at its quadrature points, in the order of its body.

    Attributes:
        displacement: `fem.Function` on the body's space, with the affine part.
        strain: (cells, points, d) in the components of the RVE's measure.
        stress: (cells, points, d) [MPa].
        rve: the RVE.
        constitutive_relation_error: (cells, points), ψ(ε) + ψ*(σ) − σ·ε ≥ 0 [MPa] of learned fields,
            zero where stress and strain obey the material's law; its mean over the RVE is the gap of the certificate.
            None for exact fields.
    """

    displacement: fem.Function
    strain: Array
    stress: Array
    rve: RVE
    constitutive_relation_error: Array | None = None

    @property
    def indicator(self) -> Array | None:
        """Deprecated: `constitutive_relation_error`."""
        warnings.warn(
            "MicroFields.indicator is now MicroFields.constitutive_relation_error", DeprecationWarning, stacklevel=2
        )
        return self.constitutive_relation_error

    def write(self, path: str | Path) -> None:
        """Write displacement, cell means of the others, and the cell tags for ParaView and `meshio.read`.

        Not collective: one rank does it.

        Args:
            path: of the .xdmf file; the numbers are in the .h5 file beside it.
        """
        weights, tags = self.rve.body.weights, self.rve.domain.cell_tags
        values = {"tag": tags.values[np.argsort(tags.indices)].astype(np.int64)}
        measure = self.rve.measure
        shares = weights / weights.sum(axis=1, keepdims=True)
        stress, strain = (np.einsum("cqd,cq->cd", field, shares) for field in (self.stress, self.strain))
        values |= measure.columns(stress, strain)
        if self.constitutive_relation_error is not None:
            values["constitutive_relation_error"] = np.einsum("cq,cq->c", self.constitutive_relation_error, shares)
        Series(path, self.rve.body.mesh).write_alone({measure.field: at_nodes(self.displacement)}, values)
