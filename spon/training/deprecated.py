# SPDX-License-Identifier: MIT
"""Deprecated keywords of the last release."""

import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_RENAMED = {"adam": "steps"}  # old keyword → option


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
