# SPDX-License-Identifier: MIT
"""What two runs of demos/batch must have in common to the last bit."""

import json
from pathlib import Path

import h5py


def results(folder: Path) -> dict:
    """Result, history and fields of a run's folder, without times of the clock."""
    found = {"result": json.loads((folder / "result.json").read_text())}
    found["history"] = [{**s, "seconds": None} for s in json.loads((folder / "history.json").read_text())]
    for path in sorted((folder / "fields").glob("*.h5")):
        with h5py.File(path) as file:
            found[path.name] = [float(file.attrs["time"]), *(table[()].tobytes() for table in file["cells"].values())]
    return found
