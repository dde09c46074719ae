# SPDX-License-Identifier: MIT
"""The batch scripts, with fakes for SLURM's commands: a signal, a checkpoint, the queue again, the same result."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from launch import outside_mpi

pytest.importorskip("dolfinx")

from batch_results import results

PROJECT = Path(__file__).resolve().parents[2]
BATCH = PROJECT / "demos" / "batch"
STEPS = 5
OPTIONS = ("--small", "--law", "exact", "--steps", str(STEPS))

SRUN = 'while [ "${1#--}" != "$1" ]; do shift; done; exec %s "$@"'
ENDS_AT_SIGNAL = 'trap "exit 138" USR1; touch "$STARTED"; while :; do sleep 0.05; done'


@pytest.fixture
def batch(tmp_path):
    """Starts a script of demos/batch with options; `batch.fake` puts a command of a batch system on the PATH."""
    commands = tmp_path / "bin"
    commands.mkdir()

    def fake(name, body):
        (commands / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (commands / name).chmod(0o755)

    def start(script, *options, **variables):
        environment = outside_mpi()
        environment["PATH"] = f"{commands}:{environment['PATH']}"
        environment["PYTHONPATH"] = os.pathsep.join([str(PROJECT), environment.get("PYTHONPATH", "")])
        environment["STARTED"] = str(tmp_path / "started")
        if script == "slurm.sh":
            environment |= {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(PROJECT)}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([BATCH / script, *options], env=environment | variables, cwd=tmp_path, **streams)

    fake("python3", f'exec {sys.executable} "$@"')
    fake("scontrol", f'echo "$@" >> {tmp_path / "scontrol"}')
    start.fake, start.queue = fake, tmp_path / "scontrol"
    return start


def ended(run):
    output, _ = run.communicate(timeout=120)
    return run.returncode, output


def until(run, condition):
    while not condition():
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.01)


def steps(folder):
    log = folder / "log.txt"
    return log.read_text().count("  time 0.") if log.exists() else 0


@pytest.mark.parametrize("script", sorted(path.name for path in BATCH.glob("*.sh")))
def test_scripts_are_bash(script):
    subprocess.run(["bash", "-n", BATCH / script], check=True)


def queued_until_done(batch, folder, signals):
    """Start slurm.sh again and again, with a signal after each of these numbers of steps, until it is done."""
    for restart, enough in enumerate(signals):
        job = batch("slurm.sh", *OPTIONS, "--folder", str(folder), SLURM_RESTART_COUNT=str(restart))
        until(job, lambda enough=enough: steps(folder) >= enough)
        job.send_signal(signal.SIGUSR1)
        code, output = ended(job)
        assert code == 0 and "restart=True continues from this step" in output, output
        assert batch.queue.read_text() == "requeue 7\n" * (restart + 1)
    code, output = ended(batch("slurm.sh", *OPTIONS, "--folder", str(folder), SLURM_RESTART_COUNT=str(len(signals))))
    assert code == 0 and batch.queue.read_text() == "requeue 7\n" * len(signals), output
    ends = [start["end"] for start in json.loads((folder / "run.json").read_text())["starts"]]
    assert ends == ["Stopped: stopped by SIGUSR1"] * len(signals) + ["done"]


def test_a_job_is_queued_again_until_it_is_done(batch, tmp_path):
    batch.fake("srun", SRUN % "env")
    queued_until_done(batch, tmp_path / "often", [2])
    code, output = ended(batch("slurm.sh", *OPTIONS, "--folder", str(tmp_path / "once")))
    assert code == 0, output
    reference = results(tmp_path / "once")
    assert len(reference["history"]) == STEPS and np.isfinite(reference["result"]["force"]).all()
    assert results(tmp_path / "often") == reference


@pytest.mark.slow
def test_jobs_of_two_ranks(batch, tmp_path):
    """With slurm.sh as above; with mpirun.sh, which ends with the code that its caller looks for."""
    code, output = ended(batch("mpirun.sh", *OPTIONS, "--folder", str(tmp_path / "once")))
    assert code == 0, output
    reference = results(tmp_path / "once")

    # By its variables mpirun would believe that there is SLURM.
    batch.fake("srun", SRUN % "env -u SLURM_JOB_ID mpirun -n 2")
    queued_until_done(batch, tmp_path / "slurm", [1, 3])
    assert results(tmp_path / "slurm") == reference

    folder = tmp_path / "mpirun"
    run = batch("mpirun.sh", *OPTIONS, "--folder", str(folder))
    until(run, lambda: steps(folder) >= 2)
    run.send_signal(signal.SIGUSR1)
    code, output = ended(run)
    assert code == 138, output
    code, output = ended(batch("mpirun.sh", *OPTIONS, "--folder", str(folder)))
    assert code == 0, output
    assert results(folder) == reference


@pytest.mark.parametrize(("restarts", "code", "queued"), [("49", 0, "requeue 7\n"), ("50", 138, "")])
def test_a_job_that_never_ends_is_not_queued_for_ever(batch, tmp_path, restarts, code, queued):
    batch.fake("srun", ENDS_AT_SIGNAL)
    batch.queue.touch()
    job = batch("slurm.sh", SLURM_RESTART_COUNT=restarts)
    until(job, (tmp_path / "started").exists)
    job.send_signal(signal.SIGUSR1)
    found, output = ended(job)
    assert (found, batch.queue.read_text()) == (code, queued), output


@pytest.mark.parametrize("code", [0, 1, 139])
def test_a_job_that_ends_by_itself_is_not_queued_again(batch, code):
    batch.fake("srun", f"exit {code}")
    assert ended(batch("slurm.sh"))[0] == code and not batch.queue.exists()


def test_mpirun_is_told_when_its_time_is_over(batch, tmp_path):
    batch.fake("mpirun", f'printf "%s\\n" "$OMP_NUM_THREADS" "$@" > {tmp_path / "called"}; {ENDS_AT_SIGNAL}')
    assert ended(batch("mpirun.sh", "--small", RANKS="1000", THREADS="2", LIMIT="1"))[0] == 138
    called = (tmp_path / "called").read_text().split()
    assert called == ["2", "-n", "1000", "--bind-to", "none", "python3", str(BATCH / "demo_batch.py"), "--small"]


def test_a_model_goes_with_the_laws_that_take_one(tmp_path):
    command = [sys.executable, str(BATCH / "demo_batch.py"), "--law", "surrogate", "--folder", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(PROJECT)})
    assert done.returncode == 2 and "--law surrogate with --model None" in done.stderr
    assert not (tmp_path / "run").exists()
