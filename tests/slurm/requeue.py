# SPDX-License-Identifier: MIT
"""demos/batch/slurm.sh under SLURM: time limit, signal, checkpoint, the queue again, end, and the same bits.

The first job has no time limit. It is repeated with more load steps until it takes longer than SLURM's shortest limit,
one minute, so that the second job, which has this limit, cannot end within it. `run` starts this file where SLURM is.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster import cluster, job

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests"))

from batch_results import results  # noqa: E402  # needs the path

SCRIPT = PROJECT / "demos" / "batch" / "slurm.sh"
# In place of the header of the script: two ranks. SLURM looks for jobs to warn every 30 seconds.
TWO_RANKS = ("--ntasks-per-node=2",)
LIMIT = ("--time=1", "--signal=B:USR1@15")
LONG_ENOUGH = 75.0  # seconds
ENDS = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY"}
PATIENCE = 1800.0  # seconds

begin = time.monotonic()


def say(line: str) -> None:
    print(f"{time.monotonic() - begin:6.0f} s  {line}", flush=True)


def run(folder: Path, steps: int, *options: str) -> float:
    """Submit a job and follow it until it is completed.

    Args:
        folder: of the run.
        steps: load steps.
        options: of sbatch.

    Returns:
        The seconds from its first start to its end.
    """
    command = ["sbatch", "--parsable", f"--output={folder.parent}/%x-%j.out", *TWO_RANKS, *options, SCRIPT]
    demo = ["--n", "3", "--steps", str(steps), "--folder", folder]
    done = subprocess.run(list(map(str, command + demo)), cwd=PROJECT, capture_output=True, text=True)
    number = done.stdout.strip()
    if done.returncode != 0 or not number:
        sys.exit(f"sbatch failed: {done.stderr}")
    say(f"job {number}: sbatch {' '.join([*TWO_RANKS, *options])}, {steps} load steps")
    submitted = time.monotonic()
    started, before = None, None
    while (found := job(number))["JobState"] not in ENDS:
        state = (found["JobState"], found["Restarts"])
        if state != before:
            say(f"job {number}: {state[0]}, restarts {state[1]}")
        before = state
        if started is None and state[0] == "RUNNING":
            started = time.monotonic()
        if time.monotonic() > submitted + PATIENCE:
            sys.exit(f"job {number} has not ended within {PATIENCE:.0f} s; it is {state[0]}, reason {found['Reason']}")
        time.sleep(0.5)
    say(f"job {number}: {found['JobState']}, restarts {found['Restarts']}, exit code {found['ExitCode']}")
    if found["JobState"] != "COMPLETED":
        sys.exit(f"job {number} ended as {found['JobState']}; its output:\n{Path(found['StdOut']).read_text()}")
    return time.monotonic() - (started or submitted)


def check_starts(folder: Path) -> None:
    """Every start of a run but the last was stopped by the signal, and there was more than one."""
    starts = json.loads((folder / "run.json").read_text())["starts"]
    ends = [start["end"] for start in starts]
    say(f"starts of the run on {starts[0]['ranks']} ranks: {', '.join(ends)}")
    if len(ends) < 2 or ends != ["Stopped: stopped by SIGUSR1"] * (len(ends) - 1) + ["done"]:
        sys.exit("need at least one start that the signal stopped, and a last one that is done")
    if any(start["ranks"] != 2 for start in starts):
        sys.exit(f"ranks of the starts: {[start['ranks'] for start in starts]}, need 2")


def main() -> None:
    """Both jobs, and the comparison."""
    with tempfile.TemporaryDirectory(prefix="fe2x-slurm-") as name, cluster(Path(name)):
        folder = Path(name)
        steps = int(os.environ.get("STEPS", "24"))
        while (seconds := run(folder / f"once-{steps}", steps)) < LONG_ENOUGH:
            say(f"without a limit {seconds:.0f} s, less than {LONG_ENOUGH:.0f} s: again, with more load steps")
            steps = max(steps + 1, int(1.2 * steps * LONG_ENOUGH / seconds))
        say(f"without a limit {seconds:.0f} s")
        run(folder / "often", steps, *LIMIT)
        output = max(folder.glob("fe2-*.out"), key=lambda path: int(path.stem.removeprefix("fe2-")))
        print(f"--- {output.name}\n{output.read_text()}---", flush=True)
        check_starts(folder / "often")
        once, often = results(folder / f"once-{steps}"), results(folder / "often")
        if once != often:
            sys.exit(f"the results differ in {[name for name in once if once[name] != often.get(name)]}")
        fields = len(once) - 2
        say(f"equal to the last bit: result, history and {fields} files of fields; force {once['result']['force']}")


try:
    main()
except RuntimeError as error:
    sys.exit(f"slurm: {error}")
