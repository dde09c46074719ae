# SPDX-License-Identifier: MIT
"""Learned laws at finite strain: neo-Hookean RVEs with phases 1:100 and stretches U within ±15 %.

RVE3 in two dimensions and a sphere in a cube. Snapshots for training are stretches of a Sobol sequence, Mandel
components of U − I in the box of ±15 %; the unseen strains are random in 0.98 of this box and turned by random
rotations. Errors of the first Piola–Kirchhoff stress P and of dP/dF are relative to the exact law, by their norms,
mean and maximum. "modes" is the tier of a certified law between network and exact law; the network of the strain alone
has the same snapshots and no fields (Sobolev training of stress and tangent).

The structure is Cook's membrane, clamped at the left and moved up at the right by a sixth of its length. Its force is
compared with that of the exact law, and the seconds that both laws take.

    python3 benchmarks/bench_finite_strain.py [RVE3 sphere]   to benchmarks/finite_strain.json
    python3 benchmarks/bench_finite_strain.py --quick         a coarse mesh and a brief training, nothing saved
    python3 benchmarks/bench_finite_strain.py --table         the tables
"""

import json
import time
from pathlib import Path

import keeping
import numpy as np
import torch
from mpi4py import MPI
from scipy.spatial.transform import Rotation

import coupling
import fe2
import meshes
import spon
from spon import EquiNOOptions, equino
from spon.equino import baselines
from spon.training import Live, TrainingOptions

RESULTS, FOLDER = Path(__file__).with_name("finite_strain.json"), Path("results/finite_strain")
BOX, UNSEEN = 0.15, 50
# Matrix and inclusion, Poisson's ratio 0.3 and moduli 1:100.
MATERIALS = {tag: fe2.NeoHookean(*fe2.bulk_shear(young, 0.3)) for tag, young in ((1, 10.0), (2, 1000.0))}
# Mesh size, snapshots and options of the training.
FULL = {
    "RVE3": (0.035, 100, {"r": 24, "samples": 1536, "width": 32, "lbfgs": 3000}),
    "sphere": (0.3, 200, {"r": 24, "samples": 2048, "width": 40, "lbfgs": 3000}),
}
QUICK = {
    "RVE3": (0.2, 24, {"r": 8, "samples": 48, "lbfgs": 40}),
    "sphere": (0.6, 24, {"r": 8, "samples": 48, "lbfgs": 40}),
}


def rve(name, size):
    """The RVE of this name."""
    comm = MPI.COMM_SELF
    if name == "RVE3":
        return fe2.RVE(meshes.benchmark("RVE3", comm, mesh_size=size), MATERIALS)
    return fe2.RVE(meshes.rve([meshes.Sphere((0, 0, 0), 0.3)], comm, mesh_size=size, size=(1, 1, 1)), MATERIALS)


def stretches(dim, unit):
    """Displacement gradients (n, dim²) of U − I with Mandel components in the box, of numbers in (−1, 1)."""
    return BOX * unit @ fe2.DISPLACEMENT_GRADIENT.stretches(dim)


