# SPDX-License-Identifier: MIT
"""The source of the site: `python3 docs/pages.py FOLDER` puts it in a folder.

It has the Markdown of docs/, a page for each section of the README and for each demo, the results as
benchmarks/results.py writes them from the figures, the changelog, the rules for contributors, and the reference. Links
to files of the repository become links to pages, or to copies of the files for download.
"""

import os
import re
import sys
from pathlib import Path, PurePosixPath
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / "docs"

HOW_TO = (
    "mesh",
    "material",
    "history",
    "buckling",
    "load",
    "learn",
    "accuracy",
    "varying",
    "operators",
    "parallel",
    "restart",
    "gpu",
    "umat",
    "export",
)
EXPLANATION = ("law", "certificate", "equino", "spon", "exact", "architecture")
NOT_START = ("Read on", "Tests")  # sections of the README that the site has no page for

# File of the repository → page of the site; those of docs/ and the demos follow rules, see `page_of`.
PAGES = {
    "README.md": "index.md",
    "benchmarks/RESULTS.md": "results.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
_LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^()\s]+)\)")
_FENCED = re.compile(r"(^```.*?^```$|^(?: {4}[^\n]*\n)+|`[^`\n]+`)", re.M | re.S)


class Tutorial(NamedTuple):
    """A row of the table in docs/tutorials.md."""

    name: str
    shows: str
    time: str


def tutorials() -> list[Tutorial]:
    """The demos in the order of docs/tutorials.md."""
    rows = re.findall(
        r"^\| \d+ \| \[demo_(\w+)\.py\]\(\S+\) \| (.+?) \| (.+?) \|$", (DOCS / "tutorials.md").read_text(), re.M
    )
    return [Tutorial(*row) for row in rows]


def readme_sections() -> dict[str, tuple[str, str]]:
    """Title and text of the README's sections by the name of their page; "" is what stands before the first."""
    head, *sections = re.split(r"^## ", (PROJECT / "README.md").read_text(), flags=re.M)
    found = {"": ("", head)}
    for section in sections:
        title, text = section.split("\n", 1)
        if title not in NOT_START:
            found[re.sub(r"\W+", "-", title.lower()).strip("-")] = (title, text)
    return found


def page_of(file: str) -> str | None:
    """The page, or the picture, that the site has of a file of the repository; None without one."""
    path = PurePosixPath(file)
    if file in PAGES:
        return PAGES[file]
    if path.parts[0] == "docs" and path.suffix in (".md", ".png"):
        return str(path.relative_to("docs"))
    if path.match("demos/demo_*.py"):
        return f"demos/{path.stem.removeprefix('demo_')}.md"
    return None


def markdown(results: str) -> dict[str, str]:
    """The Markdown pages by path in the site; `results`: the text of benchmarks/RESULTS.md."""
    made = {"index.md": relinked(_index(), "README.md", "index.md")}
    for name, (title, text) in readme_sections().items():
        if name:
            page = f"start/{name}.md"
            made[page] = relinked(f"# {title}\n{text}", "README.md", page)
    for path in sorted(DOCS.rglob("*.md")):
        if "_build" not in path.parts:
            page = path.relative_to(DOCS).as_posix()
            made[page] = relinked(path.read_text(), f"docs/{page}", page)
    made["tutorials.md"] += "\n" + _toctree(f"demos/{row.name}" for row in tutorials())
    made |= {f"demos/{row.name}.md": _demo(row) for row in tutorials()}
    made["results.md"] = relinked(_one_title(results), "benchmarks/RESULTS.md", "results.md")
    for file in ("CHANGELOG.md", "CONTRIBUTING.md"):
        made[PAGES[file]] = relinked((PROJECT / file).read_text(), file, PAGES[file])
    return made


def relinked(text: str, file: str, page: str) -> str:
    """Text of a file of the repository with its relative links as they must be on a page of the site.

    Raises:
        ValueError: a link to a file that does not exist.
    """

    def link(match: re.Match[str]) -> str:
        label, target = match.groups()
        path, hash_, anchor = target.partition("#")
        if file == "README.md" and not path:
            path = file
        if re.match(r"[a-z]+:", target) or not path:
            return match[0]
        wanted = os.path.normpath(PurePosixPath(file).parent / path)
        if not (PROJECT / wanted).exists() or wanted.startswith(".."):
            raise ValueError(f"{file} links to {target}, which does not exist")
        if (PROJECT / wanted).is_dir():
            return f"`{wanted}`"
        there = page_of(wanted) or f"files/{wanted}"
        if wanted == "README.md" and anchor and anchor in readme_sections():
            there, hash_, anchor = f"start/{anchor}.md", "", ""
        return f"{label}({os.path.relpath(there, PurePosixPath(page).parent)}{hash_}{anchor})"

    return "".join(part if k % 2 else _LINK.sub(link, part) for k, part in enumerate(_FENCED.split(text)))


