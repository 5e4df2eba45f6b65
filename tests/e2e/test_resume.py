"""The real tools under fire: a training that is killed and resumed loses nothing, and its weights are released."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from sparse3d.engine import newest_checkpoint, read_checkpoint
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


def run(python: str, *command: str | Path, status: int = 0) -> str:
    """Run a tool from the repository's root and return what it printed."""
    result = subprocess.run(
        [python, *map(str, command)], cwd=REPOSITORY, capture_output=True, text=True, timeout=600,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    printed = result.stdout + result.stderr
    assert result.returncode == status, printed[-4000:]
    return printed


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, python: str) -> tuple[Path, str]:
    """Return the folder of a training that was killed twice, and what the comparison printed."""
    folder = tmp_path_factory.mktemp("fire")
    printed = run(python, "tools/check_resume.py", "--kills", "2", "--epochs", "2", "--work-dir", folder)
    return folder, printed


def test_a_training_that_is_killed_twice_ends_with_the_undisturbed_one_s_weights(killed: tuple[Path, str]) -> None:
    assert "killed 2 times; 10 iterations" in killed[1]
    assert "equal to the last bit" in killed[1]


def test_a_difference_is_found(killed: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    import check_resume

    path = newest_checkpoint(killed[0] / "killed")
    checkpoint = torch.load(path, weights_only=True)
    name = next(
        name for name, each in checkpoint["ema_state_dict"].items() if each.is_floating_point() and each.numel()
    )
    checkpoint["ema_state_dict"][name].flatten()[0] += 1e-6
    torch.save(checkpoint, tmp_path / path.name)
    logs = next((killed[0] / "whole").glob("*/vis_data"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/vis_data").symlink_to(logs)
    with pytest.raises(SystemExit, match=f"different: iterations \\[\\], tensors .*{name}"):
        check_resume.report(killed[0] / "whole", tmp_path, 0)


def test_a_checkpoint_says_what_it_was_made_of(killed: tuple[Path, str]) -> None:
    meta = read_checkpoint(newest_checkpoint(killed[0] / "killed"))["meta"]
    assert set(meta["provenance"]["data"]) == {"sparse3d_train.arrow"}
    assert all(len(digest) == 64 for digest in meta["provenance"]["data"].values())
    assert "point_range" in meta["cfg"]


def test_released_weights_are_those_of_the_checkpoint_and_begin_a_training(
    killed: tuple[Path, str], python: str, tmp_path: Path
) -> None:
    folder, released = killed[0], tmp_path / "tiny.safetensors"
    run(python, "tools/release.py", folder / "whole", released)
    weights = read_checkpoint(released)["state_dict"]
    expected = read_checkpoint(newest_checkpoint(folder / "whole"))["state_dict"]
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], each) for name, each in expected.items())
    with safe_open(released, framework="pt") as file:
        assert "point_range" in file.metadata()["cfg"]
    work = tmp_path / "work"
    run(
        python, "tools/train.py", "configs/demo/pillar_tiny.py", "--work-dir", work, "--load-from", released,
        "--cfg-options", f"data_root={folder / 'data'}", "train_cfg.max_epochs=1",
        "optim_wrapper.optimizer.lr=0.0", "optim_wrapper.optimizer.weight_decay=0.0",
        "train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False",
    )  # fmt: skip
    begun = read_checkpoint(newest_checkpoint(work))["state_dict"]
    learned = [name for name in expected if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(begun[name], expected[name]) for name in learned)
    first = json.loads(next(work.glob("*/vis_data/scalars.json")).read_text().splitlines()[0])
    assert first["step"] == 1
