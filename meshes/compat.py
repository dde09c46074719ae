# SPDX-License-Identifier: MIT
"""The only module with code for different versions and builds of DOLFINx (0.9, 0.10, 0.11).

`meshes`, `fe2` and `coupling` import it before anything else: DOLFINx from binary wheels finds its MPI only if
`dolfinx_solver` or mpi4py is imported before DOLFINx and petsc4py.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging

import numpy as np

if importlib.util.find_spec("dolfinx_solver"):
    import dolfinx_solver  # noqa: F401  (loads the MPI of the wheels)
if not importlib.util.find_spec("dolfinx"):
    raise ModuleNotFoundError(
        "DOLFINx is missing: `pip install dolfinx-solver-real` (Python 3.12 or later), or install fenics-dolfinx "
        "0.9 to 0.11 from conda-forge or your distribution",
        name="dolfinx",
    )

import dolfinx.fem
import dolfinx.mesh


def _show_warnings() -> None:
    """Restore Python warnings that FFCx (of DOLFINx 0.9) has redirected to a log without a handler."""
    captured = getattr(logging, "_warnings_showwarning", None) is not None
    if captured and not logging.getLogger("py.warnings").handlers and not logging.getLogger().handlers:
        logging.captureWarnings(False)


_show_warnings()
_COORDINATE_ELEMENT_FIRST = list(inspect.signature(dolfinx.mesh.create_mesh).parameters)[2] == "e"


def create_mesh(comm, cells, points, element) -> dolfinx.mesh.Mesh:
    """Distributed mesh from cells, node coordinates and coordinate element (0.10 swapped the last two arguments)."""
    if _COORDINATE_ELEMENT_FIRST:
        return dolfinx.mesh.create_mesh(comm, cells, element, points)
    return dolfinx.mesh.create_mesh(comm, cells, points, element)


def coordinate_map(mesh: dolfinx.mesh.Mesh):
    """Coordinate map of a mesh with one cell type (0.9: ``cmap``; later: the first of ``cmaps``)."""
    geometry = mesh.geometry
    return geometry.cmaps[0] if hasattr(geometry, "cmaps") else geometry.cmap


def geometry_dofmap(mesh: dolfinx.mesh.Mesh):
    """Node numbers of the local cells, (cells, nodes per cell) (0.9: ``dofmap``; later: the first of ``dofmaps``)."""
    geometry = mesh.geometry
    return geometry.dofmaps[0] if hasattr(geometry, "dofmaps") else geometry.dofmap


def collapse(space):
    """A sub-space as a space of its own, and its dofs among all (0.9: a list; later: one array per cell type)."""
    own, dofs = space.collapse()
    return own, np.ravel(dofs).astype(np.int64)
