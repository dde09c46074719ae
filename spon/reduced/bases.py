# SPDX-License-Identifier: MIT
"""From snapshots to bases: displacement and stress modes by proper orthogonal decomposition, and their cubature.

The steps of `pod_bases` are `pod`, the modes of fields at weighted points; `with_unit_mean_stresses`, stress modes with
the unit stresses as means; and `empirical_cubature`, few points that integrate given functions to a tolerance.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy
import torch
from torch import Tensor

from spon.reduced.galerkin import ReducedModel
from spon.reduced.modes import ModesAtPoints, RVEModes
from spon.reduced.snapshots import RVESnapshots

Array = npt.NDArray[np.float64]
Points = npt.NDArray[np.int64]

# Relative accuracy of fields from an iterative solver: smaller singular values are errors of the solver.
_ROUNDING = 1e-9
_INTEGRATED = 25  # least number of stress fields that the cubature integrates with all modes, of those available


@dataclass(frozen=True, slots=True, eq=False)
class Bases:
    """Modes of an RVE and a reduced model in more of them.

    Args:
        rve_modes: r displacement and r stress modes at all points.
        reduced: Galerkin's method in R ≥ r displacement modes on the points of the cubature.
        singular_strain: (n,) singular values of the local strains.
        singular_stress: (n,) singular values of the local stresses.
        points: (m,) numbers of the points of the cubature.
    """

    rve_modes: RVEModes
    reduced: ReducedModel
    singular_strain: Array
    singular_stress: Array
    points: Points

    @property
    def cubature(self) -> ModesAtPoints:
        """The r modes on the points of the cubature, with its weights."""
        return self.rve_modes.at_points.at(self.points, self.reduced.weights)


def pod_bases(data: RVESnapshots, r: int = 16, resolved: int = 32, tolerance: float = 3e-4) -> Bases:
    """POD bases of strain and stress fluctuations, with their cubature.

    Args:
        data: solved problems.
        r: number of displacement and of stress modes, at most, see `pod`.
        resolved: R, number of displacement modes of the reduced model, at most; not below r.
        tolerance: relative error of the cubature.

    Raises:
        ValueError: stresses whose means do not span all components, or an error of `RVESnapshots.half_range` or
            `RVESnapshots.metric`.
    """
    half_range = torch.from_numpy(data.half_range)
    w, d, resolved = data.weights, data.strain.shape[1], max(r, resolved)
    # Strains are weighted by their energy, so that the modes resolve those of a stiff phase.
    strain, stress = pod(data.local_strain, w, resolved, data.metric), pod(data.local_stress, w, r)
    stress_modes = with_unit_mean_stresses(stress, w)
    # The cubature integrates some stress fields and their products with all modes.
    some = data.local_stress[:: max(1, len(data.local_stress) // _INTEGRATED)]
    tests = np.concatenate([strain.modes, stress_modes[..., d:]], axis=2)
    products = np.einsum("pdr,npd->prn", tests, some).reshape(len(w), -1)
    integrands = np.concatenate([products, np.hstack(list(some))], 1)
    integrands /= np.sqrt(w @ integrands**2) + 1e-300
    points, weights = empirical_cubature(integrands, w, tolerance)
    reduced = ReducedModel(
        data.laws.subset([int(p) for p in points]),
        torch.from_numpy(strain.modes[points]),
        torch.from_numpy(weights),
        half_range,
        data.fingerprint,
    )
    at_points = ModesAtPoints.of(data.laws, w, strain.modes[..., :r], stress_modes, fingerprint=data.fingerprint)
    displacements = data.fluctuation.T @ strain.combination[:, :r]
    rve_modes = RVEModes(at_points, displacements, data.order)
    return Bases(rve_modes, reduced, strain.singular_values, stress.singular_values, points)


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Modes of n fields, each a linear combination of the fields.

    Args:
        modes: (P, d, r), orthonormal in the inner product of `pod`.
        singular_values: (n,), descending.
        combination: (n, r), modes = Σ_k fields_k combination_k. Linear functions of the fields, such as the
            displacements of strains, have modes with the same combination.
    """

    modes: Array
    singular_values: Array
    combination: Array


def rank(singular_values: Array) -> int:
    """Number of modes above rounding."""
    return int((singular_values > _ROUNDING * singular_values[0]).sum())


