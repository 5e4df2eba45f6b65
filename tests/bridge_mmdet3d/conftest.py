"""Both sides' data of a small synthetic scene. Tests that need mmdetection3d are skipped where it is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from sparse3d.datasets import NuScenesDataset, write_index, write_mmdet3d_infos
from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_schema import DETECTION_CLASSES
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.structures import Boxes3D, Frame
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
CAMERAS = ("CAM_FRONT", "CAM_BACK")
PREFIXES = {"pts": "samples/LIDAR_TOP", "sweeps": "sweeps/LIDAR_TOP", **{name: f"samples/{name}" for name in CAMERAS}}
GRID = dict(point_range=[-12.8, -12.8, -5.0, 12.8, 12.8, 3.0], voxel_size=[0.4, 0.4, 0.2], stride=8)
LOAD = [
    dict(type="LoadPointsFromFile", coord_type="LIDAR", load_dim=5, use_dim=5),
    dict(type="LoadPointsFromMultiSweeps", sweeps_num=9, use_dim=[0, 1, 2, 3, 4], remove_close=True, test_mode=True),
    dict(type="LoadAnnotations3D", with_bbox_3d=True, with_label_3d=True),
]
PACK = dict(type="Pack3DDetInputs", keys=["points", "gt_bboxes_3d", "gt_labels_3d"])


@pytest.fixture(scope="module")
def bridge() -> ModuleType:
    pytest.importorskip("mmdet3d", reason="mmdetection3d is not installed (docs/bridge_mmdet3d.md)")
    import sparse3d.bridge_mmdet3d

    return sparse3d.bridge_mmdet3d


@pytest.fixture(autouse=True)
def our_scope() -> Iterator[None]:
    """The default scope of our configs; runners leave theirs behind."""
    with DefaultScope.overwrite_default_scope("sparse3d"):
        yield


@pytest.fixture()
def their_scope(batch: list[dict]) -> Iterator[None]:
    """The default scope of a config of mmdetection3d, in which its tools build everything."""
    with DefaultScope.overwrite_default_scope("mmdet3d"):
        yield


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(scene_frames(load_tables(SYNTH / "v1.0-mini", ["scene-0061"]), "scene-0061", SYNTH))


@pytest.fixture(scope="module")
def infos(frames: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("infos") / "nuscenes_infos_val.pkl"
    write_mmdet3d_infos(path, frames, SYNTH, "v1.0-mini")
    return path


def their_dataset(infos: Path, pipeline: list[dict], **options: Any) -> Any:
    from mmdet3d.registry import DATASETS as THEIRS

    config = dict(
        type="NuScenesDataset", data_root=str(SYNTH), ann_file=str(infos), data_prefix=dict(PREFIXES), **options
    )
    return THEIRS.build(ConfigDict({**config, "pipeline": pipeline, "_scope_": "mmdet3d"}))


def our_dataset(frames: list[Frame], folder: Path, pipeline: list[dict]) -> NuScenesDataset:
    write_index(folder / "index.arrow", frames, {}, SYNTH)
    return NuScenesDataset(SYNTH, folder / "index.arrow", pipeline=pipeline, test_mode=True)


@pytest.fixture()
def batch(bridge: ModuleType, frames: list[Frame], tmp_path: Path) -> list[dict]:
    """Two packed samples."""
    pipeline = [dict(type="LoadPoints", sweeps=0), dict(type="LoadAnnotations", class_names=DETECTION_CLASSES)]
    dataset = our_dataset(frames, tmp_path, pipeline)
    return [bridge.pack(dataset[number]) for number in (0, 1)]


def collate(batch: list[dict]) -> dict[str, Any]:
    return {
        "inputs": {"points": [each["inputs"]["points"] for each in batch]},
        "data_samples": [each["data_samples"] for each in batch],
    }


def random_boxes(columns: int) -> Boxes3D:
    sizes = torch.rand(5, 3) + 0.5
    return Boxes3D(torch.cat([torch.randn(5, 3) * 5, sizes, torch.randn(5, columns - 6)], dim=1))


def center_head() -> dict:
    """mmdetection3d's centre head on 8 x 8 cells."""
    return dict(
        type="CenterHead",
        in_channels=64,
        tasks=[dict(num_class=5, class_names=names) for names in (DETECTION_CLASSES[:5], DETECTION_CLASSES[5:])],
        common_heads=dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2), vel=(2, 2)),
        share_conv_channel=16,
        bbox_coder=dict(
            type="CenterPointBBoxCoder", pc_range=GRID["point_range"][:2], max_num=50, score_threshold=0.3,
            post_center_range=[-20.0, -20.0, -10.0, 20.0, 20.0, 10.0], out_size_factor=8, voxel_size=[0.4, 0.4],
            code_size=9,
        ),
        separate_head=dict(type="SeparateHead", init_bias=-2.19, final_kernel=3),
        loss_cls=dict(type="mmdet.GaussianFocalLoss", reduction="mean"),
        loss_bbox=dict(type="mmdet.L1Loss", reduction="mean", loss_weight=0.25),
        norm_bbox=True,
        train_cfg=dict(
            grid_size=[64, 64, 40], voxel_size=[0.4, 0.4, 0.2], out_size_factor=8, dense_reg=1, gaussian_overlap=0.1,
            max_objs=50, min_radius=2, code_weights=[1.0] * 10, point_cloud_range=GRID["point_range"],
        ),
        test_cfg=dict(
            post_center_limit_range=[-20.0, -20.0, -10.0, 20.0, 20.0, 10.0], score_threshold=0.3, out_size_factor=8,
            voxel_size=[0.4, 0.4], nms_type="rotate", pre_max_size=50, post_max_size=50, nms_thr=0.2,
        ),
    )  # fmt: skip
