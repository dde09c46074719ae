# SPDX-License-Identifier: MIT
"""Checks at zero strain: wrong signs of materials, energies that a rotation changes, and elements that lock."""

import warnings
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fe2.body import Body, LocalError
from fe2.measure import Measure

# Poisson's ratio from which on linear elements are warned against. Around a stiff inclusion C11 − C12 of triangles and
# quadrilaterals (a tenth and a sixteenth of the RVE) is 2 % too high at 0.3, 14 % at 0.48, 110 to 170 % at 0.499.
# In rubber with such an inclusion, ratio 0.4999, triangles of degree 2 are 8 % and quadrilaterals 25 % too stiff.
_NEARLY_INCOMPRESSIBLE = {1: 0.48, 2: 0.499}

# A negative stiffness below this, relative to the largest, counts as rounding.
_ROUNDING = 1e-10

# A stress above this fraction of the stiffness tells that a rotation does not turn the stress with it.
_OBJECTIVE = 1e-8


def check_at_zero_strain(body: Body, names: Mapping[str, int]) -> None:
    """Reject a stiffness at zero strain that is not positive and energies of F that are not objective; warn of locking.

    The displacement of the body is zero afterwards. A stiffness that is not finite is accepted: some solvable
    problems have none at zero strain.

    Args:
        body: the body.
        names: name → tag, for messages.

    Raises:
        ValueError: moving one node, with all others held, lowers the energy. A material with the wrong sign does that;
            elliptic ones do not, also with zero or negative bulk stiffness. Or see `check_objective`.
    """
    called = {tag: f'tag {tag} ("{name}")' for name, tag in names.items()}
    memory = body.memory
    body.u.x.array[:] = 0.0
    try:
        body.find_local()
        _check_positive(body, called)
        if body.measure.finite:
            _check_objective(body, called)
        if body.V.element.basix_element.degree in _NEARLY_INCOMPRESSIBLE and body.dilatation is None:
            _warn_of_locking(body, called)
    except LocalError:
        pass  # raised again where a strain is evaluated
    finally:
        body.memory = memory


def check_elliptic(tangent: npt.NDArray[np.float64], name: str, measure: Measure) -> None:
    """Reject a tangent at zero strain for which a plane wave lowers the energy.

    A tangent that is not finite, zero, or elliptic with negative bulk stiffness is accepted. Directions are sampled,
    which suffices to find a wrong sign.

    Args:
        tangent: (d, d) [MPa].
        name: of the material.
        measure: of the material.

    Raises:
        ValueError: names the direction n and the lowest eigenvalue of the acoustic tensor n·C·n.
    """
    if not np.isfinite(tangent).all():
        return
    dim = measure.dimension(len(tangent))
    lattice = np.array(list(np.ndindex(*[5] * dim)), dtype=np.float64) - 2.0
    lattice = lattice[np.any(lattice != 0, axis=1)]
    normals = lattice / np.linalg.norm(lattice, axis=1, keepdims=True)
    waves = np.einsum("kij,nj->nki", measure.basis(dim), normals)  # strains (n, d, dim) of waves along each axis
    lowest = np.linalg.eigvalsh(waves.swapaxes(1, 2) @ ((tangent + tangent.T) / 2) @ waves)[:, 0]
    worst = int(lowest.argmin())
    if lowest[worst] < -_ROUNDING * abs(tangent).max():
        raise ValueError(
            f"the stiffness of {name} at zero strain is not positive: a wave in the direction "
            f"{np.array2string(normals[worst], precision=3)} lowers the energy (stiffness {lowest[worst]:.3g}). Is the "
            "sign of the energy right, and are the moduli positive?"
        )


def rotation(dim: int) -> npt.NDArray[np.float64]:
    """A rotation (dim, dim) about no particular axis, by half a radian."""
    c, s = np.cos(0.5), np.sin(0.5)
    in_plane = np.array([[c, -s], [s, c]])
    if dim == 2:
        return in_plane
    first, second = np.eye(3), np.eye(3)
    first[:2, :2], second[1:, 1:] = in_plane, in_plane
    found: npt.NDArray[np.float64] = first @ second
    return found


