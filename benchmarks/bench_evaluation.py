# SPDX-License-Identifier: MIT
"""Stress and tangent of learned RVEs: points per second by the size of the batch, and the roofline of the processor.

Two networks: the potential that `spon.equino.train` makes by default, and a branch of the size of the published one,
from 3 strain components through 4 layers of 64 to 16 coefficients and then to the stress. Their parameters are random,
which does not affect the time. Ways of evaluation:

- machine code, as in `coupling.SurrogateLaw`, in float64 and float32
- closed form in torch, value and derivative in one pass, 1,024 points at a time
- reverse mode by torch.func, vmap(jacrev) of the stress, as is usual, in batches
- point by point with reverse mode, as in the published code
- on a GPU, the fused kernel and the closed form in torch (experimental: never run on a GPU so far)

The roofline is the rate of a product of 1,024 × 1,024 matrices in the same run, over the operations of a point in
closed form, see `operations`. A second limit, far above, is the bandwidth of a copy over the numbers that are loaded
and stored. On one core, the best of runs for a second.

    python3 benchmarks/bench_evaluation.py           rewrites benchmarks/evaluation.json and docs/evaluation.png
    python3 benchmarks/bench_evaluation.py --quick   small batches, printed and not saved
    python3 benchmarks/bench_evaluation.py --table   the table of the README
"""

import copy
import json
import time
from itertools import pairwise
from pathlib import Path

import keeping
import numpy as np
import torch

from fe2 import pictures
from spon.equino.evaluate.c_response import CompiledResponse
from spon.equino.evaluate.cuda_graphs import CudaGraphs, empty
from spon.equino.networks import Branch, Potential

RESULTS = Path(__file__).with_name("evaluation.json")
PICTURE = Path(__file__).parents[1] / "docs" / "evaluation.png"
BATCHES = (1, 16, 256, 1024, 16384, 262144)
SLOW = 1024  # the largest batch of slow ways
CHUNK = 1024
D = 3
TYPES = {"float64": torch.float64, "float32": torch.float32}


def operations(kind, network):
    """Floating-point operations of stress and tangent of a point in closed form; a product and a sum are two.

    Of a potential with inputs i (strains and norms), d strain components and two layers of w: each of the matrices i ×
    w and w × w forward and back, w × w once more for each strain component, and the second derivatives of both layers
    and of the norms, symmetric d × d matrices. Of a branch with layers n₀, n₁, …: each matrix forward, and for each
    strain component all but the first. An activation and its derivatives count as 38, those of tanh in layers.h (a
    polynomial of degree 13, which is of degree 7 in float32, and the surrounding operations), a square root and a
    division as one.
    """
    if kind == "potential":
        w, norms = network.width, len(network.norms.maps)
        i, pairs = D + norms, D * (D + 1) // 2
        matrices = 2 * 2 * (i * w + w * w) + 2 * D * w * w + 2 * D * norms * w
        curvature = 3 * pairs * (2 * w + norms) + 2 * pairs * norms + D * w
        return matrices + curvature + 38 * 2 * w + norms * (2 * D * D + 4 * D) + 4 * D * D
    sizes = [D, *network.widths, network.scale.numel()]
    products = [a * b for a, b in pairwise(sizes)]
    return 2 * sum(products) + 2 * D * sum(products[1:]) + (38 + D) * sum(network.widths) + 2 * 16 * D * (1 + D)


def networks():
    half = torch.full((D,), 0.04, dtype=torch.float64)
    stiffness = torch.eye(D, dtype=torch.float64) * 5000
    potential = Potential(stiffness, half, 1.0)
    branch = Branch(half, torch.ones(16, dtype=torch.float64), widths=(64,) * 4, activation="swish", through_zero=False)
    return {"potential": potential, "branch": branch}


def stress_of(kind, network, means):
    """strains (n, 3) → stress (n, 3) and tangent (n, 3, 3) in closed form."""
    if kind == "potential":
        return network

    def respond(strain):
        coefficients, slopes = network.with_tangent(strain)
        return coefficients @ means.T, means @ slopes

    return respond


def value_of(kind, network, means):
    """strain (3,) → stress (3,), to be differentiated."""
    if kind == "potential":
        return lambda e: network(e[None])[0][0]
    return lambda e: (network(e[None]) @ means.T)[0]


def best_rate(work, n, seconds):
    """Points per second of the fastest run."""
    work()
    best, begin = np.inf, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return n / best


def ways(kind, network, means, name, n):
    """Name → function that evaluates n strains."""
    dtype = TYPES[name]
    generator = torch.Generator().manual_seed(0)
    strain = (0.04 * (2 * torch.rand(n, D, generator=generator, dtype=torch.float64) - 1)).to(dtype)
    network, means = network.to(dtype), means.to(dtype)
    respond, value = stress_of(kind, network, means), value_of(kind, network, means)
    found = {}
    code = CompiledResponse(network.double(), None if kind == "potential" else means.double(), dtype)
    rows = strain.numpy()
    stress, tangent = np.empty_like(rows), np.empty((n, D, D), dtype=rows.dtype)
    found["machine code"] = lambda: code(rows, stress, tangent)
    network.to(dtype)
    found["closed form, torch"] = lambda: [respond(part) for part in strain.split(CHUNK)]
    if n <= SLOW:
        both = torch.func.vmap(torch.func.jacrev(lambda e: (value(e),) * 2, has_aux=True))
        if name == "float64":
            found["vmap(jacrev), torch"] = lambda: both(strain)
        if n <= 16 and name == "float64":
            found["one by one, torch"] = lambda: [torch.func.jacrev(value)(e) for e in strain]
    return found


