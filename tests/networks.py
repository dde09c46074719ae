# SPDX-License-Identifier: MIT
"""Networks with random weights, and their evaluation by torch, for tests of other evaluations."""

import torch

from spon.equino.networks import Branch, Potential


def potential(d=3, width=24, norms=8, seed=0):
    """With weights of the size of one, not those at the start of a training."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(d, d, generator=generator, dtype=torch.float64)
    half = 0.02 + 0.03 * torch.rand(d, generator=generator, dtype=torch.float64)
    return Potential(1e3 * (x @ x.T + torch.eye(d)), half, 5.0, width=width, norms=norms, seed=seed)


def branch(d=3, r=16, seed=0, **options):
    """A branch, whose linear part counts if it has one, and means of its modes."""
    generator = torch.Generator().manual_seed(seed)
    half, scale = (0.02 + torch.rand(k, generator=generator, dtype=torch.float64) for k in (d, r))
    mean = None if options.get("through_zero", True) else torch.randn(r, generator=generator, dtype=torch.float64)
    b = Branch(0.05 * half, scale, mean=mean, seed=seed, **options)
    if b.linear is not None:
        with torch.no_grad():
            b.linear.copy_(torch.randn(d, r, generator=generator))
    return b, torch.randn(d, r, generator=generator, dtype=torch.float64)


def by_torch(p, strain, means=None):
    with torch.no_grad():
        if means is None:
            return [a.numpy() for a in p(torch.from_numpy(strain))]
        coefficients, derivatives = p.with_tangent(torch.from_numpy(strain))
        return [(coefficients @ means.T).numpy(), (means @ derivatives).numpy()]


def difference(found, right):
    return max(abs(f - r).max(initial=0.0) / abs(r).max(initial=1e-300) for f, r in zip(found, right))
