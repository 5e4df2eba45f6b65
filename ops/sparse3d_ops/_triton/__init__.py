"""GPU kernels in Triton: nothing is compiled at install time, each kernel is at its first launch.

With ``TRITON_INTERPRET=1`` set before triton is imported, the same kernels run on CPU tensors, slowly: that is how
their logic is tested where there is no GPU. Kernels take the number of rows at run time, so no scene compiles one anew.
Their results have the same bits in every run, as the only atomic operation is OR; only the gradient of sampled image
features is added to atomically.
"""
