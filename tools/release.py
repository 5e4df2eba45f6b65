"""Release a checkpoint: its weights as safetensors, without optimizer, logs and history.

python tools/release.py work_dirs/demo demo.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import save_file

from sparse3d.engine import newest_checkpoint, read_checkpoint
from sparse3d.engine.files import writing_whole


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Write a checkpoint's weights as safetensors, with its config.")
    parser.add_argument("checkpoint", type=Path, help="checkpoint file, or a work directory for its newest one")
    parser.add_argument("out", type=Path, help="file to write, .safetensors")
    return parser.parse_args()


def main() -> None:
    """Release."""
    arguments = parse_arguments()
    path = newest_checkpoint(arguments.checkpoint) if arguments.checkpoint.is_dir() else arguments.checkpoint
    if path is None:
        raise SystemExit(f"release: no checkpoint in {arguments.checkpoint}")
    if arguments.out.suffix != ".safetensors":
        raise SystemExit(f"release: {arguments.out} must end in .safetensors")
    checkpoint = read_checkpoint(path)
    weights = {name: tensor.contiguous().clone() for name, tensor in checkpoint["state_dict"].items()}
    meta = checkpoint.get("meta", {})
    about = {name: str(meta[name]) for name in ("cfg", "epoch", "iter", "provenance", "dataset_meta") if name in meta}
    with writing_whole(arguments.out) as partial:
        save_file(weights, partial, metadata={"format": "pt", **about})
    size = sum(tensor.nbytes for tensor in weights.values()) / 2**20
    print(f"{arguments.out}: {len(weights)} tensors, {size:.1f} MiB, from {path}")


if __name__ == "__main__":
    main()
