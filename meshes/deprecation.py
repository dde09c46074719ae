# SPDX-License-Identifier: MIT
"""Names of the last release, which still work and warn."""

import importlib
import warnings
from collections.abc import Mapping
from typing import Any


def renamed(module: str, name: str, new_names: Mapping[str, str]) -> Any:
    """What an old name of a module is today, for the module's `__getattr__`; warns with the new name.

    Args:
        module: the module that was asked.
        name: the attribute that it does not have.
        new_names: old name → new name with its module, such as "fe2.raise_on_all_ranks".

    Raises:
        AttributeError: the name is not an old one either.
    """
    if name not in new_names:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    new = new_names[name]
    warnings.warn(f"{module}.{name} is now {new}", DeprecationWarning, stacklevel=3)
    parent, _, last = new.rpartition(".")
    return getattr(importlib.import_module(parent), last)
