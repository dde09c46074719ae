# SPDX-License-Identifier: MIT
"""Operator networks between finite element spaces beside others, with the same data and training time.

Each network gets as many steps of AdamW as fit in the same seconds of one core, by a timing beforehand. The loss is the
relative error in L². Each method has a batch and a learning rate of its own: after half this time its error at the
validation samples of one problem is less than with the next smaller or larger one of either. Published values are for
trainings of hours. Errors are relative, in L² and H¹ by the matrices of the output space, at unseen samples; those of
curls are in L² only. All in single precision.

For a velocity without divergence, all networks predict its stream function; only those of `spon` have a constant stream
function on the walls. For the next state of a flow, all of them predict the increment and are then applied to their
own predictions, for twice the time of the samples; only those of `spon` conserve the integral.

    python3 benchmarks/bench_operators.py --tune          tunes batches and learning rates, from the present ones
    python3 benchmarks/bench_operators.py                 rewrites benchmarks/operators.json
    python3 benchmarks/bench_operators.py --only NAME     only methods with this in their names
    python3 benchmarks/bench_operators.py --problem NAME  only problems with this in their names
    python3 benchmarks/bench_operators.py --seconds S --seeds N
    python3 benchmarks/bench_operators.py --quick         every method for a moment, without saving figures
    python3 benchmarks/bench_operators.py --table         the table of the README from benchmarks/operators.json
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import baselines
import keeping
import numpy as np
import torch
from problems import PROBLEMS

import spon
from spon import operators
from spon.operators.discretisation import discretise
from spon.spaces import norms
from spon.training import TrainingOptions

RESULTS = Path(__file__).with_name("operators.json")
LOOKS = 10  # evaluations at the validation samples during a training
FULL = {"n": 32, "samples": 1000, "unseen": 100, "seconds": 12.0, "seeds": 3}
BATCHES, RATES = (2, 4, 8, 16, 32, 64), (3e-4, 1e-3, 3e-3, 1e-2, 2e-2, 3e-2)
DEFAULT = {"batch": 16, "rate": 3e-3}  # of `spon.operators.train`
TUNED = "Darcy, smooth"  # the problem, and with a seed that no record has
QUICK = {"n": 8, "samples": 60, "unseen": 10, "seconds": 0.5, "seeds": 1}


@dataclass(frozen=True)
class Method:
    """make: the network of a discretisation, a problem and a seed. gridded: whether it needs a grid. training: its
    options of `operators.train`."""

    make: Callable
    gridded: bool = False
    training: dict = field(default_factory=dict)


def ours(processor, training=None, **size):
    def make(spaces, problem, seed):
        structure = spon.Structure(integral=problem.integral, increment=problem.increment)
        return spon.OperatorNetwork.from_discretisation(
            spaces, processor=processor, structure=structure, seed=seed, **size
        )

    return Method(make, training=training or {})


def other(kind):
    gridded = issubclass(kind, baselines.OnGrid)

    def make(spaces, problem, seed):
        return baselines.build(kind, spaces, seed, problem.increment, **({"grid": problem.grid} if gridded else {}))

    return Method(make, gridded)


METHODS = {
    "SPON-MG, fluxes": ours("fluxes", {"nested": (0.4, 0.4)}, channels=12),
    "SPON-MG, messages": ours("multigrid"),
    "SPON, messages": ours("messages"),
    "MgNO, finite elements": ours("mgno"),
    "MgNO, convolutions": other(baselines.GridMgNO),
    "FNO": other(baselines.FNO),
    "U-Net": other(baselines.UNet),
    "DeepONet": other(baselines.DeepONet),
    "POD-DeepONet": other(baselines.PODDeepONet),
    "MeshGraphNet": other(baselines.MeshGraphNet),
}


def train(network, inputs, outputs, steps, seed, settings):
    """Train with exactly these steps; returns the history and the processor time in seconds."""
    start = time.process_time()
    looks = {"every": math.ceil(steps / LOOKS), "patience": LOOKS + 1}
    told = {name: value for name, value in settings.items() if name != "nested"}
    made = TrainingOptions(steps=steps, seed=seed, **looks, **told)
    history = operators.train(network, inputs, outputs, made, nested=settings.get("nested", ())).history
    return history, time.process_time() - start


def steps_within(seconds, trial):
    """Number of steps of a training of so many seconds; trial: steps → seconds of a training."""
    steps = LOOKS
    trial(steps)  # the first run is slower
    taken = trial(steps)
    if taken >= seconds:
        return steps
    # Two trials with as many evaluations differ by their steps alone; they grow until the difference exceeds the noise.
    while (longer := trial(2 * steps)) - taken < 0.05 * seconds:
        steps, taken = 2 * steps, longer
    each = (longer - taken) / steps
    return max(LOOKS, round(steps + (seconds - taken) / each))


def affordable(make, inputs, outputs, seconds, settings):
    """Steps within the seconds for the networks that `make` makes of a seed."""
    return steps_within(seconds, lambda count: train(make(0), inputs, outputs, count, 0, settings)[1])


def single(problem):
    return [x.float() for x in (problem.inputs, problem.outputs, problem.unseen_inputs, problem.unseen_outputs)]


def tune(problem, spaces, method, seconds, start):
    """The settings with the least validation error among their neighbours, and all errors found."""
    inputs, outputs, *_ = single(problem)
    found = {}

    def make(seed):
        return method.make(spaces, problem, seed).float()

    def error(place):
        if place not in found:
            settings = {"batch": BATCHES[place[0]], "rate": RATES[place[1]]} | method.training
            steps = affordable(make, inputs, outputs, seconds, settings)
            history, _ = train(make(100), inputs, outputs, steps, 100, settings)
            found[place] = min(x for x in history.validation if math.isfinite(x))
        return found[place]

    best = BATCHES.index(start["batch"]), RATES.index(start["rate"])
    while True:
        i, j = best
        near = [(k, j) for k in (i - 1, i + 1) if 0 <= k < len(BATCHES)]
        near += [(i, k) for k in (j - 1, j + 1) if 0 <= k < len(RATES)]
        nearest = min([best, *near], key=error)
        if nearest == best:
            break
        best = nearest
    seen = [{"batch": BATCHES[i], "rate": RATES[j], "validation": value} for (i, j), value in sorted(found.items())]
    return {"batch": BATCHES[best[0]], "rate": RATES[best[1]], "seen": seen}


def study(problem, spaces, method, seconds, seeds, settings):
    """Records of a method, one per seed."""
    inputs, outputs, unseen, right = single(problem)

    def make(seed):
        return method.make(spaces, problem, seed).float()

    settings = settings | method.training
    steps = affordable(make, inputs, outputs, seconds, settings)
    records = []
    for seed in range(seeds):
        network = make(seed)
        used, (_, taken) = steps, train(network, inputs, outputs, steps, seed, settings)
        steps = max(LOOKS, round(steps * seconds / taken))  # of the next seed, as the speed of the machine varies
        records.append(
            {norm: errors(network, unseen, right, norm) for norm in (("L2", "H1") if spaces.curl is None else ("L2",))}
            | ({} if problem.runs is None else {"rollout": errors_along(network, problem.runs.float())})
            | {
                "parameters": sum(p.numel() for p in network.parameters()),
                "steps": used,
                "seconds": taken,
                "evaluation": evaluation(network, unseen),
            }
        )
    return records


def errors(network, inputs, outputs, norm):
    found = operators.relative_errors(network, inputs, outputs, norm=norm)
    return {"mean": float(found.mean()), "max": float(found.max())}


@torch.no_grad()
def errors_along(network, runs):
    """Mean relative errors in L² after each step, from the first states of the runs (steps + 1, dofs, count)."""
    found = operators.rollout(network, runs[0], len(runs) - 1)
    pairs = zip(found[1:], runs[1:])
    return [float(norms.relative(norms.l2, network.spaces.answer, x, y).mean()) for x, y in pairs]


@torch.no_grad()
def evaluation(network, inputs):
    """Seconds of this core for each field, the fastest of three runs with all of them."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        network(inputs)
        taken.append(time.process_time() - start)
    return min(taken) / inputs.shape[1]


