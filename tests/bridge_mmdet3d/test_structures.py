"""Boxes, info files and samples of sparse3d and of mmdetection3d; the bridge where mmdetection3d is missing."""

from __future__ import annotations

import math
import os
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.fileio import dump, load
from mmengine.structures import InstanceData

from sparse3d.datasets.nuscenes_schema import DETECTION_CLASSES
from sparse3d.datasets.plain_pickle import load_plain_pickle
from sparse3d.datasets.transforms import LoadImages, LoadPoints
from sparse3d.structures import Boxes3D, Frame, Sample
from tests.conftest import REPOSITORY

from .conftest import CAMERAS, LOAD, PACK, SYNTH, our_dataset, random_boxes, their_dataset

# -- without mmdetection3d --------------------------------------------------------------------------------------------


def test_without_mmdetection3d_it_says_what_to_install(python: str) -> None:
    code = "import sys; sys.modules['mmdet3d'] = None; import sparse3d.bridge_mmdet3d"
    done = subprocess.run([python, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(
        r"ImportError: sparse3d\.bridge_mmdet3d needs mmdetection3d 1\.4: .*pip install .*mmdet3d==", done.stderr
    )


def test_nothing_else_imports_it() -> None:
    for path in (REPOSITORY / "sparse3d").rglob("*.py"):
        if path.parent.name != "bridge_mmdet3d":
            assert not re.search(r"(import|from) .*bridge_mmdet3d", path.read_text(encoding="utf-8")), path


def test_boxes_by_hand() -> None:
    """A car 4 m long, 2 m wide, 1.5 m high, whose underside is 1 m below the sensor, heading along +y."""
    theirs = torch.tensor([[10.0, 2.0, -1.0, 4.0, 2.0, 1.5, math.pi / 2, 0.0, 3.0]])
    ours = Boxes3D.from_mmdet3d(theirs)
    assert ours.centers.tolist() == [[10.0, 2.0, -0.25]]
    assert ours.corners()[0, 0].tolist() == pytest.approx([9.0, 4.0, 0.5], abs=1e-6)  # front, left, top
    assert ours.to_mmdet3d().equal(theirs)


# -- with it ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [7, 9])
def test_boxes_are_where_theirs_are(bridge: ModuleType, columns: int) -> None:
    ours = random_boxes(columns)
    theirs = bridge.boxes_to_mmdet3d(ours)
    torch.testing.assert_close(theirs.gravity_center, ours.centers)
    torch.testing.assert_close(theirs.bev, ours.bev)
    for one, other in zip(theirs.corners, ours.corners(), strict=True):  # the same eight, in another order
        assert torch.cdist(one, other).min(dim=1).values.max() < 1e-5
        assert torch.cdist(one, other).argmin(dim=1).unique().numel() == 8
    torch.testing.assert_close(bridge.boxes_from_mmdet3d(theirs).tensor, ours.tensor)


def test_they_turn_and_mirror_alike(bridge: ModuleType) -> None:
    ours = random_boxes(9)
    theirs = bridge.boxes_to_mmdet3d(ours)
    theirs.rotate(0.3)
    torch.testing.assert_close(bridge.boxes_from_mmdet3d(theirs).tensor, ours.rotate(0.3).tensor)
    theirs.flip("horizontal")
    expected = ours.rotate(0.3).flip("y")
    torch.testing.assert_close(bridge.boxes_from_mmdet3d(theirs).corners().sum(1), expected.corners().sum(1))
    torch.testing.assert_close(bridge.boxes_from_mmdet3d(theirs).velocities, expected.velocities)


def test_no_boxes_and_other_boxes(bridge: ModuleType) -> None:
    from mmdet3d.structures import CameraInstance3DBoxes

    assert len(bridge.boxes_from_mmdet3d(bridge.boxes_to_mmdet3d(Boxes3D(torch.zeros(0, 9))))) == 0
    with pytest.raises(TypeError, match=r"got CameraInstance3DBoxes; its convert_to\(Box3DMode\.LIDAR\)"):
        bridge.boxes_from_mmdet3d(CameraInstance3DBoxes(torch.zeros(1, 7)))


def test_their_data_set_reads_our_info_file(
    bridge: ModuleType, infos: Path, frames: list[Frame], tmp_path: Path
) -> None:
    theirs = their_dataset(infos, [*LOAD, PACK])
    pipeline = [
        dict(type="LoadPoints", sweeps=9),
        dict(type="LoadAnnotations", class_names=DETECTION_CLASSES, min_points=1),
    ]
    ours = our_dataset(frames, tmp_path, pipeline)
    for number in range(len(frames)):
        packed, sample = theirs[number], ours[number]
        truth = bridge.unpack(packed["inputs"], packed["data_samples"]).gt
        known = truth.labels >= 0  # theirs keeps objects of no class until a filter comes
        torch.testing.assert_close(truth.boxes[known].tensor, sample.gt.boxes.tensor)
        assert truth.labels[known].equal(sample.gt.labels) and not known.all()
        points = packed["inputs"]["points"]
        assert points.shape == sample.points.shape
        torch.testing.assert_close(points[:, 3:], sample.points[:, 3:], atol=1e-6, rtol=0)
        key = sample.points[:, 4] == 0
        assert points[key].equal(sample.points[key])
        # The sweeps of mmdetection3d lie off where the vehicle turned: it subtracts t where R^T t is meant.
        assert (points[:, :3] - sample.points[:, :3]).abs().max() < 0.5


CONVERT = """
from tools.dataset_converters.nuscenes_converter import create_nuscenes_infos
from tools.dataset_converters.update_infos_to_v2 import update_pkl_infos
create_nuscenes_infos("data/nuscenes", "nuscenes", version="v1.0-mini")
update_pkl_infos("nuscenes", out_dir="data/nuscenes", pkl_path="data/nuscenes/nuscenes_infos_train.pkl")
"""
NOT_OURS = {"cam_instances", "sample_data_token"}  # see docs/bridge_mmdet3d.md; the token nobody reads
NOT_THEIRS = {"scene", "category", "attribute", "width", "height"}


def test_their_converter_writes_the_same(bridge: ModuleType, infos: Path, tmp_path: Path, python: str) -> None:
    import mmdet3d

    pytest.importorskip("nuscenes", reason="the converter needs the development kit")
    root = tmp_path / "data" / "nuscenes"  # which the converter takes for granted
    root.mkdir(parents=True)
    for path in SYNTH.iterdir():
        (root / path.name).symlink_to(path)
    environment = {**os.environ, "PYTHONPATH": str(Path(mmdet3d.__file__).parent / ".mim")}
    subprocess.run([python, "-c", CONVERT], cwd=tmp_path, env=environment, check=True, capture_output=True)
    ours, theirs = load(infos), load_plain_pickle(root / "nuscenes_infos_train.pkl")
    known = {name: label for name, label in theirs["metainfo"].pop("categories").items() if label >= 0}
    assert known == ours["metainfo"].pop("categories")
    assert theirs["metainfo"] == ours["metainfo"]
    assert_alike(ours["data_list"], theirs["data_list"], "")


def assert_alike(ours: Any, theirs: Any, place: str) -> None:
    if isinstance(theirs, dict):
        assert ours.keys() - theirs.keys() <= NOT_THEIRS and theirs.keys() - ours.keys() <= NOT_OURS | {"num_pts_feats"}
        for key in ours.keys() & theirs.keys():
            assert_alike(ours[key], theirs[key], f"{place}.{key}")
    elif isinstance(theirs, list) and theirs and isinstance(theirs[0], dict):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_alike(one, other, f"{place}[{number}]")
    elif isinstance(theirs, str):
        assert ours == theirs.removeprefix("data/nuscenes/"), place
    else:  # float32 matrices; yaws by another formula, which differs where the sensor is tilted
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4, err_msg=place)


def test_samples_keep_what_they_have(bridge: ModuleType, frames: list[Frame], tmp_path: Path) -> None:
    pipeline = [
        dict(type="LoadPoints", sweeps=0),
        dict(type="LoadImages", names=CAMERAS),
        dict(type="LoadAnnotations", class_names=DETECTION_CLASSES, min_points=1),
        dict(type="ResizeImages", factors=[0.5, 0.5]),
    ]
    sample = our_dataset(frames, tmp_path, pipeline)[1]
    sample = sample.replace(pred=InstanceData(boxes=random_boxes(9), scores=torch.rand(5), labels=torch.arange(5)))
    packed = bridge.pack(sample)
    assert packed["data_samples"].token == frames[1].token
    again = bridge.unpack(inputs=packed["inputs"], data_sample=packed["data_samples"])
    assert again.points.equal(sample.points)
    assert again.images.equal(sample.images)
    torch.testing.assert_close(again.cameras.lidar2img, sample.cameras.lidar2img)
    assert again.cameras.image_sizes.equal(sample.cameras.image_sizes)
    torch.testing.assert_close(again.gt.boxes.tensor, sample.gt.boxes.tensor)
    assert again.gt.labels.equal(sample.gt.labels)
    order = sample.pred.scores.argsort(descending=True)
    assert again.pred.scores.equal(sample.pred.scores[order])
    torch.testing.assert_close(again.pred.boxes.tensor, sample.pred.boxes[order].tensor)
    assert again.pred.labels.equal(sample.pred.labels[order])


def test_objects_of_no_class_and_unknown_velocities(bridge: ModuleType) -> None:
    boxes = random_boxes(9).tensor
    boxes[0, 7:] = math.nan
    sample = Sample(gt=InstanceData(boxes=Boxes3D(boxes), labels=torch.tensor([2, -1, 0, 1, 1])))
    truth = bridge.to_data_sample(sample).gt_instances_3d
    assert truth.labels_3d.tolist() == [2, 0, 1, 1]
    assert truth.bboxes_3d.tensor[0, 7:].tolist() == [0, 0]
    torch.testing.assert_close(truth.bboxes_3d.tensor[1:, 7:], boxes[2:, 7:])


IMAGES = dict(type="LoadMultiViewImageFromFiles", num_views=2, num_ref_frames=-1)
MOVE = [
    dict(type="GlobalRotScaleTrans", rot_range=[0.4, 0.4], scale_ratio_range=[1.1, 1.1], translation_std=[1, 1, 0.2]),
    dict(type="RandomFlip3D", sync_2d=False, flip_ratio_bev_horizontal=1.0, flip_ratio_bev_vertical=0.0),
]


@pytest.mark.parametrize("augment", [[], MOVE], ids=["as recorded", "augmented"])
def test_their_images_come_with_cameras(
    bridge: ModuleType, infos: Path, frames: list[Frame], augment: list[dict]
) -> None:
    contents = load(infos)
    for entry in contents["data_list"]:
        entry["images"] = {name: entry["images"][name] for name in CAMERAS}
    path = infos.with_name("two_cameras.pkl")
    dump(contents, path)
    pipeline = [LOAD[0], *augment, IMAGES, dict(type="Pack3DDetInputs", keys=["points", "img"])]
    packed = their_dataset(path, pipeline, modality=dict(use_lidar=True, use_camera=True), test_mode=True)[1]
    found = bridge.unpack(packed["inputs"], packed["data_samples"])
    rng = np.random.default_rng(0)
    sample = LoadPoints(sweeps=0)(LoadImages(names=CAMERAS)(Sample.from_frame(frames[1]), rng), rng)
    assert found.images.equal(sample.images)
    assert found.points[:, :3].equal(sample.points[:, :3]) is not bool(augment)
    projections = [each.cameras.project(each.points[:, :3]) for each in (found, sample)]
    for one, other in zip(*projections, strict=True):
        torch.testing.assert_close(one, other, atol=0.05, rtol=1e-3, equal_nan=True)


def test_images_without_calibration_are_refused(bridge: ModuleType) -> None:
    sample = bridge.to_data_sample(Sample())
    with pytest.raises(ValueError, match="2 images need as many cam2img and lidar2cam in the metainfo"):
        bridge.unpack({"img": torch.zeros(2, 3, 4, 4)}, sample)
    with pytest.raises(ValueError, match=r"img: expected \[C, 3, H, W\]"):
        bridge.unpack({"img": torch.zeros(3, 4, 4)}, sample)
