# SPDX-License-Identifier: MIT
"""Training EquiNO from a cell's solved problems: bases, cubature, what the law demands, and the fit to it.

No further problem of the cell is solved. At many strains the constitutive law itself says what the coefficients have to
be: those of the displacement make the law's stress stationary (`ReducedModel`), those of the stress are the projection
of that stress. This is where the mismatch between the stress branch and the law on the displacement branch is least,
found by Newton's method instead of gradient descent through two networks; the networks then learn it, with its
derivatives, each on its own.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import qmc
from torch import Tensor, nn

from spon.equino.certificate import calibrate
from spon.equino.model import EquiNO
from spon.equino.networks import Branch, Potential
from spon.equino.rve_snapshots import RVESnapshots
from spon.reduced.cubature import empirical_cubature
from spon.reduced.galerkin import ReducedModel
from spon.reduced.modes import ModesAtPoints, RVEModes, unit_mean_stresses, with_unit_mean_stresses
from spon.reduced.pod import pod
from spon.training.fit import FULL_BATCH, fit
from spon.training.result import History

Array = npt.NDArray[np.float64]
Log = Callable[[str], None] | None


@dataclass(frozen=True, slots=True, eq=False)
class Bases:
    """Modes of a cell, as few and as many as are asked for.

    cell: r modes each, at all points. reduced: R ≥ r displacement modes on the cubature's points. singular_strain,
    singular_stress: (n,). points: (m,) of the cubature.
    """

    rve_modes: RVEModes
    reduced: ReducedModel
    singular_strain: Array
    singular_stress: Array
    points: npt.NDArray[np.int64]


def bases(data: RVESnapshots, r: int = 16, resolved: int = 32, tolerance: float = 3e-4, snapshots: int = 25) -> Bases:
    """POD bases of strain and stress fluctuation, and the cubature that integrates what they need.

    Args:
        data: solved problems. r: modes of the model. resolved: R, modes of the reduced model that it learns from; both
            at most, see `pod`. tolerance: of the cubature. snapshots: at least how many of the stress fields, if there
            are as many, it has to integrate with all modes.

    Raises:
        ValueError: stresses whose means do not span all components; see `RVESnapshots`.
    """
    w, d = data.weights, data.strain.shape[1]
    # Strains by the energy that they cost, so that those of a stiff phase are not lost.
    strain, stress = pod(data.local_strain, w, resolved, data.tangents_at_zero_strain), pod(data.local_stress, w, r)
    stress_modes = with_unit_mean_stresses(stress, w)
    some = data.local_stress[:: max(1, len(data.local_stress) // snapshots)]
    tests = np.concatenate([strain.modes, stress_modes[..., d:]], axis=2)
    integrands = np.concatenate([np.einsum("pdr,npd->prn", tests, some).reshape(len(w), -1), np.hstack(list(some))], 1)
    integrands /= np.sqrt(w @ integrands**2) + 1e-300
    points, weights = empirical_cubature(integrands, w, tolerance)
    fields = ModesAtPoints.of(data.laws, w, strain.modes[..., :r], stress_modes, fingerprint=data.fingerprint)
    reduced = ReducedModel(
        data.laws.subset(points.tolist()),
        torch.from_numpy(strain.modes[points]),
        torch.from_numpy(weights),
        torch.from_numpy(data.half_range),
        data.fingerprint,
    )
    displacements = data.fluctuation.T @ strain.combination[:, :r]
    return Bases(
        RVEModes(fields, displacements, data.order),
        reduced,
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

    def at(self, rows: Tensor) -> "Targets":
        """Some of the strains."""
        return Targets(*(getattr(self, name)[rows] for name in self.__slots__))


def targets(bases: Bases, strain: Tensor, chunk: int = 128) -> Targets:
    """Solve the reduced model at strains (n, d); raises ReducedNotConverged."""
    d, fields = strain.shape[1], bases.rve_modes.at_points
    r = fields.strain_modes.shape[2]
    model, parts = bases.reduced, []
    tests = (fields.stress_modes[bases.points, :, d:] * model.weights[:, None, None]).flatten(0, 1)
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


def sample(n: int, half_range: Tensor, seed: int, nearer: float = 0.0) -> Tensor:
    """n strains (n, d) of a scrambled Sobol sequence in the box of ±`half_range` (d,).

    `nearer`: the share of them that is drawn towards rest, each by some factor, all factors being equally likely. Of a
    box in many dimensions nearly everything is far from its middle, but loads begin there.
    """
    d = half_range.numel()
    sequence = qmc.Sobol(d + 1, seed=np.random.default_rng(seed)).random_base2((n - 1).bit_length())[:n]
    factor = np.minimum(1.0, sequence[:, d:] / nearer) if nearer else 1.0
    return half_range * torch.from_numpy((2 * sequence[:, :d] - 1) * factor)


def train(
    data: RVESnapshots,
    *,
    r: int = 16,
    resolved: int = 32,
    samples: int = 1024,
    width: int = 24,
    widths: tuple[int, ...] = (48, 48),
    norms: int = 8,
    lbfgs: int = 2000,
    seed: int = 0,
    log: Log = None,
) -> tuple[EquiNO, Bases, dict[str, History]]:
    """EquiNO of a cell.

    Args:
        data: solved problems, see `coupling.rve_snapshots`; the trained range is the box around their strains.
        r: modes of displacement and of stress, at most. resolved: modes of the reduced model that says what is right.
        samples: strains to learn at, at least 4; a quarter of them are those, of many, where the networks that have
            learnt at the others err most.
        width: of the potential's two layers. widths: of the branches' layers. norms: of the strain, for each network.
        lbfgs: iterations at most for each network. seed: of strains and initial weights.
        log: takes lines on the way, e.g. a `spon.training.progress.Live`.

    Returns:
        The model, its bases with the fields at all points, and how each network was fitted. The calibration of a cell
        with a material that has no energy is NaN: it has no certificate.

    Raises:
        ValueError: fewer samples, a law with stress at rest, or what `bases` raises. ReducedNotConverged: a strain in
        the trained range at which the reduced model finds no equilibrium.
    """
    _check(data, samples)
    b = bases(data, r, max(r, resolved))
    half = torch.from_numpy(data.half_range)
    learn = _pool(b, half, samples, seed)
    rest = b.reduced.solve(torch.zeros(1, half.numel(), dtype=torch.float64))
    stiffness = (rest.tangent[0] + rest.tangent[0].T) / 2
    nonlinear = (learn.stress - learn.strain @ stiffness).norm(dim=1).mean() * half.mean()
    energy = max(float(nonlinear), 1e-12 * float(stiffness.norm()))
    # A component whose range is narrow is not stretched to that of the others: the response is nearly linear in it, and
    # what random weights make of it would be divided by the narrow range, twice in the tangent.
    unit = half.clamp(min=0.5 * float(half.max()))
    displacement, self_stress = (
        Branch(unit, _spread(value), widths=widths, norms=norms, seed=seed + k)
        for k, value in ((1, learn.displacement), (2, learn.self_stress))
    )
    for branch, value in ((displacement, learn.displacement), (self_stress, learn.self_stress)):
        branch.start_linear(learn.strain, value)
    potential = Potential(stiffness, unit, energy, width=width, norms=norms, seed=seed)
    return _learn(data, b, (displacement, potential, self_stress), learn, samples, 300, lbfgs, seed, log)


def refit(
    model: EquiNO,
    data: RVESnapshots,
    *,
    r: int | None = None,
    resolved: int = 32,
    samples: int = 1024,
    lbfgs: int = 1000,
    seed: int = 0,
    log: Log = None,
) -> tuple[EquiNO, Bases, dict[str, History]]:
    """Train on with more solved problems of the same cell, such as those of `coupling.CertifiedLaw.collected`.

    Bases and trained range become those of all the problems. The networks go on from what they know: a branch begins
    with the coefficients, in the new modes, of the fields that it gave in the old ones.

    Args:
        model: of `train` with its cell. data: old and new problems. r: modes, at most; None for as many modes of
            stress as the model has. The others, and what is returned: see `train`.

    Raises:
        ValueError: a model without potential or cell, or of another cell. What `train` raises.
    """
    _check(data, samples)
    if model.potential is None:
        raise ValueError("the model has no potential, as `train` gives it, so that it cannot be trained on")
    model.require(data.fingerprint)
    old = model.rve_modes
    r, d = old.at_points.stress_modes.shape[2] if r is None else r, data.strain.shape[1]
    b = bases(data, r, max(r, resolved))
    learn = _pool(b, torch.from_numpy(data.half_range), samples, seed)
    new, w = b.rve_modes.at_points, b.rve_modes.at_points.weights
    metric = torch.from_numpy(data.tangents_at_zero_strain)
    displacement = model.displacement.in_modes(
        torch.einsum("p,pdr,pde,pes->rs", w, new.strain_modes, metric, old.at_points.strain_modes),
        _spread(learn.displacement),
    )
    # What the first d modes, whose coefficients are the stress, contribute to the others is linear in the stress, and
    # next to nothing; the fit finds it.
    self_stress = model.stress.in_modes(
        torch.einsum("p,pdr,pds->rs", w, new.stress_modes[..., d:], old.at_points.stress_modes[..., d:]),
        _spread(learn.self_stress),
    )
    networks = (displacement, copy.deepcopy(model.potential).requires_grad_(), self_stress)
    return _learn(data, b, networks, learn, samples, 0, lbfgs, seed, log)


def mismatch(model: EquiNO, strain: Tensor, at: ModesAtPoints | None = None) -> Tensor:
    """Root mean square over the cell of stress branch minus law on displacement branch, of that of the latter (n,).

    `at`: the points, by default those of the model's cubature.
    """
    at = model.cubature if at is None else at
    epsilon, sigma = model.fields(strain, at)
    law = at.laws.stress(epsilon)
    return (((law - sigma).square().sum(-1) @ at.weights) / (law.square().sum(-1) @ at.weights)).sqrt()


def _check(data: RVESnapshots, samples: int) -> None:
    """Refuse what the networks cannot learn, before there is much work in it."""
    if samples < 4:
        raise ValueError(f"samples = {samples}: need at least 4")
    largest, rest = abs(data.local_stress).max(), torch.zeros(1, data.laws.strain_size, dtype=torch.float64)
    for law in data.laws.laws:
        stress = law.stress(rest)[0]
        if not (stress.abs() <= 1e-9 * largest).all():
            raise ValueError(f"{law.name}: the stress at rest is {stress.tolist()} MPa, need none")


def _spread(coefficients: Tensor) -> Tensor:
    """Standard deviations (r,) of coefficients (n, r), above zero."""
    deviations = (coefficients - coefficients.mean(dim=0)).square().mean(dim=0).sqrt()
    return deviations + 1e-12 * coefficients.norm() + torch.finfo(torch.float64).tiny


def _pool(bases: Bases, half: Tensor, samples: int, seed: int) -> Targets:
    """Strains to learn from, twice as many as will be: `_Fit` takes those that teach most."""
    return targets(bases, sample(2 * samples, 1.02 * half, seed, nearer=0.5))


def _learn(
    data: RVESnapshots,
    bases: Bases,
    networks: tuple[Branch, Potential, Branch],
    pool: Targets,
    samples: int,
    adam: int,
    lbfgs: int,
    seed: int,
    log: Log,
) -> tuple[EquiNO, Bases, dict[str, History]]:
    """Fit the networks and put the model together."""
    say = log or (lambda line: None)
    fields, half = bases.rve_modes.at_points, torch.from_numpy(data.half_range)
    say(
        f"{len(bases.points)} cubature points of {len(data.weights)}, {fields.strain_modes.shape[2]} modes of strain, "
        f"{fields.stress_modes.shape[2]} of stress, {bases.reduced.modes.shape[2]} resolved"
    )
    check = targets(bases, sample(max(samples // 4, 16), half, seed + 1))
    displacement, potential, self_stress = networks
    # Stresses and strains count by their energy: a stiff direction, as that of a dilatation is where the matrix is
    # nearly incompressible, would hide all errors of the others, in which structures mostly deform.
    root = torch.linalg.inv(torch.linalg.cholesky(potential.stiffness))
    # The smaller modes of self-stress carry what a small component, such as the shear stress, differs by.
    equal, balanced = torch.diag(torch.ones_like(displacement.scale)), torch.diag(self_stress.scale**-0.5)
    fits = {
        "potential": _Fit(potential, potential, "stress", "tangent", root, root.mT),
        "displacement": _Fit(displacement, displacement.with_tangent, "displacement", "d_displacement", equal, root.mT),
        "self-stress": _Fit(self_stress, self_stress.with_tangent, "self_stress", "d_self_stress", balanced, root.mT),
    }
    histories = {
        name: one.run(pool, check, samples, adam, lbfgs, None if log is None else partial(_named, log, name))
        for name, one in fits.items()
    }
    model = EquiNO(
        displacement,
        potential,
        self_stress,
        lower=-half,
        upper=half,
        means=unit_mean_stresses(half.numel(), fields.stress_modes.shape[2]),
        cubature=fields.at(bases.points, bases.reduced.weights),
        rve_modes=bases.rve_modes,
    )
    if all(law.energy_program is not None for law in data.laws.laws):
        calibrate(model, torch.from_numpy(data.strain), torch.from_numpy(data.stress))
    with torch.no_grad():
        few, everywhere = (100 * mismatch(model, check.strain[:16], at).mean() for at in (None, fields))
    say(f"stress and law on the displacement differ by {few:.2f} % on the cubature, {everywhere:.2f} % at all points")
    return model, bases, histories


def _named(log: Callable[[str], None], name: str, line: str) -> None:
    log(f"{name}: {line}")


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """One network, and what it is fitted to: `evaluate` gives `value` and its derivative `slope` of `Targets`.

    size, unit: what both are measured in, see `sobolev`.
    """

    network: nn.Module
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]
    value: str
    slope: str
    size: Tensor
    unit: Tensor

    def errors(self, targets: Targets) -> Tensor:
        """Of each strain (n,), see `sobolev`."""
        right = getattr(targets, self.value), getattr(targets, self.slope)
        return sobolev(*self.evaluate(targets.strain), *right, self.size, self.unit)

    def run(self, pool: Targets, check: Targets, samples: int, adam: int, lbfgs: int, log: Log) -> History:
        """Fit to three quarters of the samples, then to those and the quarter from the pool with the largest errors."""
        if not getattr(pool, self.value).numel():
            return History(stopped="nothing to learn")
        first = torch.arange(samples - samples // 4)
        history = self._fit(pool.at(first), check, adam, lbfgs, log)
        with torch.no_grad():
            errors = self.errors(pool)
        errors[first] = 0
        worst = errors.topk(samples // 4).indices
        return history.then(self._fit(pool.at(torch.cat([first, worst])), check, 0, max(lbfgs // 2, 1), log))

    def _fit(self, learn: Targets, check: Targets, adam: int, lbfgs: int, log: Log) -> History:
        return fit(
            self.network.parameters(),
            lambda: self.errors(learn).mean(),
            lambda: self.errors(check).mean(),
            replace(FULL_BATCH, steps=adam, lbfgs=lbfgs),
            log=log,
        )


def sobolev(value: Tensor, slope: Tensor, right: Tensor, right_slope: Tensor, size: Tensor, unit: Tensor) -> Tensor:
    """Relative squared errors (n,) of coefficients (n, r) and, a tenth, of their slopes (n, r, d).

    `size`: (r, r) that coefficients are multiplied with before they are squared. `unit`: (d, d) of strains, one column
    each, in whose directions the slopes are taken.
    """

    def relative(error: Tensor, right: Tensor) -> Tensor:
        squares = right.square().sum(-1)
        return error.square().sum(-1) / (squares + 1e-4 * squares.mean())

    part = relative((value - right) @ size.T, right @ size.T)
    slopes = (((size @ s) @ unit).flatten(1) for s in (slope - right_slope, right_slope))
    return part + 0.1 * relative(*slopes)
