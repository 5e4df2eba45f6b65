"""Every configuration of the zoo: listed, not repetitive, of the stated size, convertible, able to learn and test.

New configs and new systems are found by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from sparse3d.config import load_config
from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.datasets.transforms import Compose
from sparse3d.registry import MODELS, TRANSFORMS
from sparse3d.structures import Boxes3D, Frame, Grid, InstanceData, Sample, WaymoLabels
from sparse3d.zoo import Model, config_files, configs_folder, find_config, models
from sparse3d.zoo_checks import (
    check_files,
    check_index,
    check_model,
    check_repetition,
    name_pattern,
    uncovered_names,
)
from tests.conftest import REPOSITORY
from tests.e2e.conftest import ToolRunner, tool  # noqa: F401 (a fixture)
from tests.models.reduced import components, reduced

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
FOLDER = configs_folder()
CONFIGS = config_files(FOLDER)
MODELS_OF_THE_ZOO = models(FOLDER)
NUSCENES = "NuScenesDataset"


def test_files_and_index() -> None:
    assert [*check_files(FOLDER), *check_index(FOLDER)] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_config_repeats_its_bases_or_its_grid(path: Path) -> None:
    assert list(check_repetition(path)) == []


@pytest.mark.parametrize("model", MODELS_OF_THE_ZOO, ids=lambda model: model.name)
def test_the_published_size_builds_and_converts(model: Model) -> None:
    assert list(check_model(model)) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_transforms_exist(path: Path) -> None:
    config = load_config(path)
    init_default_scope(config.default_scope)
    for pipeline in (config.train_pipeline, config.test_pipeline):
        for step in components(list(pipeline)):
            assert TRANSFORMS.get(step["type"]) is not None, step["type"]


def distinct(paths: Sequence[Path]) -> list[Path]:
    """Return configs that are different models even when they are reduced: not those that differ in sizes alone."""
    found: dict[str, Path] = {}
    for path in paths:
        config = reduced(path)
        found.setdefault(str((config.model, config.train_pipeline)), path)
    return list(found.values())


@pytest.mark.parametrize("path", distinct(CONFIGS), ids=lambda path: path.stem)
def test_one_training_step_and_one_test_step(path: Path) -> None:
    config = reduced(path)
    init_default_scope(config.default_scope)
    MMLogger.get_instance("zoo", log_level="ERROR")  # the optimizer's groups are many lines
    detector = MODELS.build(config.model)
    sample = training_sample(config)
    before = {name: each.detach().clone() for name, each in detector.named_parameters()}
    losses = detector.train().train_step([sample], build_optim_wrapper(detector, config.optim_wrapper))
    assert losses and all(torch.isfinite(each).all() for each in losses.values())
    assert any(not torch.equal(each, before[name]) for name, each in detector.named_parameters())
    with torch.no_grad():
        pred = detector.eval().test_step([sample])[0].pred
    assert len(pred.boxes) == len(pred.scores) == len(pred.labels)
    assert torch.isfinite(pred.boxes.tensor).all() and (pred.labels < len(config.class_names)).all()


def training_sample(config: Config) -> Sample:
    """A frame of the synthetic nuScenes through the training pipeline, with other names where Waymo's cameras are asked
    for; random points and boxes for detectors of points on other data sets."""
    dataset = config.train_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    if dataset.type != NUSCENES and "num_point_features" in config:
        return random_sample(Grid.build(config.grid), config.num_point_features, len(config.class_names))
    frame = synthetic_frame() if dataset.type == NUSCENES else waymo_frame(config.camera_names)
    steps = [
        step for step in dataset.pipeline if not any(each["type"] == "PasteGroundTruth" for each in components(step))
    ]
    sample = Sample.from_frame(frame, past=(frame,) * len(dataset.get("past", ())))
    return Compose(steps)(sample, np.random.default_rng(0))


@cache
def synthetic_frame() -> Frame:
    return next(scene_frames(load_tables(SYNTH / "v1.0-mini", ["scene-0061"]), "scene-0061", SYNTH))


def waymo_frame(camera_names: Sequence[str]) -> Frame:
    """The synthetic frame with labels as Waymo has them: vehicles and pedestrians, as the first camera saw them."""
    frame = synthetic_frame()
    annotations, count = frame.annotations, len(frame.annotations)
    numbers, motions = np.zeros(count, dtype=np.int64), np.zeros((count, 3))
    labels = WaymoLabels(
        difficulties=numbers,
        tracking_difficulties=numbers,
        num_top_lidar_points=annotations.num_lidar_points,
        speeds=motions,
        accelerations=motions,
        most_visible_cameras=numbers + 1,
        camera_synced_boxes=annotations.boxes[:, :7],
        keypoints=np.zeros((count, 14, 3)),
        keypoint_visibility=np.zeros((count, 14), dtype=np.int64),
    )
    kinds = {"vehicle": "Vehicle", "human": "Pedestrian"}
    categories = tuple(kinds.get(name.partition(".")[0], "Sign") for name in annotations.categories)
    cameras = tuple(replace(camera, name=name) for camera, name in zip(frame.cameras, camera_names, strict=False))
    return replace(frame, cameras=cameras, annotations=replace(annotations, categories=categories, waymo=labels))


def random_sample(grid: Grid, num_features: int, num_classes: int) -> Sample:
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor(grid.lower), torch.tensor(grid.upper)
    points = torch.rand(2000, num_features, generator=generator)
    points[:, :3] = low + points[:, :3] * (high - low)
    boxes = torch.rand(6, 9, generator=generator) + 0.5
    boxes[:, :3] = low + torch.rand(6, 3, generator=generator) * (high - low)
    keypoints = dict(keypoints=boxes[:, None, :3].repeat(1, 14, 1), keypoint_visibility=torch.full((6, 14), 2))
    gt = InstanceData(
        boxes=Boxes3D(boxes), labels=torch.arange(6) % num_classes, num_points=torch.full((6,), 20), **keypoints
    )
    return Sample(metainfo={"lidar_aug": np.eye(4), "epoch": 0}, points=points, gt=gt)


# -- the mechanism ----------------------------------------------------------------------------------------------------


def test_a_table_of_names_covers_what_its_rules_make() -> None:
    rules = [(r"blocks\.(\d+)\.(conv|bn)\.(.+)", r"levels.\1.part.\3"), (r"head\.(?:a|b)", "head.both"), ("x", None)]
    pattern = name_pattern(rules)
    for name, covered in (("levels.3.part.weight", True), ("levels.a.part.weight", False), ("head.both", True)):
        assert bool(re.fullmatch(pattern, name)) == covered, name

    class System:
        TABLE = rules

    assert uncovered_names(System, ["head.both", "tail.weight"]) == ["tail.weight"]


def test_repetition_is_found(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("model = dict(type='A', size=[1, 2])\nepochs = 3\n")
    path = tmp_path / "leaf.py"
    path.write_text("_base_ = ['base.py']\nmodel = dict(size=(1, 2), depth=3)\nepochs = 4\n")
    assert list(check_repetition(path)) == [f"{path}: model.size is what _base_ says"]
    path.write_text(
        "grid = dict(point_range=[0, 0, 0, 8, 8, 4], voxel_size=[0.5, 0.5, 4])\nmodel = dict(v=[0.5, 0.5, 4])"
    )
    assert list(check_repetition(path)) == [f"{path}: model.v is the grid's voxel_size"]


def test_names_find_configs() -> None:
    assert find_config("dsvt_pillar_nuscenes") == FOLDER / "dsvt" / "dsvt_pillar_nuscenes.py"
    assert find_config(FOLDER / "demo" / "pillar_demo.py").stem == "pillar_demo"
    with pytest.raises(FileNotFoundError, match="near are dsvt_pillar_nuscenes"):
        find_config("dsvt_pilar_nuscenes")


def test_the_tool_lists_what_words_find(tool: ToolRunner) -> None:  # noqa: F811
    printed = tool("zoo", "dsvt", "waymo")
    assert "dsvt_voxel_waymo" in printed and "L2 mAPH 72.1" in printed and "sparsebev" not in printed
    with pytest.raises(SystemExit, match="no model has"):
        tool("zoo", "nothing_is_called_so")