def run(path, given, effort):
    """The requested methods and problems; each record is saved when it is complete."""
    if not given.tune:
        print(head())
    for name, make in PROBLEMS.items():
        if given.problem not in name or (given.tune and name != TUNED):
            continue
        problem = make(effort["n"], effort["samples"], effort["unseen"])
        spaces = discretise(
            [problem.input], problem.output, bcs=problem.bcs, coarse=problem.coarse, velocity=problem.velocity,
            points=True,
        )  # fmt: skip
        size = {"n": effort["n"], "dofs": spaces.output.dofs, "samples": effort["samples"], "unseen": effort["unseen"]}
        if not given.tune:
            keeping.keep(path, "problems", name, "size", record=size)
        for title, method in METHODS.items():
            if given.only not in title or (method.gridded and problem.grid is None):
                continue
            if given.tune:
                found = tune(problem, spaces, method, effort["seconds"] / 2, settings_of(path, title))
                keeping.keep(path, "settings", title, record=found)
                print(
                    f"{title}: batch {found['batch']}, rate {found['rate']:g}, {len(found['seen'])} settings compared",
                    flush=True,
                )
                continue
            records = study(problem, spaces, method, effort["seconds"], effort["seeds"], settings_of(path, title))
            keeping.keep(path, "problems", name, "methods", title, record=records)
            print(row(name, title, records), flush=True)


