# SPDX-License-Identifier: MIT
"""Two participants coupled by preCICE: four points with given stresses, and the Micro Manager with an RVE at each.

The manager resets the state of the RVEs before each further iteration of a time window. In the end the stresses must be
those given, and every stress and tangent that was sent must be that of the law by itself. `run` starts this file where
preCICE and the manager are.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import micro_law
import numpy as np
from macro import FACTORS, MESH, POINTS, STRESSES, Array, Iterate

import coupling

HERE = Path(__file__).resolve().parent
CONVERGED = 1e-9  # stress
# Of stresses and tangents: the law solves an RVE to 1e-11 of its forces, from where its last solution has left it.
SAME = 1e-8
PATIENCE = 600.0  # seconds


def configuration(data: coupling.MicroData, folder: Path) -> str:
    """The configuration of preCICE, for data of a mesh in two dimensions."""
    names = {**data.strain, **data.stress, **data.tangent}
    kinds = {name: "scalar" if len(parts) == 1 else "vector" for name, parts in names.items()}
    to_micro, to_macro = list(data.strain), [*data.stress, *data.tangent]

    def each(template: str, names: list[str]) -> str:
        return "\n".join(template.format(name=name) for name in names)

    return f"""<?xml version="1.0" encoding="UTF-8" ?>
<precice-configuration experimental="true">
  {"".join(f'<data:{kind} name="{name}"/>' for name, kind in kinds.items())}
  <mesh name="{MESH}" dimensions="2">{each('<use-data name="{name}"/>', list(names))}</mesh>
  <participant name="Macro">
    <provide-mesh name="{MESH}"/>
    {each(f'<write-data name="{{name}}" mesh="{MESH}"/>', to_micro)}
    {each(f'<read-data name="{{name}}" mesh="{MESH}"/>', to_macro)}
  </participant>
  <participant name="Micro-Manager">
    <receive-mesh name="{MESH}" from="Macro" api-access="true"/>
    {each(f'<read-data name="{{name}}" mesh="{MESH}"/>', to_micro)}
    {each(f'<write-data name="{{name}}" mesh="{MESH}"/>', to_macro)}
  </participant>
  <m2n:sockets acceptor="Micro-Manager" connector="Macro" network="lo" exchange-directory="{folder}"/>
  <coupling-scheme:serial-implicit>
    <participants first="Macro" second="Micro-Manager"/>
    <max-time-windows value="{len(FACTORS)}"/>
    <time-window-size value="1"/>
    <max-iterations value="30"/>
    {each(f'<exchange data="{{name}}" mesh="{MESH}" from="Macro" to="Micro-Manager"/>', to_micro)}
    {each(f'<exchange data="{{name}}" mesh="{MESH}" from="Micro-Manager" to="Macro"/>', to_macro)}
    {each(f'<absolute-convergence-measure data="{{name}}" mesh="{MESH}" limit="{CONVERGED}"/>', list(data.stress))}
  </coupling-scheme:serial-implicit>
</precice-configuration>
"""


def manager_configuration(data: coupling.MicroData) -> str:
    """The configuration of the Micro Manager."""
    interface = {
        "mesh_name": MESH,
        "read_data": [{"name": name} for name in data.strain],
        "write_data": [{"name": name} for name in (*data.stress, *data.tangent)],
    }
    parameters = {"micro_dt": 1.0, "macro_domain_bounds": [0.0, 1.0, 0.0, 1.0], "decomposition": [1, 1]}
    whole = {
        "participant_name": "Micro-Manager",
        "precice_config_file_path": "precice-config.xml",
        "interfaces": [interface],
        "micro_manager": {"micro_file_names": ["micro_law"], "simulation_params": parameters},
    }
    return json.dumps(whole, indent=1)


def run(folder: Path) -> None:
    """Both participants, until both have ended; a participant whose partner fails would wait for ever."""
    environment = os.environ | {"PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"}
    commands = {"macro participant": [HERE / "macro.py"], "manager": ["-m", "micro_manager", "manager.json"]}
    running = {
        name: subprocess.Popen([sys.executable, "-u", *command], cwd=folder, env=environment)
        for name, command in commands.items()
    }
    end = time.monotonic() + PATIENCE
    try:
        while running:
            for name, process in [*running.items()]:
                if process.poll() == 0:
                    del running[name]
                elif process.returncode is not None:
                    sys.exit(f"the {name} ended with the exit code {process.returncode}")
            if time.monotonic() > end:
                sys.exit(f"no end of the {' and the '.join(running)} within {PATIENCE:.0f} s")
            time.sleep(0.1)
    finally:
        for process in running.values():
            process.kill()


def differences(iterates: list[Iterate]) -> tuple[float, float, float]:
    """The largest relative ones, of stresses from those given, and of stresses and tangents from the law's own."""
    given, stresses, tangents = [], [], []
    upper = np.triu_indices(3)
    for point in range(len(POINTS)):
        respond = coupling.PointLaw(micro_law.law, 1, notation=micro_law.data.notation)
        for iterate, after in zip(iterates, [*iterates[1:], None]):
            stress, tangent = respond(iterate.strain[point : point + 1])
            stresses.append(relative(iterate.stress[point], stress[0]))
            tangents.append(relative(iterate.tangent[point][upper], tangent[0][upper]))
            if after is None or after.window > iterate.window:
                given.append(relative(iterate.stress[point], FACTORS[iterate.window] * STRESSES[point]))
                respond.accept()
    return max(given), max(stresses), max(tangents)


def relative(found: Array, needed: Array) -> float:
    """The largest difference in the largest number."""
    return float(abs(found - needed).max() / abs(needed).max())


def main() -> None:
    """The run and the checks."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fe2x-precice-") as name:
        folder = Path(name)
        (folder / "precice-config.xml").write_text(configuration(micro_law.data, folder))
        (folder / "manager.json").write_text(manager_configuration(micro_law.data))
        run(folder)
        with np.load(folder / "iterates.npz") as found:
            iterates = [Iterate(int(window), *rest) for window, *rest in zip(*(found[name] for name in found.files))]
    given, stress, tangent = differences(iterates)
    windows = [sum(iterate.window == k for iterate in iterates) for k in range(len(FACTORS))]
    print(f"{len(POINTS)} RVEs, {len(FACTORS)} time windows, iterations {windows}, {time.monotonic() - begin:.1f} s")
    print(f"relative differences: stresses from those given {given:.1e}, from the law's {stress:.1e},", end=" ")
    print(f"tangents from the law's {tangent:.1e}", flush=True)
    if not (given <= SAME and stress <= SAME and tangent <= SAME):
        sys.exit(f"need at most {SAME:.0e}")


main()
