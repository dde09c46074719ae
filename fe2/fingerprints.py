# SPDX-License-Identifier: MIT
"""What an RVE is, as a short record by parts: what was found for one RVE is not used for another.

Parts are texts (the boundary, the plane, the degree) or hashes. Coordinates are those in the cell's box, and materials
are what they answer at some strains, both as whole numbers: the record of an RVE is the same where DOLFINx, UFL or the
compiler are other ones and differ by rounding, or write the same formula in another way.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import ufl

from fe2.body import Body, newton_local
from fe2.rve import RVE
from meshes._compat import geometry_dofmap

Array = npt.NDArray[np.float64]
Fingerprint = Mapping[str, str]

# Of all values, what they may differ by: far above rounding, far below what two cells or materials differ by.
_RESOLUTION = 1e-8
# An irrational part of a step, so that no round number lies between two whole ones, where rounding would decide.
_BETWEEN = (np.sqrt(5) - 1) / 2
# Mandel norms of the strains that materials are asked at, some in each of several directions.
_SIZES, _DIRECTIONS = (1e-3, 1e-2, 1e-1), 2


def digest(*values: npt.ArrayLike | str) -> str:
    """SHA-256, in hexadecimal, of arrays (their shapes, types and bytes) and strings."""
    total = hashlib.sha256()
    for value in values:
        if not isinstance(value, str):
            value = np.ascontiguousarray(value)
            total.update(f"{value.shape} {value.dtype.str}".encode())
            total.update(value.tobytes())
        else:
            total.update(f"{len(value)} {value}".encode())
    return total.hexdigest()


def fingerprint(rve: RVE) -> dict[str, str]:
    """What decides about the snapshots of an RVE, by parts.

    mesh: shape, size and numbering of the cell. period: its lattice vectors. phases: tags of its cells. material 1,
    ...: of each tag. boundary. plane: in two dimensions. degree: of the displacement. numbering: of its degrees of
    freedom, and the quadrature. whole: all in one, as it was before there were parts, which compares with old files.
    """
    body, mesh, tags = rve.body, rve.cell.mesh, rve.cell.cell_tags
    x = mesh.geometry.x[:, : body.dim] - mesh.geometry.x[:, : body.dim].min(axis=0)
    parts = {
        "mesh": digest(mesh.basix_cell().name, geometry_dofmap(mesh).astype(np.int64), *_rounded(x)),
        "phases": digest(tags.indices.astype(np.int64), tags.values.astype(np.int64)),
        "period": digest(*_rounded(rve.period)),
        "boundary": rve.boundary,
        "degree": str(body.V.element.basix_element.degree),
        "numbering": digest(body.V.dofmap.list.astype(np.int64), *_rounded(body.points)),
        "whole": _whole(rve),
    }
    if body.dim == 2:
        parts["plane"] = body.plane
    return parts | {f"material {tag}": digest(*_rounded(values)) for tag, values in _answers(rve).items()}


def differences(a: Fingerprint, b: Fingerprint) -> str:
    """What two RVEs with these fingerprints differ in, such as "mesh, degree (1 and 2)"; empty if they are the same.

    Only parts that both have are compared: a file may be older than a part.
    """
    parts = sorted((a.keys() & b.keys()) - {"whole"}) or ["whole"]
    different = [part for part in parts if a.get(part) != b.get(part)]
    if different == ["whole"]:
        return "mesh, materials, boundary or degree"
    return ", ".join(f"{part} ({a[part]} and {b[part]})" if len(a[part]) < 64 else part for part in different)


def _rounded(values: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Whole numbers that stand for values, relative to their largest, and for how large that is."""
    known = np.isfinite(values)
    size = float(abs(values[known]).max(initial=0.0)) or 1.0
    steps = np.full(values.shape, np.iinfo(np.int64).min)
    steps[known] = np.floor(values[known] / size / _RESOLUTION + _BETWEEN).astype(np.int64)
    return steps, np.floor(np.array([np.log(size) / _RESOLUTION + _BETWEEN])).astype(np.int64)


def _answers(rve: RVE) -> dict[int, Array]:
    """Tag → stress, and state at the end of a step, of its material at some strains from rest; NaN where it has none.

    The body is left as it was.
    """
    body = rve.body
    before, memory = body.u.x.array.copy(), body.memory
    # Directions without a pattern, that no library draws in another way.
    directions = np.sin(1 + np.arange(_DIRECTIONS * rve.strain_size) ** 2.0).reshape(_DIRECTIONS, -1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    answers: dict[int, list[Array]] = {tag: [] for tag in body.materials}
    for strain in (size * unit for size in _SIZES for unit in directions):
        body.u.x.array[:] = rve.affine @ strain
        for k, tag in enumerate(body.materials):
            answers[tag].append(_answer(body, k))
    body.u.x.array[:], body.memory = before, memory
    return {tag: np.array(values) for tag, values in answers.items()}


def _answer(body: Body, k: int) -> Array:
    """Stress and new state of the k-th phase from rest, as means over its points: it may differ from place to place."""
    phase = body._phases[k]
    cells = phase.cells
    bad = False
    if phase.memory_size:
        rows = body._rows(phase)
        rows[cells] = 0.0
        if phase.local_size:
            local, correction = rows[..., phase.state_size :], body._corrections[phase]
            found, _ = newton_local(local, cells, lambda: body._evaluate(correction, cells), 1e-13, 60)
            bad = bool(found.any())
    values = [body._evaluate(body._stresses[k], cells).mean(axis=(0, 1))]
    if phase.state_size:
        values.append(body._evaluate(body._updates[phase], cells).mean(axis=(0, 1)))
    return np.full(sum(map(len, values)), np.nan) if bad else np.concatenate(values)


def _whole(rve: RVE) -> str:
    """One SHA-256 of all: mesh, tags, formulas and parameters of the materials, plane, boundary, element."""
    body, mesh = rve.body, rve.cell.mesh
    tags = rve.cell.cell_tags
    values = [rve.boundary, str(body.V.ufl_element()), mesh.geometry.x, geometry_dofmap(mesh), body.V.dofmap.list]
    values += [tags.indices, tags.values, body.points]
    dx = ufl.Measure("dx", domain=mesh)
    for phase in body._phases:
        # UFL's signature names the formula and its literals; the parameters are constants, with values of their own.
        form = ufl.inner(phase.stress, phase.stress) * dx
        if phase.local_size:
            form += ufl.inner(phase.local_residual, phase.local_residual) * dx
        if phase.state_size:
            form += sum(u * u for u in phase.updated) * dx
        values += [phase.cells, form.signature(), *(c.value for c in form.constants())]
    return digest(*values)
