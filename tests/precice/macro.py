# SPDX-License-Identifier: MIT
"""The macro participant: points with given stresses, whose strains are found by Newton's method.

In each time window it iterates on the strains, with the stresses and tangents of the RVEs, until preCICE finds the
stresses converged. `coupled.py` starts this file in the folder with the configuration of preCICE.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import micro_law
import numpy as np
import numpy.typing as npt
import precice

Array = npt.NDArray[np.float64]

MESH = "Macro-Mesh"
COMPONENTS = ("xx", "yy", "xy")
POINTS = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
# Of each point at the factor 1; loaded, unloaded, and loaded further.
STRESSES = np.array([[0.9, 0.0, 0.0], [0.0, 0.8, 0.2], [0.3, -0.6, 0.3], [0.02, 0.01, 0.01]])
FACTORS = (0.5, 1.0, 0.4, 1.2)
# Of the elastic tangents, for the first iteration of a window. At unloading Newton cycles with plastic ones.
GUESS = np.diag([150.0, 150.0, 40.0])


@dataclass(frozen=True)
class Iterate:
    """One iteration of the coupling at all points: strains (points, 3), and what came back."""

    window: int
    strain: Array
    stress: Array
    tangent: Array


def couple(folder: Path) -> list[Iterate]:
    """All iterations, from the first time window to the last."""
    participant = precice.Participant("Macro", str(folder / "precice-config.xml"), 0, 1)
    ids = participant.set_mesh_vertices(MESH, POINTS)
    participant.initialize()
    data = micro_law.data

    def read(names: Mapping[str, Sequence[str]], dt: float) -> dict[str, Array]:
        values = {name: participant.read_data(MESH, name, ids, dt).reshape(len(POINTS), -1) for name in names}
        return {part: values[name][:, k] for name, parts in names.items() for k, part in enumerate(parts)}

    def received(dt: float) -> tuple[Array, Array]:
        return vectors(read(data.stress, dt)), matrices(read(data.tangent, dt))

    iterates: list[Iterate] = []
    strain = np.zeros_like(STRESSES)
    window = 0
    while participant.is_coupling_ongoing():
        # No state to write or read: the next iteration begins at the strains of the last.
        participant.requires_writing_checkpoint()
        dt = participant.get_max_time_step_size()
        stress, tangent = received(dt)
        if iterates:
            iterates[-1] = replace(iterates[-1], stress=stress, tangent=tangent)
        first = not iterates or iterates[-1].window < window
        missing = FACTORS[window] * STRESSES - stress
        strain = strain + np.linalg.solve(GUESS if first else tangent, missing[..., None])[..., 0]
        iterates.append(Iterate(window, strain, stress, tangent))
        for name, parts in data.strain.items():
            values = strain[:, [COMPONENTS.index(part) for part in parts]]
            participant.write_data(MESH, name, ids, values[:, 0] if len(parts) == 1 else values)
        participant.advance(dt)
        if not participant.requires_reading_checkpoint():
            window += 1
    stress, tangent = received(0.0)
    iterates[-1] = replace(iterates[-1], stress=stress, tangent=tangent)
    participant.finalize()
    return iterates


def vectors(values: Mapping[str, Array]) -> Array:
    """(points, 3) of the components."""
    return np.stack([values[part] for part in COMPONENTS], axis=-1)


def matrices(values: Mapping[str, Array]) -> Array:
    """(points, 3, 3) of the pairs of components in the upper triangle."""
    pairs = [[a + b if a + b in values else b + a for b in COMPONENTS] for a in COMPONENTS]
    return np.stack([np.stack([values[pair] for pair in row], axis=-1) for row in pairs], axis=-2)


if __name__ == "__main__":
    found = couple(Path.cwd())
    names = ("window", "strain", "stress", "tangent")
    np.savez("iterates.npz", **{name: np.array([getattr(iterate, name) for iterate in found]) for name in names})
