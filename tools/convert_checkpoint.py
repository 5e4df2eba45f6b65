"""Convert an official checkpoint to ours: every parameter of both sides has to be accounted for, or nothing is written.

    python tools/convert_checkpoint.py centerpoint epoch_20.pth centerpoint.safetensors
    python tools/convert_checkpoint.py focals_conv waymo.pth ours.pth --config configs/focals_conv/NAME_waymo.py

The config says which model the checkpoint is for. Exit status 1: an entry of either side is left; all are listed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from common import CFG_OPTIONS_HELP, add_trust, plain_errors
from mmengine.config import DictAction
from mmengine.registry import init_default_scope
from safetensors.torch import save_file
from torch import Tensor

from sparse3d.checkpoints import load_official
from sparse3d.config import load_config
from sparse3d.engine.files import writing_whole
from sparse3d.registry import MODELS

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
DEFAULTS = {
    "centerpoint": "centerpoint/centerpoint_voxel0075_nuscenes.py",
    "dsvt": "dsvt/dsvt_pillar_nuscenes.py",
    "focals_conv": "focals_conv/focals_conv_voxel0075_nuscenes.py",
    "sparsebev": "sparsebev/sparsebev_r50_nuimg_704x256.py",
    "sparsefusion": "sparsefusion/sparsefusion_r50_nuscenes.py",
}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=DEFAULTS, help="whose checkpoint it is")
    parser.add_argument("source", type=Path, help="official checkpoint file")
    parser.add_argument("out", type=Path, help="file to write, .pth or .safetensors")
    parser.add_argument("--config", type=Path, help="config of the model (default: the system's for nuScenes)")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE", help=CFG_OPTIONS_HELP
    )
    add_trust(parser)
    return parser.parse_args()


def main() -> None:
    """Convert, or say what is left."""
    arguments = parse_arguments()
    if arguments.out.suffix not in (".pth", ".safetensors"):
        raise SystemExit(f"convert_checkpoint: {arguments.out} must end in .pth or .safetensors")
    with plain_errors("convert_checkpoint"):
        try:
            weights = convert(arguments)
        except ValueError as error:
            raise SystemExit(f"convert_checkpoint: {error}") from None
        write(arguments.out, weights, arguments.source)
    print(f"{arguments.out}: {len(weights)} tensors, all of {arguments.source} and all of the model")


def convert(arguments: argparse.Namespace) -> dict[str, Tensor]:
    """Return the model's whole state with the checkpoint's values."""
    config = load_config(arguments.config or CONFIGS / DEFAULTS[arguments.system], arguments.cfg_options)
    init_default_scope(config.default_scope)
    detector = MODELS.build(config.model)
    load_official(detector, arguments.system, arguments.source, trusted=arguments.trust_checkpoint)
    return {name: value.contiguous() for name, value in detector.state_dict().items()}


def write(path: Path, weights: Mapping[str, Tensor], source: Path) -> None:
    """Write the weights, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing_whole(path) as partial:
        if path.suffix == ".safetensors":
            save_file(weights, partial, metadata={"format": "pt", "converted_from": source.name})
        else:
            torch.save({"meta": {"converted_from": source.name}, "state_dict": weights}, partial)


if __name__ == "__main__":
    main()
