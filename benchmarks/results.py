# SPDX-License-Identifier: MIT
"""The performance page: the saved figures of each benchmark as one Markdown file.

    python3 benchmarks/results.py                         writes benchmarks/RESULTS.md
    python3 benchmarks/results.py --measure performance   first runs the benchmarks of time, half an hour; or all

Each `bench_NAME.py` here with a `NAME.json` has a section: its title, the tables that it prints with `--table`, the
picture that it draws (its `PICTURE`) if there is one, and its machine.
"""

import argparse
import contextlib
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

FOLDER = Path(__file__).parent
PAGE = FOLDER / "RESULTS.md"
# The benchmarks of time, in the order of the page; the others are of accuracy.
PERFORMANCE = ("evaluation", "tiers", "micro", "grid", "training", "assembly", "surrogate", "spmm")
HEAD = """# Measurements

Written by `make results` from the figures in `benchmarks/*.json`; `make performance` repeats the measurements of time,
`make benchmark` all of them. Ratios are of one run, side by side. The top of each script describes how its figures are
measured. Nothing is measured on a GPU so far, unless a section states otherwise.
"""


def names() -> tuple[list[str], list[str]]:
    """The benchmarks of time, and the others."""
    there = [script.stem.removeprefix("bench_") for script in sorted(FOLDER.glob("bench_*.py"))]
    return list(PERFORMANCE), [name for name in there if name not in PERFORMANCE]


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, some in zip(("# Time", "# Accuracy"), names(), strict=True):
        parts.append(f"{title}\n")
        for name in some:
            script, record = FOLDER / f"bench_{name}.py", FOLDER / f"{name}.json"
            if record.exists():
                parts.append(section(script, json.loads(record.read_text()).get("about", {})))
    return "\n".join(parts)


def section(script: Path, about: dict) -> str:
    """A benchmark's section; its title is the first paragraph of its docstring."""
    module = importlib.import_module(script.stem)
    title, out = " ".join((module.__doc__ or "").split("\n\n")[0].split()).rstrip("."), io.StringIO()
    with mock.patch.object(sys, "argv", [str(script), "--table"]), contextlib.redirect_stdout(out):
        module.main()
    lines = [f"## {title}", "", out.getvalue().strip(), ""]
    if picture := getattr(module, "PICTURE", None):
        lines += [f"![{title}](../docs/{picture.name})", ""]
    said = ", ".join(f"{key} {value}" for key, value in about.items() if not isinstance(value, dict))
    command = f"`environment/run python3 benchmarks/{script.name}`"
    return "\n".join([*lines, f"*{command}; {said}.*" if said else f"*{command}.*", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", choices=("performance", "all"), help="first run these benchmarks")
    given = parser.parse_args()
    time, others = names()
    for name in {None: [], "performance": time, "all": time + others}[given.measure]:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, str(FOLDER / f"bench_{name}.py")], check=True)
    PAGE.write_text(page())
    print(f"page: {PAGE}")


if __name__ == "__main__":
    main()
