"""sparse3d in configs of mmdetection3d."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from sparse3d.checkpoints import convert_names, load_converted
from sparse3d.config import load_config
from sparse3d.datasets import write_index
from sparse3d.datasets.nuscenes_schema import DETECTION_CLASSES
from sparse3d.registry import DATASETS, MODELS
from sparse3d.structures import Frame
from sparse3d.zoo import find_config

from .conftest import GRID, LOAD, PACK, PREFIXES, SYNTH, center_head, collate, our_dataset

DETECTOR = dict(
    type="sparse3d.BridgedDetector", config="pillar_tiny", options={"model.head.decoder.score_threshold": 0.0}
)
IMAGES = dict(
    type="sparse3d.BridgedDetector", config="sparsebev_r18_demo",
    options={
        "image_size": [64, 96], "num_queries": 12, "model.head.num_layers": 1,
        "model.head.decoder.score_threshold": 0.0,
        "model.image_branch.backbone.base_channels": 8, "model.image_branch.neck.in_channels": [8, 16, 32, 64],
    },
)  # fmt: skip


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
        maps = model(**model.data_preprocessor(collate(batch), False), mode="tensor")
        features = model.extract_feat(*model.data_preprocessor(collate(batch), False).values())
        torch.testing.assert_close(ours.head(features)[0]["hm"], maps[0]["hm"])
        results = model.test_step(collate(batch))
        expected = ours.test_step(samples)
    for one, other in zip(results, expected, strict=True):
        assert isinstance(one, Det3DDataSample) and len(one.pred_instances_3d.scores_3d) > 0
        torch.testing.assert_close(one.pred_instances_3d.bboxes_3d.gravity_center, other.pred.boxes.centers)
        assert one.pred_instances_3d.scores_3d.equal(other.pred.scores)
        assert one.pred_instances_3d.labels_3d.equal(other.pred.labels)


def test_a_detector_of_several_frames_is_refused(bridge: ModuleType) -> None:
    options = {"past": [0.5], "num_frames": 2}
    with pytest.raises(ValueError, match=r"sparsebev_r18_demo looks \[0\.5\] s back, and only one moment is bridged"):
        MODELS.build(dict(type="BridgedDetector", config=IMAGES["config"], options=options))


def test_a_detector_of_images(bridge: ModuleType, frames: list[Frame], tmp_path: Path, their_scope: None) -> None:
    """Pixels and calibration arrive as our own pipeline makes them."""
    model = MODELS.build(IMAGES).eval()
    with DefaultScope.overwrite_default_scope("sparse3d"):
        pipeline = load_config(find_config(IMAGES["config"]), IMAGES["options"]).test_pipeline
        sample = our_dataset(frames, tmp_path, pipeline)[1]
    packed = bridge.pack(sample)
    batch = {"inputs": {"img": [packed["inputs"]["img"]]}, "data_samples": [packed["data_samples"]]}
    with torch.no_grad():
        (found,), (expected,) = model.test_step(batch), model.detector.test_step([sample])
    found, expected = found.pred_instances_3d, expected.pred
    assert found.labels_3d.equal(expected.labels) and len(expected.labels) > 0
    torch.testing.assert_close(found.scores_3d, expected.scores)
    torch.testing.assert_close(found.bboxes_3d.gravity_center, expected.boxes.centers, atol=1e-4, rtol=1e-5)


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
    load_converted(ours.encoder, convert_names(theirs.state_dict(), bridge.ENCODER_NAMES))
    return theirs.eval(), ours.eval()


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


def test_names_mean_what_their_scope_says(bridge: ModuleType, their_scope: None) -> None:
    """In a config of theirs, `SparseEncoder` is theirs, and inside of a component of ours it is ours."""
    from mmdet3d.models.middle_encoders import SparseEncoder as Theirs
    from mmdet3d.registry import MODELS as THEIRS

    from sparse3d.models.points.sparse_encoder import SparseEncoder as Ours

    assert THEIRS.get("SparseEncoder") is Theirs and THEIRS.get("sparse3d.SparseEncoder") is Ours
    encoder = dict(type="SparseEncoder", grid=GRID, in_channels=5)
    assert type(THEIRS.build(dict(type="sparse3d.SparseMiddleEncoder", encoder=encoder)).encoder) is Ours
    assert DATASETS.get("mmdet3d.NuScenesDataset").__module__.startswith("mmdet3d.")
