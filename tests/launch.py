# SPDX-License-Identifier: MIT
"""Environments of the processes that tests start."""

import os

# How Open MPI, MPICH and SLURM tell a process which rank it is.
_LAUNCHERS = ("OMPI_COMM", "PMIX", "PMI_", "HYDI_", "MPI_LOCAL", "SLURM")


def outside_mpi() -> dict[str, str]:
    """This environment without what makes a new process a rank of the run that the tests are in."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_LAUNCHERS)}
