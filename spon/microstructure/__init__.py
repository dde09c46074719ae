# SPDX-License-Identifier: MIT
"""RVEs that differ from point to point: networks of their modes, and RVEs on grids solved by FFT."""

from spon.microstructure.fft import GridNotConverged, GridResponse, GridRVEs
from spon.microstructure.mode_network import ModeNetwork
from spon.microstructure.response import ModeFields, RVENotConverged, RVEResponse
from spon.microstructure.rve_mesh import RVEMesh
from spon.microstructure.training import train

__all__ = [
    "GridNotConverged",
    "GridRVEs",
    "GridResponse",
    "ModeFields",
    "ModeNetwork",
    "RVEMesh",
    "RVENotConverged",
    "RVEResponse",
    "train",
]
