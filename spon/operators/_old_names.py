# SPDX-License-Identifier: MIT
"""Names of the first release: of parameters in model files, and of options."""

import dataclasses
import re
import warnings
from typing import Any

from spon.operators.structure import Structure

_OF_ALL = (
    (r"^(mean|scale|least)_(\d+)$", r"encoder.scalings.\2.\1"),
    (r"^(mean|scale)$", r"decoder.\1"),
    (r"^readout\.", "processor.readout."),
)
_OF_FLUXES = ((r"^(processor\.laws\.\d+)\.look\.", r"\1.coefficients."),)
_AT_NODES = (
    (r"^processor\.", "processor.layers."),
    (r"^linear_processor\.", "processor.linear_layers."),
    (r"^(lift|gates|load)\.", r"processor.\1."),
    (r"\.look\.", ".queries_and_keys."),
)


def rename_state(state: dict[str, Any], prefix: str) -> None:
    """Rename the parameters of a network below a prefix, in a file of the first release, to their present names."""
    old = [name for name in state if name.startswith(prefix)]
    if prefix + "readout.weight" not in old:
        return
    # Present names come last, so that they are not changed again.
    rules = (*(_AT_NODES if prefix + "lift.weight" in old else _OF_FLUXES), *_OF_ALL)
    for name in old:
        new = name.removeprefix(prefix)
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        state[prefix + new] = state.pop(name)


def with_old_options(structure: Structure, options: dict[str, Any]) -> tuple[Structure, dict[str, Any]]:
    """A structure with the fields that are among the options, as in the first release, and the other options."""
    names = {field.name for field in dataclasses.fields(Structure)}
    old = {name: value for name, value in options.items() if name in names}
    if old:
        fields = ", ".join(f"{name}=..." for name in old)
        warnings.warn(f"{', '.join(old)}: now structure=spon.Structure({fields})", DeprecationWarning, stacklevel=4)
        structure = dataclasses.replace(structure, **old)
    return structure, {name: value for name, value in options.items() if name not in names}
