# SPDX-License-Identifier: MIT
"""Mechanics: materials, the exact RVE problem and its homogenisation."""

from fe2 import mandel
from fe2.body import Body
from fe2.materials import (
    J2,
    Anisotropic,
    Energy,
    LinearElastic,
    Material,
    RambergOsgood,
    SaturatingElastic,
    Stress,
    bulk_shear,
    cubic,
    transversely_isotropic,
)
from fe2.rve import RVE, Failure, Homogenised, NotConverged

__all__ = [
    "J2",
    "RVE",
    "Anisotropic",
    "Body",
    "Energy",
    "Failure",
    "Homogenised",
    "LinearElastic",
    "Material",
    "NotConverged",
    "RambergOsgood",
    "SaturatingElastic",
    "Stress",
    "bulk_shear",
    "cubic",
    "mandel",
    "transversely_isotropic",
]
