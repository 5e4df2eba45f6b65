"""The bridge to mmdetection3d, against the real one where it is installed; `docs/bridge_mmdet3d.md` says how."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.fileio import dump, load
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import nn

from sparse3d.config import load_config
from sparse3d.datasets import NuScenesDataset, write_index, write_mmdet3d_infos
from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_schema import DETECTION_CLASSES
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.datasets.transforms import LoadImages, LoadPoints
from sparse3d.registry import DATASETS, MODELS
from sparse3d.structures import Boxes3D, Frame, Sample
from sparse3d.zoo import find_config
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


DETECTOR = dict(
    type="sparse3d.BridgedDetector", config="pillar_tiny", options={"model.head.decoder.score_threshold": 0.0}
)


# -- boxes, info files, samples ---------------------------------------------------------------------------------------


def random_boxes(columns: int) -> Boxes3D:
    sizes = torch.rand(5, 3) + 0.5
    return Boxes3D(torch.cat([torch.randn(5, 3) * 5, sizes, torch.randn(5, columns - 6)], dim=1))


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


# -- ours in theirs ---------------------------------------------------------------------------------------------------


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


def test_a_whole_detector(bridge: ModuleType, batch: list[dict], their_scope: None) -> None:
    from mmdet3d.registry import MODELS as THEIRS
    from mmdet3d.structures import Det3DDataSample

    model = THEIRS.build(DETECTOR)
    ours = model.detector
    samples = [bridge.unpack(each["inputs"], each["data_samples"]) for each in batch]
    expected = ours(**ours.data_preprocessor(samples, True), mode="loss")
    found = model(**model.data_preprocessor(collate(batch), True), mode="loss")
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name])
    sum(found.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())

    model.eval()
    with torch.no_grad():
        results = model.test_step(collate(batch))
        expected = ours.test_step(samples)
    for one, other in zip(results, expected, strict=True):
        assert isinstance(one, Det3DDataSample) and len(one.pred_instances_3d.scores_3d) > 0
        torch.testing.assert_close(one.pred_instances_3d.bboxes_3d.gravity_center, other.pred.boxes.centers)
        assert one.pred_instances_3d.scores_3d.equal(other.pred.scores)
        assert one.pred_instances_3d.labels_3d.equal(other.pred.labels)


CONFIG = """
custom_imports = dict(imports=["sparse3d.bridge_mmdet3d"])
default_scope = "mmdet3d"
model = {detector}
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False), dataset={dataset},
)
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3))
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False), dataset={dataset},
)
test_cfg = dict()
test_evaluator = dict(type="DumpResults", out_file_path="{out}")
default_hooks = dict(checkpoint=None)
"""


@pytest.mark.parametrize("whose", ["theirs", "ours"])
def test_their_runner_trains_and_tests_it(
    bridge: ModuleType, infos: Path, frames: list[Frame], tmp_path: Path, whose: str
) -> None:
    """A config of mmdetection3d, from the file on, with a data set of either."""
    from mmengine.runner import Runner

    theirs = dict(
        type="NuScenesDataset", data_root=str(SYNTH), ann_file=str(infos), data_prefix=PREFIXES,
        pipeline=[LOAD[0], LOAD[2], PACK], metainfo=dict(classes=DETECTION_CLASSES),
    )  # fmt: skip
    write_index(tmp_path / "index.arrow", frames, {}, SYNTH)
    pipeline = [dict(type="LoadPoints", sweeps=0), dict(type="LoadAnnotations", class_names=DETECTION_CLASSES)]
    ours = dict(
        type="sparse3d.PackedDataset",
        dataset=dict(
            type="NuScenesDataset", data_root=str(SYNTH), index=str(tmp_path / "index.arrow"), pipeline=pipeline
        ),
    )
    text = CONFIG.format(detector=DETECTOR, dataset=theirs if whose == "theirs" else ours, out=tmp_path / "found.pkl")
    (tmp_path / "config.py").write_text(text)
    config = Config.fromfile(tmp_path / "config.py")
    config.work_dir = str(tmp_path / "run")
    config.experiment_name = f"bridge_{whose}_{tmp_path.name}"
    runner = Runner.from_cfg(config)
    before = [parameter.clone() for parameter in runner.model.parameters()]
    runner.train()
    assert runner.iter == 2
    assert any(not one.equal(other) for one, other in zip(before, runner.model.parameters(), strict=True))
    runner.test()


def sparse_encoder(bridge: ModuleType) -> tuple[nn.Module, nn.Module]:
    """Their encoder, on spconv, and ours with its weights."""
    pytest.importorskip("spconv")
    from mmdet3d.registry import MODELS as THEIRS

    theirs = THEIRS.build(
        dict(
            type="SparseEncoder", in_channels=5, sparse_shape=[41, 64, 64], output_channels=32, block_type="basicblock",
            encoder_channels=((16, 16, 32), (32, 32, 64), (64, 64, 64), (64, 64)),
            encoder_paddings=((0, 0, 1), (0, 0, 1), (0, 0, [0, 1, 1]), (0, 0)),
        )
    )  # fmt: skip
    ours = THEIRS.build(
        dict(
            type="sparse3d.SparseMiddleEncoder",
            encoder=dict(
                type="SparseEncoder", grid=GRID, in_channels=5, channels=[16, 32, 64, 64], out_channels=32,
                residual_bias=False,
            ),
        )
    )  # fmt: skip
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.1, 0.3)  # few neighbours make small sums
    ours.load_state_dict({f"encoder.{our_name(name)}": value for name, value in theirs.state_dict().items()})
    return theirs.eval(), ours.eval()


def our_name(theirs: str) -> str:
    stage = re.match(r"encoder_layers\.encoder_layer(\d)\.(\d)\.(.+)", theirs)
    if stage is None:
        return theirs.replace("conv_input", "stem").replace("conv_out", "squeeze")
    number, place, rest = int(stage[1]), int(stage[2]), stage[3].replace("bn", "norm")
    if place == 2:  # the strided layer ends a stage there and begins the next one here
        return f"stages.{number}.0.{rest}"
    return f"stages.{number - 1}.{place + (number > 1)}.{rest}"


def random_voxels(batch_size: int = 2, count: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and coordinates in no order, batch item by batch item."""
    cells = torch.stack([torch.randperm(40 * 64 * 64)[:count] for _ in range(batch_size)])
    coords = torch.stack([cells // 4096, cells // 64 % 64, cells % 64], dim=2)
    numbers = torch.arange(batch_size)[:, None, None].expand(batch_size, count, 1)
    return torch.randn(batch_size * count, 5), torch.cat([numbers, coords], dim=2).flatten(0, 1).int()


def test_our_encoder_computes_what_theirs_does(bridge: ModuleType, their_scope: None) -> None:
    theirs, ours = sparse_encoder(bridge)
    features, coors = random_voxels()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # spconv's CPU convolution is wrong with more
    try:
        with torch.no_grad():
            expected = theirs(features, coors, 2)
    finally:
        torch.set_num_threads(threads)
    found = ours(features, coors, coors[-1, 0] + 1)
    assert found.shape == (2, 64, 8, 8)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    found.square().sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())


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


def center_point(middle_encoder: dict, voxel_size: list[float], channels: int) -> dict:
    """mmdetection3d's CenterPoint with another middle encoder."""
    head = center_head()
    train, test = head.pop("train_cfg"), head.pop("test_cfg")
    return ConfigDict(
        type="CenterPoint",
        data_preprocessor=dict(
            type="Det3DDataPreprocessor", voxel=True,
            voxel_layer=dict(
                max_num_points=10, voxel_size=voxel_size, max_voxels=(3000, 3000), point_cloud_range=GRID["point_range"]
            ),
        ),
        pts_voxel_encoder=dict(type="HardSimpleVFE", num_features=5),
        pts_middle_encoder=middle_encoder,
        pts_backbone=dict(type="SECOND", in_channels=channels, out_channels=[32], layer_nums=[1], layer_strides=[1]),
        pts_neck=dict(type="SECONDFPN", in_channels=[32], out_channels=[64], upsample_strides=[1]),
        pts_bbox_head=head,
        train_cfg=dict(pts=train),
        test_cfg=dict(pts=test),
    )  # fmt: skip


def test_their_detector_with_our_encoder(bridge: ModuleType, batch: list[dict], their_scope: None) -> None:
    from mmdet3d.registry import MODELS as THEIRS

    encoder = dict(type="SparseEncoder", grid=GRID, in_channels=5, channels=[8, 8, 16, 16], out_channels=16)
    middle = dict(type="sparse3d.SparseMiddleEncoder", encoder=encoder)
    model = THEIRS.build(center_point(middle, GRID["voxel_size"], 32))
    losses = model(**model.data_preprocessor(collate(batch), True), mode="loss")
    assert set(losses) == {"task0.loss_heatmap", "task0.loss_bbox", "task1.loss_heatmap", "task1.loss_bbox"}
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.pts_middle_encoder.parameters())
    model.eval()
    with torch.no_grad():
        assert all("bboxes_3d" in each.pred_instances_3d for each in model.test_step(collate(batch)))


