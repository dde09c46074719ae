# SPDX-License-Identifier: MIT
"""Mechanics: materials, the exact RVE problem and its homogenisation, laws and the macroscale problem."""

import meshes.compat  # noqa: F401  (before any import of DOLFINx)
from fe2 import mandel, rve_snapshots, strain_sampling
from fe2 import sample as sample  # deprecated: each of its names warns
from fe2.body import Body, LocalError
from fe2.checkpoint import CheckpointError
from fe2.conduction import Conductive
from fe2.drive import Path, drive
from fe2.elasticity import (
    Anisotropic,
    LinearElastic,
    RambergOsgood,
    SaturatingElastic,
    bulk_shear,
    cubic,
    transversely_isotropic,
)
from fe2.failures import Failure, NotConverged, UnstableWarning
from fe2.homogenised import Homogenised
from fe2.hyperelastic import MooneyRivlin, NeoHookean, SaintVenantKirchhoff
from fe2.laws import ExactLaw, Law, Response, VaryingLaw
from fe2.macro import MacroProblem, Step
from fe2.materials import Energy, Material, Stress
from fe2.measure import DISPLACEMENT_GRADIENT, GRADIENT, SMALL_STRAIN, Measure
from fe2.micro import MicroPoint
from fe2.micro_fields import MicroFields
from fe2.moduli import EngineeringConstants, engineering_constants
from fe2.newton import StepFailed
from fe2.plasticity import J2, J2Voce
from fe2.quadrature import NotFinite, QuadratureLaw, Region, law_coordinates
from fe2.ranks import raise_on_all_ranks
from fe2.runs import RunFolder
from fe2.rve import RVE
from fe2.signals import Stopped
from fe2.solver_options import SolverOptions
from fe2.stability import Ellipticity, StabilityLimit, critical_strain, ellipticity
from fe2.state import StateLayout
from fe2.time_step import TimeStep
from fe2.ufl_law import UFLLaw
from fe2.viscous import Perzyna, Zener
from meshes.deprecation import renamed as _renamed

__version__ = "0.1.0"

__all__ = [
    "DISPLACEMENT_GRADIENT",
    "GRADIENT",
    "J2",
    "RVE",
    "SMALL_STRAIN",
    "Anisotropic",
    "Body",
    "CheckpointError",
    "Conductive",
    "Ellipticity",
    "Energy",
    "EngineeringConstants",
    "ExactLaw",
    "Failure",
    "Homogenised",
    "J2Voce",
    "Law",
    "LinearElastic",
    "LocalError",
    "MacroProblem",
    "Material",
    "Measure",
    "MicroFields",
    "MicroPoint",
    "MooneyRivlin",
    "NeoHookean",
    "NotConverged",
    "NotFinite",
    "Path",
    "Perzyna",
    "QuadratureLaw",
    "RambergOsgood",
    "Region",
    "Response",
    "RunFolder",
    "SaintVenantKirchhoff",
    "SaturatingElastic",
    "SolverOptions",
    "StabilityLimit",
    "StateLayout",
    "Step",
    "StepFailed",
    "Stopped",
    "Stress",
    "TimeStep",
    "UFLLaw",
    "UnstableWarning",
    "VaryingLaw",
    "Zener",
    "bulk_shear",
    "critical_strain",
    "cubic",
    "drive",
    "ellipticity",
    "engineering_constants",
    "law_coordinates",
    "mandel",
    "raise_on_all_ranks",
    "rve_snapshots",
    "strain_sampling",
    "transversely_isotropic",
]

# Old name → new name.
_NEW_NAMES: dict[str, str] = {
    "law_places": "fe2.law_coordinates",
    "together": "fe2.raise_on_all_ranks",
}


def __getattr__(name: str):
    return _renamed(__name__, name, _NEW_NAMES)
