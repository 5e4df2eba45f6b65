"""tools/infer.py as a user runs it: a scan, an index, a rig of cameras, every format."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from sparse3d.config import load_config
from sparse3d.datasets import write_index
from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.registry import MODELS
from sparse3d.zoo import find_config
from tests.e2e.conftest import ToolRunner
from tests.test_inference import CAMERA, CAMERA_OPTIONS, LIDAR, LIDAR_OPTIONS, SYNTH, rig


def weights(folder: Path, name: str, options: dict) -> list[str | Path]:
    path = folder / f"{name}.pth"
    torch.save({"state_dict": MODELS.build(load_config(find_config(name), options).model).state_dict()}, path)
    return [name, "--weights", path]


def as_options(options: dict) -> list[str]:
    return ["--cfg-options", *(f"{name}={str(value).replace(' ', '')}" for name, value in options.items())]


def test_scans_and_frames_of_an_index(tool: ToolRunner, tmp_path: Path) -> None:
    frames = list(scene_frames(load_tables(SYNTH / "v1.0-mini", ["scene-0061"]), "scene-0061", SYNTH))
    index, out, page = tmp_path / "index.arrow", tmp_path / "out", tmp_path / "page.html"
    write_index(index, frames, {}, SYNTH)
    command = ["infer", *weights(tmp_path, LIDAR, LIDAR_OPTIONS)]
    options = as_options(LIDAR_OPTIONS)
    printed = tool(
        *command, frames[0].lidar.path, index, "--data-root", SYNTH, "--score", "0", "--out", out, "--html", page,
        "--batch-size", "2", *options,
    )  # fmt: skip
    assert Path(frames[0].lidar.path).name in printed and frames[-1].token in printed
    assert len(json.loads((out / f"{frames[0].token}.json").read_text())["detections"]) == 40
    assert page.stat().st_size > 50_000
    for kind, suffix in (("nuscenes", "json"), ("kitti", "txt"), ("waymo", "json")):
        folder = tmp_path / kind
        tool(*command, index, "--data-root", SYNTH, "--score", "0", "--out", folder, "--format", kind, *options)
        assert len(list(folder.glob(f"*.{suffix}"))) == len(frames)


def test_a_rig_of_cameras(tool: ToolRunner, tmp_path: Path) -> None:
    frame = next(scene_frames(load_tables(SYNTH / "v1.0-mini", ["scene-0061"]), "scene-0061", SYNTH))
    paths, calibration = rig(frame, [each.name for each in frame.cameras])
    content = {name: {**each, "image": paths[name]} for name, each in calibration.items()}
    (tmp_path / "rig.json").write_text(json.dumps(content))
    printed = tool(
        "infer", *weights(tmp_path, CAMERA, CAMERA_OPTIONS), tmp_path / "rig.json", "--score", "0",
        *as_options(CAMERA_OPTIONS),
    )  # fmt: skip
    assert "rig.json: " in printed and "nothing" not in printed
