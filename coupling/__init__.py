# SPDX-License-Identifier: MIT
"""The plug between `fe2` and `spon`.

There is the translation of UFL to programs that torch evaluates: `translate`, `phase_law`, `local_laws`. This package
will hold laws backed by trained models, the exchange of arrays without copies, the batching of quadrature points from
ranks onto GPUs, laws that switch to the exact problem where the certificate is not good enough, and adapters to other
packages of the FEniCSx ecosystem.

It is the only package that imports both sides: neither knows the other.
"""

from coupling.data import cell_data
from coupling.translate import TranslationError, local_laws, phase_law, translate

__all__ = ["TranslationError", "cell_data", "local_laws", "phase_law", "translate"]
