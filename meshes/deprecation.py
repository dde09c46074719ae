# SPDX-License-Identifier: MIT
"""Deprecated names, which work for one release and warn."""

import pkgutil
import warnings
from collections.abc import Mapping
from typing import Any


def renamed(module: str, name: str, new_names: Mapping[str, str]) -> Any:
    """The object that has replaced a deprecated name of a module, for its `__getattr__`; warns with the new name.

    Args:
        module: name of the module.
        name: name of the missing attribute.
        new_names: old name → full new name, such as "fe2.raise_on_all_ranks".

    Raises:
        AttributeError: the name is not deprecated either.
    """
    if name not in new_names:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    new = new_names[name]
    warnings.warn(f"{module}.{name} is now {new}", DeprecationWarning, stacklevel=3)
    return pkgutil.resolve_name(new)
