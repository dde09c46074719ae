# SPDX-License-Identifier: MIT
"""Training EquiNO from a cell's solved problems: bases, cubature, what the law demands, and the fit to it.

No further problem of the cell is solved. At many strains the constitutive law itself says what the coefficients have to
be: those of the displacement make the law's stress stationary (`ReducedModel`), those of the stress are the projection
of that stress. This is where the mismatch between the stress branch and the law on the displacement branch is least,
found by Newton's method instead of gradient descent through two networks; the networks then learn it, with its
derivatives, each on its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import qmc
from torch import Tensor, nn

from spon.cell import CellData
from spon.certificate import calibrate
from spon.cubature import empirical_cubature
from spon.equino import CellFields, EquiNO, Fields, turned, turned_means
from spon.networks import Branch, Potential
from spon.pod import pod
from spon.reduced import ReducedModel
from spon.training import History, fit

Array = npt.NDArray[np.float64]
Log = Callable[[str], None] | None


@dataclass(frozen=True, slots=True, eq=False)
class Bases:
    """Modes of a cell, as few and as many as are asked for.

    cell: r modes each, at all points. reduced: R ≥ r displacement modes on the cubature's points. singular_strain,
    singular_stress: (n,). points: (m,) of the cubature.
    """

    cell: CellFields
    reduced: ReducedModel
    stress_modes: Tensor
    singular_strain: Array
    singular_stress: Array
    points: npt.NDArray[np.int64]


def bases(data: CellData, r: int = 16, resolved: int = 32, tolerance: float = 3e-4, snapshots: int = 25) -> Bases:
    """POD bases of strain and stress fluctuation, and the cubature that integrates what they need.

    Args:
        data: solved problems. r: modes of the model. resolved: R, modes of the reduced model that it learns from.
        tolerance: of the cubature. snapshots: how many of the stress fields it has to integrate with all modes.

    Raises:
        ValueError: more modes than independent fields.
    """
    w = data.weights
    # Strains by the energy that they cost, so that those of a stiff phase are not lost.
    strain, stress = pod(data.local_strain, w, resolved, data.rest_tangents), pod(data.local_stress, w, r)
    stress_modes = turned(stress, w)
    some = data.local_stress[:: max(1, len(data.local_stress) // snapshots)]
    tests = np.concatenate([strain.modes, stress_modes[..., data.strain.shape[1] :]], axis=2)
    integrands = np.concatenate([np.einsum("pdr,npd->prn", tests, some).reshape(len(w), -1), np.hstack(list(some))], 1)
    integrands /= np.sqrt(w @ integrands**2) + 1e-300
    points, weights = empirical_cubature(integrands, w, tolerance)
    fields = Fields.of(data.laws, w, strain.modes[..., :r], stress_modes)
    reduced = ReducedModel(
        data.laws.subset(points.tolist()),
        torch.from_numpy(strain.modes[points]),
        torch.from_numpy(weights),
        torch.from_numpy(data.half_range),
    )
    displacements = data.fluctuation.T @ strain.combination[:, :r]
    return Bases(
        CellFields(fields, displacements, data.order, data.fingerprint),
        reduced,
        fields.stress_modes[points],
        strain.singular_values,
        stress.singular_values,
        points,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What the law demands at strains (n, d): coefficients and their derivatives in the strain.

    stress: (n, d). tangent: (n, d, d). displacement, d_displacement: (n, r), (n, r, d). self_stress, d_self_stress:
    (n, r − d), (n, r − d, d).
    """

    strain: Tensor
    stress: Tensor
    tangent: Tensor
    displacement: Tensor
    d_displacement: Tensor
    self_stress: Tensor
    d_self_stress: Tensor


def targets(bases: Bases, strain: Tensor, chunk: int = 128) -> Targets:
    """Solve the reduced model at strains (n, d); raises ReducedNotConverged."""
    d, r = strain.shape[1], bases.cell.fields.strain_modes.shape[2]
    model, parts = bases.reduced, []
    tests = (bases.stress_modes[..., d:] * model.weights[:, None, None]).reshape(-1, r - d)
    for some in strain.split(chunk):
        s = model.solve(some)
        slope = torch.eye(d, dtype=strain.dtype) + torch.einsum("pdr,nre->npde", model.modes, s.slopes)
        local = (s.local_tangent @ slope).reshape(len(some), -1, d)
        parts.append(
            (
                some,
                s.stress,
                s.tangent,
                s.coefficients[:, :r],
                s.slopes[:, :r],
                s.local_stress.reshape(len(some), -1) @ tests,
                torch.einsum("qs,nqe->nse", tests, local),
            )
        )
    return Targets(*(torch.cat(p) for p in zip(*parts, strict=True)))


def sample(n: int, half_range: Tensor, seed: int) -> Tensor:
    """n strains of a scrambled Sobol sequence (n, d) in the box of ±`half_range` (d,)."""
    sequence = qmc.Sobol(half_range.numel(), seed=np.random.default_rng(seed))
    return half_range * torch.from_numpy(2 * sequence.random_base2((n - 1).bit_length())[:n] - 1)


