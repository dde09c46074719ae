# SPDX-License-Identifier: MIT
"""Keywords of the last release, which still work for one more."""

import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from spon.training.options import TrainingOptions

P = ParamSpec("P")
R = TypeVar("R")

_FIELDS = {field.name for field in dataclasses.fields(TrainingOptions)}


def takes_old_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """A function with the parameter `options` that takes fields of `TrainingOptions` as keywords, too, and warns."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        old = {name: kwargs.pop(name) for name in _FIELDS & set(kwargs)}
        if old:
            names = ", ".join(f"{name}=..." for name in sorted(old))
            warnings.warn(
                f"{function.__name__}({names}) is now {function.__name__}(..., TrainingOptions({names}))",
                DeprecationWarning,
                stacklevel=2,
            )
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            bound.arguments["options"] = dataclasses.replace(bound.arguments["options"], **old)
            args, kwargs = bound.args, bound.kwargs  # type: ignore[assignment]  # a bound signature loses P
        return function(*args, **kwargs)

    return wrapped
