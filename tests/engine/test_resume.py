"""Runs that were cut off go on exactly; old checkpoints go when new ones are there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparse3d.engine import CheckpointError, Runner, build_runner, read_checkpoint

from .toy import toy_config, train

EMA = dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=0.1)
EVERY = dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=1))
LOOPS = {
    "epochs": dict(by_epoch=True, max_epochs=3),
    "iterations": dict(type="IterBasedTrainLoop", max_iters=12),
}


def history(runner: Runner) -> list[float]:
    return runner.message_hub.get_scalar("train/loss").data[0].tolist()


@pytest.mark.parametrize(
    ("loop", "sampler"),
    [("epochs", "DefaultSampler"), ("iterations", "DefaultSampler"), ("iterations", "InfiniteSampler")],
)
@pytest.mark.parametrize("cut", [3, 4, 7])
def test_a_run_goes_on_exactly_wherever_it_was_cut(tmp_path: Path, loop: str, sampler: str, cut: int) -> None:
    changes = dict(
        train_cfg=LOOPS[loop],
        custom_hooks=[EMA],
        default_hooks=EVERY,
        param_scheduler=[dict(type="LinearLR", by_epoch=False, begin=0, end=9, start_factor=0.1)],
        optim_wrapper=dict(optimizer=dict(type="Adam", lr=0.1), accumulative_counts=2, clip_grad=dict(max_norm=1.0)),
    )
    loader = {**toy_config().train_dataloader, "sampler": dict(type=sampler, shuffle=True)}
    whole = train(tmp_path / "whole", train_dataloader=loader, **changes)
    folder = tmp_path / "cut"
    train(folder, train_dataloader=loader, **changes)
    for path in folder.glob("iter_*.pth"):
        if int(path.stem.partition("_")[2]) > cut:
            path.unlink()
    resumed = train(folder, train_dataloader=loader, resume=True, **changes)
    assert resumed.iter == whole.iter == 12
    assert history(resumed) == history(whole)
    for folder_of in ("state_dict", "ema_state_dict"):
        states = [read_checkpoint(tmp_path / name / "iter_12.pth")[folder_of] for name in ("whole", "cut")]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_damaged_checkpoint_is_passed_over_on_resuming(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    folder = tmp_path / "cut"
    train(folder)
    damaged = folder / "epoch_4.pth"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    resumed = train(folder, resume=True)
    assert history(resumed) == history(whole)


def test_a_seed_that_was_drawn_goes_on_too(tmp_path: Path) -> None:
    changes = dict(default_hooks=EVERY, randomness=dict(seed=None))
    whole = train(tmp_path, **changes)
    for path in tmp_path.glob("iter_*.pth"):
        if int(path.stem.partition("_")[2]) > 6:
            path.unlink()
    resumed = train(tmp_path, resume=True, **changes)
    assert history(resumed) == history(whole)


def test_epochs_of_another_length_are_refused(tmp_path: Path) -> None:
    train(tmp_path)
    loader = {**toy_config().train_dataloader, "batch_size": 2}
    with pytest.raises(ValueError, match=r"epoch_4\.pth .*4 batches an epoch, this run has 8"):
        train(tmp_path, train_dataloader=loader, resume=True)


def test_weights_alone_are_no_place_to_resume_from(tmp_path: Path) -> None:
    train(tmp_path)
    weights = read_checkpoint(tmp_path / "epoch_4.pth")
    del weights["optimizer"]
    torch.save(weights, tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match=r"best\.pth holds weights alone"):
        train(tmp_path, resume=True, load_from=str(tmp_path / "best.pth"))


def test_resuming_from_nothing_begins(tmp_path: Path) -> None:
    assert train(tmp_path, resume=True).iter == 16


def test_an_old_checkpoint_outlives_a_new_one_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = dict(checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=1))
    runner = build_runner(toy_config(default_hooks=hooks), work_dir=tmp_path)
    save = Runner.save_checkpoint

    def fail_late(self: Runner, out_dir: str, filename: str, *args: object, **kwargs: object) -> None:
        if filename == "epoch_3.pth":
            raise CheckpointError("the disk is full")
        save(self, out_dir, filename, *args, **kwargs)

    monkeypatch.setattr(Runner, "save_checkpoint", fail_late)
    with pytest.raises(CheckpointError, match="full"):
        runner.train()
    assert [path.name for path in tmp_path.glob("*.pth")] == ["epoch_2.pth"]
    monkeypatch.undo()
    train(tmp_path, resume=True, default_hooks=hooks)
    assert [path.name for path in tmp_path.glob("*.pth")] == ["epoch_4.pth"]


def test_deterministic_runs_are_equal_and_seeds_matter(tmp_path: Path) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        first, second = (train(tmp_path / name, deterministic=True) for name in "ab")
    finally:
        torch.use_deterministic_algorithms(before)
    other = train(tmp_path / "c", randomness=dict(seed=2))
    assert history(first) == history(second) != history(other)


def test_a_checkpoint_says_what_it_was_made_of(tmp_path: Path) -> None:
    train(tmp_path)
    meta = read_checkpoint(tmp_path / "epoch_4.pth")["meta"]
    made_of = meta["provenance"]
    assert made_of["packages"]["torch"] == torch.__version__
    assert made_of["seed"] == 1
    assert set(made_of) == {"python", "packages", "git", "seed", "data"}
    assert "ToyModel" in meta["cfg"]


def test_testing_needs_weights_that_fit(tmp_path: Path) -> None:
    torch.save({"state_dict": {"linear.weight": torch.zeros(1, 1)}}, tmp_path / "half.pth")
    runner = build_runner(toy_config(load_from=str(tmp_path / "half.pth")), work_dir=tmp_path / "work")
    runner._testing = True
    with pytest.raises(RuntimeError, match=r"linear\.bias"):
        runner.load_or_resume()


def test_parts_are_recomputed_and_compiled_by_name(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain")
    parts = train(tmp_path / "parts", recompute=["linear"], compile=dict(parts=["linear"], backend="eager"))
    assert history(parts) == pytest.approx(history(plain))
    with pytest.raises(ValueError, match="recompute: the model has no part 'head'"):
        build_runner(toy_config(recompute=["head"]), work_dir=tmp_path / "wrong")


def test_the_learning_rate_is_scaled_by_the_batch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="base_batch_size"):
        build_runner(toy_config(), work_dir=tmp_path, auto_scale_lr=True)
    config = toy_config(auto_scale_lr=dict(base_batch_size=16), max_epochs=1)
    runner = build_runner(config, work_dir=tmp_path, auto_scale_lr=True)
    runner.train()
    assert runner.optim_wrapper.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 4 / 16)
