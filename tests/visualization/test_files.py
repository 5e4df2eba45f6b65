"""Images come back as they were written; a failed write leaves the old file and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from sparse3d.visualization import save_image


def test_channels_are_rgb(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    save_image(tmp_path / "deep" / "er" / "a.png", image)
    assert (cv2.imread(str(tmp_path / "deep" / "er" / "a.png"))[..., ::-1] == image).all()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    save_image(path, np.zeros((2, 2, 3), dtype=np.uint8))
    old = path.read_bytes()

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        save_image(path, np.ones((9, 9, 3), dtype=np.uint8))
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("suffix", ["", ".pngx", ".html"])
def test_unknown_format(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match=r"use .png or .jpg"):
        save_image(tmp_path / f"a{suffix}", np.zeros((2, 2, 3), dtype=np.uint8))


@pytest.mark.parametrize("image", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 3)), np.zeros((0, 2, 3), np.uint8)])
def test_no_image(tmp_path: Path, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"image must be \[H, W, 3\] uint8"):
        save_image(tmp_path / "a.png", image)
