# SPDX-License-Identifier: MIT
"""Samples of macroscopic strains: at random, in a Latin hypercube, of a Sobol sequence, along straight paths."""

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used: scipy.stats takes 0.2 s

from fe2 import mandel

Array = npt.NDArray[np.float64]


def box(n: int, dim: int, amplitude: npt.ArrayLike, *, seed: int = 0) -> Array:
    """Independent, uniformly distributed Mandel strains (n, d).

    Args:
        n: number of strains.
        dim: space dimension.
        amplitude: half the side of the box around zero, one number or one for each Mandel component (d,).
        seed: of the random numbers; equal seeds give equal strains.

    Raises:
        ValueError: n < 1, dim other than 1, 2, 3, or an amplitude that is not positive, finite and of that shape.
    """
    half = _amplitudes(dim, amplitude, n=n)
    return half * np.random.default_rng(seed).uniform(-1.0, 1.0, (n, half.size))


def latin_hypercube(n: int, dim: int, amplitude: npt.ArrayLike, *, seed: int = 0) -> Array:
    """Latin hypercube of Mandel strains (n, d): one value of each component in each of n equal intervals; see `box`."""
    half = _amplitudes(dim, amplitude, n=n)
    return half * (2.0 * scipy.stats.qmc.LatinHypercube(half.size, seed=np.random.default_rng(seed)).random(n) - 1.0)


def sobol(n: int, dim: int, amplitude: npt.ArrayLike, *, seed: int = 0) -> Array:
    """The first n points (n, d) of a scrambled Sobol sequence of Mandel strains, any n; see `box`."""
    half = _amplitudes(dim, amplitude, n=n)
    sequence = scipy.stats.qmc.Sobol(half.size, seed=np.random.default_rng(seed))
    return half * (2.0 * sequence.random_base2((n - 1).bit_length())[:n] - 1.0)


def radial(directions: int, steps: int, dim: int, amplitude: float, *, seed: int = 0) -> Array:
    """Mandel strains (directions * steps, d) along straight paths from zero, path by path, growing along each.

    Args:
        directions: number of paths, whose directions are uniformly distributed over the unit sphere of Mandel vectors.
        steps: strains on each path, at equal distances.
        dim: space dimension.
        amplitude: Mandel norm of the last strain of each path.
        seed: of the random numbers.

    Raises:
        ValueError: see `box`.
    """
    if np.ndim(amplitude) != 0:
        raise ValueError(f"amplitude = {amplitude!r}: need one number, the norm of the largest strains")
    d = _amplitudes(dim, amplitude, directions=directions, steps=steps).size
    unit = np.random.default_rng(seed).standard_normal((directions, d))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return (float(amplitude) * np.arange(1, steps + 1)[None, :, None] / steps * unit[:, None, :]).reshape(-1, d)


def _amplitudes(dim: int, amplitude: npt.ArrayLike, **counts: int) -> Array:
    """Amplitudes of all Mandel components (d,), the arguments checked."""
    for name, value in counts.items():
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} = {value!r}: need a whole number of at least 1")
    if dim not in (1, 2, 3):
        raise ValueError(f"dim = {dim!r}: need 1, 2 or 3")
    half = np.asarray(amplitude, dtype=np.float64)
    d = mandel.size(dim)
    if half.shape not in ((), (d,)) or not (np.isfinite(half).all() and (half > 0).all()):
        raise ValueError(f"amplitude = {amplitude!r}: need one positive number, or {d} of them")
    return np.broadcast_to(half, (d,))
