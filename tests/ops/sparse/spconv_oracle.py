"""Run spconv's own modules on a CPU: ``python spconv_oracle.py CASES OUT``, with OMP_NUM_THREADS=1.

spconv's CPU convolution is right with one OpenMP thread only, and its wheel brings an OpenMP of its own that reads the
variable when it is loaded; hence a process of its own.
"""

from __future__ import annotations

import sys

import spconv.pytorch as spconv
import torch


def run(case: dict) -> dict:
    """Build the modules of a case, load their parameters and apply them."""
    net = spconv.SparseSequential(*(getattr(spconv, kind)(*args, **options) for kind, args, options in case["modules"]))
    net.load_state_dict(case["state"])
    net.train()  # in eval mode a bias is fused, which the CPU kernels do not know
    x = spconv.SparseConvTensor(case["features"], case["indices"], case["shape"], case["batch_size"])
    with torch.no_grad():
        y = net(x)
    return {"features": y.features, "indices": y.indices, "shape": list(y.spatial_shape)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save([run(case) for case in torch.load(sys.argv[1])], sys.argv[2])
