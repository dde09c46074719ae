# SPDX-License-Identifier: MIT
"""Checks of the arguments of laws, the same for all of them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fe2.measure import measure_of

Array = npt.NDArray[np.float64]


def strains(given: npt.ArrayLike, law: Any) -> Array:
    """Strains (n, d) as float64.

    Args:
        given: the strains.
        law: a law or an RVE, with its `strain_size` and, unless it is small strain, its `measure`.

    Raises:
        ValueError: another shape, complex numbers, or some that are not finite.
    """
    found, d, measure = np.asarray(given), law.strain_size, measure_of(law)
    if found.ndim != 2 or found.shape[1] != d:
        tensors = found.ndim > 1 and found.shape[-1] == found.shape[-2]
        hint = ""
        if measure.finite:
            hint = "; `H.reshape(-1, dim * dim)` makes them of tensors" * tensors
        elif not measure.scalar:
            hint = "; fe2.mandel.vector makes them of symmetric tensors, and F − I is no small strain" * tensors
        raise ValueError(f"strains have the shape {found.shape}, need (n, {d}) {measure.component_names}{hint}")
    if not np.can_cast(found.dtype, np.float64, "same_kind"):
        raise ValueError(f"strains are of the type {found.dtype}, need real numbers")
    found = found.astype(np.float64, copy=False)
    if not np.isfinite(found).all():
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        raise ValueError(
            f"the strain of point {bad[0]} is {found[bad[0]].tolist()}, need finite numbers; {bad.size} of "
            f"{len(found)} points have others"
        )
    return found


def check_rows(law: Any, strain: npt.ArrayLike, state: Array, guess: Array) -> None:
    """Check the strain, the state and the guess of `fe2.Law.evaluate`.

    Args:
        law: the law, with the sizes of its rows.
        strain: (n, d).
        state: (n, state_size).
        guess: (n, state_size).

    Raises:
        ValueError: strains or rows of another shape, not real or not finite.
    """
    n, name = len(strains(strain, law)), type(law).__name__
    for what, given in (("state", state), ("guess", guess)):
        state_rows(name, what, given, (n, law.state_size))


def state_rows(name: str, what: str, given: Array, shape: tuple[int, int]) -> None:
    """Raise unless the rows are an array of finite real numbers with the given shape.

    Args:
        name: of the law.
        what: "state" or "guess".
        given: the rows.
        shape: (n, state_size).

    Raises:
        ValueError: another shape or type, or numbers that are not finite.
    """
    kind = np.asarray(given).dtype
    if np.shape(given) != shape or not np.can_cast(kind, np.float64, "same_kind"):
        raise ValueError(
            f"{name}: {what} has the shape {np.shape(given)} of {kind}, need {shape} real numbers, as `initial_state` "
            "and the last response return them"
        )
    finite = np.isfinite(given)
    if not finite.all():
        bad = np.flatnonzero(~finite.all(axis=1))
        k = int(np.argmin(finite[bad[0]]))
        raise ValueError(
            f"{name}: the row of point {bad[0]} of {what} has {np.asarray(given)[bad[0], k]} as its number {k}, need "
            f"finite numbers; {bad.size} of {shape[0]} points have others. A point that failed has no row to use"
        )
