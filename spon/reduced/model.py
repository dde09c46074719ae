# SPDX-License-Identifier: MIT
"""What every trained operator of a cell is to those who use it."""

from collections.abc import Mapping

from torch import Tensor, nn

# What a cell is, by parts, as `fe2.fingerprints` has it: texts such as the boundary, or hashes.
Fingerprint = Mapping[str, str]


def require_same(what: str, mine: Fingerprint | None, other: Fingerprint | None) -> None:
    """Raise ValueError if two fingerprints are those of different cells, saying what differs; None is not compared.

    `what`: the subject of the message. Only parts that both have count, and "whole", all in one, where there are no
    others: a file may be older than a part.
    """
    if mine is None or other is None:
        return
    parts = sorted((mine.keys() & other.keys()) - {"whole"}) or ["whole"]
    different = [part for part in parts if mine.get(part) != other.get(part)]
    if different == ["whole"]:
        raise ValueError(f"{what} belongs to another RVE: mesh, materials, boundary or degree differ")
    if different:
        shown = [f"{k} ({mine[k]!r}, here {other[k]!r})" if len(mine[k]) < 64 else k for k in different]
        raise ValueError(f"{what} belongs to another RVE, of which differ: {', '.join(shown)}")


class Model(nn.Module):
    """Homogenised response of a cell: strains (n, d) → stress (n, d) and tangent (n, d, d) [MPa].

    Models with local fields also have `fields(strain, at=None)`, strain and stress (n, m, d) at m points of the cell:
    those of the `ModesAtPoints` that are given, by default the model's own.

    Args:
        lower, upper: (d,) strains between which it was trained.
        fingerprint: of the cell that it was learned from, which it is used for alone; None if that is not known.
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, lower: Tensor, upper: Tensor, fingerprint: Fingerprint | None = None):
        super().__init__()
        self.fingerprint = fingerprint
        self.register_buffer("lower", lower.clone())
        self.register_buffer("upper", upper.clone())

    def forward(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Homogenised stress (n, d) and tangent (n, d, d) [MPa]."""
        raise NotImplementedError

    def require(self, fingerprint: Fingerprint | None) -> None:
        """Raise ValueError if it was learned from another cell than that with this fingerprint, saying what differs."""
        require_same("the model", self.fingerprint, fingerprint)

    def inside(self, strain: Tensor) -> Tensor:
        """Which strains (n,) are in the trained range."""
        return ((strain >= self.lower) & (strain <= self.upper)).all(dim=1)
