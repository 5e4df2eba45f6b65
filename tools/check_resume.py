"""Does a killed training lose anything? Kills it at random moments and compares with an undisturbed run.

python tools/check_resume.py --kills 10

Trains a small detector on a small synthetic data set twice, with gradient accumulation and an average of the weights
(EMA). The second run is killed (SIGKILL) at random moments and resumed with `--resume` each time. Losses and weights of
both runs have to be equal to the last bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch

from sparse3d.engine import newest_checkpoint, read_checkpoint
from sparse3d.progress import track

TOOLS = Path(__file__).resolve().parent
CONFIG = TOOLS.parent / "configs/demo/pillar_tiny.py"
NOT_LEARNED = ("time", "data_time", "memory")  # what a log says of the machine, not of the training


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="how often the run is killed (default: 10)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of 5 iterations each (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments (default: 0)")
    parser.add_argument("--work-dir", type=Path, help="keep data and runs here (default: a temporary folder)")
    return parser.parse_args()


def write_data(root: Path) -> None:
    """Write ten key frames to train on."""
    run("create_data.py", "synthetic", "--root", root, "--scenes", 2, "--val-scenes", 0, "--frames", 5, "--sweeps", 1,
        "--image-scale", 0.05, "--workers", 1)  # fmt: skip


def command(name: str, *arguments: object) -> list[str]:
    """Return the command line of a tool."""
    return [sys.executable, str(TOOLS / name), *map(str, arguments)]


def run(name: str, *arguments: object) -> None:
    """Run a tool to its end."""
    result = subprocess.run(command(name, *arguments), capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"check_resume: {name} failed\n{result.stdout[-2000:]}{result.stderr[-4000:]}")


def training(data: Path, folder: Path, epochs: int) -> tuple[object, ...]:
    """Return the arguments of train.py."""
    return (CONFIG, "--work-dir", folder, "--deterministic", "--resume", "--cfg-options", f"data_root={data}",
            f"train_cfg.max_epochs={epochs}")  # fmt: skip


def train_under_fire(arguments: tuple[object, ...], folder: Path, kills: int, seed: int) -> int:
    """Train, killed ``kills`` times a random while after a random iteration; returns how often that met a training."""
    chance = random.Random(seed)
    met = 0
    for _ in track(range(kills), "killing the training"):
        with open(folder / "killed.log", "a") as log:
            process = subprocess.Popen(command("train.py", *arguments), stdout=log, stderr=log, start_new_session=True)
            goal = written(folder) + chance.randint(1, 5)
            while process.poll() is None and written(folder) < goal:
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.3))
            met += process.poll() is None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its data workers too
            process.wait()
    run("train.py", *arguments)
    return met


def written(folder: Path) -> int:
    """Return how many iterations all logs below a folder tell of."""
    return sum(log.read_text().count("\n") for log in folder.glob("*/vis_data/scalars.json"))


def losses(folder: Path) -> dict[int, dict[str, float]]:
    """Return what every iteration's log says of the training; where an iteration was repeated, its last words."""
    found = {}
    for log in sorted(folder.glob("*/vis_data/scalars.json")):
        for line in log.read_text().splitlines():
            if line.endswith("}"):  # a killed process leaves half a line
                record = json.loads(line)
                found[record["step"]] = {name: value for name, value in record.items() if name not in NOT_LEARNED}
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of the last checkpoint: the weights, their average, and the optimizer's state."""
    path = newest_checkpoint(folder)
    if path is None:
        raise SystemExit(f"check_resume: there is no checkpoint in {folder}")
    checkpoint = read_checkpoint(path)
    tensors = {
        f"{part}.{name}": each for part in ("state_dict", "ema_state_dict") for name, each in checkpoint[part].items()
    }
    for number, state in checkpoint["optimizer"]["state"].items():
        tensors.update({f"optimizer.{number}.{name}": each for name, each in state.items()})
    return tensors


def main() -> None:
    """Compare the two runs."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.work_dir or Path(temporary)
        data, whole, killed = folder / "data", folder / "whole", folder / "killed"
        for each in (whole, killed):
            each.mkdir(parents=True)
        write_data(data)
        run("train.py", *training(data, whole, arguments.epochs))
        met = train_under_fire(training(data, killed, arguments.epochs), killed, arguments.kills, arguments.seed)
        report(whole, killed, met)


def report(whole: Path, killed: Path, met: int) -> None:
    """Print what differs, and exit with 1 if anything does."""
    undisturbed, disturbed = losses(whole), losses(killed)
    steps = [step for step in undisturbed if undisturbed[step] != disturbed.get(step)]
    expected, found = weights(whole), weights(killed)
    names = [name for name in expected if name not in found or not torch.equal(expected[name], found[name])]
    print(f"killed {met} times; {len(undisturbed)} iterations and {len(expected)} tensors compared")
    if steps or names or len(found) != len(expected):
        raise SystemExit(f"different: iterations {steps[:10]}, tensors {names[:10]}")
    print("losses and weights of both runs are equal to the last bit")


if __name__ == "__main__":
    main()
