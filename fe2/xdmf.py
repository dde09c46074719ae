# SPDX-License-Identifier: MIT
"""Fields in XDMF with HDF5, which ParaView and meshio read, safe against a kill.

A series `NAME.xdmf` lists one self-contained file `NAME/0001.h5` per step, with the mesh and the values; meshio reads
it by `xdmf.TimeSeriesReader`. Fields of one time are `NAME.xdmf` and `NAME.h5`, which `meshio.read` reads. Files get
their names when they are complete, so a kill costs only the present step, and a restart continues the series, which
DOLFINx's XDMFFile does not. Nodes and cells have the order in which the mesh was passed to DOLFINx: for meshes that
one rank makes and distributes, such as those of `meshes`, the files do not depend on the number of ranks.
"""

from pathlib import Path
from xml.etree import ElementTree as xml

import h5py
import numpy as np
import numpy.typing as npt
from dolfinx import cpp, fem

from fe2.ranks import raise_on_all_ranks
from meshes.compat import geometry_dofmap

Array = npt.NDArray[np.float64]

# Cell type and number of nodes → XDMF's name.
_TOPOLOGY = {
    ("interval", 2): "Polyline",
    ("triangle", 3): "Triangle",
    ("triangle", 6): "Triangle_6",
    ("quadrilateral", 4): "Quadrilateral",
    ("quadrilateral", 9): "Quadrilateral_9",
    ("tetrahedron", 4): "Tetrahedron",
    ("tetrahedron", 10): "Tetrahedron_10",
    ("hexahedron", 8): "Hexahedron",
}


def at_nodes(u: fem.Function) -> Array:
    """Values (nodes, components), or (nodes,) of a scalar, of a Lagrange function at this rank's nodes of its mesh."""
    space, mesh = u.function_space, u.function_space.mesh
    nodes, components = geometry_dofmap(mesh), space.dofmap.index_map_bs
    points = mesh.ufl_domain().ufl_coordinate_element().basix_element.points
    shapes = space.element.basix_element.tabulate(0, points)[0, :, :, 0]
    values = np.zeros((len(mesh.geometry.x), components))
    values[nodes] = np.einsum("nk,ckm->cnm", shapes, u.x.array.reshape(-1, components)[space.dofmap.list])
    return values if u.ufl_shape else values[:, 0]


