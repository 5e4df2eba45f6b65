from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sparse3d.decoding.center import Candidates
from sparse3d.models import CenterHead, Features
from sparse3d.structures import Boxes3D, InstanceData, Sample

from .build import CLASS_NAMES, GRID, head_config, random_objects

FAR = 10.0  # a logit that is as good as certain


def build_head(**changes: object) -> CenterHead:
    config = head_config(**changes)
    config.pop("type")
    return CenterHead(**config)


def sample_of(boxes: Tensor, labels: list[int]) -> Sample:
    sample = Sample()
    sample.gt = InstanceData(boxes=Boxes3D(boxes), labels=torch.tensor(labels, dtype=torch.long))
    return sample


def perfect_maps(head: CenterHead, samples: list[Sample]) -> list[dict[str, Tensor]]:
    """Maps that say exactly what the targets want, and that every box is found with IoU 1."""
    height, width = GRID.out_shape
    maps = []
    for task, target in zip(head.tasks, head.assign(samples), strict=True):
        own = {"hm": torch.where(target.heatmap == 1, FAR, -FAR)}
        for name, branch in task.items():
            if name != "hm":
                cells = torch.zeros(len(samples) * height * width, branch[-1].out_channels)
                cells[target.cells] = target.codes[name] if name != "iou" else torch.ones(len(target.cells), 1)
                own[name] = cells.view(len(samples), height, width, -1).permute(0, 3, 1, 2)
        maps.append(own)
    return maps


def spread_objects() -> Sample:
    """One object a class, far enough apart that none suppresses another."""
    generator = torch.Generator().manual_seed(0)
    objects = random_objects(len(CLASS_NAMES), generator).boxes.tensor
    objects[:, 0] = torch.tensor([-9.0, -3.0, 3.0, 9.0])
    return sample_of(objects, [2, 0, 3, 1])


@pytest.mark.parametrize("extra", [["vel", "iou"], ["vel", "axis"], []], ids=str)
def test_what_is_encoded_is_decoded(extra: list[str]) -> None:
    head = build_head(extra_branches=extra)
    samples = [spread_objects(), sample_of(torch.zeros(0, 9), [])]
    first, second = head.predict_from_maps(perfect_maps(head, samples))
    assert len(second.scores) == 0
    order, wanted = first.labels.argsort(), samples[0].gt.labels.argsort()
    assert first.labels[order].tolist() == [0, 1, 2, 3]
    columns = 9 if "vel" in extra else 7
    expected = samples[0].gt.boxes[wanted].wrap_yaw().tensor[:, :columns]
    torch.testing.assert_close(first.boxes[order].wrap_yaw().tensor, expected, rtol=1e-4, atol=1e-4)


def test_perfect_maps_cost_next_to_nothing() -> None:
    head = build_head()
    samples = [spread_objects()]
    maps = perfect_maps(head, samples)
    losses = head.loss_from_maps(maps, samples)
    assert set(losses) == {"loss_heatmap", "loss_box", "loss_iou", "loss_diou"}
    assert all(float(value) < 1e-2 for value in losses.values())


def test_axis_gives_the_direction_and_rot_the_front() -> None:
    head = build_head(extra_branches=["axis"])
    samples = [spread_objects()]
    maps = perfect_maps(head, samples)
    for own in maps:
        cos, sin = own["rot"].unbind(1)
        own["rot"] = 0.1 * torch.stack([cos - sin, sin + cos], dim=1)  # faint, and 45 degrees off
    found = head.predict_from_maps(maps)[0]
    order, wanted = found.labels.argsort(), samples[0].gt.labels.argsort()
    turn = found.boxes.yaws[order] - samples[0].gt.boxes.yaws[wanted]
    torch.testing.assert_close(turn.cos(), torch.ones(4), rtol=1e-4, atol=1e-4)


def random_maps(head: CenterHead, batch_size: int = 2) -> list[dict[str, Tensor]]:
    with torch.no_grad():
        return head.eval()(Features(bev=4 * torch.randn(batch_size, 24, *GRID.out_shape)))


def test_detections_come_in_descending_order_and_within_limits() -> None:
    head = build_head(decoder=dict(top_k=60, nms_post=7, max_per_sample=12, score_threshold=0.05))
    for found in head.predict_from_maps(random_maps(head)):
        assert len(found.scores) == 12
        assert (found.scores.diff() <= 0).all()
        assert int(torch.bincount(found.labels).max()) <= 7


def two_cars(yaw: float) -> Sample:
    """Two long boxes along `yaw`, one behind the other with a gap: they do not overlap."""
    rows = [[d * math.cos(yaw), d * math.sin(yaw), 0, 4, 1.6, 1.5, yaw, 0, 0] for d in (-2.4, 2.4)]
    return sample_of(torch.tensor(rows), [0, 0])


def test_published_suppression_turns_boxes_by_a_quarter() -> None:
    """Side by side, boxes that do not touch collide once each is turned about its own centre."""
    rows = torch.tensor([[0, d, 0, 4, 1.6, 1.5, 0, 0, 0] for d in (-1.0, 1.0)])
    for quarter_turn, count in ((True, 1), (False, 2)):
        head = build_head(decoder=dict(nms_quarter_turn=quarter_turn, nms_threshold=0.3))
        samples = [sample_of(rows, [0, 0])]
        assert len(head.predict_from_maps(perfect_maps(head, samples))[0].scores) == count
    head = build_head(decoder=dict(nms_quarter_turn=True))
    samples = [two_cars(0.4)]
    assert len(head.predict_from_maps(perfect_maps(head, samples))[0].scores) == 2


