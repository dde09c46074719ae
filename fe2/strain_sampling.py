# SPDX-License-Identifier: MIT
"""Samples of macroscopic strains: at random, in a Latin hypercube, of a Sobol sequence, along straight paths.

The samples fill the components of a measure: Mandel components of the small strain, those of the gradient of a scalar,
and, since laws at finite strain are objective, for the displacement gradient the s Mandel components of pure stretches
U − I, whose rows are H = U − I.
"""

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used: scipy.stats takes 0.2 s

from fe2.measure import Measure, measure_named

Array = npt.NDArray[np.float64]


def box(n: int, dim: int, amplitude: npt.ArrayLike, *, seed: int = 0, measure: str | Measure = "small strain") -> Array:
    """Independent, uniformly distributed strains (n, d).

    Args:
        n: number of strains.
        dim: space dimension.
        amplitude: half the side of the box around zero, one number or one for each component: (d,), or (s,) of U − I.
        seed: of the random numbers; equal seeds give equal strains.
        measure: "small strain", "displacement gradient" or "gradient", see the head of this module.

    Raises:
        ValueError: n < 1, dim other than 1, 2, 3, an amplitude that is not positive, finite and of that shape, another
            measure, or a box with stretches that are not positive.
    """
    half, basis = _box(dim, amplitude, measure, n=n)
    return (half * np.random.default_rng(seed).uniform(-1.0, 1.0, (n, half.size))) @ basis


def latin_hypercube(
    n: int, dim: int, amplitude: npt.ArrayLike, *, seed: int = 0, measure: str | Measure = "small strain"
) -> Array:
    """Latin hypercube of strains (n, d): one value of each component in each of n equal intervals; see `box`."""
    half, basis = _box(dim, amplitude, measure, n=n)
    unit = scipy.stats.qmc.LatinHypercube(half.size, seed=np.random.default_rng(seed)).random(n)
    return (half * (2.0 * unit - 1.0)) @ basis


def sobol(
    n: int, dim: int, amplitude: npt.ArrayLike, *, seed: int = 0, measure: str | Measure = "small strain"
) -> Array:
    """The first n points (n, d) of a scrambled Sobol sequence of strains, any n; see `box`."""
    half, basis = _box(dim, amplitude, measure, n=n)
    sequence = scipy.stats.qmc.Sobol(half.size, seed=np.random.default_rng(seed))
    return (half * (2.0 * sequence.random_base2((n - 1).bit_length())[:n] - 1.0)) @ basis


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
        directions: number of paths, whose directions are uniformly distributed over the unit sphere of the components.
        steps: strains on each path, at equal distances.
        dim: space dimension.
        amplitude: norm of the last strain of each path.
        seed: of the random numbers.
        measure: see `box`.

    Raises:
        ValueError: see `box`.
    """
    if np.ndim(amplitude) != 0:
        raise ValueError(f"amplitude = {amplitude!r}: need one number, the norm of the largest strains")
    named, d = _components(dim, measure, directions=directions, steps=steps)
    _amplitudes(dim, amplitude, d)
    if named.finite and amplitude >= 1:
        raise ValueError(f"amplitude = {amplitude!r}: a stretch U with a norm of U − I from 1 on need not be positive")
    unit = np.random.default_rng(seed).standard_normal((directions, d))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    sizes = float(amplitude) * np.arange(1, steps + 1)[None, :, None] / steps
    return (sizes * unit[:, None, :]).reshape(-1, d) @ named.stretches(dim)


def _components(dim: int, measure: str | Measure, **counts: int) -> tuple[Measure, int]:
    """The measure and the number of the components that are sampled, the arguments checked."""
    for name, value in counts.items():
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} = {value!r}: need a whole number of at least 1")
    if dim not in (1, 2, 3):
        raise ValueError(f"dim = {dim!r}: need 1, 2 or 3")
    named = measure_named(measure)
    return named, len(named.stretches(dim))


def _amplitudes(dim: int, amplitude: npt.ArrayLike, d: int) -> Array:
    """Amplitudes of all components (d,), checked."""
    half = np.asarray(amplitude, dtype=np.float64)
    if half.shape not in ((), (d,)) or not (np.isfinite(half).all() and (half > 0).all()):
        raise ValueError(f"amplitude = {amplitude!r}: need one positive number, or {d} of them")
    return np.broadcast_to(half, (d,))


def _box(dim: int, amplitude: npt.ArrayLike, measure: str | Measure, **counts: int) -> tuple[Array, Array]:
    """Amplitudes (s,), and the strains (s, d) of unit components."""
    named, d = _components(dim, measure, **counts)
    half, basis = _amplitudes(dim, amplitude, d), named.stretches(dim)
    if named.finite:
        # U is positive in the whole box if it is at the corners, as its smallest eigenvalue is a concave function.
        corners = half * (2.0 * np.array(list(np.ndindex(*[2] * d))) - 1.0)
        lowest = float(np.linalg.eigvalsh(np.eye(dim) + named.tensors(corners @ basis)).min())
        if lowest <= 0:
            raise ValueError(
                f"amplitude = {amplitude!r}: the box of U − I has stretches U with the eigenvalue {lowest:.3g}; all "
                "must be positive"
            )
    return half, basis
