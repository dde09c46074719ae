# SPDX-License-Identifier: MIT
"""What an RVE is, as a short record by parts: what was found for one RVE is not used for another.

Parts are texts (the boundary, the plane, the degree) or hashes. Coordinates are those in the cell's box, and materials
are what they answer at some strains and places, both as whole numbers: the record of an RVE is the same where DOLFINx,
UFL or the compiler are other ones and differ by rounding, or write the same formula in another way. Of the answers at
all points there are the means and a few sums, with weights that have no pattern: a change at any place changes them,
and few numbers can be on the edge between two whole ones.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import ufl

from fe2.body import Body, newton_local
from fe2.rve import RVE
from meshes.compat import geometry_dofmap

Array = npt.NDArray[np.float64]
Fingerprint = Mapping[str, str]

# Of all values, what they may differ by: far above rounding, far below what two cells or materials differ by.
_RESOLUTION = 1e-8
# An irrational part of a step, so that no round number lies between two whole ones, where rounding would decide.
_BETWEEN = (np.sqrt(5) - 1) / 2
# Mandel norms of the strains that materials are asked at, forwards and backwards in as many directions as there are
# components; and how many sums there are of what an answer is at all places.
_SIZES, _SUMS = (1e-3, 1e-2, 1e-1), 3


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
    body, mesh, tags = rve.body, rve.domain.mesh, rve.domain.cell_tags
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
    for tag, (stress, state) in _answers(rve).items():
        parts[f"material {tag}"] = digest(*_rounded(stress), *_rounded(state))
    return parts


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


def _answers(rve: RVE) -> dict[int, tuple[Array, Array]]:
    """Tag → summaries (strains, numbers) of the stress of its material at some strains from rest, and of the state at
    the end of the step; NaN where there is no answer. The body is left as it was.
    """
    body = rve.body
    before, memory = body.u.x.array.copy(), body.memory
    # Directions without a pattern, that no library draws in another way; from this start on none is nearly a sum of
    # the others.
    directions = np.sin((3 + np.arange(rve.strain_size**2)) ** 2.0).reshape(rve.strain_size, -1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    strains = [sign * size * unit for size in _SIZES for unit in directions for sign in (1, -1)]
    answers = {}
    for k, tag in enumerate(body.materials):
        # Each phase by itself, so that the weights of its points are let go.
        summary, found = _Summary(), []
        for strain in strains:
            body.u.x.array[:] = rve.affine @ strain
            found.append(_answer(body, k, summary))
        stress, state = zip(*found, strict=True)
        answers[tag] = np.array(stress), np.array(state)
    body.u.x.array[:], body.memory = before, memory
    return answers


def _answer(body: Body, k: int, summary: "_Summary") -> tuple[Array, Array]:
    """Summaries of the stress and of the new state of the k-th phase from rest, at the present displacement."""
    phase = body._phases[k]
    cells = phase.cells
    bad = False
    if phase.memory_size:
        body._rows(phase)[cells] = 0.0
        if phase.local_size:
            local, correction = body._rows(phase, "local"), body._corrections[phase]
            bad = bool(newton_local(local, cells, lambda: body._evaluate(correction, cells)).failed.any())

    def answer(expression) -> Array:
        values = body._evaluate(expression, cells)
        return summary(np.full_like(values, np.nan) if bad else values)

    stress = answer(body._stresses[k])
    return stress, answer(body._updates[phase]) if phase.state_size else np.zeros(0)


class _Summary:
    """Of a field (cells, points, components) its means, and weighted sums of what it is off them at each place.

    A field that is the same everywhere has no such sums, whatever its points are. Each sum has weights of its own for
    all points and components, divided by the root of their count: a change of one number is then seen among millions.
    """

    def __init__(self) -> None:
        self._weights = dict[int, Array]()

    def __call__(self, values: Array) -> Array:
        """The means (components,) and the sums (_SUMS,); NaN if any value is not finite."""
        rows = values.reshape(-1, values.shape[-1])
        if not np.isfinite(rows).all():
            return np.full(rows.shape[1] + _SUMS, np.nan)
        means = rows.mean(axis=0)
        if rows.size not in self._weights:
            squares = np.arange(1, 1 + rows.size) ** 2.0
            self._weights[rows.size] = np.sin(np.outer(1 + np.arange(_SUMS), squares)) / np.sqrt(rows.size)
        return np.concatenate([means, self._weights[rows.size] @ (rows - means).ravel()])


def _whole(rve: RVE) -> str:
    """One SHA-256 of all: mesh, tags, formulas and parameters of the materials, plane, boundary, element."""
    body, mesh = rve.body, rve.domain.mesh
    tags = rve.domain.cell_tags
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