def test_their_detector_with_our_transformer(bridge: ModuleType, batch: list[dict], their_scope: None) -> None:
    from mmdet3d.registry import MODELS as THEIRS

    grid = dict(point_range=GRID["point_range"], voxel_size=[3.2, 3.2, 8.0])
    stage = load_config(find_config("dsvt_pillar_nuscenes")).model.point_branch.backbone.stages[0]
    stage = dict(stage, channels=5, num_heads=1, ffn_channels=8)
    middle = dict(type="sparse3d.PillarMiddleEncoder", grid=grid, backbone=dict(type="DSVT", grid=grid, stages=[stage]))
    model = THEIRS.build(center_point(middle, grid["voxel_size"], 5))
    losses = model(**model.data_preprocessor(collate(batch), True), mode="loss")
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.pts_middle_encoder.parameters())


# -- theirs in ours ---------------------------------------------------------------------------------------------------


BEV = dict(
    type="MMDet3DBEVBackbone",
    backbone=dict(type="SECOND", in_channels=8, out_channels=[16, 32], layer_nums=[1, 2], layer_strides=[2, 2]),
    neck=dict(type="SECONDFPN", in_channels=[16, 32], out_channels=[8, 8], upsample_strides=[1, 2]),
)


def test_their_backbone_computes_what_ours_does(bridge: ModuleType) -> None:
    theirs = MODELS.build(BEV).eval()
    ours = MODELS.build(
        dict(
            type="SECONDBEVBackbone", in_channels=8, num_blocks=[1, 2], strides=[2, 2], channels=[16, 32],
            up_strides=[1, 2], up_channels=[8, 8],
        )
    ).eval()  # fmt: skip
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    bev = torch.randn(2, 8, 32, 32)
    torch.testing.assert_close(theirs(bev), ours(bev))


