# SPDX-License-Identifier: MIT
"""Minima of the energy of an RVE: the weakest mode of its stiffness, and the way down from a saddle.

An equilibrium is stable, for the period of the RVE, where the stiffness K of its unknowns is positive definite. How
near that is to its end is measured by the lowest eigenvalue λ of

    K m = λ K₀ m,

with the stiffness K₀ at zero strain. It is 1 there, has no unit, depends little on the mesh, and is zero where a
fluctuation m, the buckling mode, needs no force (Bažant & Cedolin, Stability of Structures, 1991, ch. 4).

A minimum is found by Newton's method for the energy, with K + s K₀ in place of K where that is indefinite, and
sufficient decrease of the energy (Nocedal & Wright, Numerical Optimization, 2006, section 3.4). At a saddle that the
iteration cannot leave, such as the symmetric state of a symmetric RVE, the weakest mode is added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used

from fe2.body import LocalError
from fe2.condensed import FACTORISATION, ReducedStiffness
from fe2.factor import NoFactor

if TYPE_CHECKING:
    from fe2.micro_newton import MicroNewton, Point

Array = npt.NDArray[np.float64]

# First s in K + s K₀, its growth, and the largest: there K₀ itself must be indefinite.
_SHIFT, _GROWTH, _LARGEST = 1e-3, 4.0, 1e6

# Fewer unknowns are solved densely.
_DENSE = 32

# Steps of the descent, halvings of one, and modes added, at most. A state of some percent residual is no saddle yet.
_STEPS, _HALVINGS, _MODES = 200, 40, 8
_AT_SADDLE, _NEAR = 1e-3, 1e-4

# First amplitude of a mode in lengths of the RVE, and doublings at most.
_AMPLITUDE, _DOUBLINGS = 1e-3, 8

# Descents at fixed strain, each followed by the free strains.
_ROUNDS = 4

# Sufficient decrease, as in `fe2.micro_newton`.
_DECREASE = 1e-4


@dataclass(frozen=True, slots=True)
class Weakest:
    """The lowest eigenvalue of the stiffness relative to that at zero strain, and its mode.

    Attributes:
        stiffness: λ, negative where the equilibrium is no minimum of the energy.
        mode: (unknowns,) of the fluctuation; its largest value is 1.
    """

    stiffness: float
    mode: Array


def shifted(stiffness: ReducedStiffness, values: Array, metric: Array) -> float:
    """The shift s ≥ 0, zero if possible, with which K + s K₀ is positive definite; it is then factorised.

    Args:
        stiffness: of the RVE.
        values: (size,) of K.
        metric: (size,) of K₀.

    Raises:
        NoFactor: K₀ is not positive definite, or K is not finite.
    """
    shift = 0.0
    while not stiffness.definite(values + shift * metric if shift else values):
        shift = max(_GROWTH * shift, _SHIFT)
        if shift > _LARGEST:
            raise NoFactor("the stiffness at zero strain is not positive definite, or the present one is not finite")
    return shift


def weakest(stiffness: ReducedStiffness, values: Array, metric: Array) -> Weakest:
    """The weakest mode of a symmetric stiffness under the side condition if there is one; see the head of this module.

    Args:
        stiffness: of the RVE.
        values: (size,) of K.
        metric: (size,) of K₀.

    Raises:
        NoFactor: K₀ is not positive definite, or K is not finite.
    """
    n, g = stiffness.unknowns.size, stiffness.unknowns.constraint
    if n <= _DENSE:
        free = np.eye(n) if g is None else scipy.linalg.null_space(g)
        if not free.size:
            return Weakest(1.0, np.zeros(n))
        k, k0 = (free.T @ stiffness.multiply(v, free.T.copy()).T for v in (values, metric))
        found, vectors = scipy.linalg.eigh(k, k0, subset_by_index=(0, 0))
        vectors = free @ vectors
    else:
        shift = shifted(stiffness, values, metric)

        def operator(product: Callable[[Array], Array]):
            return scipy.sparse.linalg.LinearOperator(
                (n, n), matvec=lambda x: product(x.reshape(1, n))[0], dtype=np.float64
            )

        # With K + s K₀ definite all eigenvalues lie above −s, and the one nearest to it is the lowest. The start has a
        # fixed seed, so that equal problems have equal modes.
        found, vectors = scipy.sparse.linalg.eigsh(
            operator(lambda x: stiffness.multiply(values, x)),
            k=1,
            M=operator(lambda x: stiffness.multiply(metric, x)),
            sigma=-shift,
            OPinv=operator(stiffness.apply_definite),
            which="LM",
            v0=np.random.default_rng(0).standard_normal(n),
            tol=1e-9,
        )
    mode: Array = vectors[:, 0]
    return Weakest(float(found[0]), mode / mode[np.abs(mode).argmax()])


class Descent:
    """From any state of a point to a minimum of its energy.

    Args:
        newton: of the RVE; all its materials have an energy.
    """

    def __init__(self, newton: MicroNewton):
        self.newton = newton
        dim = newton.body.dim
        self._length = _AMPLITUDE * newton.volume ** (1 / dim)

    def settle(self, point: Point) -> None:
        """Move the point to a minimum of the energy at its strain that is lower, and solve; else it is `stalled`.

        The minimum found is that into which the descent leads. Where several are equal by symmetry, as the two ways in
        which a strut buckles, it is one of them. Free strains are held in the descent and follow after it; the
        equilibrium is then marked `unstable` if it is none with them.
        """
        free, target, before = point.free, point.target, point.before
        for _ in range(_ROUNDS if len(free) else 1):
            point.free, point.target, point.gap, point.stress_scale = np.empty((0, 0)), np.empty(0), np.empty(0), 0.0
            self._descend(point)
            if not len(free) or point.stalled:
                break
            point.free, point.target, point.before = free, target, before
            self.newton.solve_alone(point)
            if point.stalled or not point.unstable:
                break
        point.free, point.target, point.before = free, target, before

    def _descend(self, point: Point) -> None:
        """`settle` at the strain of the point."""
        newton, stiffness, modes = self.newton, self.newton.stiffness, 0
        metric = newton.metric
        for _ in range(_STEPS):
            point.held, point.before = None, point.strain
            newton.begin(point)
            if point.stalled:
                return
            try:
                shift = shifted(stiffness, point.values, metric)
            except NoFactor as error:
                return point.stall(str(error))
            point.work += FACTORISATION
            if not shift and (point.converged or point.relative_residual < _NEAR):
                w = point.w.copy()
                newton.solve_alone(point)
                if point.converged and not point.stalled and not point.unstable:
                    return
                point.w, point.stalled, point.held = w, "", None
                newton.begin(point)
                stiffness.definite(point.values)
            if shift and (point.converged or point.relative_residual < _AT_SADDLE):
                modes += 1
                if modes > _MODES:
                    break
                self._add_mode(point, weakest(stiffness, point.values, metric).mode)
            elif not self._step(point, stiffness.apply_definite(point.residual[None])[0]):
                break
        point.stall("no minimum of the energy was found")

    def _step(self, point: Point, step: Array) -> bool:
        """Go along −`step` with sufficient decrease of the energy; False if there is none."""
        start, slope, length = self._energy(point, point.w), float(point.residual @ step), 1.0
        for _ in range(_HALVINGS):
            if self._energy(point, point.w - length * step) <= start - _DECREASE * length * slope:
                point.w = point.w - length * step
                point.iterations += 1
                return True
            length /= 2
        return False

    def _add_mode(self, point: Point, mode: Array) -> None:
        """Add the mode, to the side and by the amplitude that lower the energy most."""
        size = self._length / np.abs(self.newton.unknowns.expand(mode)).max()
        side = min((1.0, -1.0), key=lambda sign: self._energy(point, point.w + sign * size * mode))
        best, least = point.w + side * size * mode, np.inf
        for _ in range(_DOUBLINGS):
            trial = point.w + side * size * mode
            energy = self._energy(point, trial)
            if not energy < least:
                break
            best, least, size = trial, energy, 2 * size
        point.w = best
        point.iterations += 1

    def _energy(self, point: Point, w: Array) -> float:
        """∫ ψ [MPa length^dim] at the fluctuation `w`; infinite where it does not exist."""
        body = self.newton.body
        body.memory = point.memory
        body.u.x.array[:] = self.newton.affine @ point.strain + self.newton.unknowns.expand(w)
        if body.inverted:
            return np.inf
        try:
            body.find_local()
        except LocalError:
            return np.inf
        energy = body.energy()
        return energy if np.isfinite(energy) else np.inf
