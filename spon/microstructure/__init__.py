# SPDX-License-Identifier: MIT
"""RVEs that differ from point to point: networks of their modes, and image cells solved by FFT."""

from spon.microstructure.fft import GridCells, GridNotConverged, GridResponse
from spon.microstructure.mode_network import CellMesh, CellResponse, ModeNetwork, load_modes, train

__all__ = [
    "CellMesh",
    "CellResponse",
    "GridCells",
    "GridNotConverged",
    "GridResponse",
    "ModeNetwork",
    "load_modes",
    "train",
]
