# SPDX-License-Identifier: MIT
"""The performance page: what each benchmark has kept, as one Markdown file.

    python3 benchmarks/results.py          writes benchmarks/RESULTS.md

Each `bench_NAME.py` here whose `NAME.json` is there has a section: what is measured, the tables that it prints with
`--table`, its picture in docs/ if it has one, and on what it ran. Nothing is measured by this script.
"""

import contextlib
import importlib
import io
import json
import sys
from pathlib import Path
from unittest import mock

FOLDER = Path(__file__).parent
PAGE = FOLDER / "RESULTS.md"
HEAD = """# What was measured

Made by `make results` from the files beside this one; `make benchmark` measures everything anew and then makes it.
Ratios are of one run, side by side. How each figure is measured is said at the top of its script. Figures of a GPU: not
yet measured, unless a section says otherwise.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for script in sorted(FOLDER.glob("bench_*.py")):
        name = script.stem.removeprefix("bench_")
        record = script.with_name(f"{name}.json")
        if record.exists():
            parts.append(section(name, script, json.loads(record.read_text()).get("about", {})))
    return "\n".join(parts)


def section(name: str, script: Path, about: dict) -> str:
    """A benchmark's section; its first sentence is that of its docstring."""
    module = importlib.import_module(script.stem)
    title, out = (module.__doc__ or "").split("\n")[0].rstrip("."), io.StringIO()
    with mock.patch.object(sys, "argv", [str(script), "--table"]), contextlib.redirect_stdout(out):
        module.main()
    picture = FOLDER.parent / "docs" / f"{name}.png"
    lines = [f"## {title}", "", out.getvalue().strip(), ""]
    if picture.exists():
        lines += [f"![{title}](../docs/{picture.name})", ""]
    said = ", ".join(f"{key} {value}" for key, value in about.items() if not isinstance(value, dict))
    command = f"`environment/run python3 benchmarks/{script.name}`"
    return "\n".join([*lines, f"*{command}; {said}.*" if said else f"*{command}.*", ""])


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"page: {PAGE}")
