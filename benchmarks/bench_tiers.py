# SPDX-License-Identifier: MIT
"""The certified law on a structure that leaves the trained range: which tier each point needs, accuracy and time.

First the time of each tier: stress and tangent at random strains of the trained range, in one batch, with the gap of
the certificate on the cubature for tiers that have one.

Then Cook's membrane of RVE3 on a coarse mesh, moved twice as far as the displacement at which its strains reach the
limit of the trained range of ±4 %; with exact FE², and with the certified law at its default tolerance with and without
the tier of the model's modes. Errors are those of the force at equal displacement, the largest of all steps, and of the
macroscale stress at the quadrature points, as relative L² norm, the largest of all steps. Shares of points are those at
the end of each step. One core.

    python3 benchmarks/bench_tiers.py           rewrites benchmarks/tiers.json and docs/tiers.png
    python3 benchmarks/bench_tiers.py --quick   a coarser mesh and fewer steps, printed and not saved
    python3 benchmarks/bench_tiers.py --table   the table of the README
"""

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
from fe2 import pictures

RESULTS = Path(__file__).with_name("tiers.json")
PICTURE = Path(__file__).parents[1] / "docs" / "tiers.png"
FULL = {"n": 5, "steps": 10, "move": 3.2, "most_points": 16384}
QUICK = {"n": 1, "steps": 2, "move": 1.6, "most_points": 16}
TIERS = ("network", "modes", "exact")
ANSWERS = {"network": 16384, "network and certificate": 4096, "modes and certificate": 4096, "modes, torch": 512,
           "exact": 32}  # fmt: skip


def run(law, effort):
    """A record of each step: force, strains over the range, points by tier, outside; the stresses; and the seconds."""
    problem = fe2.MacroProblem(meshes.cook(MPI.COMM_SELF, n=effort["n"]), law)
    problem.prescribe("left", (0.0, 0.0))
    problem.prescribe("right", (None, effort["move"]))
    problem.record("right")
    records, stresses, seconds = [], [], 0.0
    for k in range(effort["steps"]):
        begin = time.process_time()
        problem.solve(steps=effort["steps"], until=(k + 1) / effort["steps"], max_cuts=4, log=None)
        seconds += time.process_time() - begin
        tier = getattr(law, "tier", np.full(len(problem.sigma.strains()), 2))
        records.append(
            {
                "force": problem.history[-1].force["right"][1],
                "strain_over_range": float((abs(problem.sigma.strains()) / learned.BOX).max()),
                "tiers": np.bincount(tier, minlength=3).tolist(),
                "outside": int((abs(problem.sigma.strains()) > learned.BOX).any(axis=1).sum()),
            }
        )
        stresses.append(problem.sigma.stresses())
    problem.destroy()
    return records, np.array(stresses), seconds


def answers(model, rve, most):
    """Responses per second in processor time, the best of three batches: of each tier, name → batch and rate."""
    evaluator, code, plain = (
        spon.Evaluator(model),
        spon.ModalCorrector(model),
        spon.ModalCorrector(model, compiled=False),
    )
    works = {
        "network": evaluator,
        "network and certificate": lambda e: (evaluator(e), spon.certify(evaluator.model, torch.from_numpy(e))),
        "modes and certificate": lambda e: code(torch.from_numpy(e)),
        "modes, torch": lambda e: plain(torch.from_numpy(e)),
        "exact": rve.homogenise,
    }
    found = {}
    for name, work in works.items():
        n = min(ANSWERS[name], most)
        strain, times = learned.BOX * np.random.default_rng(0).uniform(-1, 1, (n, 3)), []
        for _ in range(3):
            begin = time.process_time()
            work(strain)
            times.append(time.process_time() - begin)
        found[name] = {"batch": n, "rate": n / max(min(times), 1e-9)}
        print(name, found[name], flush=True)
    return found


