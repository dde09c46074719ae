# SPDX-License-Identifier: MIT
"""Validation of the certificate: bounds and estimate of the default EquiNO and exact solutions at thousands of strains.

A third of the strains is in the trained box, a third in the box twice as large, a third on rays up to three times its
size, half of these down to strains of 1e-6. Certificates are computed at all quadrature points. Exact solutions are
saved in chunks under results/certificate, so that a killed run continues.

    python3 benchmarks/bench_certificate.py [--strains N] [RVE3 ...]   N for each RVE; merges into certificate.json
    python3 benchmarks/bench_certificate.py --table                    prints it as a table
    python3 benchmarks/bench_certificate.py --quick                    a coarse RVE, printed and not saved
"""

import argparse
import copy
import json
import time
from dataclasses import replace
from pathlib import Path

import keeping
import learned
import numpy as np
import torch
from learned import BOX, MATERIALS, SIZES

import coupling
import fe2
import spon
from fe2.fingerprints import fingerprint
from spon.constitutive.duality import largest_tangent

CHUNK = 60
RESULTS = Path(__file__).with_name("certificate.json")


def strains(k):
    """Chunk k (CHUNK, d) of the strains."""
    rng, n = np.random.default_rng([7, k]), CHUNK // 3
    inside, twice = rng.uniform(-1, 1, (2, n, BOX.size))
    rays = rng.standard_normal((n, BOX.size))
    size = np.where(np.arange(n) % 2, rng.uniform(0, 3, n), 3 * 10 ** rng.uniform(-5, 0, n))
    rays *= (size / abs(rays).max(axis=1))[:, None]
    return BOX * np.vstack([inside, 2 * twice, rays])


def exact(rve, name, chunks):
    """strain, stress, energy of all chunks, without strains that have no solution."""
    mark, parts, begin = fingerprint(rve)["whole"], [], time.perf_counter()
    folder = Path("results/certificate") / f"{name}-{mark[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(chunks):
        path, strain = folder / f"{k:05d}.npz", strains(k)
        if not path.exists():
            solved = rve.homogenise(strain, on_failure="report")
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.savez(file, strain=strain, stress=solved.stress, energy=solved.energy)
            part.rename(path)
            print(f"{name}: {k + 1} of {chunks} chunks, {time.perf_counter() - begin:.0f} s", flush=True)
        found = np.load(path)
        if not np.array_equal(found["strain"], strain):
            raise RuntimeError(f"{path} holds other strains; remove {folder}")
        parts.append([found[key] for key in ("strain", "stress", "energy")])
    strain, stress, energy = (np.concatenate(p) for p in zip(*parts, strict=True))
    solved = np.isfinite(energy)
    return strain[solved], stress[solved], energy[solved], int((~solved).sum())


def certified(model, strain, at, chunk):
    """Prediction and certificate as a dict of arrays."""
    with torch.no_grad():
        parts = [(model(e)[0], spon.certify(model, e, at)) for e in torch.from_numpy(strain).split(chunk)]
    found = {
        name: torch.cat([getattr(c, name) for _, c in parts]).numpy() for name in spon.Certificate.__dataclass_fields__
    }
    return found | {"stress": torch.cat([s for s, _ in parts]).numpy()}


def slacks(rve, model, strain, upper):
    """Errors of the exact energies (n,) and of squared errors of stress (n,) [MPa] by rounding and the solver's
    tolerance; the certificate takes them into account in its bounds."""
    matrix = MATERIALS[1]
    # The matrix' energy is a difference of a1 ‖e‖ and a1 a2 ln(1 + ‖e‖/a2); it enters both bounds and the exact value.
    rounding = 16 * np.finfo(float).eps * matrix.a1 * (matrix.a2 + np.linalg.norm(strain, axis=1))
    # Modes are in equilibrium as the 100 snapshots that they combine, each to the solver's tolerance.
    energy = rounding + 100 * rve.solver.tolerance * upper
    return energy, 2 * max(float(largest_tangent(law).max()) for law in model.cubature.laws.laws) * energy