def links(text: str) -> list[tuple[str, str]]:
    """Label and target of the relative links and pictures of a page, without those in code."""
    found = [link for part in _FENCED.split(text)[::2] for link in _LINK.findall(part)]
    return [(label, target) for label, target in found if not re.match(r"[a-z]+:", target)]


def blocks(text: str, language: str = "python") -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def files(pages: dict[str, str]) -> list[str]:
    """The files of the repository that pages link to and that are no pages: they are copied to files/."""
    targets = {
        os.path.normpath(PurePosixPath(page).parent / target)
        for page, text in pages.items()
        for _, target in links(text)
    }
    return sorted(target.removeprefix("files/") for target in targets if target.startswith("files/"))


def _index() -> str:
    captions = {
        "Start": [f"start/{name}" for name in readme_sections() if name],
        "Tutorials": ["tutorials"],
        "How to": [f"howto/{name}" for name in HOW_TO],
        "Explanation": [f"explanation/{name}" for name in EXPLANATION] + ["references"],
        "Reference": ["reference/index"],
        "Results": ["results"],
        "Project": ["changelog", "contributing"],
    }
    contents = "\n".join(_toctree(names, caption) for caption, names in captions.items())
    return f"{readme_sections()[''][1]}\n````{{container}} overview\n{contents}````\n"


def _toctree(names, caption: str = "") -> str:
    options = f":caption: {caption}\n:maxdepth: 2\n:titlesonly:\n" if caption else ":hidden:\n"
    return "```{toctree}\n" + options + "\n" + "\n".join(names) + "\n```\n"


def _one_title(text: str) -> str:
    """Headings after the first are one level lower."""
    title, rest = text.split("\n", 1)
    return f"{title}\n" + re.sub(r"^(#+ )", r"#\1", rest, flags=re.M)


def _demo(row: Tutorial) -> str:
    """The page of a demo: its title, cost and picture, and then its text and code."""
    import jupytext

    script = f"demos/demo_{row.name}.py"
    cells = jupytext.read(PROJECT / script, fmt="py:percent").cells
    parts = []
    for cell in cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif not cell.source.startswith("# SPDX"):
            parts.append(f"```python\n{cell.source}\n```")
    # The command, and in its line what options do.
    parts[0] = re.sub(r"^( {4}.*?\.py) {2,}\((.*)\)$", lambda m: f"{m[1]}\n\n{_options(m[2])}", parts[0], flags=re.M)
    title, _, introduction = parts[0].partition("\n")
    head = [title, f"*Takes {row.time} on two cores. Download [demo_{row.name}.py](../files/{script}).*"]
    if picture := re.search(rf"^!\[.*\]\({row.name}\.png\)$", (DOCS / "tutorials.md").read_text(), re.M):
        head.append(picture[0].replace("](", "](../"))
    return "\n\n".join([*head, introduction.strip(), *parts[1:]]) + "\n"


def _options(text: str) -> str:
    """A sentence on options, as code."""
    return re.sub(r"(--[\w-]+(?: [A-Z]+)?)", r"`\1`", text).replace("; ", ": ", 1).capitalize() + "."


def write(folder: Path, pages: dict[str, str]) -> None:
    """Write the pages, the pictures and the files for download; what is the same stays untouched, the rest goes."""
    wanted = {folder / page: text.encode() for page, text in pages.items()}
    wanted |= {folder / path.name: path.read_bytes() for path in DOCS.glob("*.png")}
    wanted |= {folder / "files" / file: (PROJECT / file).read_bytes() for file in files(pages)}
    for path, content in wanted.items():
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for path in folder.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()


def main() -> None:
    sys.path.insert(0, str(PROJECT / "benchmarks"))
    import reference
    import results

    made = reference.pages()  # first, as it imports the packages, which prepare DOLFINx's wheel
    pages = markdown(results.page()) | made
    write(Path(sys.argv[1]), pages)
    print(f"docs: {len(pages)} pages, {reference.count()} public names in {len(reference.modules())} modules")


if __name__ == "__main__":
    main()
