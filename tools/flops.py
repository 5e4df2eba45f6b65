"""Count multiply-adds and parameters of a detector on one sample; sparse layers by the kernel maps of that sample.

    python tools/flops.py dsvt_pillar_nuscenes
    python tools/flops.py focals_conv_voxel0075_nuscenes --data data/nuscenes --depth 3

Without `--data` the sample is made up: a scan of the sensor's size and density, noise for images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from common import CFG_OPTIONS_HELP
from mmengine.config import DictAction
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table

from sparse3d.analysis.flops import count_costs
from sparse3d.analysis.samples import data_sample, made_up_sample
from sparse3d.config import load_config
from sparse3d.registry import MODELS
from sparse3d.zoo import find_config


def main() -> None:
    """Count, and print a table."""
    arguments = parse_arguments()
    config = load_config(find_config(arguments.config), arguments.cfg_options)
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    detector = MODELS.build(config.model)
    sample = made_up_sample(config) if arguments.data is None else data_sample(config, arguments.data)
    table = Table("part", "multiply-adds (G)", "parameters (M)")
    for cost in count_costs(detector, [sample], arguments.depth):
        if cost.parameters or cost.multiply_adds:
            table.add_row(cost.name or "whole", f"{cost.multiply_adds / 1e9:.3f}", f"{cost.parameters / 1e6:.3f}")
    Console().print(table)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="name of the zoo, or config file")
    parser.add_argument("--data", type=Path, help="folder with an index or an info file whose first frame is counted")
    parser.add_argument("--depth", type=int, default=2, help="levels of parts to list (default: %(default)s)")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE", help=CFG_OPTIONS_HELP
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
