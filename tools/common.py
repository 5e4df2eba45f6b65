"""What the command-line tools share: the options every run has, and how a config is read."""

from __future__ import annotations

import argparse
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config, DictAction
from torch import nn

from sparse3d.checkpoints import load_converted
from sparse3d.config import load_config
from sparse3d.datasets.transforms import LoadAnnotations
from sparse3d.engine import CheckpointError, NonFiniteError, newest_checkpoint, read_checkpoint
from sparse3d.registry import DATASETS
from sparse3d.structures import Sample

CFG_OPTIONS_HELP = (
    "overrides of the config as key=value, e.g. grid.voxel_size=[0.6,0.6,8] or train_dataloader.batch_size=4; "
    "entries that are referred to as $name change wherever they are used"
)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the config and its overrides."""
    parser.add_argument("config", type=Path, help="config file, e.g. configs/demo/pillar_demo.py")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE", help=CFG_OPTIONS_HELP
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add where and how to run."""
    parser.add_argument("--work-dir", type=Path, help="folder for results (default: work_dirs/<config name>)")
    parser.add_argument("--amp", action="store_true", help="mixed precision (bfloat16)")
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm"],
        default="none",
        help="'pytorch' under torchrun (NCCL on GPUs, gloo on a CPU), 'slurm' under srun",
    )


def add_skip_bad(parser: argparse.ArgumentParser) -> None:
    """Add going on without what cannot be read."""
    parser.add_argument(
        "--skip-bad", action="store_true", help="replace samples that cannot be loaded, and list them at the end"
    )


def skip_bad(config: Config) -> None:
    """Let every data set of a config stand in for bad samples, and list these at the end of the run."""
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if config.get(name):
            config[name].dataset.skip_bad = True
    config.setdefault("custom_hooks", []).append(dict(type="SkippedSamplesHook"))


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the word that lets foreign pickles in."""
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="read checkpoints that hold pickled objects, which can run any code; ours never do",
    )


def read_config(arguments: argparse.Namespace) -> Config:
    """Read the config that the arguments name, with their overrides."""
    return load_config(arguments.config, arguments.cfg_options)


def work_dir(arguments: argparse.Namespace) -> Path:
    """Return the folder for results."""
    return arguments.work_dir or Path("work_dirs") / arguments.config.stem


def add_sample(parser: argparse.ArgumentParser) -> None:
    """Add which trained weights and which sample a picture is of."""
    parser.add_argument("checkpoint", type=Path, help="checkpoint, or a work directory for its newest one")
    parser.add_argument("--split", choices=["train", "val", "test"], default="test", help="(default: %(default)s)")
    parser.add_argument("--sample", type=int, default=0, help="position in the data set (default: %(default)s)")


def load_weights(detector: nn.Module, checkpoint: Path) -> None:
    """Load a checkpoint, or the newest one of a work directory, in full."""
    path = newest_checkpoint(checkpoint) if checkpoint.is_dir() else checkpoint
    if path is None:
        raise SystemExit(f"{checkpoint} holds no checkpoint")
    state = read_checkpoint(path)
    load_converted(detector, state.get("state_dict", state))


def load_sample(config: Config, split: str, number: int) -> Sample:
    """Return a sample of a data set after its pipeline, with its objects."""
    loader = config[f"{split}_dataloader"]
    if loader is None:
        raise SystemExit(f"the config has no {split} set (its {split}_dataloader is None); choose another --split")
    dataset = DATASETS.build(loader.dataset)
    if not 0 <= number < len(dataset):
        raise SystemExit(f"there is no sample {number}, the {split} set has {len(dataset)}")
    sample = dataset[number]
    return sample if "gt" in sample else LoadAnnotations(config.class_names, min_points=1)(sample, None)


@contextmanager
def plain_errors(tool: str) -> Iterator[None]:
    """End with one line, and status 1, where the message says all there is to know."""
    try:
        yield
    except (CheckpointError, NonFiniteError) as error:
        raise SystemExit(f"{tool}: {error}") from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise SystemExit(f"{tool}: {error}. Checkpoints are whole; make room and go on with --resume") from None
