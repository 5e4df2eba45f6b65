"""Two processes compute what one does: the first step's loss and gradients on the same global batch."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from sparse3d.config import load_config
from sparse3d.models import Detector3D
from sparse3d.registry import MODELS
from sparse3d.structures import Boxes3D, InstanceData, Sample
from tests.conftest import REPOSITORY

CONFIG = REPOSITORY / "configs/demo/pillar_tiny.py"


def build_detector() -> Detector3D:
    """A small detector; its norms use their running statistics: those of a batch are a process's own (on a CPU)."""
    torch.manual_seed(0)
    model = MODELS.build(load_config(CONFIG).model)
    return model.eval()


def make_sample(number: int) -> Sample:
    """Points and objects; the second sample has five times as many objects as the first."""
    generator = torch.Generator().manual_seed(number)
    points = torch.rand(400, 5, generator=generator) * torch.tensor([50, 50, 3, 200, 0.3])
    points -= torch.tensor([25.0, 25, 2, 0, 0])
    count = (3, 15)[number]
    boxes = torch.rand(count, 9, generator=generator) * torch.tensor([40, 40, 1, 3, 1, 1, 6, 4, 4])
    boxes += torch.tensor([-20.0, -20, -1, 1, 1, 1, -3, -2, -2])
    sample = Sample()
    sample.points = points
    sample.gt = InstanceData(boxes=Boxes3D(boxes), labels=torch.arange(count) % 10)
    return sample


def losses_and_gradients(
    model: torch.nn.Module, detector: Detector3D, samples: list[Sample]
) -> dict[str, torch.Tensor]:
    losses = model(**detector.data_preprocessor(samples, True), mode="loss")
    sum(losses.values()).backward()
    gradients = {f"grad/{name}": each.grad for name, each in detector.named_parameters()}
    return {**{name: value.detach() for name, value in losses.items()}, **gradients}


PROCESS = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from tests.engine.test_distributed import build_detector, losses_and_gradients, make_sample
distributed.init_process_group("gloo")
detector = build_detector()
rank = distributed.get_rank()
found = losses_and_gradients(DistributedDataParallel(detector), detector, [make_sample(rank)])
for name, value in found.items():
    if not name.startswith("grad/"):
        distributed.all_reduce(value)
        value /= distributed.get_world_size()
if rank == 0:
    torch.save(found, sys.argv[2])
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_compute_the_loss_and_gradients_of_one(tmp_path: Path, python: str) -> None:
    script, out = tmp_path / "process.py", tmp_path / "found.pt"
    script.write_text(PROCESS)
    command = [python, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    result = subprocess.run(
        [*command, str(script), str(REPOSITORY), str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = torch.load(out, weights_only=True)
    detector = build_detector()
    expected = losses_and_gradients(detector, detector, [make_sample(0), make_sample(1)])
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert sum(name.startswith("grad/") and bool(value.any()) for name, value in expected.items()) > 10
