# SPDX-License-Identifier: MIT
"""A SLURM of one node with two cores, on this machine, as long as its context lasts."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=15
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
# Without control groups, which containers often lack.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=pmix
ReturnToService=2
SlurmdParameters=config_overrides
# A job queued again waits for the end of its credentials (AuthInfo), and then for the next pass of the scheduler.
SchedulerParameters=sched_interval=5
# A job that is still there at its limit is killed soon.
KillWait=5
OverTimeLimit=0
MessageTimeout=60
SlurmdTimeout=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE
"""


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Start munge and SLURM with all their files in `folder`, and end them; RuntimeError if they do not start."""
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    controller, node = _free_ports(2)
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, folder=folder, controller=controller, node=node))
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    os.environ["SLURM_CONF"] = str(configuration)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
    munge = ["munged", "--foreground", "--force", *(f"--{key}={folder}/munge.{name}" for key, name in files.items())]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_daemon(munge, folder))
        _wait_for("munge", (folder / "munge.socket").exists, folder / "munged.log")
        stack.enter_context(_daemon(["slurmctld", "-D"], folder))
        stack.enter_context(_daemon(["slurmd", "-D"], folder))
        _wait_for("SLURM", _idle, folder / "slurmctld.log")
        yield


def job(number: str) -> dict[str, str]:
    """What `scontrol show job` reports."""
    command = ["scontrol", "--oneliner", "show", "job", number]
    words = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    return dict(word.partition("=")[::2] for word in words if "=" in word)


@contextlib.contextmanager
def _daemon(command: list[str], folder: Path) -> Iterator[None]:
    """A process in the foreground, with its output in a log; ended when its context ends."""
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"no {command[0]} here: need the Debian packages munge, slurmctld, slurmd and slurm-client")
    with (folder / f"{command[0]}.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(what: str, ready: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + 60
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} does not start; its log ends with\n{log.read_text()[-3000:]}")
        time.sleep(0.2)


def _idle() -> bool:
    """Whether the controller is reachable and its node ready."""
    command = ["sinfo", "--noheader", "--format=%T"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip() == "idle"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
