# SPDX-License-Identifier: MIT
"""Materials and laws of phases, by tag or by name, with messages that name the remedy for other values."""

from collections.abc import Mapping
from typing import Any

from fe2.materials import Material
from meshes.tags import ByPhase, by_tag, phase_label, short

# The interface of a law, see `fe2.Law`.
_LAW = ("strain_size", "state_size", "initial_state", "evaluate")


def materials_by_tag(materials: ByPhase[Material], names: Mapping[str, int]) -> dict[int, Material]:
    """Tag → material, of materials by tag or by name.

    Args:
    materials: tag or name of a phase → material.
    names: name of a phase → tag.

    Raises:
        meshes.MeshError: an unknown name, or two materials for a phase.
        TypeError: a value that is no material.
    """
    found = by_tag(materials, names, "material")
    for tag, value in found.items():
        if not isinstance(value, Material):
            raise TypeError(f"the material of {phase_label(tag, names)} is {short(value)}: {_material_instead(value)}")
    return found


def laws_by_tag(laws: ByPhase[Any], names: Mapping[str, int]) -> dict[int, Any]:
    """Tag → law, of laws by tag or by name.

    Args:
    laws: tag or name of a phase → law.
    names: name of a phase → tag.

    Raises:
        meshes.MeshError: an unknown name, or two laws for a phase.
        TypeError: a value that is no law.
    """
    found = by_tag(laws, names, "law")
    for tag, value in found.items():
        need_law(value, f"the law of {phase_label(tag, names)}")
    return found


def need_law(value: object, what: str = "the law") -> None:
    """Raise unless the value has the methods and attributes of `fe2.Law`.

    Raises:
        TypeError: the message names the value by `what`, and a remedy.
    """
    if isinstance(value, type) or not all(hasattr(value, name) for name in _LAW):
        raise TypeError(f"{what} is {short(value)}: {_law_instead(value)}")


def _material_instead(value: object) -> str:
    if isinstance(value, type) and issubclass(value, Material):
        return f"give an instance, {value.__name__}(...)"
    if callable(value):
        return "give fe2.Energy(function) for an energy density, or fe2.Stress(function) for a stress"
    return (
        "give a fe2.Material, such as fe2.LinearElastic.from_young_poisson(1000.0, 0.3); a void has no cells and no "
        "material"
    )


def _law_instead(value: object) -> str:
    if isinstance(value, Material):
        return "give fe2.UFLLaw(material), the law of a material without microstructure"
    if hasattr(value, "homogenise"):
        return "give fe2.ExactLaw(rve), the law of a microstructure"
    return "give a fe2.Law, such as fe2.ExactLaw(rve)"
