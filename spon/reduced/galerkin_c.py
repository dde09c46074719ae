# SPDX-License-Identifier: MIT
"""RVEs in their modes as machine code; `spon.ModeNetwork.respond` is the reference, in torch."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from spon.constitutive.c_code import function
from spon.constitutive.phase_law import PhaseLaw
from spon.constitutive.program import beside
from spon.jit import Compiled, compiler, or_torch, source


class CompiledModes(Compiled):
    """Stress and tangent of cells in r modes, each with phases of its own, in float64.

    Args:
        laws: of the phases, without local unknowns. r: number of modes.

    Raises:
        OSError: no compiler, or one that fails; says what it said.
    """

    lanes = 8

    def __init__(self, laws: Sequence[PhaseLaw], r: int):
        self.laws, self.r, self.strain_size = tuple(laws), r, laws[0].strain_size
        programs = [beside(law.stress_program, law.tangent_program) for law in self.laws]
        text = "".join(function(f"law{k}", program) for k, program in enumerate(programs))
        constants = {"REAL": "double", "D": self.strain_size, "R": r, "LANES": self.lanes}
        constants["LAWS"] = ",".join(f"law{k}" for k in range(len(programs)))
        super().__init__(source("spon.constitutive", "lanes.h") + text + source(__package__, "galerkin.c"), constants)
        self._arrays = [np.array(program.constants, dtype=np.float64) for program in programs]

    def prepare(self, modes: npt.NDArray, phase: npt.NDArray, weights: npt.NDArray) -> "RVEsInModes":
        """n cells with strain modes (n, P, d, r) and phases (n, P), at points with weights (P,), as blocks of lanes."""
        n, points, d, r = modes.shape
        lanes, visited = self.lanes, [k for k, law in enumerate(self.laws) if not law.linear]
        blocks = points // lanes + len(visited) if visited else 1
        cells = RVEsInModes(
            np.full((n, blocks), -1, dtype=np.intc),
            np.zeros((n, blocks, d, r, lanes)),
            np.zeros((n, blocks, lanes)),
            np.zeros((n, d + r, d + r)),
        )
        for c in range(n):
            first = 0
            for k, law in enumerate(self.laws):
                here = np.flatnonzero(phase[c] == k)
                if law.linear:
                    fields = np.concatenate([np.broadcast_to(np.eye(d), (len(here), d, d)), modes[c, here]], axis=2)
                    moved = weights[here, None, None] * (np.array(law.matrix).reshape(d, d) @ fields)
                    cells.constant[c] += np.tensordot(fields, moved, ((0, 1), (0, 1)))
                    continue
                count = -(-len(here) // lanes)
                filled = np.zeros((count * lanes, d, r))
                filled[: len(here)] = modes[c, here]
                own = np.zeros(count * lanes)
                own[: len(here)] = weights[here]
                part = slice(first, first + count)
                cells.modes[c, part] = filled.reshape(count, lanes, d, r).transpose(0, 2, 3, 1)
                cells.weights[c, part], cells.phase[c, part] = own.reshape(count, lanes), k
                first += count
        return cells

    def __call__(
        self,
        cells: "RVEsInModes",
        which: npt.NDArray,
        strain: npt.NDArray,
        start: npt.NDArray,
        tolerance: float,
        most: int,
    ) -> tuple[npt.NDArray, ...]:
        """Of the cells `which` (n,) at strains (n, d): stress (n, d), tangent (n, d, d) [MPa], coefficients (n, r) of
        least energy, their slopes (n, r, d) by the strain, and iterations (n,), −1 for no minimum in `most`.

        start: (n, r), coefficients to begin with. tolerance: of the last step but one, as part of the cell's strain in
        the norm of energy; the last one squares it.

        Raises:
            ValueError: arrays of other shapes, or a cell that is not there.
        """
        n, d = strain.shape
        which, strain = np.ascontiguousarray(which, dtype=np.int_), np.ascontiguousarray(strain, dtype=np.float64)
        coefficients = np.array(start, dtype=np.float64, order="C")
        if strain.shape != (len(which), self.strain_size) or coefficients.shape != (n, self.r):
            raise ValueError(
                f"strains and coefficients have the shapes {strain.shape} and {coefficients.shape}, need "
                f"{(len(which), self.strain_size)} and {(len(which), self.r)}"
            )
        if n and not 0 <= which.min() <= which.max() < len(cells.phase):
            raise ValueError(f"cells {which.min()} to {which.max()} of {len(cells.phase)}")
        stress, tangent, slopes = np.empty((n, d)), np.empty((n, d, d)), np.empty((n, self.r, d))
        iterations = np.empty(n, dtype=np.intc)
        numbers = (ctypes.c_void_p * len(self.laws))(*(a.ctypes.data for a in self._arrays))
        places = (cells.phase, cells.modes, cells.weights, cells.constant, strain, coefficients, stress, tangent,
                  slopes, iterations)  # fmt: skip
        self.library.respond(
            ctypes.c_long(n),
            numbers,
            ctypes.c_int(cells.phase.shape[1]),
            ctypes.c_void_p(which.ctypes.data),
            *(ctypes.c_void_p(a.ctypes.data) for a in places),
            ctypes.c_double(tolerance),
            ctypes.c_int(most),
            ctypes.c_int(torch.get_num_threads()),
        )
        return stress, tangent, coefficients, slopes, iterations


@dataclass(frozen=True, slots=True, eq=False)
class RVEsInModes:
    """Cells as `CompiledModes` wants them, in blocks of lanes of one phase each.

    phase: (n, blocks), −1 for no block. modes: (n, blocks, d, r, lanes). weights: (n, blocks, lanes). constant:
    (n, d + r, d + r) [MPa], what the linear phases do.
    """

    phase: npt.NDArray
    modes: npt.NDArray
    weights: npt.NDArray
    constant: npt.NDArray


def compiled_modes(laws: Sequence[PhaseLaw], r: int) -> CompiledModes | None:
    """Cells in r modes as machine code; None without a compiler, with a warning if it fails."""
    return or_torch(lambda: CompiledModes(laws, r), "the cells' energy") if compiler() else None
