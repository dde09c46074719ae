# SPDX-License-Identifier: MIT
"""Laws as micro simulations of the Micro Manager of preCICE: the class of a simulation, and the data exchanged.

The manager (version 0.12, https://precice.org/tooling-micro-manager-overview.html) makes one simulation for each point
of the macro simulation. They exchange named scalars and vectors of as many components as the mesh has dimensions, since
preCICE has no tensors.
"""

import importlib
import sys
import types
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coupling.point_law import Notation, PointLaw, check_notation
from fe2 import Law, Measure
from fe2.measure import SMALL_STRAIN, measure_of

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

COMPONENTS = {1: ("xx",), 2: ("xx", "yy", "xy"), 3: ("xx", "yy", "zz", "yz", "xz", "xy")}


@dataclass(frozen=True, slots=True)
class MicroData:
    """The names of the data exchanged, and their components: a scalar has one, a vector several.

    Components are xx, yy, xy, ... of small strains, x, y, ... of gradients of a scalar, and of displacement gradients
    all of xx, xy, yx, yy, ..., of which xy is ∂u_x/∂y.

    Args:
        strain: name → components, such as {"strains1to2": ("xx", "yy"), "strains3": ("xy",)}, together all of them.
        stress: name → components of the stress.
        tangent: name → pairs of components, where "xxyy" is the derivative of the stress xx by the strain yy. May be
            empty.
        notation: of small strains: "engineering", shear strains γ = 2 ε with the components of the stress tensor; or
            "Mandel", shear strains √2 ε and shear stresses √2 σ.

    The manager's configuration has the names of `strain` as data to read, those of `stress` and `tangent` as data to
    write.
    """

    strain: Mapping[str, Sequence[str]]
    stress: Mapping[str, Sequence[str]]
    tangent: Mapping[str, Sequence[str]]
    notation: Notation = "engineering"

    def __post_init__(self):
        check_notation(self.notation)

    @classmethod
    def published(
        cls,
        dim: int = 3,
        *,
        order: Sequence[str] | None = None,
        notation: Notation = "engineering",
        names: tuple[str, str, str] = ("strains", "stresses", "cmat"),
    ) -> "MicroData":
        """The data of published two-scale simulations: strains1to3, strains4to6, stresses1to3, stresses4to6, and the
        upper triangle of the tangent, row by row, three numbers each, as cmat1 to cmat7.

        The names are the same in all codes, but the order of the shears and the notation differ: check the code to
        be coupled. The default is Voigt's order with engineering shears. The repositories two-scale-mechanics (of
        I. Desai) and FANS (of DataAnalyticsEngineering) on GitHub had in 2026

            code                             order of the shears    notation
            structure in FEniCSx             yz, xz, xy             Mandel
            structure in CalculiX            xy, xz, yz             engineering
            structure in Abaqus (VUMAT)      xy, yz, xz             engineering
            FANS                             xy, xz, yz             Mandel

        Args:
            dim: of the mesh and its vectors. In two dimensions there are strains1to2 and the scalar strains3.
            order: of all components; xx, yy, zz, yz, xz, xy or xx, yy, xy if None, as in `fe2.mandel`.
            notation: see `MicroData`.
            names: of strains, stresses and tangents, without numbers. Version 0.12 of the manager needs capitals,
                ("Strains", "Stresses", "Cmat"); preCICE's adapter for CalculiX has ("strain", "stress", "cmat").

        Raises:
            ValueError: another dimension, or an order without all components.
        """
        if dim not in COMPONENTS:
            raise ValueError(f"dim = {dim}, need 1, 2 or 3")
        listed = COMPONENTS[dim] if order is None else tuple(order)
        if sorted(map(_sorted, listed)) != sorted(COMPONENTS[dim]):
            raise ValueError(f"order = {listed}, need {', '.join(COMPONENTS[dim])} in any order")
        pairs = [a + b for k, a in enumerate(listed) for b in listed[k:]]
        strain, stress, tangent = names

        def split(name: str) -> dict[str, tuple[str, ...]]:
            parts = [listed[k : k + dim] for k in range(0, len(listed), dim)]
            ends = [(1 + k * dim, k * dim + len(part)) for k, part in enumerate(parts)]
            return {f"{name}{a}" if a == b else f"{name}{a}to{b}": part for (a, b), part in zip(ends, parts)}

        rows = {f"{tangent}{1 + k // dim}": tuple(pairs[k : k + dim]) for k in range(0, len(pairs), dim)}
        return cls(split(strain), split(stress), rows, notation)


