# SPDX-License-Identifier: MIT
"""RVEs that differ from point to point: accuracy and speed of a network of their modes, and a structure of them.

RVEs are grids of 32 × 32 squares with discs of fibre, which keep a distance of two squares; 5 to 35 % of the area.
Their materials are those of the other benchmarks. The network is trained on energies alone. Errors are the relative
errors of the homogenised stress and tangent at unseen RVEs and strains of the ±4 % box, and the excess over the exact
energy. The untrained network has the same corrections, see `spon.ModeNetwork`. Times are those of one core, the least
of three runs.

    python3 benchmarks/bench_cells.py              rewrites benchmarks/cells.json
    python3 benchmarks/bench_cells.py --steps N    steps of training
    python3 benchmarks/bench_cells.py --speed      only times and the structure, with the network of the first seed
    python3 benchmarks/bench_cells.py --quick      a small grid and few steps, printed and not saved
    python3 benchmarks/bench_cells.py --table      the tables of the README
"""

import argparse
import json
import time
from pathlib import Path

import keeping
import learned
import numpy as np
import torch
from mpi4py import MPI

import coupling
import fe2
import meshes
import spon
from spon import microstructure
from spon.training import TrainingOptions

RESULTS = Path(__file__).with_name("cells.json")
MODEL = Path("results/cells/modes.safetensors")
UNSEEN, STRAINS, SEEDS = 40, 4, 3
MOVE, STEPS = 1.6, 4


def packed(grid, count, seed):
    """Tags (count, cells) of RVEs with random fractions and sizes of fibres."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        fraction, radius, own = rng.uniform(0.05, 0.35), rng.uniform(0.1, 0.16), int(rng.integers(2**31))
        try:
            found.append(meshes.mark(grid, meshes.packing(fraction, radius=radius, seed=own, min_gap=0.07)))
        except meshes.MeshError:  # no space for so many
            continue
    return np.stack(found)


def train(rve, tags, steps, seed):
    network = coupling.mode_network(rve, half_range=learned.BOX, seed=seed).float()
    start = time.process_time()
    history = microstructure.train(
        network,
        network.phases(torch.from_numpy(tags)),
        TrainingOptions(steps=steps, batch=8, every=max(1, steps // 40), seed=seed),
        log=print,
    ).history
    return network, {"seconds": time.process_time() - start, "steps": history.step[-1], "RVEs": len(tags)}


def errors(network, tags, strains, exact):
    """Means and maxima of relative errors against exact homogenisations, and the mean and least excess of energy."""
    law = coupling.ModesLaw(network, tags)
    which = np.repeat(np.arange(len(tags)), len(strains))
    given = np.tile(strains, (len(tags), 1))
    found = law.respond(which, given)
    stress, tangent = found.stress, found.tangent
    local = law.local_strain(which, given, found.coefficients)[:, None]
    phase = law.network.phase(law.network.phases(torch.from_numpy(tags)))[torch.from_numpy(which)]
    with torch.no_grad():
        energy, bound = (f(phase, local)[:, 0].numpy() for f in (law.network.energy, law.network.energy_error_bound))
    right = {k: np.concatenate([getattr(h, k) for h in exact]) for k in ("stress", "tangent", "energy")}
    off = np.linalg.norm(stress - right["stress"], axis=1) / np.linalg.norm(right["stress"], axis=1)
    off_tangent = np.linalg.norm(tangent - right["tangent"], axis=(1, 2)) / np.linalg.norm(
        right["tangent"], axis=(1, 2)
    )
    excess = energy / right["energy"] - 1
    ratio = bound / (energy - right["energy"])
    return {
        "stress": {"mean": off.mean(), "median": np.median(off), "max": off.max()},
        "tangent": {"mean": off_tangent.mean(), "max": off_tangent.max()},
        "energy": {"mean": excess.mean(), "least": excess.min()},
        "estimate over excess": {"median": np.median(ratio), "least": ratio.min(), "most": ratio.max()},
    }


def seconds_per_point(work, count):
    """Seconds of the fastest of three runs."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken) / count


def speed(network, law, tags, strains):
    """Seconds of a point: its exact solution, the one in its modes, and that with finding the modes."""
    which, given = np.repeat(np.arange(len(tags)), len(strains)), np.tile(strains, (len(tags), 1))
    known = coupling.ModesLaw(network, tags)
    ways = {
        "exact": lambda: [law.rve_at(k).homogenise(e) for k in range(len(tags)) for e in strains],
        "learned": lambda: known.respond(which, given),
        "learned, with its modes": lambda: coupling.ModesLaw(network, tags).respond(which, given),
    }
    return {name: seconds_per_point(work, len(given)) for name, work in ways.items()}


