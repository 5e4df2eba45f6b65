"""Checkpoints as files: whole or not at all, verified, found again, read without running code."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import mmengine.runner
import pytest
import torch
from safetensors.torch import save_file

from sparse3d.engine import CheckpointError, newest_checkpoint, read_checkpoint, verify_checkpoint
from sparse3d.engine.files import PARTIAL_SUFFIX, writing_whole
from tests.conftest import REPOSITORY

WEIGHTS = {"weight": torch.arange(4096.0)}


def save(path: Path) -> Path:
    """Save what a run could resume from; the name says after how many iterations."""
    iterations = int(path.stem.rpartition("_")[2])
    torch.save({"meta": {"iter": iterations}, "optimizer": {}, "state_dict": WEIGHTS}, path)
    return path


def test_the_newest_whole_checkpoint_is_found_and_damaged_ones_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = save(tmp_path / "iter_20.pth")
    cut.write_bytes(cut.read_bytes()[:-100])
    flipped = save(tmp_path / "iter_30.pth")
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    whole = save(tmp_path / "iter_10.pth")
    save(tmp_path / "iter_9.pth")  # the youngest file is not the one that has seen most
    torch.save({"meta": {"iter": 50}, "state_dict": WEIGHTS}, tmp_path / "best_mAP_iter_50.pth")
    (tmp_path / f"iter_40.pth{PARTIAL_SUFFIX}").write_bytes(b"half")
    with caplog.at_level("WARNING"):
        assert newest_checkpoint(tmp_path) == whole
    assert newest_checkpoint(tmp_path / "nowhere") is None
    for damaged in (cut, flipped):
        with pytest.raises(CheckpointError, match=f"{damaged.name} is damaged"):
            verify_checkpoint(damaged)
        with pytest.raises(CheckpointError, match=f"{damaged.name} is damaged"):
            read_checkpoint(damaged)


class Hostile:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("owned",)


def test_objects_are_refused_unless_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": WEIGHTS, "extra": Hostile()}, "foreign.pth")
    with open("old.pth", "wb") as file:
        pickle.dump({"extra": Hostile()}, file)
    for name in ("foreign.pth", "old.pth"):
        with pytest.raises(CheckpointError, match=rf"{name} (holds more than tensors|is damaged, or no checkpoint)"):
            read_checkpoint(name)
    assert not Path("owned").exists()
    read_checkpoint("foreign.pth", trusted=True)
    assert Path("owned").exists()


def test_what_mmengine_loads_by_itself_is_no_less_guarded(tmp_path: Path) -> None:
    torch.save({"extra": Hostile()}, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match="--trust-checkpoint"):
        mmengine.runner.load_checkpoint(torch.nn.Linear(1, 1), str(tmp_path / "foreign.pth"))


def test_any_flipped_bit_is_found_or_harmless(tmp_path: Path) -> None:
    path = save(tmp_path / "iter_1.pth")
    whole = path.read_bytes()
    for place in range(7, len(whole), len(whole) // 150):
        damaged = bytearray(whole)
        damaged[place] ^= 0x90
        path.write_bytes(damaged)
        try:
            found = read_checkpoint(path)
        except CheckpointError as error:
            assert path.name in str(error)
        else:
            assert torch.equal(found["state_dict"]["weight"], WEIGHTS["weight"])


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*missing\.pth"):
        read_checkpoint(tmp_path / "missing.pth")
    for name in ("text.pth", "empty.pth"):
        with pytest.raises(CheckpointError, match=name):
            read_checkpoint(tmp_path / name)


def test_released_weights_are_read(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "weights.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "weights.safetensors")["state_dict"]["weight"], WEIGHTS["weight"])


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), writing_whole(path) as partial:
        partial.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.engine.toy import toy_config
from sparse3d.engine import CheckpointError, build_runner
folder = Path(sys.argv[2])
runner = build_runner(toy_config(max_epochs=1), work_dir=folder)
runner.train()
whole = (folder / "epoch_1.pth").read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 2, -1))  # as if the disk had no more room
try:
    runner.save_checkpoint(str(folder), "epoch_1.pth")
except CheckpointError as error:
    assert "cannot write" in str(error) and "epoch_1.pth" in str(error), error
    assert (folder / "epoch_1.pth").read_bytes() == whole
    assert not list(folder.glob("*.partial")), list(folder.iterdir())
    print("refused")
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX's")
def test_a_full_disk_is_one_clear_error_and_costs_no_checkpoint(tmp_path: Path, python: str) -> None:
    result = subprocess.run(
        [python, "-c", FULL_DISK, str(REPOSITORY), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert "refused" in result.stdout, result.stderr[-3000:]
