"""What `benchmark_ops.py` times, a file for each room of the kernels."""
