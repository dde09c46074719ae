# SPDX-License-Identifier: MIT
"""Deprecated: `fe2.strain_sampling` has the samples of strains, `fe2.rve_snapshots` the snapshots."""

from meshes.deprecation import renamed as _renamed

# Old name → new name.
_NEW_NAMES = {
    "SnapshotError": "fe2.rve_snapshots.SnapshotError",
    "Snapshots": "fe2.rve_snapshots.Snapshots",
    "box": "fe2.strain_sampling.box",
    "latin_hypercube": "fe2.strain_sampling.latin_hypercube",
    "radial": "fe2.strain_sampling.radial",
    "read": "fe2.rve_snapshots.read",
    "snapshots": "fe2.rve_snapshots.compute",
    "sobol": "fe2.strain_sampling.sobol",
}


def __getattr__(name: str):
    return _renamed(__name__, name, _NEW_NAMES)
