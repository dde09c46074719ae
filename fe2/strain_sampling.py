# SPDX-License-Identifier: MIT
"""Samples of macroscopic strains: at random, in a Latin hypercube, of a Sobol sequence, along straight paths.

A law at finite strain depends on the stretch U alone: the sampled displacement gradients are those of U − I, without
rotation, and amplitudes are those of its Mandel components.
"""

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used: scipy.stats takes 0.2 s

from fe2 import mandel
from fe2.measure import Measure, measure_named

Array = npt.NDArray[np.float64]


def box(n: int, dim: int, amplitude: npt.ArrayLike, *, seed: int = 0, measure: str | Measure = "small strain") -> Array:
    """Independent, uniformly distributed strains (n, d).

    Args:
        n: number of strains.
        dim: space dimension.
        amplitude: half the side of the box around zero, one number or one for each component: those of the strain,
            in Mandel components at small strain, or those of U − I at finite strain.
        seed: of the random numbers; equal seeds give equal strains.
        measure: of the strains, such as `rve.measure`.

    Raises:
        ValueError: n < 1, dim other than 1, 2, 3, or an amplitude that is not positive, finite and of that shape; a
            measure that does not exist, or not in this dimension.
    """
    found = _Box(dim, amplitude, measure, n=n)
    return found.strains(np.random.default_rng(seed).uniform(-1.0, 1.0, (n, found.half.size)))


def latin_hypercube(
    n: int, dim: int, amplitude: npt.ArrayLike, *, seed: int = 0, measure: str | Measure = "small strain"
) -> Array:
    """Latin hypercube of strains (n, d): one value of each component in each of n equal intervals; see `box`."""
    found = _Box(dim, amplitude, measure, n=n)
    cube = scipy.stats.qmc.LatinHypercube(found.half.size, seed=np.random.default_rng(seed))
    return found.strains(2.0 * cube.random(n) - 1.0)


def sobol(
    n: int, dim: int, amplitude: npt.ArrayLike, *, seed: int = 0, measure: str | Measure = "small strain"
) -> Array:
    """The first n points (n, d) of a scrambled Sobol sequence of strains, any n; see `box`."""
    found = _Box(dim, amplitude, measure, n=n)
    sequence = scipy.stats.qmc.Sobol(found.half.size, seed=np.random.default_rng(seed))
    return found.strains(2.0 * sequence.random_base2((n - 1).bit_length())[:n] - 1.0)


def radial(
    directions: int,
    steps: int,
    dim: int,
    amplitude: float,
    *,
    seed: int = 0,
    measure: str | Measure = "small strain",
) -> Array:
    """Strains (directions * steps, d) along straight paths from zero, path by path, growing along each.

    Args:
        directions: number of paths, whose directions are uniformly distributed over the unit sphere of components.
        steps: strains on each path, at equal distances.
        dim: space dimension.
        amplitude: norm of the last strain of each path.
        seed: of the random numbers.
        measure: as in `box`.

    Raises:
        ValueError: see `box`.
    """
    if np.ndim(amplitude) != 0:
        raise ValueError(f"amplitude = {amplitude!r}: need one number, the norm of the largest strains")
    found = _Box(dim, amplitude, measure, directions=directions, steps=steps)
    unit = np.random.default_rng(seed).standard_normal((directions, found.half.size))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    sizes = np.arange(1, steps + 1)[None, :, None] / steps
    return found.strains((sizes * unit[:, None, :]).reshape(-1, found.half.size))


class _Box:
    """Amplitudes of all components (s,), the arguments checked, and how components are strains."""

    def __init__(self, dim: int, amplitude: npt.ArrayLike, measure: str | Measure, **counts: int):
        for name, value in counts.items():
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} = {value!r}: need a whole number of at least 1")
        found = measure_named(measure)
        allowed = (2, 3) if found.finite else (1, 2, 3)
        if dim not in allowed:
            shown = "1, 2 or 3" if 1 in allowed else "2 or 3"
            raise ValueError(f"dim = {dim!r}: need {shown}")
        half = np.asarray(amplitude, dtype=np.float64)
        s = found.size(dim) if not found.finite else mandel.size(dim)
        if half.shape not in ((), (s,)) or not (np.isfinite(half).all() and (half > 0).all()):
            raise ValueError(f"amplitude = {amplitude!r}: need one positive number, or {s} of them")
        self.half = np.broadcast_to(half, (s,))
        self._spanned = found.stretches(dim) if found.finite else None

    def strains(self, unit: Array) -> Array:
        """Strains (n, d) of components (n, s) in units of the amplitudes."""
        scaled = self.half * unit
        return scaled if self._spanned is None else np.asarray(scaled @ self._spanned)