class MicroSimulation:
    """One point of a law for the Micro Manager; `micro_simulation` derives the class of a given law.

    Args:
        sim_id: the number of the simulation in the manager.
    """

    law: Law
    data: MicroData
    # Name → indices of its components in the law's strains, and in the tangent row by row.
    _strain: dict[str, Indices]
    _stress: dict[str, Indices]
    _tangent: dict[str, Indices]
    _halves: tuple[Indices, Indices]  # indices in the tangent that are sent, and their mirror images, which are not

    def __init__(self, sim_id: int):
        self.sim_id = sim_id
        small = measure_of(self.law) is SMALL_STRAIN
        self._respond = PointLaw(self.law, 1, notation=self.data.notation if small else "Mandel")

    # Older versions of the manager count the named parameters and require initial data if there are any.
    def initialize(self, *initial_data: Mapping[str, Any]) -> dict[str, Any]:
        """Micro data at the initial macro data, or at zero strain; the state does not change."""
        found = self._at(self._read(*initial_data) if initial_data else np.zeros(self.law.strain_size))
        self._respond.reject()
        return found

    def solve(self, macro_data: Mapping[str, Any], dt: float) -> dict[str, Any]:
        """Micro data of the macro data.

        Args:
            macro_data: name → value of each strain.
            dt: the time step, which laws do not depend on.

        Raises:
            KeyError: without a strain.
            ValueError: strains of another shape or not finite.
            Exception: any error of the law.
        """
        strain = self._read(macro_data)
        # The manager has accepted the last solution, unless it has reset the state.
        self._respond.accept()
        return self._at(strain)

    def get_state(self) -> bytes:
        """The accepted state as bytes, which the manager may send to another rank."""
        self._respond.accept()
        return self._respond.state.tobytes()

    def set_state(self, state: bytes) -> None:
        """Return to a state of `get_state`; raises ValueError for one of another law."""
        rows = np.frombuffer(state, dtype=np.float64)
        if rows.size != self.law.state_size:
            raise ValueError(f"the state has {rows.size} numbers, the law needs {self.law.state_size}")
        self._respond.state = rows.reshape(1, -1).copy()
        self._respond.reject()

    def get_global_id(self) -> int:
        """The number of the simulation in the manager."""
        return self.sim_id

    def set_global_id(self, global_id: int) -> None:
        """Set the number of the simulation."""
        self.sim_id = global_id

    def __reduce__(self):
        return type(self), (self.sim_id,), self.get_state()

    def __setstate__(self, state: bytes) -> None:
        self.set_state(state)

    def _read(self, macro_data: Mapping[str, Any]) -> Array:
        strain = np.empty(self.law.strain_size)
        for name, indices in self._strain.items():
            if name not in macro_data:
                there, needed = (", ".join(map(repr, names)) or "nothing" for names in (macro_data, self._strain))
                raise KeyError(f"macro data have no {name!r}, only {there}; MicroData names the strains {needed}")
            values = np.asarray(macro_data[name], dtype=np.float64)
            if values.size != indices.size:
                components = ", ".join(self.data.strain[name])
                raise ValueError(f"{name!r} has the shape {values.shape}, need {indices.size} numbers: {components}")
            strain[indices] = values.ravel()
        return strain

    def _at(self, strain: Array) -> dict[str, Any]:
        stress, tangent = self._respond(strain[None])
        rows = tangent[0].ravel()
        sent, others = self._halves
        if (abs(rows[sent] - rows[others]) > 1e-6 * abs(rows).max()).any():
            warnings.warn(
                "the law's tangent is not symmetric, and only one half of it is sent: name all pairs of components in "
                "MicroData(tangent=...)",
                stacklevel=3,
            )
        parts = [(self._stress, stress[0]), (self._tangent, rows)]
        found = {name: values[indices] for layout, values in parts for name, indices in layout.items()}
        return {name: float(values[0]) if values.size == 1 else values for name, values in found.items()}


