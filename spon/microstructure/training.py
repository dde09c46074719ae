# SPDX-License-Identifier: MIT
"""Training networks of modes on the energies of random RVEs, without solved problems."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spon.microstructure.mode_network import ModeNetwork
from spon.training.adamw import fit_samples
from spon.training.deprecated import takes_old_keywords
from spon.training.options import TrainingOptions
from spon.training.result import TrainingResult


@takes_old_keywords
def train(
    network: ModeNetwork,
    phases: Tensor,
    options: TrainingOptions = TrainingOptions(batch=8),
    *,
    strains: int = 2,
    comm: Any = None,
    log: Callable[[str], None] | None = None,
) -> TrainingResult[ModeNetwork]:
    """Train for the least mean logarithm of the energy of random RVEs at random strains.

    The exact energies are lower bounds. As the coefficients of the modes minimise the energy, their derivatives drop
    out of the gradient (envelope theorem).

    Args:
        network: changed in place.
        phases: (cells, samples), integers: the phase of each cell of the mesh in each RVE, see `ModeNetwork.phases`.
        options: steps, rate, seed, ...
        strains: number of strains for each RVE, uniform in the box of `half_range`.
        comm: a communicator of mpi4py, whose ranks share each batch (collective).
        log: called with a line at each evaluation, on the first rank.

    Raises:
        ValueError: phases that the network does not have, or too few RVEs.
        FloatingPointError: energies that are not finite at the start.
    """
    samples = network.phase(phases).shape[0]
    generator = torch.Generator().manual_seed(options.seed)
    half = network.half_range
    pool = (2 * torch.rand(samples, strains, len(half), generator=generator, dtype=torch.float64) - 1).to(half) * half

    def loss(which: Tensor) -> Tensor:
        return network.energies(phases[:, which], pool[which]).log().mean()

    history = fit_samples(network.parameters(), loss, samples, options, generator=generator, comm=comm, log=log)
    return TrainingResult(network, history)