def test_classes_of_a_group_suppress_each_other_only_in_scope_task() -> None:
    rows = torch.tensor([[0, d, 0, 4, 1.6, 1.5, 0, 0, 0] for d in (-0.4, 0.4)])
    samples = [sample_of(rows, [1, 2])]  # truck and bus, one group
    for scope, count in (("class", 2), ("task", 1)):
        head = build_head(decoder=dict(nms_scope=scope, nms_quarter_turn=False))
        assert len(head.predict_from_maps(perfect_maps(head, samples))[0].scores) == count


def test_a_threshold_for_each_class() -> None:
    rows = torch.tensor([[x, d, 0, 4, 1.6, 1.5, 0, 0, 0] for x in (-6, 6) for d in (-0.4, 0.4)])
    samples = [sample_of(rows, [0, 0, 3, 3])]
    head = build_head(decoder=dict(nms_threshold=[0.1, 0.1, 0.1, 0.9], nms_quarter_turn=False))
    found = head.predict_from_maps(perfect_maps(head, samples))[0]
    assert sorted(found.labels.tolist()) == [0, 3, 3]


def test_iou_rectifies_scores() -> None:
    head = build_head(decoder=dict(iou_exponents=[0.5, 0.5, 0.5, 1.0]))
    samples = [sample_of(torch.tensor([[d, 0, 0, 2, 1, 1, 0, 0, 0] for d in (-5.0, 5.0)]), [0, 3])]
    maps = perfect_maps(head, samples)
    for own in maps:
        own["iou"] = torch.full_like(own["iou"], -0.28)  # (1 - 0.28) / 2 = 0.36
    found = head.predict_from_maps(maps)[0]
    certain = 1 / (1 + math.exp(-FAR))
    expected = {0: (certain * 0.36) ** 0.5, 3: 0.36}
    for label, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True):
        assert score == pytest.approx(expected[label], rel=1e-4)


def test_unknown_velocity_leaves_no_trace() -> None:
    head = build_head()
    sample = spread_objects()
    sample.gt.boxes.tensor[:, 7:] = math.nan
    maps = [{name: each.requires_grad_() for name, each in own.items()} for own in random_maps(head, 1)]
    losses = head.loss_from_maps(maps, [sample])
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(not own["vel"].grad.any() for own in maps)
    assert all(torch.isfinite(each.grad).all() for own in maps for each in own.values())


def test_objects_of_no_class_are_no_targets() -> None:
    head = build_head()
    sample = spread_objects()
    sample.gt.labels[:] = -1
    assert all(len(target.cells) == 0 for target in head.assign([sample]))


def test_an_untrained_heat_map_says_a_tenth() -> None:
    maps = build_head().eval()(Features(bev=torch.zeros(1, 24, *GRID.out_shape)))
    assert all(float(own["hm"].detach().sigmoid().mean()) == pytest.approx(0.1, abs=0.01) for own in maps)


def test_single_convolutions_run_as_one_and_equal_themselves() -> None:
    head = build_head(num_convs=1, num_heatmap_convs=1).eval()
    bev = torch.randn(2, 24, *GRID.out_shape)
    shared = head.shared(bev)
    for task, own in zip(head.tasks, head(Features(bev=bev)), strict=True):
        assert set(own) == set(task)
        for name, branch in task.items():
            torch.testing.assert_close(own[name], branch(shared), rtol=1e-4, atol=1e-5)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="exactly once"):
        build_head(tasks=[["car", "truck"], ["bus"]])
    with pytest.raises(ValueError, match=r"extra_branches: unknown \['speed'\]"):
        build_head(extra_branches=["speed"])
    with pytest.raises(ValueError, match="need 10 numbers, got 8"):
        build_head(code_weights=[1.0] * 8)
    with pytest.raises(ValueError, match="smooth_codes: expected positive bounds"):
        build_head(smooth_codes=dict(iou=1.0))
    with pytest.raises(ValueError, match="nms_scope"):
        build_head(decoder=dict(nms_scope="all"))
    with pytest.raises(ValueError, match=r"features.bev: expected .*24, 32.*, got \[1, 24, 8, 8\]"):
        build_head()(Features(bev=torch.zeros(1, 24, 8, 8)))
    with pytest.raises(ValueError, match=r"samples \[1\] of the batch have no 'gt'"):
        build_head().assign([spread_objects(), Sample()])
    sample = spread_objects()
    sample.gt.labels[0] = 4
    with pytest.raises(ValueError, match="less than 4 classes, got 4"):
        build_head().assign([sample])


def test_suppression_of_what_is_near() -> None:
    """Of two boxes 1 m apart, which do not overlap, the worse one goes where centres count."""
    head = build_head(decoder=dict(nms_scope="task", nms_measure="squared_distance", nms_threshold=[1.0, 1.0, 1.0]))
    boxes = torch.tensor([[0.0, 0, 0, 0.2, 0.2, 1, 0], [0, 1, 0, 0.2, 0.2, 1, 0], [0, 2.5, 0, 0.2, 0.2, 1, 0]])
    zeros = torch.zeros(3, dtype=torch.long)
    candidates = Candidates(boxes, torch.tensor([0.5, 0.9, 0.4]), zeros, zeros, zeros)
    [found] = head.decoder.select(candidates, 1)
    assert found.boxes.centers[:, 1].tolist() == [1.0, 2.5]
    with pytest.raises(ValueError, match="nms_measure must be one of"):
        build_head(decoder=dict(nms_measure="overlap"))