def micro_simulation(law: Law, data: MicroData | None = None) -> type[MicroSimulation]:
    """The class of a law's micro simulations, for the Micro Manager of preCICE.

    The manager's configuration names a file of the user with

        import coupling, spon
        law = coupling.SurrogateLaw(spon.load("model.safetensors"))
        MicroSimulation = coupling.micro_simulation(law, coupling.MicroData.published(notation="Mandel"))

    The manager requires the name `MicroSimulation`. It saves the accepted state and restores it with `set_state` for
    another iteration of a coupling step. For more micro data than stress and tangent, derive a class `MicroSimulation`
    and add them to the result of `solve`.

    Args:
        law: any `fe2.Law`.
        data: the data exchanged; `MicroData.published(dim)` if None, for a law of the small strain.

    Raises:
        ValueError: data without each component of the strain once, components that the law does not have, a name twice,
            or a law of another measure, or that needs more than a single point or depends on time.
        TypeError: a value that is no law.
    """
    if getattr(law, "rate_dependent", False):
        raise ValueError(f"{type(law).__name__} depends on time, but states of the manager have no time")
    PointLaw(law, 1)  # raises here, and not at the first point
    measure = measure_of(law)
    dim = measure.dimension(law.strain_size)
    known = COMPONENTS[dim] if measure is SMALL_STRAIN else _components(measure, dim)
    if data is None and measure is not SMALL_STRAIN:
        raise ValueError(f"the law takes a {measure.name}: name the data, with the components {', '.join(known)}")
    data = MicroData.published(dim) if data is None else data
    strain, stress = _layout("strain", data.strain, known), _layout("stress", data.stress, known)
    held = sorted(np.concatenate([np.empty(0, int), *strain.values()]).tolist())
    if held != list(range(law.strain_size)):
        given = ", ".join(c for components in data.strain.values() for c in components) or "nothing"
        raise ValueError(f"data.strain holds {given}; need each of {', '.join(known)} once")
    if twice := sorted({*data.stress} & {*data.tangent}):
        raise ValueError(f"data.stress and data.tangent both have {twice[0]!r}; need a name for each")
    tangent = _pairs(data.tangent, known)
    sent = np.concatenate([np.empty(0, int), *tangent.values()]).astype(np.int64)
    others = np.arange(law.strain_size**2).reshape(law.strain_size, -1).T.ravel()[sent]
    alone = ~np.isin(others, sent)
    members = {
        "law": law,
        "data": data,
        "_strain": strain,
        "_stress": stress,
        "_tangent": tangent,
        "_halves": (sent[alone], others[alone]),
        # Objects are pickled by the name of their class in the module that creates it, as with namedtuple.
        "__module__": sys._getframe(1).f_globals.get("__name__", __name__),
        "__doc__": MicroSimulation.__doc__,
    }
    return types.new_class("MicroSimulation", (MicroSimulation, *_interface()), exec_body=lambda ns: ns.update(members))


def _interface() -> tuple[type, ...]:
    """The manager's base class of simulations, where it is installed and new enough."""
    try:
        return (importlib.import_module("micro_manager").MicroSimulationInterface,)
    except (ImportError, AttributeError):
        return ()


def _components(measure: Measure, dim: int) -> tuple[str, ...]:
    """Components of a gradient, row by row."""
    axes = "xyz"[:dim]
    return tuple(axes) if measure.scalar else tuple(i + j for i in axes for j in axes)


def _layout(what: str, names: Mapping[str, Sequence[str]], known: Sequence[str]) -> dict[str, Indices]:
    """Name → indices of its components in a strain or stress."""
    return {name: np.array([_index(what, name, c, known) for c in listed], np.int64) for name, listed in names.items()}


def _pairs(names: Mapping[str, Sequence[str]], known: Sequence[str]) -> dict[str, Indices]:
    """Name → indices of its pairs of components in the tangent, row by row."""
    d, half = len(known), len(known[0])

    def index(name: str, pair: str) -> int:
        return d * _index("tangent", name, pair[:half], known) + _index("tangent", name, pair[half:], known)

    return {name: np.array([index(name, pair) for pair in listed], np.int64) for name, listed in names.items()}


def _index(what: str, name: str, component: str, known: Sequence[str]) -> int:
    found = component if component in known else _sorted(component)
    if found not in known:
        raise ValueError(
            f"data.{what} has the component {component!r} in {name!r}; a law in {len({*''.join(known)})} dimensions "
            f"has {', '.join(known)}"
        )
    return known.index(found)


def _sorted(component: str) -> str:
    """The pair in its usual order, xy for yx."""
    return "".join(sorted(component))
