# SPDX-License-Identifier: MIT
"""Processors of operator networks, by name."""

from typing import Any

from spon.operators.processors.base import Processor, Sizes
from spon.operators.processors.flux import FluxProcessor
from spon.operators.processors.nodal import (
    AttentionProcessor,
    MessageProcessor,
    MgNOProcessor,
    MultigridProcessor,
    PerceptronProcessor,
)

# Name, as for `spon.OperatorNetwork`, → class.
PROCESSORS: dict[str, type[Processor]] = {
    "fluxes": FluxProcessor,
    "multigrid": MultigridProcessor,
    "messages": MessageProcessor,
    "mgno": MgNOProcessor,
    "attention": AttentionProcessor,
    "mlp": PerceptronProcessor,
}


def processor_class(name: str) -> type[Processor]:
    """The class of a processor.

    Raises:
        ValueError: an unknown name.
    """
    if name not in PROCESSORS:
        raise ValueError(f"processor = {name!r}, need one of {', '.join(map(repr, PROCESSORS))}")
    return PROCESSORS[name]


def default_processor(output: Any, encoder: str) -> str:
    """The name of the most accurate processor for an output: "fluxes" where gradients exist at its points.

    Args:
        output: function space of DOLFINx.
        encoder: see `spon.OperatorNetwork`.
    """
    from spon.spaces.read import family, is_mixed

    lagrange = is_mixed(output) or family(output) == "P"  # a mixed output must be Lagrange in its first part
    return "fluxes" if lagrange and encoder == "interpolation" else "multigrid"


__all__ = ["PROCESSORS", "Processor", "Sizes", "default_processor", "processor_class"]