def spread(values):
    """Quantiles of 5, 50 and 95 % of the finite values."""
    return np.quantile(values[np.isfinite(values)], (0.05, 0.5, 0.95)).tolist()


def judge(c, right, slack, some):
    """Violations and sharpness of the certificates of `some` strains."""
    _, stress, energy = right
    excess = np.maximum(c["lower"] - energy, energy - c["upper"])[some] / slack[0][some]
    error = abs(c["stress"] - stress)[some]
    bound, estimate, corrected = (c[k][some] for k in ("stress_bound", "stress_estimate", "corrected"))
    relative = np.linalg.norm(error, axis=1) / np.linalg.norm(stress[some], axis=1)
    true = (c["upper"] - energy)[some]
    resolved = true > slack[0][some]  # at strains of 1e-6 the difference of energies is rounding
    # Ratios of single components are also meaningful only for errors above the solver's tolerance.
    seen = error > 1e-9 * np.linalg.norm(stress[some], axis=1, keepdims=True)
    return {
        "strains": int(some.sum()),
        "energy_violations": int((excess > 1).sum()),
        "largest_excess_over_slack": float(excess.max()),
        "stress_violations": int((error > np.sqrt(bound**2 + slack[1][some, None])).sum()),
        "without_lower_bound": int(np.isinf(c["lower"][some]).sum()),
        "stress_error_percent": spread(100 * relative),
        "corrected_error_percent": spread(
            100 * np.linalg.norm(corrected - stress[some], axis=1) / np.linalg.norm(stress[some], axis=1)
        ),
        "gap_percent": spread(100 * c["gap"][some] / energy[some]),
        "gap_over_energy_error": spread(c["gap"][some][resolved] / true[resolved]),
        "bound_over_error": spread((bound / error)[seen]),
        "estimate_over_error": spread((estimate / error)[seen]),
        "coverage": (error <= estimate).mean(axis=0).tolist(),
    }


def caught(rve, model, right, inside, at):
    """Shares of strains in the box that `coupling.CertifiedLaw` would solve exactly, and whose stress is wrong unseen.

    A stress is wrong if the energy of its error exceeds the tolerance, relative to that in the criterion of the law.
    """
    strain, stress, energy = (part[inside] for part in right)
    law = coupling.CertifiedLaw(model, fe2.ExactLaw(rve), at=at)
    with torch.no_grad():
        error = torch.cat([model(e)[0] for e in torch.from_numpy(strain).split(1024)]).numpy() - stress
    open_ = ~(law.gaps(strain) <= law.tolerance)
    stiffness = rve.homogenise(np.zeros((1, BOX.size))).tangent[0]
    own = (error * np.linalg.solve(stiffness, error.T).T).sum(axis=1) / 2
    wrong = own > law.tolerance * (energy + law.floor_energy)
    return {"caught": float(open_.mean()), "wrong": float(wrong.mean()), "wrong_unseen": float((wrong & ~open_).mean())}


