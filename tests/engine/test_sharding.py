"""Sharded training computes what DDP computes, and its checkpoints are those of any other training."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sparse3d.engine import build_runner, read_checkpoint
from sparse3d.registry import MODELS
from tests.conftest import REPOSITORY

from .toy import ToyModel, toy_config


@MODELS.register_module()
class DeepToyModel(ToyModel):
    """y = B relu(A x), with dropout; its rows do not divide evenly among two processes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Sequential(nn.Linear(1, 7), nn.ReLU(), nn.Linear(7, 1))

    def forward(self, x: Tensor, y: Tensor, mode: str = "tensor") -> dict[str, Tensor]:
        return super().forward(x, y, mode)


def sharding_config(**changes: object) -> dict:
    """Two optimizer steps in an epoch of four iterations of each process; a checkpoint in the middle of the second."""
    return toy_config(
        max_epochs=3,
        model=dict(type="DeepToyModel"),
        train_dataloader={**toy_config().train_dataloader, "batch_size": 2},
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.1), accumulative_counts=2, clip_grad=dict(max_norm=0.5)),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=1)),
        **{"custom_hooks": [dict(type="NonFiniteHook")], **changes},
    )


PROCESS = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from torch import distributed
from torch.distributed.tensor import DTensor
from sparse3d.engine import build_runner
from tests.engine.test_sharding import sharding_config

folder = Path(sys.argv[2])
def train(name, **changes):
    runner = build_runner(sharding_config(**changes), work_dir=folder / name, launcher="pytorch")
    runner.train()
    return runner

try:
    build_runner(sharding_config(shard=[], custom_hooks=[dict(type="EMAHook")]), work_dir=folder, launcher="pytorch")
except ValueError as error:
    assert "EMAHook" in str(error)
else:
    raise SystemExit("not refused")
train("ddp")
sharded = train("sharded", shard=["linear.0"])
local = sharded.model.linear[0].weight
assert isinstance(local, DTensor) and local.to_local().shape[0] == (4, 3)[distributed.get_rank()]
for name in ("sharded", "ddp"):
    if distributed.get_rank() == 0:
        for path in (folder / name).glob("iter_*.pth"):
            if path.stem != "iter_7":
                path.rename(folder / f"{name}_{path.name}")
    distributed.barrier()
    train(name, resume=True, shard=["linear.0"])
distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, python: str) -> Path:
    """Train with DDP and sharded in two processes, both to the end and once more from iteration 7, sharded."""
    folder = tmp_path_factory.mktemp("sharding")
    script = folder / "process.py"
    script.write_text(PROCESS)
    result = subprocess.run(
        [python, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(script), str(REPOSITORY),
         str(folder)], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    return folder


def assert_equal(first: Path, second: Path, **tolerance: float) -> None:
    first, second = read_checkpoint(first), read_checkpoint(second)
    torch.testing.assert_close(first["state_dict"], second["state_dict"], **tolerance)
    torch.testing.assert_close(first["optimizer"]["state"], second["optimizer"]["state"], **tolerance)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes of a CPU")
def test_sharded_training_is_ddp_s(trained: Path) -> None:
    assert_equal(trained / "sharded_iter_12.pth", trained / "ddp_iter_12.pth", rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes of a CPU")
def test_it_resumes_exactly_and_from_what_was_not_sharded(trained: Path) -> None:
    assert not (trained / "sharded/iter_6.pth").exists()  # it did go on, not begin again
    waiting = read_checkpoint(trained / "sharded/iter_7.pth")["pending_gradients"]
    assert set(waiting) == set(read_checkpoint(trained / "sharded/iter_7.pth")["state_dict"])
    assert_equal(trained / "sharded/iter_12.pth", trained / "sharded_iter_12.pth", rtol=0, atol=0)
    assert_equal(trained / "ddp/iter_12.pth", trained / "ddp_iter_12.pth", rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes of a CPU")
def test_one_process_reads_its_checkpoint(trained: Path, tmp_path: Path) -> None:
    path = trained / "sharded/iter_12.pth"
    runner = build_runner(sharding_config(shard=["linear.0"], load_from=str(path)), work_dir=tmp_path)
    runner.load_or_resume()
    torch.testing.assert_close(dict(runner.model.state_dict()), dict(read_checkpoint(path)["state_dict"]))