def train(
    data: CellData,
    *,
    r: int = 16,
    resolved: int = 32,
    samples: int = 1024,
    width: int = 32,
    widths: tuple[int, ...] = (48, 48),
    lbfgs: int = 2000,
    seed: int = 0,
    log: Log = None,
) -> tuple[EquiNO, Bases, dict[str, History]]:
    """EquiNO of a cell.

    Args:
        data: solved problems, see `coupling.cell_data`; the trained range is the box around their strains.
        r: modes of displacement and of stress. resolved: modes of the reduced model that says what is right.
        samples: strains to learn at; a quarter as many to validate.
        width: of the potential's two layers. widths: of the branches' layers. lbfgs: iterations at most for each.
        seed: of strains and initial weights. log: takes lines on the way.

    Returns:
        The model, its bases with the fields at all points, and how each network was fitted.
    """
    say = log or (lambda line: None)
    r = min(r, len(data.strain) // 2)
    b = bases(data, r, max(r, min(resolved, len(data.strain) // 2)))
    say(f"{len(b.points)} cubature points of {len(data.weights)}, {r} modes, {b.reduced.modes.shape[2]} resolved")
    half = torch.from_numpy(data.half_range)
    learn = targets(b, sample(samples, 1.02 * half, seed))
    check = targets(b, sample(max(samples // 4, 16), half, seed + 1))
    rest = b.reduced.solve(torch.zeros(1, half.numel(), dtype=torch.float64))
    stiffness = (rest.tangent[0] + rest.tangent[0].T) / 2
    nonlinear = (learn.stress - learn.strain @ stiffness).norm(dim=1).mean() * half.mean()
    energy = max(float(nonlinear), 1e-12 * float(stiffness.norm()))
    potential = Potential(stiffness, half, energy, width=width, seed=seed)
    displacement, self_stress = (
        Branch(half, value.std(dim=0) + 1e-12 * value.std(), widths=widths, seed=seed + k)
        for k, value in ((1, learn.displacement), (2, learn.self_stress))
    )
    histories = {
        "potential": _fit(potential, potential, "stress", "tangent", learn, check, half, lbfgs, log),
        "displacement": _fit_branch(displacement, "displacement", learn, check, half, lbfgs, log),
        # The smaller modes of stress carry what a small component, such as the shear stress, differs by.
        "self-stress": _fit_branch(self_stress, "self_stress", learn, check, half, lbfgs, log, balance=0.5),
    }
    means = turned_means(half.numel(), r)
    cubature = b.cell.fields.at(b.points, b.reduced.weights)
    model = EquiNO(
        displacement, potential, self_stress, lower=-half, upper=half, means=means, cubature=cubature, cell=b.cell
    )
    calibrate(model, torch.from_numpy(data.strain), torch.from_numpy(data.stress))
    return model, b, histories


def _fit_branch(
    branch: Branch, name: str, learn: Targets, check: Targets, half: Tensor, lbfgs: int, log: Log, balance: float = 0.0
) -> History:
    """Fit a branch to its targets, beginning with the best linear map; modes count with size^(−2 balance)."""
    branch.start_linear(learn.strain, getattr(learn, name))
    weights = branch.scale ** (-balance)
    return _fit(branch, branch.with_tangent, name, f"d_{name}", learn, check, half, lbfgs, log, weights)


def _fit(
    network: nn.Module,
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]],
    value: str,
    slope: str,
    learn: Targets,
    check: Targets,
    half: Tensor,
    lbfgs: int,
    log: Log,
    weights: Tensor | None = None,
) -> History:
    """Fit `evaluate`, which gives a value and its slope, to the targets of these names."""

    def loss(t: Targets) -> Tensor:
        return sobolev(*evaluate(t.strain), getattr(t, value), getattr(t, slope), half, weights)

    say = None if log is None else (lambda line: log(f"{value.replace('_', '-')}: {line}"))
    return fit(network.parameters(), lambda: loss(learn), lambda: loss(check), lbfgs=lbfgs, log=say)


def sobolev(
    value: Tensor, slope: Tensor, right: Tensor, right_slope: Tensor, half: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Mean relative squared error of coefficients (n, r) and, a tenth, of their slopes (n, r, d).

    `half`: (d,) what the slopes' strains are measured in. `weights`: (r,) of the coefficients.
    """
    weights = torch.ones_like(right[0]) if weights is None else weights
    size = (right * weights).square().sum(-1)
    error = ((value - right) * weights).square().sum(-1) / (size + 1e-2 * size.mean())
    scaled = weights[:, None] * half
    size = (right_slope * scaled).square().sum((-1, -2))
    slopes = ((slope - right_slope) * scaled).square().sum((-1, -2)) / (size + 1e-2 * size.mean())
    return error.mean() + 0.1 * slopes.mean()
