# SPDX-License-Identifier: MIT
"""The interface of all models of an RVE, and the fingerprint of the RVE that a model belongs to."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from spon.constitutive.measure import SMALL_STRAIN, Measure

# The identity of an RVE by parts, as in `fe2.fingerprints`: texts such as the boundary condition, or hashes.
Fingerprint = Mapping[str, str]


class LocalFields(NamedTuple):
    """Fields at m points of an RVE, for n macroscale strains.

    Args:
        strain: (n, m, d).
        stress: (n, m, d) [MPa].
    """

    strain: Tensor
    stress: Tensor

    def turned(self, measure: Measure, strain: Tensor) -> "LocalFields":
        """The fields at macroscale strains (n, d), of those at their stretches."""
        if not measure.finite:
            return self
        rotation = measure.rotations(strain)
        return LocalFields(measure.rotated(rotation, self.strain, 1.0), measure.rotated(rotation, self.stress))


def require_same(what: str, mine: Fingerprint | None, other: Fingerprint | None) -> None:
    """Raise ValueError, naming the differences, if two fingerprints are those of different RVEs.

    As old files lack some parts of the fingerprint, only common parts are compared, or else "whole", the hash of
    everything. None is not compared.

    Args:
        what: subject of the message.
        mine: fingerprint of the subject.
        other: fingerprint of the RVE in use.
    """
    if mine is None or other is None:
        return
    parts = sorted((mine.keys() & other.keys()) - {"whole"}) or ["whole"]
    different = [part for part in parts if mine.get(part) != other.get(part)]
    if different == ["whole"]:
        raise ValueError(f"{what} belongs to another RVE: mesh, materials, boundary or degree differ")
    if different:
        shown = [f"{k} ({mine[k]!r}, here {other[k]!r})" if len(mine[k]) < 64 else k for k in different]
        raise ValueError(f"{what} belongs to another RVE; differences: {', '.join(shown)}")


def fingerprint_to_json(fingerprint: Fingerprint | None) -> dict[str, str] | None:
    """A fingerprint for JSON."""
    return None if fingerprint is None else dict(fingerprint)


def fingerprint_from_json(header: dict[str, Any]) -> Fingerprint | None:
    """The fingerprint in the header of a file; files of the first format have one hash, or none."""
    found = header.get("fingerprint")
    return {"whole": found} if isinstance(found, str) else found


class Model(nn.Module):
    """Homogenised response of an RVE: strains (n, d) → stress (n, d) and tangent (n, d, d) [MPa].

    Models with local fields also have `fields(strain, at=None)`, local strain and stress (n, m, d) at m points of the
    RVE: those of the given `ModesAtPoints`, by default the model's own. Models that can be saved have `save(path)`;
    `spon.load` loads them.

    Args:
        lower: (s,) smallest coordinates of the trained range; coordinates are the strain itself, and at finite strain
            those of the stretch, see `spon.constitutive.measure`.
        upper: (s,) largest coordinates of the trained range.
        fingerprint: of the RVE that the model was trained for; None if unknown.
        measure: of the strain; None for small strain.
    """

    lower: Tensor
    upper: Tensor

    def __init__(
        self, lower: Tensor, upper: Tensor, fingerprint: Fingerprint | None = None, measure: Measure | None = None
    ):
        super().__init__()
        self.fingerprint = fingerprint
        self.measure = Measure(SMALL_STRAIN, lower.numel()) if measure is None else measure
        self.register_buffer("lower", lower.clone())
        self.register_buffer("upper", upper.clone())

    @property
    def strain_size(self) -> int:
        """d, the number of components of the strain."""
        return self.measure.size

    def forward(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Homogenised stress (n, d) and tangent (n, d, d) [MPa]."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to a file.

        Raises:
            NotImplementedError: a class that has no file format.
        """
        raise NotImplementedError(f"a {type(self).__name__} has no file format")

    def require(self, fingerprint: Fingerprint | None) -> None:
        """Raise ValueError, naming the differences, unless the model was trained for the RVE with this fingerprint."""
        require_same("the model", self.fingerprint, fingerprint)

    def inside(self, strain: Tensor) -> Tensor:
        """Whether strains (n, d) are in the trained range, (n,)."""
        at = self.measure.coordinates(strain)
        return ((at >= self.lower) & (at <= self.upper)).all(dim=1)