def noisy(model, size):
    """The model with a relative error of about `size` in every parameter."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in other.parameters():
            p *= 1 + size * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return other


def swapped(at):
    """Modes of which the first two strain modes are swapped."""
    order = [1, 0, *range(2, at.strain_modes.shape[2])]
    return replace(at, strain_modes=at.strain_modes[..., order])


def milliseconds(function, n):
    """Milliseconds for each of n strains, the best of five runs."""
    times = []
    with torch.no_grad():
        for _ in range(5):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    return 1e3 * min(times) / n


def study(name, rve, model, wanted):
    *right, failed = exact(rve, name, -(-wanted // CHUNK))
    strain, at = right[0], model.rve_modes.at_points
    inside = model.inside(torch.from_numpy(strain)).numpy()
    everywhere, few = certified(model, strain, at, 10), certified(model, strain, None, 100)
    covered = abs(few["stress"] - right[1]) <= few["stress_estimate"]
    slack = slacks(rve, model, strain, everywhere["upper"])
    e = torch.from_numpy(strain[inside][:100])
    with np.errstate(invalid="ignore"):  # at strains of 1e-6 both gaps may be 0, and `spread` leaves their ratio out
        ratio = (few["gap"] / everywhere["gap"])[inside]
    found = {
        "points": len(at.weights),
        "cubature": len(model.cubature.weights),
        "not_solved": failed,
        "calibration": model.calibration.tolist(),
        "inside": judge(everywhere, right, slack, inside),
        "outside": judge(everywhere, right, slack, ~inside),
        # Estimates, which have no violations: ratio of the gaps, and the estimate.
        "cubature_gap_over_gap": spread(ratio),
        "cubature_coverage": {
            part: covered[some].mean(axis=0).tolist() for part, some in (("inside", inside), ("outside", ~inside))
        },
        "default": caught(rve, model, right, inside, at),
        "noise of 1 %": caught(rve, noisy(model, 0.01), right, inside, at),
        "noise of 10 %": caught(rve, noisy(model, 0.1), right, inside, at),
        "modes swapped": caught(rve, model, right, inside, swapped(at)),
        "milliseconds": {
            "prediction": milliseconds(lambda: model(e), len(e)),
            "fields on the cubature": milliseconds(lambda: model.fields(e), len(e)),
            "certificate on the cubature": milliseconds(lambda: spon.certify(model, e), len(e)),
            "certificate at all points": milliseconds(lambda: spon.certify(model, e[:10], at), 10),
        },
    }
    print(name, json.dumps(found, indent=1), flush=True)
    return found


def table(rves):
    """Markdown; ratios are medians with the quantiles of 5 and 95 %."""

    def show(values):
        low, middle, high = values
        return f"{middle:.3g} ({low:.2g} to {high:.2g})"

    print("| | | strains | violations | gap in % | bound / error | estimate / error | covered in % |")
    print("|---|---|---|---|---|---|---|---|")
    for name, figures in rves.items():
        for part in ("inside", "outside"):
            r = figures[part]
            ratios = " | ".join(show(r[k]) for k in ("gap_percent", "bound_over_error", "estimate_over_error"))
            covered = " / ".join(f"{100 * x:.1f}" for x in r["coverage"])
            violations = r["energy_violations"] + r["stress_violations"]
            print(f"| {name} | {part} | {r['strains']} | {violations} | {ratios} | {covered} |")
    print("\n| | " + " | ".join(next(iter(rves.values()))["milliseconds"]) + " |\n|---|---|---|---|---|")
    for name, figures in rves.items():
        print(f"| {name}, ms | " + " | ".join(f"{v:.3g}" for v in figures["milliseconds"].values()) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="RVE", help=f"of {', '.join(SIZES)}; all by default")
    parser.add_argument("--strains", type=int, default=3360, help="for each RVE, rounded up to whole chunks")
    parser.add_argument("--quick", action="store_true", help="a smoke test, without saving figures")
    parser.add_argument("--table", action="store_true", help="print the table of the saved results")
    options = parser.parse_args()
    if unknown := set(options.names) - set(SIZES):
        parser.error(f"no RVE {', '.join(sorted(unknown))}: need {', '.join(SIZES)}")
    if options.table:
        return table(json.loads(RESULTS.read_text())["RVEs"])
    torch.set_num_threads(1)
    if options.quick:
        rve, model = learned.quick()
        table({"RVE3": study("RVE3", rve, model, CHUNK)})
        rve.destroy()
        return
    for name in options.names or SIZES:
        rve = learned.rve(name)
        keeping.keep(RESULTS, "RVEs", name, record=study(name, rve, learned.trained(rve, name), options.strains))
        rve.destroy()


if __name__ == "__main__":
    main()