def test_a_backbone_of_many_maps_needs_a_neck(bridge: ModuleType) -> None:
    module = MODELS.build(dict(type="MMDet3DBEVBackbone", backbone=BEV["backbone"]))
    with pytest.raises(ValueError, match="2 maps came out, a neck has to make one of them"):
        module(torch.zeros(1, 8, 8, 8))


OURS = """
_base_ = ["{base}"]
custom_imports = dict(imports=["sparse3d.bridge_mmdet3d"])
model = dict(
    point_branch=dict(bev_backbone=dict(_delete_=True, **{bev})),
    head=dict(_delete_=True, type="MMDet3DHead", head={head}),
)
"""


def test_our_config_with_their_backbone_and_head(bridge: ModuleType, frames: list[Frame], tmp_path: Path) -> None:
    head = center_head()
    head.update(in_channels=16)
    for config in (head["bbox_coder"], head["train_cfg"], head["test_cfg"]):
        config.update(voxel_size=[0.8, 0.8], out_size_factor=2)
    head["train_cfg"].update(grid_size=[64, 64, 1], point_cloud_range=[-25.6, -25.6, -5.0, 25.6, 25.6, 3.0])
    head["bbox_coder"].update(pc_range=[-25.6, -25.6], score_threshold=0.0)
    head["test_cfg"].update(score_threshold=0.0)
    bev = dict(BEV, backbone=dict(BEV["backbone"], layer_strides=[2, 1]))
    bev["neck"] = dict(BEV["neck"], upsample_strides=[1, 1])
    path = tmp_path / "config.py"
    path.write_text(OURS.format(base=find_config("pillar_tiny"), bev=bev, head=head))
    config = load_config(path)
    with DefaultScope.overwrite_default_scope("sparse3d"):
        model = MODELS.build(config.model)
    pipeline = [dict(type="LoadPoints", sweeps=0), dict(type="LoadAnnotations", class_names=DETECTION_CLASSES)]
    dataset = our_dataset(frames, tmp_path, pipeline)
    samples = [dataset[0], dataset[1]]
    losses = model(**model.data_preprocessor(samples, True), mode="loss")
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    model.eval()
    with torch.no_grad():
        for found in model.test_step(samples):
            assert len(found.pred.boxes) == len(found.pred.scores) > 0
            assert found.pred.scores.diff().max() <= 0
            assert found.pred.labels.dtype == torch.int64


