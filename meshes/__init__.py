# SPDX-License-Identifier: MIT
"""RVEs and macroscale geometries as tagged DOLFINx meshes, meshes from files, and checks of their quality."""

import meshes.compat  # noqa: F401  (before any import of DOLFINx)

from .checks import check_cells, check_materials, check_periodic
from .deprecation import renamed as _renamed
from .errors import MeshError
from .inclusions import BENCHMARKS, benchmark, rve
from .macro import bar, cook, l_profile, plate_with_hole
from .marking import mark
from .packing import packing
from .period import PeriodWarning, known_period
from .periodic import Seam, faces, periodic_labels, seam
from .read import read
from .shapes import Circle, Cylinder, Ellipse, Ellipsoid, Sphere
from .structured import from_image, from_labels, laminate
from .tagged import INCLUSION, MATRIX, VOID, TaggedMesh
from .tags import ByPhase, by_tag, need_tagged_mesh
from .tiled import tiled

__version__ = "0.1.0"

__all__ = [
    "BENCHMARKS",
    "INCLUSION",
    "MATRIX",
    "VOID",
    "ByPhase",
    "Circle",
    "Cylinder",
    "Ellipse",
    "Ellipsoid",
    "MeshError",
    "PeriodWarning",
    "Seam",
    "Sphere",
    "TaggedMesh",
    "bar",
    "benchmark",
    "by_tag",
    "check_cells",
    "check_materials",
    "check_periodic",
    "cook",
    "faces",
    "from_image",
    "from_labels",
    "known_period",
    "l_profile",
    "laminate",
    "mark",
    "need_tagged_mesh",
    "packing",
    "periodic_labels",
    "plate_with_hole",
    "read",
    "rve",
    "seam",
    "tiled",
]

# Old name → new name.
_NEW_NAMES = {"cell": "meshes.rve"}


def __getattr__(name: str):
    return _renamed(__name__, name, _NEW_NAMES)