def structure(rve, network):
    """Cook's membrane whose fraction of fibres falls along it, every point with an RVE of its own."""
    membrane = meshes.cook(MPI.COMM_SELF, n=5)
    x = fe2.law_coordinates(membrane)[:, 0] / 48.0
    tags = np.stack(
        [
            meshes.mark(rve.domain, meshes.packing(0.3 - 0.22 * a, radius=0.13, seed=k, min_gap=0.07))
            for k, a in enumerate(x)
        ]
    )

    def fastest(law):
        """Seconds of the fastest of three equal runs."""
        return min((solve(law) for _ in range(3)), key=lambda run: run[2]["seconds"])

    def solve(law):
        problem = fe2.MacroProblem(membrane, law)
        problem.prescribe("left", (0.0, 0.0))
        problem.prescribe("right", (None, MOVE))
        problem.record("right")
        start = time.process_time()
        problem.solve(steps=STEPS, log=None)
        seconds = time.process_time() - start
        evaluations = sum(len(s.residuals) for s in problem.history)
        in_law = sum(s.seconds["law"] for s in problem.history)
        force = np.array([s.force["right"][1] for s in problem.history])
        return problem, force, {"seconds": seconds, "seconds_per_point": in_law / evaluations / len(tags)}

    start = time.process_time()
    law = coupling.ModesLaw(network, tags)
    set_up = (time.process_time() - start) / len(tags)
    exact = fe2.VaryingLaw(rve, tags)
    start = time.process_time()
    for k in range(len(tags)):
        exact.rve_at(k)
    set_up_exact = (time.process_time() - start) / len(tags)
    solve(law)  # compiles the forms
    reference, forces, timed = fastest(exact)
    right = reference.sigma.stresses()
    found = {
        "points": len(tags),
        "fractions": [float((tags == 2).mean(1).min()), float((tags == 2).mean(1).max())],
        "strain_over_range": (abs(reference.sigma.strains()).max(0) / learned.BOX).tolist(),
        "exact": timed | {"set_up_per_point": set_up_exact},
    }
    switched = coupling.ModesLaw(network, tags, exact=exact, tolerance=0.2)
    for name, run in {"learned": law, "certified": switched}.items():
        problem, force, timed = fastest(run)
        found[name] = timed | {
            "force_error": float(abs(force / forces - 1).max()),
            "stress_error": float(np.linalg.norm(problem.sigma.stresses() - right) / np.linalg.norm(right)),
            "times_as_fast": found["exact"]["seconds"] / timed["seconds"],
            "law_times_as_fast": found["exact"]["seconds_per_point"] / timed["seconds_per_point"],
            "exact_at_the_end": int(run.is_exact.sum()),
            "set_up_per_point": set_up,
        }
    exact.destroy()
    return found


def study(quick, steps, seeds, known, keep):
    """known: figures of another run, whose times and structure are measured again, or None. keep: called with the
    figures after each seed."""
    n = 8 if quick else 32
    grid = meshes.from_labels(np.tile([[1, 2], [2, 1]], (n // 2, n // 2)), MPI.COMM_SELF)
    rve = fe2.RVE(grid, learned.MATERIALS, degree=1)
    tags, unseen = packed(grid, 30 if quick else 1000, 0), packed(grid, 4 if quick else UNSEEN, 1)
    strains = fe2.strain_sampling.latin_hypercube(STRAINS, 2, learned.BOX, seed=3)
    law = fe2.VaryingLaw(rve, unseen)
    for k in range(len(unseen)):
        law.rve_at(k)
    if known is not None:
        network = spon.load(MODEL)
        found = known | {"seconds": speed(network, law, unseen, strains), "structure": structure(rve, network)}
        law.destroy()
        rve.destroy()
        keep(found)
        return found
    exact = [law.rve_at(k).homogenise(strains) for k in range(len(unseen))]
    found = {"unknowns": rve.unknowns.size, "seeds": []}
    for seed in range(seeds):
        network, training = train(rve, tags, steps, seed)
        if seed == 0 and not quick:
            MODEL.parent.mkdir(parents=True, exist_ok=True)
            network.save(MODEL)
        record = {"training": training, "trained": errors(network, unseen, strains, exact)}
        start = coupling.mode_network(rve, half_range=learned.BOX, seed=seed)
        record["untrained"] = errors(start, unseen, strains, exact)
        network.corrections = 0
        record["without corrections"] = errors(network, unseen, strains, exact)
        found["seeds"].append(record)
        print(json.dumps(record, indent=1), flush=True)
        network.corrections = start.corrections
        if seed == 0:
            found["seconds"] = speed(network, law, unseen, strains)
            found["structure"] = structure(rve, network)
        keep(found)
    law.destroy()
    rve.destroy()
    return found


def table(found):
    """The README's tables in Markdown."""
    lines = [
        "| | stress off, mean / median / max [%] | tangent off, mean [%] | energy above, mean [%] |",
        "|---|---|---|---|",
    ]
    for name in ("untrained", "without corrections", "trained"):
        records = [record[name] for record in found["seeds"]]

        def mean(*keys, records=records):
            return 100 * np.mean([record[keys[0]][keys[1]] for record in records])

        lines.append(
            f"| {name} | {mean('stress', 'mean'):.2g} / {mean('stress', 'median'):.2g} / {mean('stress', 'max'):.2g} | "
            f"{mean('tangent', 'mean'):.2g} | {mean('energy', 'mean'):.2g} |"
        )
    s = found["structure"]
    lines += ["", "| | force off [%] | stress off [%] | points exact | run [s] | times as fast | law, times as fast |",
              "|---|---|---|---|---|---|---|"]  # fmt: skip
    lines.append(f"| exact | | | {s['points']} of {s['points']} | {s['exact']['seconds']:.2f} | 1 | 1 |")
    for name in ("learned", "certified"):
        r = s[name]
        lines.append(
            f"| {name} | {100 * r['force_error']:.2g} | {100 * r['stress_error']:.2g} | {r['exact_at_the_end']} of "
            f"{s['points']} | {r['seconds']:.2f} | {r['times_as_fast']:.3g} | {r['law_times_as_fast']:.3g} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--speed", action="store_true", help="times and the structure alone")
    parser.add_argument("--quick", action="store_true", help="a smoke test, without saving figures")
    parser.add_argument("--table", action="store_true", help="print the tables and run nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.table:
        print(table(json.loads(RESULTS.read_text())["found"]))
        return
    known = json.loads(RESULTS.read_text())["found"] if given.speed else None

    def keep(found):
        if not given.quick:
            keeping.keep(RESULTS, "found", record=found)

    effort = (10, 1) if given.quick else (given.steps, given.seeds)
    print(table(study(given.quick, *effort, known, keep)))


if __name__ == "__main__":
    main()
