# SPDX-License-Identifier: MIT
"""A fixed solver of Poisson's equation on a finite element space, as a symmetric linear module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # its parts are imported when they are first used
import torch
from torch import Tensor, nn

from spon.operators.processors.levels import Fixed
from spon.spaces.quadrature import Points
from spon.sparse import SparseOperator

INVERTED = 2000  # nodes up to which the inverse is a dense matrix, by far the fastest
SWEEPS = 2  # of relaxation, before and after the coarser space
ACCURACY = 0.01  # of the solution on larger spaces, in the energy norm
_GROWTH_STEPS = 40  # of power iterations; the error of the estimate is then below the five per cent added to it


class PoissonSolver(nn.Module):
    """Fields v of loads f: (∇v, ∇w) = f·w for all w that vanish at the fixed nodes, as v does.

    By the inverse of the stiffness matrix K, or, on a large space, by as many symmetric multigrid cycles B as the
    accuracy `ACCURACY` needs: a Chebyshev polynomial of B K, hence a symmetric linear map.

    Args:
        stiffness: (nodes, nodes).
        fixed: (nodes,) bool.
        prolong: (nodes, coarser nodes), to fields that vanish at the fixed nodes; None on the coarsest space.
        below: the solver on the coarser space; None on the coarsest.

    Raises:
        ValueError: a coarsest space that is too large to be inverted.
    """

    inverse: Tensor
    relax: Tensor

    def __init__(
        self,
        stiffness: scipy.sparse.csr_array,
        fixed: np.ndarray,
        prolong: SparseOperator | None = None,
        below: PoissonSolver | None = None,
    ):
        super().__init__()
        free, count = np.flatnonzero(~fixed), len(fixed)
        self.below, self.prolong = None, None if prolong is None else Fixed(prolong)
        if len(free) <= INVERTED:
            inverse = np.zeros((count, count))
            inverse[np.ix_(free, free)] = np.linalg.inv(stiffness[free][:, free].toarray())
            self.register_buffer("inverse", torch.from_numpy(inverse + inverse.T) / 2, persistent=False)
            return
        if prolong is None or below is None:
            raise ValueError(
                f"the coarsest space has {len(free)} free nodes, need at most {INVERTED}: give coarser ones, "
                "coarse = [...]"
            )
        mask = scipy.sparse.diags_array((~fixed).astype(float))
        self.below, self.stiffness = below, Fixed(SparseOperator.of(mask @ stiffness @ mask))
        self.restrict = Fixed(prolong.T)
        # No eigenvalue of D⁻¹K is larger than the largest sum of absolute values in a row.
        diagonal = stiffness.diagonal()
        bound = (np.asarray(abs(stiffness).sum(axis=1)).ravel() / diagonal).max()
        relax = np.where(fixed, 0.0, 4 / (3 * bound * diagonal))
        self.register_buffer("relax", torch.from_numpy(relax)[:, None], persistent=False)
        lower, upper = self._spectrum()
        self.middle, self.radius = (upper + lower) / 2, (upper - lower) / 2
        ratio = (upper / lower) ** 0.5
        rate = (ratio - 1) / (ratio + 1)
        self.cycles = max(1, int(np.ceil(np.log(ACCURACY / 2) / np.log(rate))))

    def _spectrum(self) -> tuple[float, float]:
        """Bounds of the eigenvalues of B K at free nodes.

        By power iterations: B K is self-adjoint in the inner product of K alone, for which `scipy.sparse.linalg.eigsh`
        needs solutions with K, and bounds with a margin are all that Chebyshev's polynomial requires.
        """
        generator = torch.Generator().manual_seed(0)
        bounds: list[float] = []
        for shift in (0.0, 1.05):
            x = torch.randn(len(self.relax), 1, generator=generator, dtype=torch.float64) * (self.relax > 0)
            for _ in range(_GROWTH_STEPS):
                x = x / x.norm()
                x = self.cycle(self.stiffness(x)) - shift * (bounds[0] if bounds else 0.0) * x
            bounds.append(float(x.norm()))
        largest = 1.05 * bounds[0]
        least = largest - bounds[1]
        if not least > 0:
            # On a strongly graded mesh B K is far from normal, and the norm larger than the eigenvalue. Rayleigh's
            # quotient in the inner product of K is positive, but above the least eigenvalues, whose fields are then
            # less accurate.
            load = self.stiffness(x)
            least = float((load * self.cycle(load)).sum() / (load * x).sum())
        return 0.9 * least, largest

    def forward(self, load: Tensor) -> Tensor:
        """Fields (nodes, ...) of loads (nodes, ...)."""
        f = load.flatten(1)
        if self.below is None:
            return (self.inverse @ f).view_as(load)
        step = self.cycle(f) / self.middle
        v, ratio = step, self.radius / self.middle
        before = ratio
        for _ in range(self.cycles - 1):
            after = 1 / (2 / ratio - before)
            step = after * before * step + 2 * after / self.radius * self.cycle(f - self.stiffness(v))
            v, before = v + step, after
        return v.view_as(load)

    def cycle(self, f: Tensor) -> Tensor:
        """B f (nodes, columns): one multigrid cycle, or the solution by the inverse on a small space."""
        if self.below is None or self.prolong is None:
            return self.inverse @ f
        v = self.relax * f
        for _ in range(SWEEPS - 1):
            v = v + self.relax * (f - self.stiffness(v))
        v = v + self.prolong(self.below.cycle(self.restrict(f - self.stiffness(v))))
        for _ in range(SWEEPS):
            v = v + self.relax * (f - self.stiffness(v))
        return v


def stiffness_matrix(points: Points, shift: float) -> scipy.sparse.csr_array:
    """∫ ∇v·∇w + shift v w (nodes, nodes), with the quadrature of a space."""
    d = points.coordinates.shape[1]
    by = points.weights[:, None] * torch.tensor([1.0] * d + [shift], dtype=torch.float64)
    matrix = points.fields.scipy
    return scipy.sparse.csr_array(matrix.T @ scipy.sparse.diags_array(by.flatten().numpy()) @ matrix)


def poisson_solvers(
    levels: Sequence[Points], prolongations: Sequence[SparseOperator], fixed: np.ndarray, volume: float
) -> list[PoissonSolver]:
    """A solver for each level, with some of the finest nodes fixed.

    A coarse node is fixed if a fixed finer node is nearer to it than to any other coarse node, where coarse fields have
    half their size or more; at least one is. As the boundaries of the meshes may differ, this is approximate. Without
    any fixed node, constants get a stiffness of their own.

    Args:
        levels: quadrature points, from finer to coarser.
        prolongations: (finer nodes, coarser nodes) between them.
        fixed: (nodes,) bool, of the finest.
        volume: of the domain [length^d].
    """
    d = levels[0].coordinates.shape[1]
    shift = 0.0 if fixed.any() else volume ** (-2 / d)
    held, carry = [fixed], []
    for prolong in prolongations:
        carry.append(SparseOperator.of(scipy.sparse.diags_array((~held[-1]).astype(float)) @ prolong.scipy))
        largest = np.zeros(prolong.shape[1])
        if held[-1].any():
            largest = abs(prolong.scipy[held[-1]]).max(axis=0).toarray().ravel()
        held.append((largest >= min(0.5, largest.max())) & (largest > 0))
    found: list[PoissonSolver] = []
    for k in reversed(range(len(levels))):
        coarser = (carry[k], found[0]) if found else ()
        found.insert(0, PoissonSolver(stiffness_matrix(levels[k], shift), held[k], *coarser))
    return found