def check_objective(
    at_rest: npt.NDArray[np.float64], turned: npt.NDArray[np.float64], scale: float, name: str
) -> None:  # fmt: skip
    """Reject stresses of F = Q, with Q of `rotation`, that are not those of F = I, turned by Q.

    Args:
        at_rest: (n, d) at F = I [MPa].
        turned: (n, d) at F = Q [MPa].
        scale: a stiffness [MPa].
        name: of the material.

    Raises:
        ValueError: the material's energy is no function of FᵀF.
    """
    q = rotation(2 if at_rest.shape[1] == 4 else 3)
    error = turned - (q @ at_rest.reshape(-1, *q.shape)).reshape(turned.shape)
    if np.isfinite(error).all() and abs(error).max(initial=0.0) > _OBJECTIVE * scale:
        raise ValueError(
            f"the energy of {name} is not objective: a rotation alone changes its stress by {abs(error).max():.3g} "
            "MPa. Is it a function of FᵀF, such as of ufl.tr(F.T * F) and ufl.det(F), and is its argument F, not F − I?"
        )


def _check_objective(body: Body, called: Mapping[int, str]) -> None:
    at_rest = body.stress()
    scale = abs(body.stiffness().data).max(initial=0.0) / (body.weights.sum() ** ((body.dim - 2) / body.dim) or 1.0)
    body.u.x.array[:] = body.affine() @ (rotation(body.dim) - np.eye(body.dim)).ravel()
    try:
        body.find_local()
        turned = body.stress()
    finally:
        body.u.x.array[:] = 0.0
    for tag, material in body.materials.items():
        cells, d = body.phase_cells(tag), at_rest.shape[2]
        name = f"{type(material).__name__} of {called.get(tag, f'tag {tag}')}"
        check_objective(at_rest[cells].reshape(-1, d), turned[cells].reshape(-1, d), scale, name)


def _check_positive(body: Body, called: Mapping[int, str]) -> None:
    matrix = body.stiffness()
    rows = np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr))
    blocks = matrix.data[rows == matrix.indices]  # (nodes, dim, dim)
    finite = np.isfinite(blocks).all(axis=(1, 2))
    if not finite.any():
        return
    lowest = np.zeros(len(blocks))
    lowest[finite] = np.linalg.eigvalsh((blocks + blocks.swapaxes(1, 2))[finite] / 2)[:, 0]
    # Relative to the largest stiffness of the body: a block may be nothing but rounding.
    node = int(lowest.argmin())
    if lowest[node] >= -_ROUNDING * abs(blocks[finite]).max():
        return
    cells = np.flatnonzero((body.V.dofmap.list == node).any(axis=1))
    tags = [tag for tag in body.materials if np.isin(cells, body.phase_cells(tag)).any()]
    phases = " and ".join(f"{type(body.materials[tag]).__name__} of {called.get(tag, f'tag {tag}')}" for tag in tags)
    x = np.array2string(body.V.tabulate_dof_coordinates()[node, : body.dim], precision=6)
    raise ValueError(
        f"the stiffness at zero strain is not positive: moving the node at x = {x} alone lowers the energy (stiffness "
        f"{lowest[node]:.3g}). It belongs to {phases}: is the sign of the energy right, and are the moduli positive?"
    )


def _warn_of_locking(body: Body, called: Mapping[int, str]) -> None:
    dim, degree = body.dim, body.V.element.basix_element.degree
    if body.measure.scalar or (degree == 2 and body.plane == "stress"):
        return
    simplices = body.mesh.basix_cell().name in ("triangle", "tetrahedron")
    joined = "with" if simplices else "or"
    more = "" if body.plane == "stress" else f' {joined} element="mean dilatation"'
    remedy = f"far too stiff: use degree=2{more}" if degree == 1 else 'too stiff: use element="mean dilatation"'
    small = body.measure.stretches(dim)
    for tag, found in body.phase_tangents().items():
        tangent = small @ found @ small.T
        volumetric = np.concatenate([np.ones(dim), np.zeros(len(tangent) - dim)]) / np.sqrt(dim)
        deviatoric = np.eye(len(tangent)) - np.outer(volumetric, volumetric)
        if not np.isfinite(tangent).all():
            continue
        bulk = volumetric @ tangent @ volumetric  # 2 (λ + μ) in plane strain, 3 λ + 2 μ in 3D
        shear = np.linalg.eigvalsh(deviatoric @ (tangent + tangent.T) @ deviatoric / 2)[-1]  # 2 μ, the largest if many
        first = 2 / dim * (bulk - shear)  # 2 λ
        poisson = first / (2 * (first + shear)) if shear > 0 and first > 0 else 0.0
        if poisson >= _NEARLY_INCOMPRESSIBLE[degree]:
            warnings.warn(
                f"{type(body.materials[tag]).__name__} of {called.get(tag, f'tag {tag}')} is nearly incompressible "
                f"(Poisson's ratio {poisson:.4g} at zero strain), and elements of degree {degree} are then {remedy}",
                stacklevel=5,
            )
