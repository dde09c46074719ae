# SPDX-License-Identifier: MIT
"""What is evaluated most, as machine code: a potential's stress and tangent, and the conjugate of a law's energy.

The C files are the same formulas as `spon.networks.Potential.forward` and `spon.convex.conjugate`, which are the
reference, and stay in use for training, on GPUs, and where there is no compiler.
"""

import ctypes
import functools
import warnings

import numpy as np
import numpy.typing as npt
import torch

from spon.machine_code import compiler, function, library, source
from spon.networks import Potential
from spon.point_law import PhaseLaw

_REALS = {torch.float64: ("double", np.float64), torch.float32: ("float", np.float32)}


class CompiledPotential:
    """Stress and tangent of a potential, as its parameters are now.

    Args:
        potential: of which a copy of the parameters is taken. dtype: float64 or float32.

    Raises:
        ValueError: another dtype.
        OSError: no compiler, or one that fails; says what it said.
    """

    def __init__(self, potential: Potential, dtype: torch.dtype = torch.float64):
        if dtype not in _REALS:
            raise ValueError(f"dtype = {dtype}: need torch.float64 or torch.float32")
        real, self.dtype = _REALS[dtype]
        norms, size = potential.norms, potential.half_range.numel()
        self.strain_size = size
        constants = {"REAL": real, "SINGLE": int(real == "float"), "D": size, "K": len(norms.maps)}
        constants["WIDTH"] = potential.width
        self._response = library(source("lanes.h") + source("potential.c"), tuple(constants.items())).response
        self._response.restype = None
        with torch.no_grad():
            rest, _ = potential._derivatives(potential.half_range.new_zeros(1, size))
            (a1, a2, a3), (c1, c2, _) = potential.weights, potential.offsets
            smoothing2 = torch.tensor(norms.smoothing**2, dtype=torch.float64)
            parts = (potential.stiffness, potential.half_range, rest, potential.scale, smoothing2, norms.metrics(), a1,
                     c1, a2, c2, a3)  # fmt: skip
            # In the order of the C struct `network`.
            self._network = np.concatenate([part.cpu().numpy().ravel() for part in parts]).astype(self.dtype)

    def __call__(self, strain: npt.NDArray, stress: npt.NDArray, tangent: npt.NDArray) -> None:
        """Write stress (n, d) and tangent (n, d, d) [MPa] at strains (n, d), on as many threads as torch has.

        Raises:
            ValueError: arrays of other shapes or types, or that are not contiguous.
        """
        n, d = len(strain), self.strain_size
        for name, array, shape in (
            ("strain", strain, (n, d)), ("stress", stress, (n, d)), ("tangent", tangent, (n, d, d))
        ):  # fmt: skip
            if array.shape != shape or array.dtype != self.dtype or not array.flags.c_contiguous:
                raise ValueError(
                    f"{name} has shape {array.shape} and type {array.dtype}, need {shape} and {np.dtype(self.dtype)}, "
                    "contiguous"
                )
        self._response(
            ctypes.c_long(n),
            *(ctypes.c_void_p(a.ctypes.data) for a in (self._network, strain, stress, tangent)),
            ctypes.c_int(torch.get_num_threads()),
        )


def compiled_potential(potential: Potential | None, dtype: torch.dtype) -> CompiledPotential | None:
    """The potential as machine code; None if there is no potential or no compiler, and with a warning if that fails."""
    if potential is None or compiler() is None:
        return None
    return _or_torch(lambda: CompiledPotential(potential, dtype), "the model")


class CompiledConjugate:
    """ψ*(σ) = max_e σ·e − ψ(e) of a law with energy and without local unknowns, in float64.

    Raises:
        ValueError: a law without energy. OSError: no compiler, or one that fails; says what it said.
    """

    def __init__(self, law: PhaseLaw):
        if law.energy_program is None:
            raise ValueError(f"{law.name} is given by its stress and has no energy")
        programs = {"energy": law.energy_program, "stress": law.stress_program, "tangent": law.tangent_program}
        functions = "".join(function(f"law_{name}", program) for name, program in programs.items())
        sizes = (("REAL", "double"), ("D", law.strain_size))
        self._conjugates = library(source("lanes.h") + functions + source("conjugate.c"), sizes).conjugates
        self._conjugates.restype = None
        # The C struct `constants`.
        self._arrays = [np.array(program.constants, dtype=np.float64) for program in programs.values()]
        self._constants = (ctypes.c_void_p * 3)(*(a.ctypes.data for a in self._arrays))

    def __call__(self, stress: torch.Tensor, start: torch.Tensor, resolved: float, iterations: int) -> torch.Tensor:
        """Values (n,) [MPa] at stresses (n, d), ∞ where there is none, from strains (n, d) to begin with.

        `resolved`: of the stress, that may be missing in the end. iterations: at most.
        """
        stress, start = stress.contiguous(), start.contiguous()
        value = stress.new_empty(len(stress))
        self._conjugates(
            ctypes.c_long(len(stress)),
            self._constants,
            *(ctypes.c_void_p(x.data_ptr()) for x in (stress, start, value)),
            ctypes.c_double(resolved),
            ctypes.c_int(iterations),
            ctypes.c_int(torch.get_num_threads()),
        )
        return value


@functools.cache
def compiled_conjugate(law: PhaseLaw) -> CompiledConjugate | None:
    """The conjugate as machine code; None without a compiler or with local unknowns, with a warning if it fails."""
    if law.local is not None or compiler() is None:
        return None
    return _or_torch(lambda: CompiledConjugate(law), law.name)


def _or_torch(make, what: str):
    try:
        return make()
    except OSError as error:
        warnings.warn(f"{what} could not be compiled and is evaluated by torch: {error}", stacklevel=5)
        return None
