# SPDX-License-Identifier: MIT
"""Galerkin's method in modes as machine code, for many RVEs; `spon.ModeNetwork.respond` is the reference in torch."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from spon.constitutive.c_code import function
from spon.constitutive.phase_law import PhaseLaw
from spon.constitutive.program import beside
from spon.jit import Compiled, compiler, or_torch, source


class ModalResponse(NamedTuple):
    """The response of RVEs in r modes at n strains.

    Args:
        stress: (n, d) homogenised [MPa].
        tangent: (n, d, d) homogenised [MPa].
        coefficients: (n, r) of least energy.
        sensitivities: (n, r, d), derivatives of the coefficients by the strain.
        iterations: (n,) of Newton's method; −1 where it did not converge.
    """

    stress: npt.NDArray
    tangent: npt.NDArray
    coefficients: npt.NDArray
    sensitivities: npt.NDArray
    iterations: npt.NDArray


class CompiledModes(Compiled):
    """Stress and tangent of RVEs in r modes, each with its own phases, in float64.

    Args:
        laws: of the phases, without local unknowns.
        r: number of modes.

    Raises:
        OSError: no compiler, or it fails; the message quotes its output.
    """

    lanes = 8

    def __init__(self, laws: Sequence[PhaseLaw], r: int):
        self.laws, self.r, self.strain_size = tuple(laws), r, laws[0].strain_size
        programs = [beside(law.stress_program, law.tangent_program) for law in self.laws]
        text = "".join(function(f"law{k}", program) for k, program in enumerate(programs))
        constants: dict[str, str | int] = {"REAL": "double", "D": self.strain_size, "R": r, "LANES": self.lanes}
        constants["LAWS"] = ",".join(f"law{k}" for k in range(len(programs)))
        super().__init__(source("spon.constitutive", "lanes.h") + text + source(__package__, "galerkin.c"), constants)
        self._arrays = [np.array(program.constants, dtype=np.float64) for program in programs]

    def prepare(self, modes: npt.NDArray, phase: npt.NDArray, weights: npt.NDArray) -> "RVEsInModes":
        """RVEs as blocks of lanes.

        Args:
            modes: (n, P, d, r), strain modes of n RVEs.
            phase: (n, P), numbers of the phases.
            weights: (P,) of the points.
        """
        n, points, d, r = modes.shape
        lanes, visited = self.lanes, [k for k, law in enumerate(self.laws) if not law.linear]
        blocks = points // lanes + len(visited) if visited else 1
        rves = RVEsInModes(
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
                    rves.constant[c] += np.tensordot(fields, moved, ((0, 1), (0, 1)))
                    continue
                count = -(-len(here) // lanes)
                filled = np.zeros((count * lanes, d, r))
                filled[: len(here)] = modes[c, here]
                own = np.zeros(count * lanes)
                own[: len(here)] = weights[here]
                part = slice(first, first + count)
                rves.modes[c, part] = filled.reshape(count, lanes, d, r).transpose(0, 2, 3, 1)
                rves.weights[c, part], rves.phase[c, part] = own.reshape(count, lanes), k
                first += count
        return rves

    def __call__(
        self,
        rves: "RVEsInModes",
        which: npt.NDArray,
        strain: npt.NDArray,
        start: npt.NDArray,
        tolerance: float,
        most: int,
    ) -> ModalResponse:
        """Minimise the energy of some RVEs at strains.

        Args:
            rves: the RVEs, from `prepare`.
            which: (n,) number of the RVE of each strain.
            strain: (n, d).
            start: (n, r), initial coefficients.
            tolerance: of the last step but one, relative to the strain in the energy norm; the last step squares it.
            most: number of iterations, at most.

        Raises:
            ValueError: arrays of other shapes, or an RVE that does not exist.
        """
        n, d = strain.shape
        which, strain = np.ascontiguousarray(which, dtype=np.int_), np.ascontiguousarray(strain, dtype=np.float64)
        coefficients = np.array(start, dtype=np.float64, order="C")
        if strain.shape != (len(which), self.strain_size) or coefficients.shape != (n, self.r):
            raise ValueError(
                f"strains and coefficients have the shapes {strain.shape} and {coefficients.shape}, need "
                f"{(len(which), self.strain_size)} and {(len(which), self.r)}"
            )
        if n and not 0 <= which.min() <= which.max() < len(rves.phase):
            raise ValueError(f"RVEs {which.min()} to {which.max()}, need 0 to {len(rves.phase) - 1}")
        stress, tangent, sensitivities = np.empty((n, d)), np.empty((n, d, d)), np.empty((n, self.r, d))
        iterations = np.empty(n, dtype=np.intc)
        numbers = (ctypes.c_void_p * len(self.laws))(*(a.ctypes.data for a in self._arrays))
        arrays = (rves.phase, rves.modes, rves.weights, rves.constant, strain, coefficients, stress, tangent,
                  sensitivities, iterations)  # fmt: skip
        self.library.respond(
            ctypes.c_long(n),
            numbers,
            ctypes.c_int(rves.phase.shape[1]),
            ctypes.c_void_p(which.ctypes.data),
            *(ctypes.c_void_p(a.ctypes.data) for a in arrays),
            ctypes.c_double(tolerance),
            ctypes.c_int(most),
            ctypes.c_int(torch.get_num_threads()),
        )
        return ModalResponse(stress, tangent, coefficients, sensitivities, iterations)


@dataclass(frozen=True, slots=True, eq=False)
class RVEsInModes:
    """RVEs in the layout of `CompiledModes`: blocks of lanes, each of one phase.

    Args:
        phase: (n, blocks), −1 for no block.
        modes: (n, blocks, d, r, lanes).
        weights: (n, blocks, lanes).
        constant: (n, d + r, d + r), stiffness of the linear phases [MPa].
    """

    phase: npt.NDArray
    modes: npt.NDArray
    weights: npt.NDArray
    constant: npt.NDArray


def compiled_modes(laws: Sequence[PhaseLaw], r: int) -> CompiledModes | None:
    """Machine code for RVEs in r modes; None without a compiler, and with a warning if the compiler fails."""
    return or_torch(lambda: CompiledModes(laws, r), "the energy of RVEs") if compiler() else None
