# SPDX-License-Identifier: MIT
"""Conduction of heat, charge or matter: materials of the gradient of a scalar."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import ufl

from fe2.materials import Material
from fe2.measure import GRADIENT

# Asymmetry of a conductivity, relative to its largest entry, that counts as rounding.
_SYMMETRY = 1e-10


@dataclass(frozen=True, eq=False)
class Conductive(Material):
    """Linear conduction, ψ = ½ ∇T·k ∇T; its stress is the flux k ∇T, which is minus the heat flux.

    Args:
        conductivity: k, a number or a symmetric positive definite matrix (dim, dim) [W/(m K), or any unit].

    Raises:
        ValueError: a conductivity of another shape, not symmetric or not positive.
    """

    conductivity: npt.NDArray[np.float64] | float
    measure = GRADIENT

    def __post_init__(self):
        k = np.array(self.conductivity, dtype=np.float64)
        if k.shape not in ((), (2, 2), (3, 3)):
            raise ValueError(f"Conductive: conductivity has the shape {k.shape}, need a number or (dim, dim)")
        if k.ndim and not np.allclose(k, k.T, rtol=_SYMMETRY, atol=_SYMMETRY * abs(k).max()):
            raise ValueError(
                f"Conductive: conductivity = {k.tolist()} is not symmetric; fe2.Stress(function, measure='gradient') "
                "takes fluxes without potential"
            )
        lowest = np.linalg.eigvalsh(k)[0] if k.ndim else k
        if not (np.isfinite(k).all() and lowest > 0):
            raise ValueError(f"Conductive: conductivity = {k.tolist()}: need positive numbers or eigenvalues")
        object.__setattr__(self, "conductivity", (k + k.T) / 2 if k.ndim else float(k))

    def energy(self, strain, state=None, local=None):
        k = self.conductivity
        shape = k.ufl_shape if hasattr(k, "ufl_shape") else np.shape(k)
        if not shape:
            return k / 2 * ufl.inner(strain, strain)
        if shape != 2 * strain.ufl_shape:
            raise ValueError(
                f"Conductive: conductivity has the shape {shape}, the gradient {strain.ufl_shape}: need a matrix of "
                "the mesh's dimension"
            )
        return ufl.inner(strain, ufl.dot(k if hasattr(k, "ufl_shape") else ufl.as_matrix(k.tolist()), strain)) / 2

    def rotated(self, rotation: npt.ArrayLike) -> "Conductive":
        """The material rotated by the matrix (dim, dim)."""
        q = np.asarray(rotation, dtype=np.float64)
        return self if np.ndim(self.conductivity) == 0 else Conductive(q @ self.conductivity @ q.T)
