# SPDX-License-Identifier: MIT
"""Errors of operator networks by the width of the mesh and by the number of parameters, and on meshes of other widths.

The reference is the solution with quadratic elements on a square of 64 × 64, for the exact forcing or coefficient;
networks and linear elements take its nodal values on their own mesh. So errors are those of mesh and network together.
Norms are those of the reference's space; fields of unstructured meshes are interpolated in it. Networks that are
trained on a square are also used on an L-shape, whose reference is on a mesh as fine.

    python3 benchmarks/bench_width.py           rewrites benchmarks/width.json
    python3 benchmarks/bench_width.py --quick   coarse meshes for a moment, without saving figures
    python3 benchmarks/bench_width.py --table   the tables of the README from benchmarks/width.json
"""

import argparse
import json
import time
from pathlib import Path

import domains
import keeping
import numpy as np
import problems
import torch
import ufl
from dolfinx import fem

import spon
from spon import operators
from spon.spaces import norms, transfer
from spon.training import TrainingOptions

RESULTS = Path(__file__).with_name("width.json")
FULL = {"widths": (4, 8, 16, 32), "others": (8, 16, 32, 64), "fine": 64, "samples": 1000, "unseen": 100, "steps": 800,
        "channels": (4, 8, 16, 32)}  # fmt: skip
QUICK = {"widths": (4, 8), "others": (8,), "fine": 8, "samples": 20, "unseen": 4, "steps": 4, "channels": (4,)}
SETTINGS = {"batch": 8, "rate": 1e-2}
NESTED = {32: (0.4, 0.4), 16: (0.4,)}  # squares along an edge → fractions, so that the first rounds are on 4 × 4
SEEDS = 3


def poisson_fields(points, count):
    """Forcings of `problems.poisson`."""
    return domains.smooth(points, count)


def darcy_fields(points, count):
    """Coefficients of `problems.darcy_smooth`."""
    return np.exp(domains.smooth(points, count))


KINDS = {"Poisson": poisson_fields, "Darcy, smooth": darcy_fields}


def solved(kind, V, fields):
    """Solutions (dofs, count) of the problem of this kind for nodal values (dofs, count)."""
    u, v, k, bc = ufl.TrialFunction(V), ufl.TestFunction(V), fem.Function(V), problems._zero(V)
    stiffness = ufl.inner(ufl.grad(u), ufl.grad(v))
    if kind != "Poisson":
        return problems._solve_each(k * stiffness * ufl.dx, v * ufl.dx, bc, k, fields)
    loads = fem.assemble_matrix(fem.form(u * v * ufl.dx)).to_scipy() @ fields
    loads[bc.dof_indices()[0]] = 0.0
    return problems._factor(fem.form(stiffness * ufl.dx), bc).solve(loads)


class Reference:
    """Unseen fields of a kind and their reference solutions on a domain, and errors relative to them."""

    def __init__(self, kind, effort, domain):
        self.kind, self.unseen, self.count = kind, effort["unseen"], effort["samples"] + effort["unseen"]
        self.V = fem.functionspace(domain, ("P", 2))
        self.space = spon.read_space(self.V)
        fields = self.fields(self.V)[:, effort["samples"] :]
        self.solutions = torch.from_numpy(solved(kind, self.V, fields))

    def fields(self, V):
        """Nodal values (dofs, samples + unseen)."""
        return KINDS[self.kind](problems._points(V), self.count)

    def errors(self, V, found):
        """Mean relative errors in L² and H¹ of fields (dofs, unseen) of V."""
        found = transfer.interpolation(V, self.V) @ found.double()
        return {
            name: float(norms.relative(norm, self.space, found, self.solutions).mean())
            for name, norm in (("L2", norms.l2), ("H1", norms.natural))
        }


def spaces(domain, coarse):
    V, *below = problems._lagrange([domain, *coarse])
    return {"input": V, "output": V, "bcs": [problems._zero(V)], "coarse": below}


