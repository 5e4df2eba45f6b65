"""CPU kernels, compiled by numba at first use and cached on disk.

Kernels are serial, release the GIL, and work on a range of rows given as their first two arguments; `threads.run`
calls them on several ranges at once. No kernel uses numba's own threads: those cannot be entered from a forked
process (GNU OpenMP) or from two threads at once (workqueue).
"""
