# SPDX-License-Identifier: MIT
"""Settings that PETSc takes from its options database only; they are removed after use."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from petsc4py import PETSc


@contextmanager
def default_options(prefix: str, values: Mapping[str, str | float]) -> Iterator[None]:
    """Set options while the block runs, except those set by the user; afterwards the database is as before.

    Args:
        prefix: of the options.
        values: name without prefix → value.
    """
    options = PETSc.Options(prefix)
    added = [name for name in values if not options.hasName(name)]
    for name in added:
        options[name] = values[name]
    try:
        yield
    finally:
        for name in added:
            del options[name]