def ways_on_gpu(kind, network, means, n):
    """Name → function that evaluates n strains on the GPU. Experimental: never run on a GPU so far."""
    from spon.equino.evaluate.triton_response import FusedResponse

    device = torch.device("cuda:0")
    strain = np.random.default_rng(0).uniform(-0.04, 0.04, (n, D))
    arrays = strain, empty((n, D), device), empty((n, D, D), device)
    there = [torch.from_numpy(a).to(device) for a in arrays]
    closed = stress_of(kind, copy.deepcopy(network).to(device), means.to(device))

    def by_torch(strain, stress, tangent):
        for out, values in zip((stress, tangent), closed(strain)):
            out.copy_(values)

    def resident(respond):
        def work():
            respond(*there)
            torch.cuda.synchronize()

        return work

    found = {}
    own = None if kind == "potential" else means
    responds = {
        "fused kernel, GPU": FusedResponse(network, own, device=device),
        "fused kernel, tangent in float32, GPU": FusedResponse(
            network, own, device=device, tangent_dtype=torch.float32
        ),
        "closed form, torch, GPU": by_torch,
    }
    for name, respond in responds.items():
        graphs = CudaGraphs(respond, D, device, 131072)
        found[f"{name}, resident"] = resident(respond)
        found[name] = lambda graphs=graphs: graphs(*arrays)
    return found


def ceilings(seconds):
    """10⁹ operations per second of products of matrices by dtype, and bytes per second of a copy."""
    found = {}
    for name, dtype in TYPES.items():
        a = torch.rand(1024, 1024, dtype=dtype)
        found[name] = best_rate(lambda a=a: a @ a, 2 * 1024**3, seconds) / 1e9
    block = torch.zeros(2**24, dtype=torch.float64)
    other = torch.empty_like(block)
    found["copy"] = best_rate(lambda: other.copy_(block), 2 * 8 * 2**24, seconds)
    return found


def study(batches, seconds):
    top = ceilings(seconds)
    means = torch.randn(D, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = {"ceilings": top, "networks": {}}
    with torch.no_grad():
        for kind, network in networks().items():
            count = operations(kind, network)
            record = {"parameters": sum(p.numel() for p in network.parameters()), "operations": count, "rates": {}}
            for name in TYPES:
                for n in batches:
                    for way, work in ways(kind, network, means, name, n).items():
                        rate = best_rate(work, n, seconds)
                        record["rates"].setdefault(f"{way}, {name}", {})[n] = rate
                        print(f"{kind}, {way}, {name}, {n}: {rate:.3g} points/s", flush=True)
                real = 8 if name == "float64" else 4
                record[f"roofline, {name}"] = top[name] * 1e9 / count
                record[f"bandwidth, {name}"] = top["copy"] / (real * (2 * D + D * D))
            network.double()
            for n in (*batches, 2**20) if torch.cuda.is_available() else ():
                for way, work in ways_on_gpu(kind, network, means, n).items():
                    rate = record["rates"].setdefault(f"{way}, float64", {})[n] = best_rate(work, n, seconds)
                    print(f"{kind}, {way}, {n}: {rate:.3g} points/s", flush=True)
            found["networks"][kind] = record
    return found


def table(found):
    batches = sorted({int(n) for r in found["networks"].values() for rates in r["rates"].values() for n in rates})
    lines = ["| network | way | " + " | ".join(f"{n:,}" for n in batches) + " | of the roofline |",
             "|---" * (len(batches) + 3) + "|"]  # fmt: skip
    for kind, record in found["networks"].items():
        for way, rates in record["rates"].items():
            shown = [f"{rates[str(n)]:.2g}" if str(n) in rates else "" for n in batches]
            share = max(rates.values()) / record[f"roofline, {way.split(', ')[-1]}"]
            # The roofline is that of a core.
            shown.append("" if "GPU" in way else f"{100 * share:.0f} %")
            lines.append(f"| {kind} | {way} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def draw(found, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
    for axis, (kind, record) in zip(axes, found["networks"].items()):
        for way, rates in record["rates"].items():
            style = "--" if way.endswith("float32") else "-"
            axis.loglog([int(n) for n in rates], list(rates.values()), style, marker=".", label=way)
        for name, style in (("float64", "k-"), ("float32", "k--")):
            axis.axhline(record[f"roofline, {name}"], color="k", linestyle=style[1:], linewidth=0.8)
        axis.set(xlabel="points in a batch", title=f"{kind}, {record['operations']:,} operations a point")
        axis.legend(fontsize=7)
    axes[0].set(ylabel="points per second; in black, the rooflines")
    print(f"picture: {pictures.save(figure, path, dpi=100)}")


def main():
    given = keeping.parser(__doc__).parse_args()
    torch.set_num_threads(1)
    if given.table:
        print(table(json.loads(RESULTS.read_text())["found"]))
        return
    found = study((1, 64), 0.01) if given.quick else study(BATCHES, 1.0)
    found = json.loads(json.dumps(found))  # numbers of points become strings, as in a file
    if not given.quick:
        keeping.keep(RESULTS, "found", record=found)
    draw(found, Path("results/evaluation.png") if given.quick else PICTURE)
    print(table(found))


if __name__ == "__main__":
    main()