class Series:
    """A series of fields on one mesh.

    Args:
        path: of the series, ending in ".xdmf"; folders are made.
        mesh: DOLFINx mesh, spread over its communicator.
    """

    def __init__(self, path: str | Path, mesh):
        self.path, self.mesh, self.comm = Path(path), mesh, mesh.comm
        kind, nodes = mesh.basix_cell().name, geometry_dofmap(mesh).shape[1]
        if (kind, nodes) not in _TOPOLOGY:
            raise ValueError(f"XDMF has no cells of type {kind} with {nodes} nodes")
        self._topology = _TOPOLOGY[kind, nodes]
        self._owned = mesh.geometry.index_map().size_local
        self._cells = mesh.topology.index_map(mesh.topology.dim).size_local
        self._steps: dict[int, xml.Element] | None = None

    def write(self, number: int, time: float, nodes: dict[str, Array], cells: dict[str, Array]) -> None:
        """Write a step; later ones are dropped from the series (collective).

        Args:
            number: of the step, from 1.
            time: of the step.
            nodes: name → values (nodes,) or (nodes, components) of this rank, ghosts included; vectors get three
                components.
            cells: name → values (cells,) or (cells, components) of the cells that it owns.
        """
        data = self._collected(nodes, cells)
        with raise_on_all_ranks(self.comm):
            if self.comm.rank == 0:
                self._store(self._file(number), data, time)
                if self._steps is None:  # a restart continues the list of earlier steps
                    self._steps = {n: self._step(n) for n in range(1, number) if self._file(n).exists()}
                self._steps[number] = self._step(number)
                steps = xml.Element("Grid", Name="series", GridType="Collection", CollectionType="Temporal")
                steps.extend(self._steps[n] for n in sorted(self._steps) if n <= number)
                self._list(steps)

    def write_alone(self, nodes: dict[str, Array], cells: dict[str, Array]) -> None:
        """Write fields of one time, instead of a series (collective); see `write`."""
        data = self._collected(nodes, cells)
        with raise_on_all_ranks(self.comm):
            if self.comm.rank == 0:
                path = self.path.with_suffix(".h5")
                self._store(path, data)
                self._list(self._grid(path, self.path.stem, path.name))

    def _collected(self, nodes: dict[str, Array], cells: dict[str, Array]) -> dict[str, npt.NDArray]:
        """The mesh and the fields of all ranks, on rank 0."""
        mesh = self.mesh
        given = np.asarray(mesh.geometry.input_global_indices)
        # `perm_vtk` leads from VTK's order of a cell's nodes, which is XDMF's, to DOLFINx's.
        order = np.argsort(cpp.io.perm_vtk(mesh.topology.cell_type, geometry_dofmap(mesh).shape[1]))
        numbers = self._gather(given[: self._owned], given[: self._owned])
        topology = self._gather(
            mesh.topology.original_cell_index[: self._cells], given[geometry_dofmap(mesh)[: self._cells]][:, order]
        )
        data = {
            "points": self._gather(given[: self._owned], mesh.geometry.x[: self._owned]),
            "topology": np.searchsorted(numbers, topology),
        }
        for name, values in nodes.items():
            data[f"nodes/{name}"] = self._gather(given[: self._owned], _three(values[: self._owned]))
        for name, values in cells.items():
            data[f"cells/{name}"] = self._gather(mesh.topology.original_cell_index[: self._cells], _three(values))
        return data

    def _gather(self, numbers: npt.NDArray, rows: npt.NDArray) -> npt.NDArray:
        """Rows of all ranks in the order of their numbers, on rank 0."""
        parts = self.comm.gather((numbers, rows))
        if parts is None:
            return rows[:0]
        order = np.argsort(np.concatenate([p[0] for p in parts]))
        return np.concatenate([p[1] for p in parts])[order]

    def _file(self, number: int) -> Path:
        return self.path.with_suffix("") / f"{number:04d}.h5"

    def _store(self, path: Path, data: dict[str, npt.NDArray], time: float | None = None) -> None:
        """Write a file of values, complete or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with h5py.File(part, "w") as file:
            if time is not None:
                file.attrs["time"] = time
            for name, values in data.items():
                file[name] = values
        part.replace(path)

    def _list(self, grid: xml.Element) -> None:
        """Write the XDMF file of a grid or a series."""
        root = xml.Element("Xdmf", Version="3.0")
        xml.SubElement(root, "Domain").append(grid)
        xml.indent(root)
        part = self.path.with_suffix(".part")
        xml.ElementTree(root).write(part, encoding="unicode")
        part.replace(self.path)

    def _step(self, number: int) -> xml.Element:
        """Entry of one step in the series."""
        path = self._file(number)
        return self._grid(path, f"step {number}", f"{path.parent.name}/{path.name}")

    def _grid(self, path: Path, name: str, place: str) -> xml.Element:
        """Entry of a file of values; `place` is its path relative to the XDMF file."""
        with h5py.File(path, "r") as file:
            grid = xml.Element("Grid", Name=name, GridType="Uniform")
            if "time" in file.attrs:
                xml.SubElement(grid, "Time", Value=repr(float(file.attrs["time"])))
            cells = str(len(file["topology"]))
            topology = xml.SubElement(grid, "Topology", TopologyType=self._topology, NumberOfElements=cells)
            if self._topology == "Polyline":
                topology.set("NodesPerElement", "2")
            places = [(topology, "topology"), (xml.SubElement(grid, "Geometry", GeometryType="XYZ"), "points")]
            for where, center in (("nodes", "Node"), ("cells", "Cell")):
                for field, values in file.get(where, {}).items():
                    kind = "Vector" if values.ndim == 2 else "Scalar"
                    attribute = xml.SubElement(grid, "Attribute", Name=field, Center=center, AttributeType=kind)
                    places.append((attribute, f"{where}/{field}"))
            for parent, entry in places:
                item = xml.SubElement(parent, "DataItem", Format="HDF", Precision="8")
                item.set("NumberType", "Int" if file[entry].dtype.kind == "i" else "Float")
                item.set("Dimensions", " ".join(map(str, file[entry].shape)))
                item.text = f"{place}:/{entry}"
        return grid


def _three(values: npt.NDArray) -> npt.NDArray:
    """Vectors padded to the three components of XDMF; scalars unchanged."""
    return values if values.ndim == 1 else np.pad(values, ((0, 0), (0, 3 - values.shape[1])))
