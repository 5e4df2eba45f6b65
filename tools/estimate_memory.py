"""Estimate what a training step needs on a GPU, by tracing one on a CPU.

    python tools/estimate_memory.py configs/sparsefusion/sparsefusion_r50_nuscenes.py --data DIR --batch-size 4

The sum of the weights, their gradients, the optimizer's two moments, and what autograd keeps between the forward and
the backward pass of one sample, times the batch size. What convolutions and the allocator take besides is not in it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import add_config, read_config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from sparse3d.datasets.frame_dataset import open_frames
from sparse3d.datasets.transforms import Compose
from sparse3d.registry import MODELS
from sparse3d.structures import Sample

GIGA = 1e9


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with an index (sparse3d_*.arrow) or an info file (*.pkl)"
    )
    parser.add_argument("--batch-size", type=int, default=1, help="samples a GPU (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Trace a step, print the parts and their sum."""
    arguments = parse_arguments()
    config = read_config(arguments)
    init_default_scope(config.default_scope)
    index = next(path for pattern in ("sparse3d_*.arrow", "*.pkl") for path in sorted(arguments.data.glob(pattern)))
    dataset = config.train_dataloader.dataset
    sample = Compose(dataset.pipeline)(
        Sample.from_frame(open_frames(arguments.data, index)[0]), np.random.default_rng(0)
    )
    detector = MODELS.build(config.model).train()
    kept = bytes_kept(detector, sample)
    weights = sum(each.numel() * each.element_size() for each in detector.parameters())
    trained = sum(each.numel() * each.element_size() for each in detector.parameters() if each.requires_grad)
    total = weights + 3 * trained + arguments.batch_size * kept
    print(f"weights                        {weights / GIGA:7.2f} GB")
    print(f"gradients and two moments      {3 * trained / GIGA:7.2f} GB")
    print(f"kept for the backward pass     {kept / GIGA:7.2f} GB a sample")
    print(f"together, {arguments.batch_size} samples            {total / GIGA:7.2f} GB")


def bytes_kept(detector: nn.Module, sample: Sample) -> int:
    """Return the bytes that autograd keeps between the passes of a training step, without the parameters."""
    own = {each.untyped_storage().data_ptr() for each in detector.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # alive, so that its address stays its own
        return tensor

    inputs = detector.data_preprocessor([sample], training=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        detector(**inputs, mode="loss")
    return sum(each.untyped_storage().nbytes() for each in kept.values())


if __name__ == "__main__":
    main()
