"""mmdetection3d in configs of sparse3d."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from sparse3d.config import load_config
from sparse3d.datasets.nuscenes_schema import DETECTION_CLASSES
from sparse3d.registry import MODELS
from sparse3d.structures import Boxes3D, Frame, Sample
from sparse3d.zoo import find_config

from .conftest import center_head, our_dataset

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
