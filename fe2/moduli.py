# SPDX-License-Identifier: MIT
"""Engineering constants of a homogenised stiffness."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Asymmetry, relative to the largest entry, that counts as the tolerance of a solver.
_SYMMETRY = 1e-8


class EngineeringConstants(NamedTuple):
    """Young's moduli, shear moduli and Poisson's ratios along the coordinate axes, each of shape (...).

    nu12 is the contraction along 2 over the stretch along 1 under uniaxial stress along 1.
    """

    E1: Array
    E2: Array
    E3: Array
    G23: Array
    G13: Array
    G12: Array
    nu12: Array
    nu13: Array
    nu23: Array


def engineering_constants(stiffness: npt.ArrayLike) -> EngineeringConstants:
    """Engineering constants of a 3D stiffness in Mandel order, such as `Homogenised.tangent`.

    With the compliance S = C⁻¹: Eᵢ = 1/Sᵢᵢ, νᵢⱼ = −Sᵢⱼ/Sᵢᵢ, and G = 1/(2 S) for the Mandel shear entries (Jones,
    Mechanics of Composite Materials, 1999, ch. 2, in engineering notation). They determine the whole stiffness if the
    axes are those of an orthotropic material; couplings of normal and shear components are not included.

    Args:
        stiffness: (..., 6, 6), symmetric positive definite, in any unit of stress.

    Returns:
        The constants, moduli in the unit of the stiffness.

    Raises:
        ValueError: a stiffness of another shape (a plane RVE has no third direction; other measures have other
            tangents), not symmetric or not positive definite.
    """
    c = np.asarray(stiffness, dtype=np.float64)
    if c.shape[-2:] == (9, 9):
        raise ValueError(
            f"stiffness has shape {c.shape}, that of a displacement gradient: the small-strain stiffness is "
            "Q C Q.T of the tangent C at zero with Q = rve.measure.stretches(3)"
        )
    if c.ndim < 2 or c.shape[-2:] != (6, 6):
        raise ValueError(f"stiffness has shape {c.shape}, need (..., 6, 6): a 3D stiffness in Mandel order")
    transposed = np.swapaxes(c, -1, -2)
    skew = abs(c - transposed).max(initial=0.0)
    if not skew <= _SYMMETRY * abs(c).max(initial=0.0):
        raise ValueError(f"stiffness is not symmetric (by {skew:.3g}) or not finite")
    lowest = np.linalg.eigvalsh(c).min(initial=np.inf)
    if not lowest > 0:
        raise ValueError(f"stiffness has the eigenvalue {lowest:.3g}; all must be positive")
    s = np.linalg.inv((c + transposed) / 2)
    young = [1 / s[..., i, i] for i in range(3)]
    shear = [1 / (2 * s[..., i, i]) for i in range(3, 6)]
    poisson = [-s[..., i, j] / s[..., i, i] for i, j in ((0, 1), (0, 2), (1, 2))]
    return EngineeringConstants(*young, *shear, *poisson)
