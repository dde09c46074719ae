# SPDX-License-Identifier: MIT
"""Deprecated names and keywords of the last release."""

import dataclasses
import functools
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_RENAMED = {"adam": "steps"}  # old keyword → option


def renamed(module: str, name: str, new_names: Mapping[str, str]) -> Any:
    """The object that has replaced a deprecated name of a module, for its `__getattr__`; warns with the new name.

    `meshes.deprecation` has the same for the other packages, as `spon` and `meshes` do not import each other.

    Args:
        module: name of the module.
        name: name of the missing attribute.
        new_names: old name → full new name, such as "spon.ModesAtPoints".

    Raises:
        AttributeError: the name is not deprecated either.
    """
    if name not in new_names:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    new = new_names[name]
    warnings.warn(f"{module}.{name} is now {new}", DeprecationWarning, stacklevel=3)
    return pkgutil.resolve_name(new)


def takes_old_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function with a frozen record `options` also take the fields of the record as keywords, with a warning."""
    signature = inspect.signature(function)
    default = signature.parameters["options"].default
    fields = {field.name: field.name for field in dataclasses.fields(default)}
    fields |= {old: new for old, new in _RENAMED.items() if new in fields}
    own = signature.parameters.keys()  # a function may have a parameter of its own with the name of an option

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        old = {fields[name]: kwargs.pop(name) for name in (fields.keys() - own) & kwargs.keys()}
        if old:
            names = ", ".join(f"{name}=..." for name in sorted(old))
            record = type(default).__name__
            warnings.warn(
                f"{function.__name__}({names}) is now {function.__name__}(..., {record}({names}))",
                DeprecationWarning,
                stacklevel=2,
            )
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            bound.arguments["options"] = dataclasses.replace(bound.arguments["options"], **old)
            args, kwargs = bound.args, bound.kwargs  # type: ignore[assignment]  # a bound signature loses P
        return function(*args, **kwargs)

    return wrapped
