# SPDX-License-Identifier: MIT
"""Deprecated names, which work for one release and warn."""

import functools
import pkgutil
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


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


def renamed_arguments(**new_names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function also take keyword arguments by deprecated names; it warns with the new name.

    Warnings of the function need a `stacklevel` higher by one.

    Args:
        **new_names: old name → new name.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        called = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in new_names.keys() & kwargs.keys():
                new = new_names[old]
                if new in kwargs:
                    raise TypeError(f"{called}({old}=..., {new}=...): {old} is the old name of {new}")
                warnings.warn(f"{called}({old}=...) is now {called}({new}=...)", DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapped

    return decorate
