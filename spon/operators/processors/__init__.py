# SPDX-License-Identifier: MIT
"""What stands between encoder and decoder of an operator network."""

from spon.operators.processors.layers import PROCESSORS

__all__ = [
    "PROCESSORS",
]
