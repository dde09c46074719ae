# SPDX-License-Identifier: MIT
"""What every trained operator of a cell is to those who use it."""

from torch import Tensor, nn


class Model(nn.Module):
    """Homogenised response of a cell: strains (n, d) → stress (n, d) and tangent (n, d, d) [MPa].

    Models with local fields also have `fields(strain, at=None)`, strain and stress (n, m, d) at m points of the cell:
    those of the `Fields` that are given, by default the model's own.

    Args:
        lower, upper: (d,) strains between which it was trained.
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, lower: Tensor, upper: Tensor):
        super().__init__()
        self.register_buffer("lower", lower.clone())
        self.register_buffer("upper", upper.clone())

    def forward(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Homogenised stress (n, d) and tangent (n, d, d) [MPa]."""
        raise NotImplementedError

    def inside(self, strain: Tensor) -> Tensor:
        """Which strains (n,) are in the trained range."""
        return ((strain >= self.lower) & (strain <= self.upper)).all(dim=1)