def test_their_head_finds_the_boxes_that_it_is_shown(bridge: ModuleType) -> None:
    """Targets that the head makes of our ground truth, taken for its output, give our ground truth again."""
    module = MODELS.build(dict(type="MMDet3DHead", head=center_head())).eval()
    boxes = torch.tensor(
        [
            [3.0, -4.0, 0.5, 4.0, 2.0, 1.5, 0.7, 1.0, -2.0],
            [-6.0, 5.0, -1.0, 6.0, 2.5, 3.0, -2.5, 0.0, 0.0],
            [9.0, 8.0, -0.5, 0.8, 0.7, 1.7, 3.0, 0.5, 0.5],
        ]
    )
    labels = torch.tensor([0, 3, 7])
    sample = Sample(gt=InstanceData(boxes=Boxes3D(boxes), labels=labels))
    head = module.head
    targets = zip(*head.get_targets([bridge.to_data_sample(sample).gt_instances_3d]), strict=True)
    head.forward = lambda maps: tuple([shown(*each)] for each in targets)
    (found,) = module.predict(type("Features", (), {"bev": None}), [sample])
    order = found.labels.argsort()
    assert found.labels[order].equal(labels)
    torch.testing.assert_close(found.boxes[order].wrap_yaw().tensor, boxes, atol=1e-4, rtol=1e-4)


def shown(heatmap: torch.Tensor, codes: torch.Tensor, cells: torch.Tensor, mask: torch.Tensor) -> dict:
    """Maps of a task of which every object's cell holds its codes."""
    maps = torch.zeros(1, 10, *heatmap.shape[2:])
    for code, cell in zip(codes[0][mask[0].bool()], cells[0][mask[0].bool()], strict=True):
        maps[0].flatten(1)[:, cell] = code
    reg, height, dim, rot, vel = maps.split([2, 1, 3, 2, 2], dim=1)
    return dict(heatmap=torch.where(heatmap == 1, 10.0, -10.0), reg=reg, height=height, dim=dim, rot=rot, vel=vel)


def test_names_mean_what_their_scope_says(bridge: ModuleType, their_scope: None) -> None:
    """In a config of theirs, `SparseEncoder` is theirs, and inside of a component of ours it is ours."""
    from mmdet3d.models.middle_encoders import SparseEncoder as Theirs
    from mmdet3d.registry import MODELS as THEIRS

    from sparse3d.models.points.sparse_encoder import SparseEncoder as Ours

    assert THEIRS.get("SparseEncoder") is Theirs and THEIRS.get("sparse3d.SparseEncoder") is Ours
    encoder = dict(type="SparseEncoder", grid=GRID, in_channels=5)
    assert type(THEIRS.build(dict(type="sparse3d.SparseMiddleEncoder", encoder=encoder)).encoder) is Ours
    assert DATASETS.get("mmdet3d.NuScenesDataset").__module__.startswith("mmdet3d.")
