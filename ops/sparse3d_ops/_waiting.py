"""How long torch's idle threads wait awake.

After each parallel operation the threads of libgomp, torch's OpenMP on Linux, spin for milliseconds before they sleep,
on cores that the threads of our kernels, data loaders or other programs want. With 3,000 turns, about 0.1 ms, they
still catch the next operation of a network, and on two cores a training step takes half the time next to a busy
process. libgomp reads the variable when torch is loaded, so this module must come before; a value of the user's stays.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "3000")