def settings_of(path, title):
    """The tuned settings, or the default."""
    known = json.loads(path.read_text()).get("settings", {}) if path.exists() else {}
    return {key: known.get(title, DEFAULT)[key] for key in DEFAULT}


def head():
    titles = ["problem", "method", "parameters", "L² error, mean / max [%]", "H¹ error, mean / max [%]", "training [s]",
              "steps", "a field [ms]"]  # fmt: skip
    return "| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|"


def row(problem, method, records):
    """Means over the seeds, maxima over all of them."""

    def mean(*keys):
        return np.mean([value_at(record, keys) for record in records])

    columns = [problem, method, f"{records[0]['parameters']:,}"]
    for norm in ("L2", "H1"):
        if norm not in records[0]:
            columns.append("")
            continue
        largest = max(record[norm]["max"] for record in records)
        columns.append(f"{100 * mean(norm, 'mean'):.3g} / {100 * largest:.3g}")
    columns += [f"{mean('seconds'):.3g}", f"{mean('steps'):,.0f}", f"{1e3 * mean('evaluation'):.2g}"]
    return "| " + " | ".join(columns) + " |"


def row_along(problem, method, records):
    """Means over the seeds of the errors after one step, those of the samples and all."""
    along = 100 * np.mean([record["rollout"] for record in records], 0)
    last = len(along) // 2
    columns = [problem, method, *(f"{along[k]:.3g}" for k in (0, last - 1, -1))]
    return "| " + " | ".join(columns) + " |"


def value_at(record, keys):
    for key in keys:
        record = record[key]
    return record


def overview(problems):
    """Mean errors in L² and H¹ [%], a line for each problem; the least error of a line in bold."""
    lines = ["| problem | " + " | ".join(METHODS) + " |\n" + "|---" * (len(METHODS) + 1) + "|"]
    for problem, figures in problems.items():
        columns, means = [problem], {}
        for method, records in figures.get("methods", {}).items():
            norms = [norm for norm in ("L2", "H1") if norm in records[0]]
            means[method] = [100 * np.mean([record[norm]["mean"] for record in records]) for norm in norms]
        for method in METHODS:
            shown = []
            for k, value in enumerate(means.get(method, [])):
                least = value == min(others[k] for others in means.values())
                shown.append(f"**{value:.2g}**" if least else f"{value:.2g}")
            columns.append(" / ".join(shown))
        lines.append("| " + " | ".join(columns) + " |")
    return lines


def table(path):
    problems = json.loads(path.read_text())["problems"]
    lines, along = [*overview(problems), "", head()], []
    for problem, figures in problems.items():
        found = figures.get("methods", {})
        lines += [row(problem, method, found[method]) for method in METHODS if method in found]
        along += [row_along(problem, m, found[m]) for m in METHODS if m in found and "rollout" in found[m][0]]
    if along:
        times = ("after a step", "after the time of the samples", "after twice this time")
        titles = ["problem", "method", *(f"L² error {when} [%]" for when in times)]
        lines += ["", "| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|", *along]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="NAME", help="methods with this in their names")
    parser.add_argument("--problem", default="", metavar="NAME", help="problems with this in their names")
    parser.add_argument("--seconds", type=float, help="of training for each network and seed")
    parser.add_argument("--seeds", type=int, help="number of seeds")
    parser.add_argument("--tune", action="store_true", help="find batches and learning rates")
    parser.add_argument("--quick", action="store_true", help="a smoke test on coarse meshes")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.table:
        print(table(RESULTS))
        return
    effort = dict(QUICK if given.quick else FULL)
    effort |= {key: value for key in ("seconds", "seeds") if (value := getattr(given, key)) is not None}
    path = Path("results/operators/quick.json") if given.quick else RESULTS
    path.parent.mkdir(parents=True, exist_ok=True)
    run(path, given, effort)


if __name__ == "__main__":
    main()
