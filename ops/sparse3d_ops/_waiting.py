"""How long torch's idle threads wait awake.

After each parallel operation the threads of libgomp, torch's OpenMP on Linux, spin for milliseconds before they sleep,
on cores that the threads of our kernels, data loaders or other programs want. With 3,000 turns they sleep after about
0.1 ms: sparse convolutions run faster, and so does whatever has a busy process beside it. The price is a network of
many small dense operations that has the machine to itself, which waking slows.
libgomp reads the variable when torch is loaded, so this module must come before; a value of the user's stays.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "3000")
