# SPDX-License-Identifier: MIT
"""Fitting the networks of EquiNO to their training targets, each on its own, values and derivatives together."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from spon.equino.initial_networks import Networks
from spon.equino.targets import Targets, TrainingTargets
from spon.training import History
from spon.training.fit import FULL_BATCH, fit

Log = Callable[[str], None] | None

_DERIVATIVES = 0.1  # weight of the error of the derivatives, relative to that of the values
_SMALL = 1e-4  # fraction of the mean square that is added to each square, so that small values do not dominate


@dataclass(frozen=True, slots=True, eq=False)
class NetworkFit:
    """A network and its training targets.

    Args:
        network: whose parameters are fitted.
        evaluate: from strains (n, d) to values (n, r) and their derivatives (n, r, d).
        value: name of the values in `Targets`.
        derivative: name of the derivatives in `Targets`.
        size: (r, r), see `sobolev_errors`.
        directions: (d, d), see `sobolev_errors`.
    """

    network: nn.Module
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]
    value: str
    derivative: str
    size: Tensor
    directions: Tensor

    def errors(self, targets: Targets) -> Tensor:
        """Errors (n,) at the strains of the targets, see `sobolev_errors`."""
        target = getattr(targets, self.value), getattr(targets, self.derivative)
        return sobolev_errors(self.evaluate(targets.strain), target, self.size, self.directions)

    def run(self, pool: Targets, check: Targets, samples: int, adam: int, lbfgs: int, log: Log) -> History:
        """Fit to three quarters of the samples, then to all; the last quarter have the largest errors in the pool.

        Args:
            pool: targets to choose from, at least `samples`.
            check: targets for validation.
            samples: strains to train at.
            adam: steps of Adam.
            lbfgs: iterations of L-BFGS, and half as many after the last quarter is added.
            log: called with lines of progress; None for none.
        """
        if not getattr(pool, self.value).numel():
            return History(stopped="nothing to fit")
        first = torch.arange(samples - samples // 4)
        history = self._fit(pool.at(first), check, adam, lbfgs, log)
        with torch.no_grad():
            errors = self.errors(pool)
        errors[first] = 0
        worst = errors.topk(samples // 4).indices
        return history.then(self._fit(pool.at(torch.cat([first, worst])), check, 0, max(lbfgs // 2, 1), log))

    def _fit(self, train: Targets, check: Targets, adam: int, lbfgs: int, log: Log) -> History:
        return fit(
            self.network.parameters(),
            lambda: self.errors(train).mean(),
            lambda: self.errors(check).mean(),
            replace(FULL_BATCH, steps=adam, lbfgs=lbfgs),
            log=log,
        )


def sobolev_errors(
    found: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], size: Tensor, directions: Tensor
) -> Tensor:
    """Relative squared errors (n,) of values and, with a tenth of the weight, of their derivatives.

    Args:
        found: values (n, r) and derivatives (n, r, d).
        target: the exact ones.
        size: (r, r), multiplies the values before they are squared.
        directions: (d, d), strains as columns, along which the derivatives are taken.
    """

    def relative(error: Tensor, target: Tensor) -> Tensor:
        squares = target.square().sum(-1)
        return error.square().sum(-1) / (squares + _SMALL * squares.mean())

    (value, derivative), (target_value, target_derivative) = found, target
    error = relative((value - target_value) @ size.T, target_value @ size.T)
    derivatives = (((size @ s) @ directions).flatten(1) for s in (derivative - target_derivative, target_derivative))
    return error + _DERIVATIVES * relative(*derivatives)


def fit_networks(
    networks: Networks, targets: TrainingTargets, samples: int, adam: int, lbfgs: int, log: Log
) -> dict[str, History]:
    """Fit all networks.

    Args:
        networks: fitted in place.
        targets: to train and to validate at.
        samples: strains to train at.
        adam: steps of Adam for each network.
        lbfgs: iterations of L-BFGS for each network, at most.
        log: called with lines of progress; None for none.

    Returns:
        The history of each network by its name.
    """
    return {
        name: fit.run(*targets, samples, adam, lbfgs, None if log is None else partial(_named, log, name))
        for name, fit in _fits(networks).items()
    }


def _fits(networks: Networks) -> dict[str, NetworkFit]:
    """The targets of each network, and the norm of its errors."""
    displacement, potential, self_stress = networks
    # Stresses and strains are measured by energy: a stiff direction, such as a dilatation where the matrix is nearly
    # incompressible, would hide all errors of the others, in which structures mostly deform.
    root = torch.linalg.inv(torch.linalg.cholesky(potential.stiffness))
    # The smaller modes of self-stress matter to small stress components, such as the shear stress.
    equal, balanced = torch.diag(torch.ones_like(displacement.scale)), torch.diag(self_stress.scale**-0.5)
    return {
        "potential": NetworkFit(potential, potential, "stress", "tangent", root, root.mT),
        "displacement": NetworkFit(
            displacement, displacement.with_tangent, "displacement", "d_displacement", equal, root.mT
        ),
        "self-stress": NetworkFit(
            self_stress, self_stress.with_tangent, "self_stress", "d_self_stress", balanced, root.mT
        ),
    }


def _named(log: Callable[[str], None], name: str, line: str) -> None:
    log(f"{name}: {line}")
