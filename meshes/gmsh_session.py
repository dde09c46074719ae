# SPDX-License-Identifier: MIT
"""gmsh on one rank: a session that restores the state of gmsh, and its mesh as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import numpy.typing as npt

from .errors import MeshError

# gmsh element type → reference cell and degree (gmsh manual, "MSH file format"); 16 and 17 are the serendipity cells.
ELEMENTS = {
    1: ("interval", 1), 8: ("interval", 2), 26: ("interval", 3),
    2: ("triangle", 1), 9: ("triangle", 2), 21: ("triangle", 3),
    3: ("quadrilateral", 1), 10: ("quadrilateral", 2), 36: ("quadrilateral", 3),
    4: ("tetrahedron", 1), 11: ("tetrahedron", 2), 29: ("tetrahedron", 3),
    5: ("hexahedron", 1), 12: ("hexahedron", 2), 92: ("hexahedron", 3),
}  # fmt: skip


# Options that this package sets, with gmsh's defaults, so that a caller's own gmsh gives the same meshes.
DEFAULTS = {
    "General.Terminal": 0,
    "Mesh.Algorithm": 6,
    "Mesh.Algorithm3D": 1,
    "Mesh.MaxNumThreads1D": 1,
    "Mesh.MaxNumThreads2D": 1,
    "Mesh.MaxNumThreads3D": 1,
    "Mesh.MeshSizeFactor": 1,
    "Mesh.MeshSizeFromCurvature": 0,
    "Mesh.MeshSizeFromPoints": 1,
    "Mesh.MeshSizeMax": 1e22,
    "Mesh.RandomSeed": 1,
    "Mesh.RecombinationAlgorithm": 1,
    "Mesh.RecombineAll": 0,
    "Mesh.SubdivisionAlgorithm": 0,
}

# The wheel of gmsh takes libraries of graphics from the system, also where nothing is shown.
_REMEDY = (
    "Need `pip install gmsh` and, on Debian, `apt install libglu1-mesa libxcursor1 libxft2 libxinerama1 libxrender1`"
)


def load_gmsh() -> ModuleType:
    """The gmsh module.

    Raises:
        MeshError: gmsh cannot be loaded.
    """
    try:
        import gmsh
    except (ImportError, OSError) as error:
        raise MeshError(f"gmsh cannot be loaded: {error}. {_REMEDY}") from error
    return gmsh


@contextmanager
def session() -> Iterator:
    """A silent gmsh with an empty model; if the caller has started gmsh, its model and options are restored.

    Yields:
        The gmsh module.

    Raises:
        MeshError: gmsh cannot be loaded.
    """
    gmsh = load_gmsh()
    started_here = not gmsh.isInitialized()
    if started_here:
        # interruptible=True would install a signal handler, which a library should not do
        gmsh.initialize(readConfigFiles=False, interruptible=False)
    model = gmsh.model.getCurrent()
    options = {name: gmsh.option.getNumber(name) for name in DEFAULTS}
    for name, value in DEFAULTS.items():
        gmsh.option.setNumber(name, value)
    gmsh.model.add("meshes")
    try:
        yield gmsh
    finally:
        if started_here:
            gmsh.finalize()
        else:
            gmsh.model.remove()
            gmsh.model.setCurrent(model)
            for name, value in options.items():
                gmsh.option.setNumber(name, value)


def nodes(model) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Coordinates (n, 3) of all nodes and, for every gmsh node number, the row (-1 where there is none)."""
    numbers, points, _ = model.mesh.getNodes()
    if len(numbers) == 0:
        raise MeshError("gmsh made no nodes")
    row = np.full(int(numbers.max()) + 1, -1, dtype=np.int64)
    row[numbers] = np.arange(len(numbers))
    return points.reshape(-1, 3), row