def unseen(dim, n, seed=1):
    """Random stretches, turned by random rotations."""
    random = np.random.default_rng(seed)
    u = np.eye(dim) + stretches(dim, random.uniform(-0.98, 0.98, (n, dim * (dim + 1) // 2))).reshape(-1, dim, dim)
    if dim == 2:
        turns = Rotation.from_rotvec(np.outer(random.uniform(-np.pi, np.pi, n), [0, 0, 1]))
    else:
        turns = Rotation.random(n, random_state=seed)
    return (turns.as_matrix()[:, :dim, :dim] @ u - np.eye(dim)).reshape(n, -1)


def errors(found, right):
    """Relative errors (n, ...) in per cent, mean and maximum."""
    found, right = (np.asarray(x).reshape(len(x), -1) for x in (found, right))
    e = 100 * np.linalg.norm(found - right, axis=1) / np.linalg.norm(right, axis=1)
    return {"mean": float(e.mean()), "max": float(e.max())}


def timed(function, *arguments, **options):
    start = time.perf_counter()
    result = function(*arguments, **options)
    return result, time.perf_counter() - start


def study(name, size, snapshots, options, stem):
    """All figures of an RVE."""
    cell = rve(name, size)
    dim, found = cell.body.dim, {"unknowns": cell.unknowns.size, "snapshots": snapshots}
    FOLDER.mkdir(parents=True, exist_ok=True)
    s = dim * (dim + 1) // 2
    sobol = fe2.strain_sampling.sobol(snapshots, dim, 1.0)[:, :s]
    path = FOLDER / f"{stem}.h5"
    there = path.exists()  # then the seconds are those of the run that solved them
    _, seconds = timed(fe2.rve_snapshots.compute, cell, stretches(dim, sobol), path, MPI.COMM_SELF, progress=False)
    known = json.loads(RESULTS.read_text())["RVEs"].get(name, {}) if there and RESULTS.exists() else {}
    found["snapshot seconds"] = known.get("snapshot seconds", seconds)
    data = coupling.rve_snapshots(cell, path)
    strain = unseen(dim, UNSEEN)
    exact, seconds = timed(cell.homogenise, strain)
    found["exact"] = {"seconds per point": seconds / UNSEEN}
    with Live() as live:
        trained, seconds = timed(equino.train, data, EquiNOOptions(**options), log=live)
    model = trained.model.requires_grad_(False)
    model.save(FOLDER / f"{stem}.safetensors")
    evaluate = spon.Evaluator(model)
    certificate = spon.certify(model, strain, model.rve_modes.at_points)
    reached = certificate.upper.numpy() - exact.energy
    found["EquiNO"] = judged(evaluate(strain), exact) | {
        "seconds": seconds,
        "points per second": 1e5 / timed(evaluate, np.resize(strain, (100_000, dim * dim)))[1],
        "mismatch": float(100 * model.mismatch(torch.from_numpy(strain), model.rve_modes.at_points).mean()),
        "energy bound violated": int((reached < 0).sum()),
        "gap covers": float((certificate.gap.numpy() >= reached).mean()),
        "stress estimate covers": float(
            (abs(evaluate(strain).stress - exact.stress) <= certificate.stress_estimate.numpy()).mean()
        ),
    }
    correct = spon.ModalCorrector(model)
    modes, seconds = timed(correct, torch.from_numpy(strain))
    found["modes"] = judged((modes.stress.numpy(), modes.tangent.numpy()), exact)
    found["modes"]["points per second"] = UNSEEN / seconds
    lbfgs = options["lbfgs"]
    network, seconds = timed(baselines.train_sobolev, data, TrainingOptions(steps=300, lbfgs=lbfgs))
    found["network of the strain"] = judged(spon.Evaluator(network.model)(strain), exact) | {"seconds": seconds}
    return found, cell, model


def judged(response, exact):
    stress, tangent = response
    return {"P": errors(stress, exact.stress), "dP/dF": errors(tangent, exact.tangent)}


def cook(cell, model, n, steps):
    """Force and seconds of both laws on Cook's membrane."""
    found, curves = {}, {}
    for name, law in (("exact", fe2.ExactLaw(cell)), ("EquiNO", coupling.SurrogateLaw(model))):
        problem = fe2.MacroProblem(meshes.cook(MPI.COMM_SELF, n=n), law)
        problem.prescribe("left", [0.0, 0.0])
        problem.prescribe("right", [None, 8.0])
        problem.record("right")
        history, seconds = timed(problem.solve, steps=steps, log=None)
        curves[name] = [step.force["right"][1] for step in history]
        law_seconds = sum(step.seconds["law"] for step in history)
        evaluations = sum(len(step.residuals) for step in history)
        h = problem.sigma.strains().reshape(-1, 2, 2) + np.eye(2)
        rotation = np.degrees(np.arctan2(h[:, 1, 0] - h[:, 0, 1], h[:, 0, 0] + h[:, 1, 1]))
        found[name] = {
            "seconds": seconds, "law seconds": law_seconds, "evaluations": evaluations, "points": len(h),
            "largest rotation": float(abs(rotation).max()),
        }  # fmt: skip
        problem.destroy()
    ends = {name: curve[-1] for name, curve in curves.items()}
    found["force"] = curves
    found["error of the force"] = 100 * abs(ends["EquiNO"] / ends["exact"] - 1)
    return found


def tables(figures):
    """The tables in Markdown."""
    head = ["RVE", "unknowns", "law", "P, mean / max, %", "dP/dF, mean / max, %", "training s", "points/s"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, found in figures["RVEs"].items():
        for law in ("EquiNO", "modes", "network of the strain"):
            record = found[law]
            p, c = (f"{record[k]['mean']:.2g} / {record[k]['max']:.2g}" for k in ("P", "dP/dF"))
            seconds = f"{record['seconds']:.0f}" if "seconds" in record else ""
            rate = f"{record['points per second']:.2g}" if "points per second" in record else ""
            lines.append(f"| {name} | {found['unknowns']} | {law} | {p} | {c} | {seconds} | {rate} |")
        lines.append(
            f"| {name} | {found['unknowns']} | exact | | | {found['snapshot seconds']:.0f} for {found['snapshots']} | "
            f"{1 / found['exact']['seconds per point']:.2g} |"
        )
    if "Cook" in figures:
        found = figures["Cook"]
        exact, learned = found["exact"], found["EquiNO"]
        lines += [
            "",
            f"Cook's membrane with RVE3, {exact['points']} points, rotations up to {exact['largest rotation']:.0f}°: "
            f"force of the learned law off by {found['error of the force']:.2g} %, its law "
            f"{exact['law seconds'] / learned['law seconds']:.0f} times as fast ({exact['law seconds']:.0f} s and "
            f"{learned['law seconds']:.3f} s for {exact['evaluations']} and {learned['evaluations']} evaluations).",
        ]
    return "\n".join(lines)


def main():
    parser = keeping.parser(__doc__)
    parser.add_argument("names", nargs="*", help="of RVE3, sphere; both by default")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.table:
        print(tables(json.loads(RESULTS.read_text())))
        return
    effort, figures = (QUICK, {"RVEs": {}}) if given.quick else (FULL, {})
    for name in given.names or effort:
        found, cell, model = study(name, *effort[name], f"{name}-quick" if given.quick else name)
        pressed = cook(cell, model, (2, 2), 4) if given.quick and name == "RVE3" else None
        if name == "RVE3" and not given.quick:
            pressed = cook(cell, model, (6, 6), 8)
        if given.quick:
            figures["RVEs"][name] = found
            figures |= {"Cook": pressed} if pressed else {}
        else:
            keeping.keep(RESULTS, "RVEs", name, record=found)
            if pressed:
                keeping.keep(RESULTS, "Cook", record=pressed)
        print(json.dumps(found), flush=True)
    print(tables(figures if given.quick else json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
