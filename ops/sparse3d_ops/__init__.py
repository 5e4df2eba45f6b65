"""Kernels of sparse 3D perception on plain tensors: torch and numba only."""
