# SPDX-License-Identifier: MIT
"""The file that the Micro Manager's configuration names: an RVE with history as a micro simulation."""

from mpi4py import MPI

import coupling
import fe2
import meshes

MICROSTRUCTURE = meshes.benchmark("RVE3", MPI.COMM_SELF, mesh_size=0.2)
MATRIX = fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.5, hardening=40.0)
STIFF = fe2.LinearElastic(bulk=1000.0, shear=400.0)

law = fe2.ExactLaw(fe2.RVE(MICROSTRUCTURE, {1: MATRIX, 2: STIFF}))
data = coupling.MicroData.published(2, names=("Strains", "Stresses", "Cmat"))
MicroSimulation = coupling.micro_simulation(law, data)
