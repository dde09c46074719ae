# SPDX-License-Identifier: MIT
"""What is prescribed at a point: of each component either the strain or the stress.

With orthonormal directions nₖ, component k is the strain nₖ·E and the stress nₖ·S; without them, it is entry k of E and
of S. With the directions of free strain as rows of F, E = E' + Fᵀ e: E' has the prescribed strains, and the unknowns e
are found from F S = s, the prescribed stresses.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fe2 import arguments
from fe2.measure import Measure, between

Array = npt.NDArray[np.float64]

# Departure of directions from orthonormal ones that counts as rounding.
_ORTHONORMAL = 1e-10

# A stiffness against free strains below this, relative to the whole tangent, is rounding: there is none.
_NO_STIFFNESS = 1e-10


class NoStiffness(RuntimeError):
    """The prescribed stresses do not determine the free strains."""


@dataclass(frozen=True, slots=True, eq=False)
class Control:
    """The prescribed components of one point.

    Args:
        strain: (d,) components nₖ·E, NaN where the stress is prescribed.
        stress: (d,) components nₖ·S, NaN where the strain is prescribed.
        directions: (d, d) rows nₖ, or None for the entries of E and S.
    """

    strain: Array
    stress: Array
    directions: Array | None = None

    @property
    def given(self) -> npt.NDArray[np.bool_]:
        """(d,) whether the strain is prescribed."""
        return ~np.isnan(self.strain)

    @property
    def free(self) -> Array:
        """(f, d) directions of free strain, the rows of F."""
        return self._rows()[~self.given]

    @property
    def target(self) -> Array:
        """(f,) stress in these directions."""
        return self.stress[~self.given]

    def strain_from(self, strain: Array) -> Array:
        """The strain (d,) with the prescribed components, and with the free ones of `strain` (d,)."""
        if self.directions is None:
            return np.where(self.given, self.strain, strain)
        found: Array = np.where(self.given, self.strain, self.directions @ strain) @ self.directions
        return found

    def turns_inside_out(self, measure: Measure) -> bool:
        """Whether the whole strain is prescribed, and det F is not positive."""
        if len(self.free) or not measure.finite:
            return False
        return bool(measure.determinants(self.strain_from(np.zeros_like(self.strain))[None])[0] <= 0)

    def between(self, strain: Array, stress: Array, share: float, measure: Measure) -> "Control":
        """What is prescribed a `share` of the way from a strain (d,) and a stress (d,) to this control.

        The way of whole strains is that of `fe2.measure.between`, that of others is straight.
        """
        if share == 1:
            return self
        if not len(self.free):
            return Control(between(strain, self.strain_from(strain), share, measure), self.stress)
        if self.directions is not None:
            strain, stress = self.directions @ strain, self.directions @ stress
        return Control(
            strain + (self.strain - strain) * share, stress + (self.stress - stress) * share, self.directions
        )

    def __str__(self):
        parts = [("strain", self.strain), ("stress", self.stress)]
        shown = (f"{name} {np.array2string(v, precision=6)}" for name, v in parts if not np.isnan(v).all())
        return " and ".join(shown) + ("" if self.directions is None else " along the directions")

    def _rows(self) -> Array:
        return np.eye(len(self.strain)) if self.directions is None else self.directions


def controls(
    strain: npt.ArrayLike | None, stress: npt.ArrayLike | None, directions: npt.ArrayLike | None, d: int, row: str
) -> list[Control]:
    """The controls of n rows.

    Args:
        strain: (n, d), NaN where the stress is prescribed; None for NaN throughout.
        stress: (n, d), NaN where the strain is prescribed; None for NaN throughout.
        directions: (d, d), orthonormal rows, or None.
        d: number of components.
        row: what a row is, for messages: "step" or "point".

    Raises:
        ValueError: another shape, numbers that are not real or infinite, a component with both strain and stress or
            with neither, or directions that are not orthonormal.
    """
    if strain is None and stress is None:
        raise ValueError("neither strain nor stress is prescribed: need rows (n, d) of at least one of them")
    given = [None if a is None else _real(name, a) for name, a in (("strain", strain), ("stress", stress))]
    shape = next(a.shape for a in given if a is not None)
    both = [np.full(shape, np.nan) if a is None else a for a in given]
    for name, a in zip(("strain", "stress"), both):
        if a.ndim != 2 or a.shape != (shape[0], d):
            raise ValueError(f"{name} has the shape {a.shape}, need ({row}s, {d}) and the same of strain and stress")
        if np.isinf(a).any():
            k, c = np.argwhere(np.isinf(a))[0]
            raise ValueError(f"{name} of {row} {k}, component {c}, is {a[k, c]}: need a finite number, or NaN")
    wrong = np.isnan(both[0]) == np.isnan(both[1])
    if wrong.any():
        k, c = np.argwhere(wrong)[0]
        what = "neither strain nor stress" if np.isnan(both[0][k, c]) else "both strain and stress"
        raise ValueError(
            f"{row} {k}, component {c}: {what} prescribed; need exactly one of them, and NaN in the other's place"
        )
    rows = None if directions is None else _real("directions", directions)
    if rows is not None:
        if rows.shape != (d, d):
            raise ValueError(f"directions have the shape {rows.shape}, need ({d}, {d})")
        departure = abs(rows @ rows.T - np.eye(d)).max()
        if not departure <= _ORTHONORMAL:
            raise ValueError(
                f"directions are not orthonormal (by {departure:.3g}): need rows of length one at right angles, such "
                "as fe2.mandel.rotation(R).T for axes that are the columns of R"
            )
    return [Control(e, s, rows) for e, s in zip(*both)]


def point_controls(
    law: Any, strains: npt.ArrayLike | None, stress: npt.ArrayLike | None, directions: npt.ArrayLike | None
) -> list[Control]:
    """The controls of points; strains alone are checked as those of `fe2.Law.evaluate`.

    Args:
        law: a law or an RVE, with its `strain_size` and `measure`.
        strains: see `controls`, or one row (d,).
        stress: see `controls`, or one row (d,).
        directions: see `controls`.

    Raises:
        ValueError: see `controls`; strains alone that are not finite.
    """
    d, e = law.strain_size, None if strains is None else np.atleast_2d(strains)
    if e is not None and stress is None and directions is None:
        return [Control(strain, np.full(d, np.nan)) for strain in arguments.strains(e, law)]
    return controls(e, None if stress is None else np.atleast_2d(stress), directions, d, "point")


def solve_free(block: Array, right: Array, tangent: Array) -> Array:
    """The free strains (f,) that change the stresses by `right` (f,), of the stiffness `block` (f, f) against them.

    Args:
        block: F C Fᵀ.
        right: in the unit of the stress.
        tangent: (d, d) whose size says what is rounding.

    Raises:
        NoStiffness: `block` is singular to working precision.
    """
    check_stiffness(block, tangent)
    return np.linalg.solve(block, right).astype(np.float64, copy=False)


def check_stiffness(block: Array, tangent: Array) -> None:
    """Raise unless free strains have a stiffness, arguments as for `solve_free`.

    Raises:
        NoStiffness: `block` is singular to working precision.
    """
    if not len(block):
        return
    _, sizes, v = np.linalg.svd(block)
    if not sizes[-1] > _NO_STIFFNESS * np.linalg.norm(tangent):
        shown = np.array2string(v[-1], precision=3, suppress_small=True)
        raise NoStiffness(
            f"the prescribed stresses do not determine the strains: the free ones have no stiffness against {shown} "
            "(singular tangent). Prescribe a strain there, such as a rotation at finite strain"
        )


def _real(name: str, given: npt.ArrayLike) -> Array:
    found = np.asarray(given)
    if not np.can_cast(found.dtype, np.float64, "same_kind"):
        raise ValueError(f"{name} is of the type {found.dtype}, need real numbers")
    return found.astype(np.float64)
