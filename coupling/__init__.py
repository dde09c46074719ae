# SPDX-License-Identifier: MIT
"""The plug between `fe2` and `spon` (nothing is here yet).

This package will hold laws backed by trained models, the translation of UFL expressions to torch, the exchange of
arrays without copies, the batching of quadrature points from ranks onto GPUs, laws that switch to the exact problem
where the certificate is not good enough, and adapters to other packages of the FEniCSx ecosystem.

It is the only package that imports both sides: neither knows the other.
"""
