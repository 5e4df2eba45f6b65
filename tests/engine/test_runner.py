"""Training, saving and resuming with mmengine on this PyTorch, on a CPU, with a model of one layer."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from sparse3d.clock import OneCycleByProgress
from sparse3d.engine import AmpOptimWrapper
from sparse3d.engine.files import PARTIAL_SUFFIX

from .toy import train


def test_checkpoint_holds_nothing_but_plain_data(tmp_path: Path) -> None:
    train(tmp_path)
    checkpoint = torch.load(tmp_path / "epoch_4.pth", weights_only=True)
    assert checkpoint["meta"]["epoch"] == 4
    assert len(checkpoint["message_hub"]["log_scalars"]["train/loss"]["log"]) == 16
    assert not list(tmp_path.glob(f"*{PARTIAL_SUFFIX}"))


def test_resumed_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "cut")
    for late in ("epoch_3.pth", "epoch_4.pth"):
        (tmp_path / "cut" / late).unlink()
    (tmp_path / "cut" / "last_checkpoint").write_text(str(tmp_path / "cut" / "epoch_2.pth"))
    resumed = train(tmp_path / "cut", resume=True)
    assert resumed.iter == whole.iter == 16
    assert torch.equal(resumed.model.linear.weight, whole.model.linear.weight)
    histories = [runner.message_hub.get_scalar("train/loss").data[0] for runner in (whole, resumed)]
    assert histories[0].tolist() == histories[1].tolist()


def test_logs_are_json_lines_and_tensorboard_events(tmp_path: Path) -> None:
    backends = [dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
    logger = dict(logger=dict(type="LoggerHook", interval=1))
    train(tmp_path, max_epochs=1, visualizer=dict(type="Visualizer", vis_backends=backends), default_hooks=logger)
    lines = next(tmp_path.glob("*/vis_data/scalars.json")).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    assert next(tmp_path.glob("*/vis_data/events.out.tfevents.*")).stat().st_size > 0


def test_runners_of_the_same_second_do_not_share_state(tmp_path: Path) -> None:
    first, second = train(tmp_path / "a"), train(tmp_path / "b")
    assert first.experiment_name != second.experiment_name
    assert first.message_hub is not second.message_hub


def test_mixed_precision_on_a_cpu(tmp_path: Path) -> None:
    runner = train(tmp_path, amp=True)
    assert isinstance(runner.optim_wrapper, AmpOptimWrapper)
    if not torch.cuda.is_available():
        assert runner.model.seen == torch.bfloat16
    assert "loss_scaler" in torch.load(tmp_path / "epoch_4.pth", weights_only=True)["optimizer"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="float16 is right where there is CUDA")
def test_float16_on_a_cpu_is_refused() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match="float16 needs CUDA"):
        AmpOptimWrapper(optimizer=optimizer, dtype="float16")


def test_training_by_the_clock_stops_saves_and_reaches_the_end_of_the_schedule(tmp_path: Path) -> None:
    runner = train(
        tmp_path,
        train_cfg=dict(type="TimedTrainLoop", max_seconds=0.5, max_iters=10**9),
        custom_hooks=[dict(type="OneCycleByProgress", peak_lr=0.1), dict(type="ProgressHook")],
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=-1, save_last=True)),
    )
    assert 1 < runner.iter < 10**6
    assert runner.train_loop.progress == 1.0
    assert (tmp_path / f"iter_{runner.iter}.pth").exists()
    assert runner.optim_wrapper.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 1e3)


def test_one_cycle_rises_to_its_peak_and_falls() -> None:
    cycle = OneCycleByProgress(peak_lr=1.0, warmup=0.25, div=10, final_div=100, betas=(0.95, 0.85))
    assert cycle.at(0.0) == pytest.approx((0.1, 0.95))
    assert cycle.at(0.25) == pytest.approx((1.0, 0.85))
    assert cycle.at(1.0) == pytest.approx((0.01, 0.95))
    rates = [cycle.at(step / 100)[0] for step in range(101)]
    assert rates[:26] == sorted(rates[:26]) and rates[25:] == sorted(rates[25:], reverse=True)


DISTRIBUTED = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from tests.engine.toy import toy_config
from sparse3d.engine import build_runner
runner = build_runner(toy_config(max_epochs=1), work_dir=sys.argv[2], launcher="pytorch")
runner.train()
weights = [torch.zeros(1, 1) for _ in range(2)]
torch.distributed.all_gather(weights, runner.model.module.linear.weight.detach())
assert torch.equal(*weights), weights
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this is the CPU's launcher")
def test_two_processes_train_on_a_cpu(tmp_path: Path, python: str) -> None:
    script = tmp_path / "distributed.py"
    script.write_text(DISTRIBUTED)
    root = str(Path(__file__).resolve().parent.parent.parent)
    command = [
        python,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--standalone",
        str(script),
        root,
        str(tmp_path),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / "epoch_1.pth").exists()