def study(effort, rve, model):
    laws = {
        "exact": fe2.ExactLaw(rve),
        "certified": coupling.CertifiedLaw(model, fe2.ExactLaw(rve)),
        "certified, without modes": coupling.CertifiedLaw(model, fe2.ExactLaw(rve), modes=False),
    }
    run(fe2.UFLLaw(learned.MATERIALS[1]), effort | {"steps": 1})  # compiles the forms
    found = {"unknowns": rve.unknowns.size, "answers": answers(model, rve, effort["most_points"]), "laws": {}}
    right = None
    for name, law in laws.items():
        records, stress, seconds = run(law, effort)
        right = (records, stress, seconds) if right is None else right
        off = np.linalg.norm(stress - right[1], axis=(1, 2)) / np.linalg.norm(right[1], axis=(1, 2))
        force_off = [abs(a["force"] / b["force"] - 1) for a, b in zip(records, right[0])]
        found["laws"][name] = {
            "steps": records, "seconds": seconds, "times_as_fast": right[2] / seconds,
            "force_error": max(force_off), "stress_error": float(off.max()),
        }  # fmt: skip
        print(name, json.dumps({k: v for k, v in found["laws"][name].items() if k != "steps"}), flush=True)
    found["tolerance"] = laws["certified"].tolerance
    return found


def table(found):
    lines = ["| evaluation by | points at a time | points per second | times as fast as exact |", "|---|---|---|---|"]
    for name, record in found["answers"].items():
        ratio = record["rate"] / found["answers"]["exact"]["rate"]
        lines.append(f"| {name} | {record['batch']:,} | {record['rate']:.2g} | {ratio:.2g} |")
    titles = "law", "force off [%]", "stress off [%]", "exact, most of all steps", "in modes", "run [s]", "as fast"
    lines += ["", "| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for name, law in found["laws"].items():
        tiers = np.array([step["tiers"] for step in law["steps"]])
        most = f"{tiers[:, 2].max()} of {tiers[0].sum()}"
        lines.append(
            f"| {name} | {100 * law['force_error']:.2g} | {100 * law['stress_error']:.2g} | {most} | "
            f"{tiers[:, 1].max()} | {law['seconds']:.2f} | {law['times_as_fast']:.3g} |"
        )
    return "\n".join(lines)


def draw(found, move, path):
    """Shares of points by tier over the steps, and the forces."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(14, 3.8), layout="constrained")
    count = len(found["laws"]["exact"]["steps"])
    moved = move * np.arange(1, count + 1) / count
    for axis, name in zip(axes, ("certified", "certified, without modes")):
        steps = found["laws"][name]["steps"]
        shares = np.array([step["tiers"] for step in steps]).T
        axis.stackplot(moved, 100 * shares / shares.sum(0), labels=TIERS, colors=("#4c9f70", "#e0b13c", "#b03a2e"))
        outside = np.array([step["outside"] for step in steps]) / shares.sum(0)
        axis.plot(moved, 100 * outside, "k--", label="outside the trained range")
        axis.set(xlabel="displacement [mm]", ylabel="points [%]", ylim=(0, 100), xlim=(moved[0], moved[-1]), title=name)
    axes[0].legend(fontsize=8, loc="lower left")
    for name, style in (("exact", "k-"), ("certified", "o"), ("certified, without modes", "x")):
        force = [step["force"] for step in found["laws"][name]["steps"]]
        axes[2].plot(moved, force, style, label=name, mfc="none")
    axes[2].set(xlabel="displacement [mm]", ylabel="force [N/mm]", title="force")
    axes[2].legend(fontsize=8)
    print(f"picture: {pictures.save(figure, path, dpi=100)}")


def main():
    given = keeping.parser(__doc__).parse_args()
    torch.set_num_threads(1)
    if given.table:
        print(table(json.loads(RESULTS.read_text())["found"]))
        return
    if given.quick:
        rve, model = learned.quick()
    else:
        rve = learned.rve("RVE3", 0.06)
        model = learned.trained(rve, "RVE3-tiers")
    effort = QUICK if given.quick else FULL
    found = study(effort, rve, model)
    rve.destroy()
    if not given.quick:
        keeping.keep(RESULTS, "found", record=found)
    draw(found, effort["move"], Path("results/tiers/tiers.png") if given.quick else PICTURE)
    print(table(found))


if __name__ == "__main__":
    main()
