# SPDX-License-Identifier: MIT
"""EquiNO and its baselines on RVE1-3: errors beside the published ones and the floor of the bases.

100 snapshots for training and 100 unseen strains, Latin hypercubes in the box of ±4 % (shear as γ = 2 ε_xy). Errors of
local fields are relative L² norms per component over nodes or quadrature points (unweighted, as published), their mean
over the unseen strains and the sample whose error is the median. Displacements are total ones, E·x and the fluctuation,
which is zero at the first node. Errors of the homogenised stress and the tangent are those of the vector and the
matrix, mean and maximum.

    python3 benchmarks/bench_equino.py [RVE3 ...]   these RVEs, or all, to benchmarks/equino.json
    python3 benchmarks/bench_equino.py --only NAME  only methods whose names contain this, or "modes" for their number
    python3 benchmarks/bench_equino.py --quick      every method briefly on a coarse mesh, nothing saved
    python3 benchmarks/bench_equino.py --table      the tables of the README from benchmarks/equino.json
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import keeping
import learned
import numpy as np
import torch

import fe2
import spon
from spon import equino
from spon.equino import EquiNOOptions, baselines, vpionet
from spon.reduced.bases import pod
from spon.training import TrainingOptions
from spon.training.fit import FULL_BATCH

RANKS = (4, 8, 16, 24, 32)
RESULTS = Path(__file__).with_name("equino.json")
# Median test sample of the authors' figures in per cent: u_x, u_y and the stress xx, yy, xy by the law on the
# displacement branch (con_compare_NOs_RVE*.png in github.com/HamidrezaEiv/EquiNO).
PUBLISHED = {
    "RVE1": {
        "EquiNO": ((1.47, 0.84), (0.68, 0.93, 4.64)),
        "VPIONet": ((2.47, 1.38), (1.89, 2.23, 10.35)),
    },
    "RVE2": {
        "EquiNO": ((0.70, 0.80), (1.41, 1.54, 6.36)),
        "VPIONet": ((0.55, 0.80), (3.16, 4.54, 7.71)),
    },
    "RVE3": {
        "EquiNO": ((0.92, 3.24), (0.70, 0.58, 6.35)),
        "VPIONet": ((0.47, 1.16), (1.44, 1.03, 8.76)),
    },
}
# Seeds of the default, numbers of modes, and options of trainings other than the default. Training by gradients through
# the law at all points takes hours to convergence; here it gets some minutes on one core.
FULL = {
    "snapshots": 100,
    "seeds": (0, 1, 2),
    "ranks": RANKS,
    "default": {},
    "modes": {"samples": 512, "lbfgs": 1000},
    "networks": replace(FULL_BATCH, lbfgs=1000),
    "published": {},
    "variational": TrainingOptions(steps=1000, batch=10, rate=1e-3, lbfgs=600),
}
QUICK = {
    "snapshots": 24,
    "seeds": (0,),
    "ranks": (4, 8),
    "default": {"samples": 64, "lbfgs": 50},
    "modes": {"samples": 64, "lbfgs": 50},
    "networks": replace(FULL_BATCH, lbfgs=50),
    "published": {"options": TrainingOptions(steps=100, batch=10, rate=1e-3, lbfgs=50)},
    "variational": TrainingOptions(steps=100, batch=10, rate=1e-3, lbfgs=50),
}


def timed(function, *arguments, **options):
    start = time.perf_counter()
    result = function(*arguments, **options)
    return result, time.perf_counter() - start


# Errors in per cent.


def local(found, right):
    """Errors of local fields (n, points, components): mean over n and the median sample."""
    e = 100 * np.linalg.norm(found - right, axis=1) / np.linalg.norm(right, axis=1)
    middle = np.argsort(e.mean(axis=1))[len(e) // 2]
    return {"mean": e.mean(axis=0).tolist(), "median sample": e[middle].tolist()}


def whole(found, right):
    """Errors of vectors or matrices (n, ...): mean and maximum."""
    found, right = np.asarray(found).reshape(len(right), -1), right.reshape(len(right), -1)
    e = 100 * np.linalg.norm(found - right, axis=1) / np.linalg.norm(right, axis=1)
    return {"mean": float(e.mean()), "max": float(e.max())}


def displacement(data, strain, fluctuation):
    """Total displacements (n, nodes, dim) of strains (n, d) and fluctuations (n, dofs)."""
    nodes = data.space.nodes
    affine = np.einsum("nk,kij,pj->npi", strain, fe2.mandel.basis(nodes.shape[1]), nodes)
    return affine + fluctuation.reshape(affine.shape)


def errors(model, unseen, at=None, displacements=None):
    """Errors of a model at the unseen strains; `at`, `displacements`: modes at all points, for a reduced model."""
    strain, found = torch.from_numpy(unseen.strain), {}
    with torch.no_grad():
        if isinstance(model, spon.EquiNO | equino.DisplacementOperator):
            at, displacements = model.rve_modes.at_points, model.rve_modes.displacements
            coefficients = model.displacement(strain)
        elif isinstance(model, spon.ReducedModel):
            coefficients = model.solve(strain).coefficients
        if at is not None:
            totals = (displacement(unseen, unseen.strain, w)
                      for w in (coefficients.numpy() @ displacements.T, unseen.fluctuation))  # fmt: skip
            found["displacement"] = local(*totals)
            parts = [model.fields(e, at) for e in strain.split(10)]
            epsilon, sigma = (torch.cat(part) for part in zip(*parts, strict=True))
            law = torch.cat([at.laws.stress(e) for e in epsilon.split(10)])
            found["law on displacement"] = local(law.numpy(), unseen.local_stress)
            if isinstance(model, spon.EquiNO):
                found["stress branch"] = local(sigma.numpy(), unseen.local_stress)
        stress, tangent = model(strain)
    return found | {"homogenised": whole(stress, unseen.stress), "tangent": whole(tangent, unseen.tangent)}


def floors(data, unseen, ranks):
    """Errors of the best approximation in r modes of stress and of displacement, below those of any operator."""
    found, w = {}, data.weights
    one = np.ones(data.fluctuation.shape[1])
    for r in ranks:
        modes = pod(data.local_stress, w, r).modes
        c = np.einsum("p,npd,pdr->nr", w, unseen.local_stress, modes, optimize=True)
        best = np.einsum("pdr,nr->npd", modes, c, optimize=True)
        shapes = pod(data.fluctuation[..., None], one, r).modes[:, 0]
        pair = (displacement(data, unseen.strain, f)
                for f in (unseen.fluctuation @ shapes @ shapes.T, unseen.fluctuation))  # fmt: skip
        found[r] = {
            "stress": local(best, unseen.local_stress),
            "homogenised": whole(np.einsum("p,npd->nd", w, best), unseen.stress),
            "displacement": local(*pair),
        }
    return found


# The methods: each returns a list of records, one per seed.


def default(data, unseen, effort):
    found = []
    for seed in effort["seeds"]:
        options = EquiNOOptions(seed=seed, **effort["default"])
        result, seconds = timed(equino.train, data, options)
        found.append(errors(result.model, unseen) | {"seconds": seconds})
    return found


def as_published(data, unseen, effort):
    result, seconds = timed(baselines.train_as_published, data, **effort["published"])
    model, history = result.model, result.history
    with torch.no_grad():
        strains = equino.training.sobol_strains(100, model.upper, 0)  # the training strains
        parts = [baselines.published_loss(model, e, model.rve_modes.at_points) for e in strains.split(10)]
    kept = int(np.argmin(history.validation))  # the step of the parameters
    loss = {"at some points": history.loss[kept], "at all points": float(torch.stack(parts).mean())}
    return [errors(model, unseen) | {"seconds": seconds, "mismatch_MPa2": loss}]


def train_vpionet(loss):
    def study(data, unseen, effort):
        result, seconds = timed(vpionet.train_vpionet, data, effort["variational"], loss=loss)
        return [errors(result.model, unseen) | {"seconds": seconds}]

    return study


def vpinn(data, unseen, effort):
    """Errors at the first unseen strain alone."""
    result, seconds = timed(vpionet.train_vpinn, data, unseen.strain[0], effort["variational"])
    found = result.solution
    totals = (displacement(data, unseen.strain[:1], w) for w in (found.fluctuation[None], unseen.fluctuation[:1]))
    record = {
        "displacement": local(*totals),
        "law on displacement": local(found.local_stress[None], unseen.local_stress[:1]),
        "homogenised": whole(found.stress[None], unseen.stress[:1]),
    }
    return [record | {"seconds": seconds}]


def baseline(train):
    def study(data, unseen, effort):
        result, seconds = timed(train, data, effort["networks"])
        return [errors(result.model, unseen) | {"seconds": seconds}]

    return study


def reduced(data, unseen, effort):
    """The reduced model of the default's targets: Galerkin's method, solved at each strain."""
    bases, seconds = timed(spon.reduced.pod_bases, data, resolved=min(32, len(data.strain) // 2))
    basis = pod(data.local_strain, data.weights, bases.reduced.modes.shape[2], data.metric)
    at = spon.ModesAtPoints.of(data.laws, data.weights, basis.modes, basis.modes[..., :0])
    return [errors(bases.reduced, unseen, at, data.fluctuation.T @ basis.combination) | {"seconds": seconds}]


METHODS = {
    "EquiNO, default": default,
    "EquiNO, as published": as_published,
    "VPIONet, ½ σ:ε as published": train_vpionet("half work"),
    "VPIONet, true potential": train_vpionet("potential"),
    "VPINN, true potential, one strain": vpinn,
    "POD-DeepONet, supervised": baseline(baselines.train_supervised),
    "Sobolev network": baseline(baselines.train_sobolev),
    "reduced model": reduced,
}


def study(name, size, stem, effort, only, path):
    """All methods on an RVE, or those whose name contains `only`; each is saved when it is complete."""
    rve = learned.rve(name, size)
    parts = (("train", 0), ("test", 1))
    data, unseen = (learned.solved(rve, f"{stem}-{part}", effort["snapshots"], seed) for part, seed in parts)
    rve.destroy()
    keeping.keep(path, "RVEs", name, "floors", record=floors(data, unseen, effort["ranks"]))
    for method in METHODS:
        if only in method:
            records = METHODS[method](data, unseen, effort)
            keeping.keep(path, "RVEs", name, "methods", method, record=records)
            print(row(name, method, records), flush=True)
    for r in effort["ranks"] if only in "modes" else ():
        result, seconds = timed(equino.train, data, EquiNOOptions(r=r, **effort["modes"]))
        record = errors(result.model, unseen) | {"seconds": seconds}
        keeping.keep(path, "RVEs", name, "ranks", r, record=record)


# Tables.


def percent(values):
    return " / ".join(f"{v:.2g}" for v in values)


def mean_over(records, *keys):
    """Mean over the records of the values of the keys, as a list; None without values."""
    if keys[0] not in records[0]:
        return None
    return np.atleast_1d(np.mean([record[keys[0]][keys[1]] for record in records], axis=0)).tolist()


def row(name, method, records):
    """A row of the table: means over the seeds, maxima over all of them."""
    columns = [name, method]
    for field in ("displacement", "stress branch", "law on displacement"):
        values = mean_over(records, field, "mean")
        columns.append("" if values is None else percent(values))
    middle = mean_over(records, "law on displacement", "median sample")
    columns.append("" if middle is None else percent(middle))
    for field in ("homogenised", "tangent"):
        there = field in records[0]
        columns.append(percent([mean_over(records, field, "mean")[0], max(r[field]["max"] for r in records)])
                       if there else "")  # fmt: skip
    columns.append(f"{np.mean([r['seconds'] for r in records]):.0f}")
    return "| " + " | ".join(columns) + " |"


def tables(path):
    """The README's tables in Markdown."""
    rves = json.loads(path.read_text())["RVEs"]
    head = ["RVE", "method", "u", "σ, stress branch", "σ, law on displacement", "the same, median sample",
            "S, mean / max", "C, mean / max", "training s"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, figures in rves.items():
        lines += [row(name, method, figures["methods"][method]) for method in METHODS if method in figures["methods"]]
        for method, (u, stress) in PUBLISHED[name].items():
            lines.append(
                f"| {name} | {method}, the authors' figures (median sample) | {percent(u)} | | | "
                f"{percent(stress)} | | | |"
            )
    head = ["RVE", "modes", "u, floor", "u", "σ, floor", "σ, stress branch", "S, floor", "S, mean / max",
            "C, mean / max"]  # fmt: skip
    lines += ["", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, figures in rves.items():
        for r, floor in figures["floors"].items():
            found = figures.get("ranks", {}).get(r)
            columns = [name, r]
            for part, field in (("displacement", "displacement"), ("stress", "stress branch")):
                columns += [percent(floor[part]["mean"]), percent(found[field]["mean"]) if found else ""]
            columns.append(percent(floor["homogenised"].values()))
            columns += [percent(found[k].values()) if found else "" for k in ("homogenised", "tangent")]
            lines.append("| " + " | ".join(columns) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of RVE1, RVE2, RVE3; all by default")
    parser.add_argument("--only", default="", metavar="NAME", help="methods with this in their names")
    parser.add_argument("--quick", action="store_true", help="a smoke test on a coarse mesh")
    parser.add_argument("--table", action="store_true", help="print the tables and run nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.table:
        print(tables(RESULTS))
    elif given.quick:
        path = learned.FOLDER / "quick.json"
        study("RVE3", 0.1, "quick", QUICK, given.only, path)
        print(tables(path))
    else:
        for name in given.names or learned.SIZES:
            study(name, None, name, FULL, given.only, RESULTS)


if __name__ == "__main__":
    main()
