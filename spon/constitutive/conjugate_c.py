# SPDX-License-Identifier: MIT
"""The conjugate energy of a law as machine code; the reference in torch is `spon.constitutive.duality.conjugate`."""

import ctypes
import functools

import numpy as np
import torch

from spon.constitutive.c_code import function
from spon.constitutive.phase_law import PhaseLaw
from spon.jit import Compiled, compiler, or_torch, source


class CompiledConjugate(Compiled):
    """The conjugate energy ψ*(σ) = max_ε σ·ε − ψ(ε) in float64.

    Args:
        law: with an energy and without local unknowns.

    Raises:
        ValueError: a law without energy.
        OSError: no compiler, or it fails; the message quotes its output.
    """

    def __init__(self, law: PhaseLaw):
        if law.energy_program is None:
            raise ValueError(f"{law.name} has no energy and no conjugate energy")
        programs = {"energy": law.energy_program, "stress": law.stress_program, "tangent": law.tangent_program}
        functions = "".join(function(f"law_{name}", program) for name, program in programs.items())
        constants: dict[str, str | int] = {"REAL": "double", "D": law.strain_size, "LANES": 64}
        super().__init__(source(__package__, "lanes.h") + functions + source(__package__, "conjugate.c"), constants)
        self.strain_size = law.strain_size
        self._arrays = [np.array(program.constants, dtype=np.float64) for program in programs.values()]

    def __call__(
        self, stress: torch.Tensor, start: torch.Tensor, resolved: float, least: float, iterations: int
    ) -> torch.Tensor:
        """Conjugate energies (n,) [MPa], infinite where no strain has the stress.

        Args:
            stress: (n, d) [MPa].
            start: (n, d), initial strains of the iteration.
            resolved: tolerance of the residual, relative to the stress.
            least: absolute tolerance of the residual, for rounding [MPa], added to the relative one.
            iterations: number of iterations, at most.

        Raises:
            ValueError: tensors of other shapes or types, or not on the CPU.
        """
        for name, x in (("stress", stress), ("start", start)):
            if x.shape != (len(stress), self.strain_size) or x.dtype != torch.float64 or x.device.type != "cpu":
                raise ValueError(
                    f"{name} has shape {tuple(x.shape)} and type {x.dtype} on {x.device}, need "
                    f"({len(stress)}, {self.strain_size}) and torch.float64 on the CPU"
                )
        stress, start = stress.contiguous(), start.contiguous()
        value = stress.new_empty(len(stress))
        self.library.conjugates(
            ctypes.c_long(len(stress)),
            (ctypes.c_void_p * 3)(*(a.ctypes.data for a in self._arrays)),  # the C struct `constants`
            *(ctypes.c_void_p(x.data_ptr()) for x in (stress, start, value)),
            ctypes.c_double(resolved),
            ctypes.c_double(least),
            ctypes.c_int(iterations),
            ctypes.c_int(torch.get_num_threads()),
        )
        return value


def compiled_conjugate(law: PhaseLaw) -> CompiledConjugate | None:
    """The conjugate energy as machine code.

    None without a compiler or for a law with local unknowns; also, with a warning, if the compiler fails.
    """
    return None if law.local is not None or not (cc := compiler()) else _conjugate(law, cc)


@functools.cache
def _conjugate(law: PhaseLaw, cc: tuple[str, ...]) -> CompiledConjugate | None:
    return or_torch(lambda: CompiledConjugate(law), law.name)
