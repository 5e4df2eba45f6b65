r"""Make the weights that a training of SparseFusion starts from, of a LiDAR detector's and an image detector's.

    python tools/initialise_fusion.py configs/sparsefusion/sparsefusion_r50_nuscenes.py --lidar transfusion_l.pth \
        --images mask_rcnn_r50_nuim.pth

Writes the config's `load_from`, and says which parts of the model were loaded, which were left as they were
initialised, and which entries of the files were not used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import add_config, add_trust, plain_errors, read_config
from convert_checkpoint import write
from mmengine.registry import init_default_scope

from sparse3d.checkpoints import sparsefusion
from sparse3d.registry import MODELS


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser)
    parser.add_argument("--lidar", type=Path, help="checkpoint of TransFusion-L")
    parser.add_argument("--images", type=Path, help="checkpoint of an image detector, of which backbone and neck count")
    parser.add_argument(
        "--out", type=Path, help="file to write, .pth or .safetensors (default: the config's load_from)"
    )
    add_trust(parser)
    return parser.parse_args()


def main() -> None:
    """Load, report, write."""
    arguments = parse_arguments()
    config = read_config(arguments)
    out = arguments.out or Path(config.load_from or "")
    if out.suffix not in (".pth", ".safetensors"):
        raise SystemExit(f"initialise_fusion: {out} must end in .pth or .safetensors; give --out")
    if arguments.lidar is None and arguments.images is None:
        raise SystemExit("initialise_fusion: give --lidar, --images, or both")
    init_default_scope(config.default_scope)
    detector = MODELS.build(config.model)
    with plain_errors("initialise_fusion"):
        try:
            report = sparsefusion.initialise(
                detector, arguments.lidar, arguments.images, trusted=arguments.trust_checkpoint
            )
        except ValueError as error:
            raise SystemExit(f"initialise_fusion: {error}") from None
        write(out, {name: value.contiguous() for name, value in detector.state_dict().items()}, out)
    print(f"{report}\n{out}")


if __name__ == "__main__":
    main()
