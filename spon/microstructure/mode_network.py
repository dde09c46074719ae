# SPDX-License-Identifier: MIT
"""RVEs that differ from point to point: a network from the phases of an RVE to its modes.

All RVEs have the same mesh, but each has its own phases. From the phases the network predicts a polarisation for each
of r modes: a stress τ at each point, smooth within a phase. The mode is the response of a homogeneous medium of
stiffness C⁰ to it, the periodic field of least energy ∫ ½ ε·C⁰ε + τ·ε. So modes are periodic by construction, and an
inclusion acts on the whole RVE. (Lippmann–Schwinger equation, see Moulinec & Suquet, CMAME 157, 1998.)

The first d modes are then corrected: they are replaced by the best solutions of the RVE's linear problem at zero
strain among all modes and the homogeneous medium's response to the residual forces; this is repeated a few times. These
are iterations of a solver that starts from the network's prediction, and training differentiates through them.

In these r modes the energy of the RVE is minimised at each macroscale strain: r equations with the user's own law.
Hence, for any weights of the network, the fluctuation is compatible and periodic, the energy an upper bound of that of
the same finite element space, the tangent symmetric and the derivative of the stress, and the Hill–Mandel condition
holds.
"""

import os
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spon.archive import Reader, unpacks, write
from spon.constitutive.measure import require_small_strain
from spon.constitutive.phase_law import PhaseLaw
from spon.microstructure.response import (
    ModeFields,
    RVENotConverged,
    RVEResponse,
    galerkin_stiffness,
    local_strains,
    solve_regularised,
)
from spon.microstructure.rve_mesh import RVEMesh, homogeneous_compliance
from spon.operators.discretisation import Discretisation
from spon.operators.network import OperatorNetwork
from spon.reduced.model import Fingerprint, require_same
from spon.sparse import SparseOperator