def pod(fields: Array, weights: Array, r: int, metric: Array | None = None) -> Basis:
    """The r modes that best approximate all fields in the mean square of Σ_p w_p φ_p·M_p φ_p.

    The rank of the fields limits r: an RVE of linear phases has d independent fields, a laminate few more.

    Args:
        fields: (n, P, d) at P points.
        weights: (P,) of the points, positive; ones for the unweighted decomposition.
        r: number of modes, at most.
        metric: M (P, d, d), symmetric positive definite, such as stiffnesses, which weight strains by their energy;
            None for the identity.

    Raises:
        ValueError: r below one, or a field or weight that is not finite.
    """
    if r < 1:
        raise ValueError(f"r = {r}: need at least one mode")
    n = len(fields)
    # w M = F Fᵀ, and F is applied to the fields.
    factor = np.eye(fields.shape[2]) if metric is None else np.linalg.cholesky(metric)
    factor = np.sqrt(weights)[:, None, None] * factor
    scaled = np.einsum("npd,pde->npe", fields, factor, optimize=True).reshape(n, -1)
    if not np.isfinite(scaled).all():
        raise ValueError("the fields or weights hold values that are not finite")
    left, singular, _ = np.linalg.svd(scaled, full_matrices=False)
    r = min(r, rank(singular))
    combination = left[:, :r] / singular[:r]
    return Basis(np.einsum("npd,nr->pdr", fields, combination, optimize=True), singular, combination)


def with_unit_mean_stresses(basis: Basis, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Stress modes (P, d, r) with the span of `basis`; the means of the first d are the unit stresses, the others zero.

    The others are orthonormal, and the first d are orthogonal to them.

    Args:
        basis: of r stress modes.
        weights: (P,) of the points.

    Raises:
        ValueError: fewer than d modes, or modes whose means do not span all stresses.
    """
    d, r = basis.modes.shape[1:]
    means = np.einsum("p,pdr->dr", weights, basis.modes)
    if np.linalg.matrix_rank(means) < d:
        raise ValueError(
            f"the means of {r} stress modes do not span the {d} stress components: need more modes, or snapshots"
        )
    _, _, right = np.linalg.svd(means)
    return np.concatenate([basis.modes @ np.linalg.pinv(means), basis.modes @ right[d:].T], axis=2)


def unit_mean_stresses(d: int, r: int) -> Tensor:
    """Means (d, r) of the modes of `with_unit_mean_stresses`, free of rounding."""
    return torch.eye(d, r, dtype=torch.float64)


class Cubature(NamedTuple):
    """Some of the points of a quadrature with weights of their own.

    Args:
        points: (m,) numbers of the points, ascending.
        weights: (m,), positive.
    """

    points: Points
    weights: Array


def empirical_cubature(integrands: Array, weights: Array, tolerance: float = 1e-6) -> Cubature:
    """Points and positive weights that integrate given functions to a relative tolerance.

    Points are added a few at a time, first those whose function values are most aligned with the residual of the
    integrals. The weights are the non-negative least squares solution, and points with zero weight are removed (after
    the empirical cubature of Hernández, Caicedo & Ferrer, Comput. Methods Appl. Mech. Eng. 313, 2017, 687–722).

    Args:
        integrands: (P, f) values of f functions at all points; the constant is added to them.
        weights: (P,) of the full quadrature, positive.
        tolerance: relative error of the integrals of an orthonormal basis of the functions, and of the basis.
    """
    root = np.sqrt(weights)
    constant = np.full(len(weights), np.sqrt(np.mean(integrands**2)) or 1.0)
    scaled = np.column_stack([integrands, constant]) * root[:, None]
    # An orthonormal basis of the functions, truncated; by the small Gram matrix, since P is large.
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    keep = values > max(tolerance**2, 1e-14) * values[-1]
    basis = scaled @ (vectors[:, keep] / np.sqrt(values[keep]))
    basis = np.linalg.qr(np.column_stack([root, basis]))[0]
    target = basis.T @ root
    direction = basis / np.maximum(np.linalg.norm(basis, axis=1, keepdims=True), 1e-300)
    chosen: list[int] = []
    x: Array = np.zeros(0)
    residual = target
    for _ in range(2 * basis.shape[1]):
        gain = direction @ residual
        gain[chosen] = -np.inf
        joining = max(1, len(chosen) // 10)
        chosen += [int(p) for p in np.argpartition(gain, -joining)[-joining:]]
        x, _ = scipy.optimize.nnls(basis[chosen].T, target)
        chosen, x = [p for p, v in zip(chosen, x, strict=True) if v > 0], x[x > 0]
        residual = target - basis[chosen].T @ x
        if np.linalg.norm(residual) <= tolerance * np.linalg.norm(target):
            break
    order = np.argsort(chosen)
    points = np.array(chosen, dtype=np.int64)[order]
    return Cubature(points, x[order] * root[points])
