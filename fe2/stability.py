# SPDX-License-Identifier: MIT
"""Where an RVE loses its stability along a path of strains, and where its homogenised tangent does.

Two things can happen to the equilibrium of a periodic solid under growing load (Geymonat, Müller & Triantafyllidis,
Arch. Rational Mech. Anal. 122, 1993, 231–290):

    microscopic     a fluctuation of the RVE's period needs no force: its stiffness is no longer positive definite,
                    see `fe2.minimum`. A larger RVE (`meshes.tiled`) has more fluctuations and buckles no later.
    macroscopic     a wave m exp(i n·x) much longer than the RVE needs no force: the homogenised tangent C loses its
                    strong ellipticity, min (m⊗n) : C : (m⊗n) ≤ 0 over all unit m and n.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used
from dolfinx import fem

from fe2 import arguments
from fe2.failures import NotConverged, UnstableWarning
from fe2.measure import Measure
from fe2.minimum import weakest
from fe2.rve import RVE

Array = npt.NDArray[np.float64]

# Halvings of a step whose end has no equilibrium.
_HALVINGS = 6

# Directions n on a half circle, and points of a Fibonacci lattice on the sphere, from which the minimum is refined.
_CIRCLE, _SPHERE, _REFINED = 180, 400, 5


@dataclass(frozen=True, slots=True, eq=False)
class StabilityLimit:
    """Where a path of strains loses its stability, see the head of this module.

    The path ends where the RVE's stiffness is no longer positive definite; the tangent is looked at up to there.

    Attributes:
        strain: (d,) at which the RVE buckles; NaN if it does not along the path.
        fraction: of the path there, NaN if nowhere.
        mode: the buckling mode, a fluctuation whose largest component is 1; None if there is none.
        state: (state_size,) of the last stable equilibrium found, within the tolerance of `strain`; at the end of the
            path if there is none.
        macroscopic_strain: (d,) at which the homogenised tangent loses strong ellipticity; NaN if not before `strain`.
        macroscopic_fraction: of the path there, NaN if nowhere.
        amplitude: (components,) the unit vector m of that wave; NaN if there is none.
        normal: (dim,) its unit vector n, in the reference configuration; NaN if there is none.
        fractions: (k,) of the path at which the RVE was solved, ascending.
        stiffness: (k,) lowest eigenvalue of the stiffness relative to that at zero strain.
        ellipticity: (k,) min (m⊗n) : C : (m⊗n) [MPa].
    """

    strain: Array
    fraction: float
    mode: fem.Function | None
    state: Array
    macroscopic_strain: Array
    macroscopic_fraction: float
    amplitude: Array
    normal: Array
    fractions: Array
    stiffness: Array
    ellipticity: Array

    @property
    def found(self) -> bool:
        """Whether the RVE buckles along the path."""
        return bool(np.isfinite(self.fraction))


class Ellipticity(NamedTuple):
    """The least of (m⊗n) : C : (m⊗n) [MPa], with its unit vectors m (components,) and n (dim,)."""

    least: float
    amplitude: Array
    normal: Array


def ellipticity(tangent: npt.ArrayLike, measure: Measure) -> Ellipticity:
    """The least of (m⊗n) : C : (m⊗n) over all unit vectors m and n; positive if C is strongly elliptic.

    For each n it is the lowest eigenvalue of the acoustic tensor; over n it is minimised from many directions, the
    coordinate axes among them.

    Args:
        tangent: (d, d) [MPa].
        measure: of its strain.

    Raises:
        ValueError: a tangent that is not square, of a size that the measure does not have, or not finite.
    """
    tangent = np.asarray(tangent, dtype=np.float64)
    if tangent.ndim != 2 or tangent.shape[0] != tangent.shape[1] or not np.isfinite(tangent).all():
        raise ValueError(f"tangent has the shape {tangent.shape}: need (d, d) finite numbers")
    dim = measure.dimension(len(tangent))
    basis, symmetric = measure.basis(dim), (tangent + tangent.T) / 2

    def acoustic(normals: Array) -> Array:
        waves = np.einsum("kij,nj->nki", basis, normals)
        return waves.swapaxes(1, 2) @ symmetric @ waves

    def of_angles(angles: Array) -> float:
        return float(np.linalg.eigvalsh(acoustic(_normal(angles)[None]))[0, 0])

    angles = _angles(dim)
    values = np.linalg.eigvalsh(acoustic(np.array([_normal(a) for a in angles])))[:, 0]
    best, least = angles[values.argmin()], float(values.min())
    for k in np.argsort(values)[: _REFINED if dim > 1 else 0]:
        found = scipy.optimize.minimize(
            of_angles, angles[k], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 0.0}
        )
        if found.fun < least:
            best, least = found.x, float(found.fun)
    normal = _normal(best)
    return Ellipticity(least, np.linalg.eigh(acoustic(normal[None])[0])[1][:, 0], normal)


def _angles(dim: int) -> Array:
    """Angles (n, dim − 1) of directions on a half circle or half sphere, the axes first."""
    if dim == 1:
        return np.zeros((1, 0))
    if dim == 2:
        return np.pi * np.arange(_CIRCLE)[:, None] / _CIRCLE
    k = np.arange(_SPHERE)
    lattice = np.column_stack([np.arccos(1 - (k + 0.5) / _SPHERE), np.pi * (1 + 5**0.5) * k])
    return np.concatenate([[[0.0, 0.0], [np.pi / 2, 0.0], [np.pi / 2, np.pi / 2]], lattice])


def _normal(angles: Array) -> Array:
    if not len(angles):
        return np.ones(1)
    if len(angles) == 1:
        return np.array([np.cos(angles[0]), np.sin(angles[0])])
    polar, around = angles
    return np.array([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)])


class _Visit(NamedTuple):
    """The equilibrium at a fraction of the path."""

    fraction: float
    state: Array
    stiffness: float
    mode: Array
    ellipticity: Ellipticity


class _Path:
    """The path from the strain of a state through given ones, and the equilibria found on it."""

    def __init__(self, rve: RVE, strains: Array, state: Array):
        self.rve = rve
        self.corners = np.concatenate([[rve.layout.view(state, "strain")], strains])
        lengths = np.linalg.norm(np.diff(self.corners, axis=0), axis=1)
        if not lengths.any():
            raise ValueError(f"the path of strains {strains.tolist()} does not leave the strain of its beginning")
        self.at = np.concatenate([[0.0], np.cumsum(lengths)]) / lengths.sum()
        self.visits = [self._look(0.0, state, state)]

    def strain(self, fraction: float) -> Array:
        """The strain (d,) at a fraction of the path."""
        return np.array([np.interp(fraction, self.at, column) for column in self.corners.T])

    def visit(self, fraction: float, base: _Visit) -> _Visit:
        """Solve at a fraction of the path from an equilibrium before it."""
        for known in (base, *self.visits):
            if known.fraction == fraction:
                return known
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnstableWarning)
            h = self.rve.homogenise(self.strain(fraction), base.state[None])
        self.visits.append(self._look(fraction, h.state[0], base.state, h.tangent[0]))
        return self.visits[-1]

    def _look(self, fraction: float, state: Array, accepted: Array, tangent: Array | None = None) -> _Visit:
        rve = self.rve
        if tangent is None:
            tangent = rve.homogenise(self.strain(fraction), state[None]).tangent[0]
        body, view = rve.body, rve.layout.view
        # The stiffness of the step: for materials with state, from the accepted one.
        body.memory = body.with_local(view(accepted, "memory"), view(state, "memory"))
        body.u.x.array[:] = rve.displacement(state).x.array
        body.find_local()
        found = weakest(rve.stiffness, rve.stiffness.reduce(body.stiffness()), rve.zero_stiffness)
        return _Visit(fraction, state, found.stiffness, found.mode, ellipticity(tangent, rve.measure))

    def root(self, base: _Visit, end: _Visit, of: Callable[[_Visit], float], tolerance: float) -> _Visit:
        """The visit where `of`, positive at `base` and not at `end`, changes its sign."""

        def value(fraction: float) -> float:
            return of(self.visit(fraction, base))

        fraction = scipy.optimize.brentq(value, base.fraction, end.fraction, xtol=tolerance / 2, rtol=1e-12)
        return self.visit(float(fraction), base)


@contextmanager
def _primary_path(rve: RVE):
    """Stay on the path of equilibrium that begins at zero strain, also where it is unstable."""
    descent, rve.descent = rve.descent, None
    try:
        yield
    finally:
        rve.descent = descent


def critical_strain(
    rve: RVE,
    path: npt.ArrayLike,
    *,
    state: Array | None = None,
    steps: int = 10,
    tolerance: float = 1e-5,
) -> StabilityLimit:
    """The first strain along a path at which the RVE buckles, and at which its homogenised tangent loses ellipticity.

    The path is walked in steps until the lowest eigenvalue of the RVE's stiffness is negative, and the zero is then
    found by Brent's method. A loss that is regained within one step is not seen.

    Only a symmetric RVE has a bifurcation. That of another one, also by an irregular mesh, bends onto the buckled state
    smoothly, and its stiffness stays positive definite: use `meshes.tiled` for RVEs of several periods.

    Args:
        rve: its materials have an energy.
        path: strains (k, d) through which the path goes in straight lines, or its end (d,).
        state: row (state_size,) at its beginning, a stable equilibrium; None for the undeformed RVE.
        steps: of equal length along the path. Materials with history are given these steps.
        tolerance: of the fractions of the path.

    Raises:
        ValueError: a path of another shape or without length, `steps` or `tolerance` not positive, materials without
            an energy or with time, or an unstable equilibrium at the beginning.
        NotConverged: a path of equilibrium that ends, as in a snap-through; the point is numbered 0.
        NoFactor: a stiffness at zero strain that is not positive definite (`fe2.factor`).
    """
    strains = arguments.strains(np.atleast_2d(path), rve)
    if steps < 1 or not tolerance > 0:
        raise ValueError(f"steps = {steps} and tolerance = {tolerance} must be positive")
    if not rve.body.symmetric:
        raise ValueError("critical_strain needs materials with an energy: the stiffness of others is not symmetric")
    if rve.body.rate_dependent:
        raise ValueError("critical_strain needs materials without time: where others buckle depends on their rate")
    if state is None:
        (state,) = rve.initial_state(1)
    arguments.state_rows("critical_strain", "state", np.atleast_2d(state), (1, rve.state_size))
    with _primary_path(rve):
        way = _Path(rve, strains, np.asarray(state, dtype=np.float64))
        last = way.visits[0]
        if last.stiffness <= 0:
            raise ValueError(
                f"the equilibrium at the beginning of the path is unstable: its lowest relative stiffness is "
                f"{last.stiffness:.3g}"
            )
        micro = macro = None
        stable, begin = last, last
        for k in range(1, steps + 1):
            while begin.fraction < k / steps and micro is None:
                begin, end = stable, _next(way, stable, k / steps)
                if end.stiffness <= 0:
                    micro = way.root(begin, end, lambda v: v.stiffness, tolerance)
                    stable = max((v for v in way.visits if v.stiffness > 0), key=lambda v: v.fraction)
                else:
                    stable = end
                ahead = micro or end
                if macro is None and ahead.ellipticity.least <= 0 < begin.ellipticity.least:
                    macro = way.root(begin, ahead, lambda v: v.ellipticity.least, tolerance)
                begin = stable
            if micro:
                break
        return _limit(way, stable, micro, macro)


def _next(way: _Path, base: _Visit, fraction: float) -> _Visit:
    """The equilibrium at `fraction`, or at one nearer to `base` if there is none."""
    size = fraction - base.fraction
    for halving in range(_HALVINGS + 1):
        try:
            return way.visit(base.fraction + size / 2**halving if halving else fraction, base)
        except NotConverged:
            if halving == _HALVINGS:
                raise
    raise AssertionError


def _limit(way: _Path, stable: _Visit, micro: _Visit | None, macro: _Visit | None) -> StabilityLimit:
    rve, visits = way.rve, sorted(way.visits, key=lambda v: v.fraction)
    mode = None
    if micro is not None:
        mode = fem.Function(rve.body.V, name="mode")
        mode.x.array[:] = rve.unknowns.expand(micro.mode)
        mode.x.array[:] /= mode.x.array[np.abs(mode.x.array).argmax()]
    nothing = np.full(rve.strain_size, np.nan)
    wave = (visits[0].ellipticity if macro is None else macro.ellipticity)[1:]
    return StabilityLimit(
        strain=nothing if micro is None else way.strain(micro.fraction),
        fraction=np.nan if micro is None else micro.fraction,
        mode=mode,
        state=stable.state,
        macroscopic_strain=nothing if macro is None else way.strain(macro.fraction),
        macroscopic_fraction=np.nan if macro is None else macro.fraction,
        amplitude=wave[0] * (np.nan if macro is None else 1.0),
        normal=wave[1] * (np.nan if macro is None else 1.0),
        fractions=np.array([v.fraction for v in visits]),
        stiffness=np.array([v.stiffness for v in visits]),
        ellipticity=np.array([v.ellipticity.least for v in visits]),
    )