class ModeNetwork(nn.Module):
    """A network from phases to modes, and the response of RVEs in them; `coupling.mode_network` makes one.

    Args:
        discretisation: from the indicators of all phases but the first, one number per cell of the mesh each, to a
            periodic Lagrange field of r · m · d components.
        mesh: of all RVEs.
        laws: of the m phases, with energies, all for strains of d components.
        tags: of the phases, ascending.
        r: number of modes, at least d.
        half_range: (d,) largest strains to train for, in float64.
        corrections: number of corrections of the first d modes.
        fingerprint: of the mesh and the materials, without the phases of any RVE; None if unknown.
        **options: of `spon.OperatorNetwork`: processor, channels, seed, ...

    Raises:
        ValueError: laws without energy, with local unknowns, not at small strain or for other strains, or a
            discretisation for other numbers of phases or modes.
    """

    weights: Tensor
    cells: Tensor
    half_range: Tensor
    compliance: Tensor
    strains: SparseOperator
    interpolation: SparseOperator
    forces: SparseOperator

    def __init__(
        self,
        discretisation: Discretisation,
        mesh: RVEMesh,
        laws: Sequence[PhaseLaw],
        tags: Sequence[int],
        *,
        r: int,
        half_range: Tensor,
        corrections: int = 3,
        fingerprint: Fingerprint | None = None,
        **options,
    ):
        super().__init__()
        self.fingerprint = fingerprint
        self.laws, self.r, self.corrections, d = tuple(laws), r, corrections, len(half_range)
        if r < d:
            raise ValueError(f"r = {r}, need at least {d} modes")
        for law in self.laws:
            require_small_strain("a mode network", law.measure)
            if law.energy_program is None or law.local is not None or law.strain_size != d:
                raise ValueError(f"{law.name}: need a law with an energy, no local unknowns and {d} strain components")
        m, components = len(self.laws), discretisation.output.block_size
        if m < 2 or components != r * m * d or len(discretisation.encoders) != m - 1:
            raise ValueError(
                f"{m} phases and {r} modes need {m - 1} inputs and {r * m * d} components, not "
                f"{len(discretisation.encoders)} and {components}; and at least two phases"
            )
        self.network = OperatorNetwork.from_settings(discretisation, options)
        self.tags, self.mesh, self._half_range = tuple(tags), mesh, half_range
        weighted = mesh.strains.scipy.multiply(mesh.weights.repeat_interleave(d).numpy()[:, None])
        self._unrounded = {
            "weights": mesh.weights,
            "cells": mesh.cells,
            "half_range": half_range,
            "compliance": homogeneous_compliance(mesh, self.laws[0]),
            "strains": mesh.strains,
            "interpolation": mesh.interpolation,
            "forces": SparseOperator.of(weighted.T.tocsr()),
        }
        self._cast_shared()
        with torch.no_grad():
            # The untrained network predicts the polarisation of a single inclusion under each unit strain.
            start = self.network.mean.view(r, m, d)
            for k in range(r):
                start[k, 1 + (k // d) % (m - 1) if k < d * (m - 1) else k % m, k % d] = 1.0
            self.network.scale.fill_(0.3)
            for scaling in self.network.encoder.scalings:
                scaling.mean[0] = 0.3
                scaling.scale[0] = 0.4

    def _cast_shared(self) -> None:
        """The shared matrices on the network's device and in its precision, from the unrounded ones."""
        scale = self.network.scale
        for name, value in self._unrounded.items():
            moved = value.to(scale.device) if name == "cells" else value.to(device=scale.device, dtype=scale.dtype)
            setattr(self, name, moved)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self._cast_shared()
        return self

    def require(self, fingerprint: Fingerprint) -> None:
        """Raise unless an RVE has the mesh and the materials of the network; its phases may be any.

        Args:
            fingerprint: of the RVE, see `fe2.fingerprints`.

        Raises:
            ValueError: the network was made for another mesh or other materials; names the differences.
        """
        shared = {part: value for part, value in fingerprint.items() if part not in ("phases", "whole")}
        require_same("the network of modes", self.fingerprint, shared)

    def phases(self, tags: Tensor) -> Tensor:
        """Numbers of the phases (cells, n), from 0 to m − 1.

        Args:
            tags: (n, cells), of n RVEs.

        Raises:
            ValueError: a tag that the network does not have.
        """
        known = torch.tensor(self.tags, device=tags.device)
        found = torch.searchsorted(known, tags.contiguous()).clamp(max=len(known) - 1)
        if not bool((known[found] == tags).all()):
            raise ValueError(
                f"tag {int(tags[known[found] != tags][0])} is none of the network, which has {list(self.tags)}"
            )
        return found.T.contiguous()

    def phase(self, phases: Tensor) -> Tensor:
        """Phases (n, P) of the points of n RVEs.

        Args:
            phases: (cells, n), from 0 to m − 1.

        Raises:
            ValueError: phases of another shape, type or range.
        """
        count = int(self.network.spaces.encoders[0].shape[1])
        if phases.ndim != 2 or len(phases) != count or phases.is_floating_point():
            raise ValueError(
                f"phases have the shape {tuple(phases.shape)} of {phases.dtype}, need integers ({count}, n)"
            )
        if phases.numel() and not 0 <= int(phases.min()) <= int(phases.max()) < len(self.laws):
            raise ValueError(f"phases from {int(phases.min())} to {int(phases.max())}, need 0 to {len(self.laws) - 1}")
        return phases[self.cells].T

    def modes(self, phases: Tensor) -> ModeFields:
        """The modes of n RVEs.

        Args:
            phases: (cells, n), numbers of the phases.
        """
        phase, n, r, d = self.phase(phases), phases.shape[1], self.r, len(self.half_range)
        predicted = self.network(*((phases == k).to(self.weights.dtype) for k in range(1, len(self.laws))))
        inside = self.interpolation @ predicted.reshape(-1, r * len(self.laws) * d * n)
        of_phases = inside.view(-1, r, len(self.laws), d, n)
        polarisation = of_phases[:, :, 0]
        for k in range(1, len(self.laws)):
            polarisation = torch.where((phase == k).T[:, None, None], of_phases[:, :, k], polarisation)
        loads = self.forces @ polarisation.permute(0, 2, 1, 3).reshape(-1, r * n)
        found = self._homogeneous_response(loads.view(-1, r, n))
        others = found.select(slice(d, None))
        for _ in range(self.corrections):
            _, residual = self._linear_solution(found, phase)
            found = found.joined(self._homogeneous_response(residual))
        if self.corrections:
            best, _ = self._linear_solution(found, phase)
            found = best.joined(others)
        return found

    def _homogeneous_response(self, forces: Tensor) -> ModeFields:
        """The response of the homogeneous medium to forces (dofs, k, n)."""
        (_, k, n), d = forces.shape, len(self.half_range)
        displacements = self.compliance @ forces.reshape(-1, k * n)
        strains = (self.strains @ displacements).view(-1, d, k, n)
        return self._scaled(displacements.view(-1, k, n).permute(2, 0, 1), strains.permute(3, 0, 1, 2))

    def _scaled(self, displacements: Tensor, strains: Tensor) -> ModeFields:
        tiny = torch.finfo(strains.dtype).tiny ** 0.5  # for an RVE of one phase, whose fluctuations vanish
        size = (torch.einsum("p,npdr->nr", self.weights, strains.square()) + tiny).sqrt()[:, None]
        return ModeFields(displacements / size, strains / size[:, None])

    def _linear_solution(self, modes: ModeFields, phase: Tensor) -> tuple[ModeFields, Tensor]:
        """The best solution of the linear problem at zero strain under each unit strain, as d modes, and its residual
        forces (dofs, d, n)."""
        d, (n, points) = len(self.half_range), phase.shape
        at_zero_strain = torch.cat([law.tangent(self.weights.new_zeros(1, d)) for law in self.laws])[phase]
        unit = torch.eye(d).to(modes.strain)
        fields = torch.cat([unit.expand(n, points, d, d), modes.strain], -1)
        stiffness = galerkin_stiffness(fields, self.weights, at_zero_strain[:, None])[:, 0]
        coefficients = -solve_regularised(stiffness[:, d:, d:], stiffness[:, d:, :d])
        displacements, strains = modes.displacement @ coefficients, modes.strain @ coefficients[:, None]
        forces = self.forces @ (at_zero_strain @ (unit + strains)).permute(1, 2, 3, 0).reshape(-1, d * n)
        return self._scaled(displacements, strains), forces.view(-1, d, n)

    def respond(
        self, modes: Tensor, phase: Tensor, strain: Tensor, *, tolerance: float = 1e-10, iterations: int = 30
    ) -> RVEResponse:
        """The response of n RVEs at s strains each.

        Args:
            modes: (n, P, d, r), strains of the modes.
            phase: (n, P), phases of the points.
            strain: (n, s, d), macroscale strains.
            tolerance: of the residual of the r equations, relative to the stress.
            iterations: of Newton's method, at most.

        Raises:
            RVENotConverged: the r equations were not solved at some strains; names the first.
        """
        coefficients, residual = self._minimise(modes, phase, strain, tolerance, iterations)
        if not (residual <= tolerance).all():
            rve, k = divmod(int(residual.nan_to_num(torch.inf).argmax()), strain.shape[1])
            raise RVENotConverged(
                rve,
                f"strain {strain[rve, k].tolist()}: the reduced residual is {float(residual[rve, k]):.2e} of the "
                f"stress after {iterations} iterations, need {tolerance:.0e}",
            )
        local = local_strains(modes, strain, coefficients)
        d, w = strain.shape[-1], self.weights
        fields = torch.cat([torch.eye(d).to(modes).expand(*modes.shape[:2], d, d), modes], -1)
        stiffness = galerkin_stiffness(fields, w, self._evaluate("tangent", local, phase))
        sensitivities = -solve_regularised(stiffness[..., d:, d:], stiffness[..., d:, :d])
        return RVEResponse(
            stress=torch.einsum("p,nspd->nsd", w, self.stress(phase, local)),
            tangent=stiffness[..., :d, :d] + stiffness[..., :d, d:] @ sensitivities,
            energy=self.energy(phase, local),
            coefficients=coefficients,
            sensitivities=sensitivities,
            strain=local,
        )

    def energy(self, phase: Tensor, strain: Tensor) -> Tensor:
        """Mean energies (n, s) [MPa].

        Args:
            phase: (n, P), phases of the points of n RVEs.
            strain: (n, s, P, d), local strains.
        """
        return self._evaluate("energy", strain, phase) @ self.weights

    def stress(self, phase: Tensor, strain: Tensor) -> Tensor:
        """Local stresses (n, s, P, d) [MPa].

        Args:
            phase: (n, P), phases of the points of n RVEs.
            strain: (n, s, P, d), local strains.
        """
        return self._evaluate("stress", strain, phase)

    def energy_error_bound(self, phase: Tensor, strain: Tensor) -> Tensor:
        """Bound (n, s) [MPa] of the energy above the least one, if no tangent is below that of the homogeneous medium.

        ½ f·u, with the residual forces f and the homogeneous medium's displacements u under them. If tangents C on the
        way to the minimum are below the stiffness C⁰ of that medium, divide by the largest c with C ≥ c C⁰: a uniformly
        convex function is above its minimum by at most half its squared gradient over c.

        Args:
            phase: (n, P), phases of the points of n RVEs.
            strain: (n, s, P, d), local strains.
        """
        stress = self.stress(phase, strain)
        forces = self.forces @ stress.flatten(0, 1).flatten(1).T
        return ((self.compliance @ forces) * forces).sum(0).view(strain.shape[:2]) / 2

    def missing(self, phase: Tensor, strain: Tensor) -> Tensor:
        """Deprecated: `energy_error_bound`."""
        warnings.warn("missing is now energy_error_bound", DeprecationWarning, stacklevel=2)
        return self.energy_error_bound(phase, strain)

    def energies(self, phases: Tensor, strain: Tensor, iterations: int = 3) -> Tensor:
        """Energies (n, s) relative to those without fluctuation; training minimises them.

        Args:
            phases: (cells, n), of n RVEs.
            strain: (n, s, d), macroscale strains.
            iterations: of Newton's method for the coefficients.
        """
        modes, phase = self.modes(phases).strain, self.phase(phases)
        with torch.no_grad():
            coefficients, _ = self._minimise(modes, phase, strain, 0.0, iterations)
        uniform = strain[:, :, None].expand(-1, -1, len(self.weights), -1)
        return self.energy(phase, local_strains(modes, strain, coefficients)) / self.energy(phase, uniform)

    def _minimise(
        self, modes: Tensor, phase: Tensor, strain: Tensor, tolerance: float, iterations: int
    ) -> tuple[Tensor, Tensor]:
        """Coefficients (n, s, r) of least energy by Newton's method, and their relative residuals (n, s)."""
        coefficients = strain.new_zeros(*strain.shape[:2], self.r)
        for iteration in range(iterations + 1):
            local = local_strains(modes, strain, coefficients)
            stress = self.stress(phase, local)
            forces = torch.einsum("p,npdr,nspd->nsr", self.weights, modes, stress)
            scale = (stress.square().sum(-1) @ self.weights).sqrt()
            residual = forces.norm(dim=-1) / (scale + torch.finfo(scale.dtype).tiny)
            if iteration == iterations or (residual <= tolerance).all():
                break
            stiffness = galerkin_stiffness(modes, self.weights, self._evaluate("tangent", local, phase))
            coefficients = coefficients - solve_regularised(stiffness, forces[..., None])[..., 0]
        return coefficients, residual

    def _evaluate(self, what: str, strain: Tensor, phase: Tensor) -> Tensor:
        """Energy, stress or tangent at strains (n, s, P, d) of the law of each point's phase (n, P)."""
        found = getattr(self.laws[0], what)(strain)
        for k in range(1, len(self.laws)):
            here = (phase == k)[:, None].reshape(len(phase), 1, -1, *(1,) * (found.ndim - 3))
            found = torch.where(here, getattr(self.laws[k], what)(strain), found)
        return found

    def save(self, path: str | os.PathLike) -> None:
        """Write the network with its spaces and matrices to one file, see `spon.load`."""
        spaces, tensors = self.network.discretisation.pack()
        tensors = {f"spaces.{name}": value for name, value in tensors.items()}
        shapes = {}
        for name in ("strains", "tying", "interpolation"):
            matrix = getattr(self.mesh, name)
            shapes[name] = list(matrix.shape)
            tensors |= {f"{name}.{part}": getattr(matrix, part) for part in ("pointers", "columns", "values")}
        tensors |= {"mesh.weights": self.mesh.weights, "mesh.cells": self.mesh.cells}
        tensors |= {f"state.{name}": value for name, value in self.state_dict().items()}
        header = {
            "r": self.r,
            "corrections": self.corrections,
            "half_range": self._half_range.tolist(),
            "tags": list(self.tags),
            "fingerprint": None if self.fingerprint is None else dict(self.fingerprint),
            "laws": [law.to_json() for law in self.laws],
            "settings": self.network.settings,
            "spaces": spaces,
            "shapes": shapes,
        }
        write(path, "modes", header, tensors)


@unpacks("modes")
def load_modes(file: Reader) -> ModeNetwork:
    """The network of a file, on the CPU in the precision of the file. It needs no DOLFINx.

    Args:
        file: an open file; callers give its path.

    Raises:
        FileNotFoundError: the file does not exist.
        ModelFileError: the file is damaged or holds no network of modes.
    """
    header, state = file.header, file.tensors("state.")
    spaces = Discretisation.unpack(header["spaces"], lambda name: file.tensors("spaces." + name))
    matrices = {
        name: SparseOperator(tuple(shape), **file.tensors(name + ".")) for name, shape in header["shapes"].items()
    }
    mesh, laws = RVEMesh(**matrices, **file.tensors("mesh.")), map(PhaseLaw.from_json, header["laws"])
    half_range = torch.tensor(header["half_range"], dtype=torch.float64)
    settings = header["settings"] | {"half_range": half_range}
    settings |= {name: header[name] for name in ("r", "corrections")}
    settings["fingerprint"] = header.get("fingerprint")  # not in the first files
    network = ModeNetwork(spaces, mesh, tuple(laws), header["tags"], **settings)
    network.to(dtype=next(iter(state.values())).dtype).load_state_dict(state)  # all are in one precision
    return network
