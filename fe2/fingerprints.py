# SPDX-License-Identifier: MIT
"""Fingerprints of RVEs, so that results for one RVE are not used for another.

Parts of a fingerprint are texts (boundary, plane, degree) or hashes. Coordinates are relative to the box of the RVE,
and materials are identified by their responses at some strains, both rounded to integers: the fingerprint does not
depend on rounding, hence not on the versions of DOLFINx, UFL or the compiler, nor on how a formula is written. The
responses at all points enter by their means and a few sums with irregular weights: a change at any point changes these,
and few numbers can lie on the edge between two integers.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import ufl

from fe2.body import Body
from fe2.local_newton import newton_local
from fe2.measure import SMALL_STRAIN
from fe2.rve import RVE
from meshes.compat import geometry_dofmap

Array = npt.NDArray[np.float64]
Fingerprint = Mapping[str, str]

# Resolution of all values: far above rounding, far below the differences of two RVEs or materials.
_RESOLUTION = 1e-8
# Irrational part of a step, so that no round number lies on the edge between two integers.
_BETWEEN = (np.sqrt(5) - 1) / 2
# Mandel norms of the strains of the responses, with both signs in as many directions as there are components; and the
# number of weighted sums of a response over all points.
_SIZES, _SUMS = (1e-3, 1e-2, 1e-1), 3

# The element of a fingerprint without one.
_PLAIN = "displacement"


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
    """Everything that snapshots of an RVE depend on, by parts.

    Returns:
        mesh: shape, size and numbering of the mesh;
        period: lattice vectors;
        phases: tags of the cells;
        material 1, ...: of each tag;
        boundary, and in two dimensions plane;
        degree: of the displacement;
        element: where it is not the plain one;
        numbering: of the degrees of freedom, and the quadrature;
        whole: all in one, for files of the first format.

    Raises:
        ValueError: a material that depends on time, so that its response to a strain is not one response.
    """
    for tag, material in rve.body.materials.items():
        if material.rate_dependent:
            raise ValueError(
                f"the material of tag {tag}, {type(material).__name__}, depends on time: snapshots and models have "
                "responses that are functions of the strain alone"
            )
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
    if body.measure is not SMALL_STRAIN:  # older files have no measure
        parts["measure"] = body.measure.name
    if body.element != _PLAIN:  # older files have no element
        parts["element"] = body.element
    if body.dim == 2:
        parts["plane"] = body.plane
    for tag, (stress, state) in _responses(rve).items():
        parts[f"material {tag}"] = digest(*_rounded(stress), *_rounded(state))
    return parts


def differences(a: Fingerprint, b: Fingerprint) -> str:
    """Differences of two fingerprints, such as "mesh, degree (1 and 2)"; empty if there are none.

    Only parts of both are compared: a file may be older than a part. Without an element it is the plain one.
    """
    if "mesh" in a and "mesh" in b and "element" in {*a, *b}:
        a, b = {"element": _PLAIN, **a}, {"element": _PLAIN, **b}
    parts = sorted((a.keys() & b.keys()) - {"whole"}) or ["whole"]
    different = [part for part in parts if a.get(part) != b.get(part)]
    if different == ["whole"]:
        return "mesh, materials, boundary or degree"
    return ", ".join(f"{part} ({a[part]} and {b[part]})" if len(a[part]) < 64 else part for part in different)


def _rounded(values: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Integers for the values, relative to the largest, and for the logarithm of the largest."""
    known = np.isfinite(values)
    size = float(abs(values[known]).max(initial=0.0)) or 1.0
    steps = np.full(values.shape, np.iinfo(np.int64).min)
    steps[known] = np.floor(values[known] / size / _RESOLUTION + _BETWEEN).astype(np.int64)
    return steps, np.floor(np.array([np.log(size) / _RESOLUTION + _BETWEEN])).astype(np.int64)


def _responses(rve: RVE) -> dict[int, tuple[Array, Array]]:
    """Tag → summaries (strains, numbers) of stress and new state of its material after a first step to some strains.

    NaN where the material has no solution. The body is restored.
    """
    body = rve.body
    before, memory = body.u.x.array.copy(), body.memory
    # Irregular directions that depend on no library's random numbers; from this start on they are well conditioned.
    directions = np.sin((3 + np.arange(rve.strain_size**2)) ** 2.0).reshape(rve.strain_size, -1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    strains = [sign * size * unit for size in _SIZES for unit in directions for sign in (1, -1)]
    responses = {}
    for k, tag in enumerate(body.materials):
        # Phase by phase, to free the weights of its points.
        summary, found = _Summary(), []
        for strain in strains:
            body.u.x.array[:] = rve.affine @ strain
            found.append(_response(body, k, summary))
        stress, state = zip(*found, strict=True)
        responses[tag] = np.array(stress), np.array(state)
    body.u.x.array[:], body.memory = before, memory
    return responses


def _response(body: Body, k: int, summary: "_Summary") -> tuple[Array, Array]:
    """Summaries of stress and new state of the k-th phase after a first step to the present displacement."""
    phase = body._phases[k]
    cells = phase.cells
    bad = False
    if phase.memory_size:
        body._rows(phase)[cells] = 0.0
        if phase.local_size:
            local, correction = body._rows(phase, "local"), body._corrections[phase]
            unit = float(body.measure.finite)
            bad = bool(newton_local(local, cells, lambda: body._evaluate(correction, cells), unit).failed.any())

    def summarise(expression) -> Array:
        values = body._evaluate(expression, cells)
        return summary(np.full_like(values, np.nan) if bad else values)

    stress = summarise(body._stresses[k])
    return stress, summarise(body._updates[phase]) if phase.state_size else np.zeros(0)


class _Summary:
    """Means of a field (cells, points, components), and weighted sums of its deviations from them.

    The sums of a uniform field vanish for any points. Weights are divided by the root of their count, so that a change
    of one number among millions is resolved.
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