def squares(n):
    """Spaces on a square of n × n and on coarser ones."""
    below = [n // k for k in (2, 4, 8, 16) if n // k >= 2]
    return spaces(domains.square(n), [domains.square(k) for k in below])


def unstructured(n):
    """The same on meshes that are not nested."""
    return spaces(domains.unstructured(1 / n), [domains.unstructured(1 / k) for k in (n // 2, n // 4)])


def l_shape(n):
    """Spaces on another domain."""
    return spaces(domains.l_shape(1 / n), [domains.l_shape(2 / n)])


OTHERS = {"squares": squares, "unstructured": unstructured, "L-shape": l_shape}


def train(reference, n, effort, seed, **options):
    """A network on squares in single precision, and the processor time of its training in seconds."""
    made = squares(n)
    fields = reference.fields(made["output"])[:, : effort["samples"]]
    solutions = solved(reference.kind, made["output"], fields)
    network = spon.OperatorNetwork(processor="fluxes", seed=seed, **{"channels": 8} | made | options).float()
    start = time.process_time()
    inputs, outputs = (torch.from_numpy(x).float() for x in (fields, solutions))
    steps = effort["steps"]
    training = TrainingOptions(steps=steps, every=max(1, steps // 10), patience=11, seed=seed, **SETTINGS)
    operators.train(network, inputs, outputs, training, nested=NESTED.get(n, ()))
    return network, time.process_time() - start


@torch.no_grad()
def errors_on(reference, network, made):
    """Errors of a network on these spaces and of linear elements there, and the difference of the two."""
    V = made["output"]
    fields = reference.fields(V)[:, -reference.unseen :]
    found = network.on(**made)(torch.from_numpy(fields).float())
    elements = torch.from_numpy(solved(reference.kind, V, fields))
    space = spon.read_space(V)
    apart = norms.relative(norms.l2, space, found.double(), elements).mean()
    return {"network": reference.errors(V, found), "elements": reference.errors(V, elements), "apart": float(apart)} | {
        "nodes": len(fields)
    }


def run(path, effort, seeds):
    for kind in KINDS:
        reference = Reference(kind, effort, domains.square(effort["fine"]))
        corner = Reference(kind, effort, domains.l_shape(1 / effort["fine"]))
        for n in effort["widths"]:
            made = squares(n)
            records = [errors_on(reference, train(reference, n, effort, seed)[0], made) for seed in range(seeds)]
            keeping.keep(path, kind, "width", n, record=records)
            print(kind, "width", n, records[0], flush=True)
        trained = effort["widths"][-2]
        networks = [train(reference, trained, effort, seed)[0] for seed in range(seeds)]
        for name, make in OTHERS.items():
            for n in effort["others"]:
                against = corner if make is l_shape else reference
                records = [errors_on(against, network, make(n)) for network in networks]
                keeping.keep(path, kind, "other meshes", name, n, record=records)
                print(kind, name, n, records[0], flush=True)
        keeping.keep(path, kind, "trained on", record=trained)
        for channels in effort["channels"]:
            made, records = squares(trained), []
            for seed in range(seeds):
                network, seconds = train(reference, trained, effort, seed, channels=channels)
                size = {"parameters": sum(p.numel() for p in network.parameters()), "seconds": seconds}
                records.append(errors_on(reference, network, made) | size)
            keeping.keep(path, kind, "parameters", channels, record=records)
            print(kind, "channels", channels, records[0], flush=True)


def mean(records, *keys):
    values = []
    for record in records:
        for key in keys:
            record = record[key]
        values.append(record)
    return float(np.mean(values))


def pair(records, who):
    return " / ".join(f"{100 * mean(records, who, norm):.2g}" for norm in ("L2", "H1"))


def lines(title, header):
    return [f"| {title} | " + " | ".join(header) + " |", "|---" * (len(header) + 1) + "|"]


def table(path):
    figures = json.loads(path.read_text())
    kinds = [kind for kind in figures if kind != "about"]
    header = [f"{kind}, {who}" for kind in kinds for who in ("elements", "network")]
    out = lines("squares along an edge", header)
    for n in figures[kinds[0]]["width"]:
        out.append(
            f"| {n} | "
            + " | ".join(pair(figures[k]["width"][n], who) for k in kinds for who in ("elements", "network"))
            + " |"
        )
    out += ["", *lines(f"trained on {figures[kinds[0]]['trained on']}, used on", header)]
    for name in OTHERS:
        for n in figures[kinds[0]]["other meshes"][name]:
            columns = [pair(figures[k]["other meshes"][name][n], who) for k in kinds for who in ("elements", "network")]
            out.append(f"| {name}, {n} | " + " | ".join(columns) + " |")
    out += ["", *lines("parameters", [f"{kind}, {what}" for kind in kinds for what in ("apart", "training [s]")])]
    for channels, records in figures[kinds[0]]["parameters"].items():
        columns = []
        for kind in kinds:
            records = figures[kind]["parameters"][channels]
            columns += [f"{100 * mean(records, 'apart'):.2g}", f"{mean(records, 'seconds'):.0f}"]
        out.append(f"| {records[0]['parameters']:,} | " + " | ".join(columns) + " |")
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test on coarse meshes")
    parser.add_argument("--table", action="store_true", help="print the tables and run nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.table:
        print(table(RESULTS))
        return
    path = Path("results/width/quick.json") if given.quick else RESULTS
    path.parent.mkdir(parents=True, exist_ok=True)
    run(path, QUICK if given.quick else FULL, 1 if given.quick else SEEDS)
    if given.quick:
        print(table(path))


if __name__ == "__main__":
    main()
