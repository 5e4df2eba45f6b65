"""2D detectors: their parts by hand, what is legal, and that both learn to find squares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sparse3d.decoding.box_deltas import BoxDeltas
from sparse3d.decoding.image_boxes import DetectionFilter, ImageBoxes, ImageDetections, join
from sparse3d.decoding.proposals import make_anchors
from sparse3d.encoding.box_levels import box_levels
from sparse3d.models.images.box_pooling import pool_boxes
from sparse3d.models.images.detector_2d import Detector2D
from sparse3d.models.images.detector_branch import with_missed
from sparse3d.models.targets.iou_targets import BACKGROUND, NOTHING, IoUAssigner, draw
from sparse3d.registry import MODELS
from sparse3d_ops import iou_2d

from .mv2d import CHANNELS, FASTER_RCNN, SPARSE_RCNN

SIZE = (64, 96)
DETECTORS = {"FasterRCNN": FASTER_RCNN, "SparseRCNN": SPARSE_RCNN}


def build(name: str, **changes: Any) -> Detector2D:
    return MODELS.build({**DETECTORS[name], **changes})


def maps_of(num_images: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(SIZE[0] // 2 ** (n + 2), SIZE[1] // 2 ** (n + 2)) for n in range(5)]
    return [torch.randn(num_images, CHANNELS, *shape, generator=generator) for shape in shapes]


def sizes_of(num_images: int) -> Tensor:
    return torch.tensor([SIZE] * num_images)


def objects_of(*counts: int, seed: int = 0) -> ImageBoxes:
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)
    low = torch.rand(total, 2, generator=generator) * 40
    boxes = torch.cat([low, low + 8 + 12 * torch.rand(total, 2, generator=generator)], dim=1)
    images = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.int64))
    return ImageBoxes(boxes, torch.randint(4, (total,), generator=generator), images, len(counts))


# -- parts -------------------------------------------------------------------------------------------------------------


def test_deltas_there_and_back() -> None:
    boxes, targets = (objects_of(20, seed=seed).boxes for seed in (0, 1))
    coder = BoxDeltas(stds=(0.1, 0.1, 0.2, 0.2))
    torch.testing.assert_close(coder.decode(boxes, coder.encode(boxes, targets)), targets)
    box = torch.tensor([[10.0, 10.0, 30.0, 20.0]])
    deltas = torch.tensor([[0.5, -1.0, 0.0, 0.0]])
    assert BoxDeltas().decode(box, deltas).tolist() == [[20, 0, 40, 10]]
    cut = BoxDeltas().decode(box, deltas * 2, torch.tensor([[15, 35]]))
    assert cut.tolist() == [[30, 0, 35, 0]]
    huge = BoxDeltas(growth=(0.5, 2.0)).decode(box, torch.tensor([[0.0, 0.0, 9.0, -9.0]]))
    torch.testing.assert_close(huge, torch.tensor([[0.0, 12.5, 40.0, 17.5]]))


def test_anchors_by_hand() -> None:
    anchors = make_anchors((2, 3), 4, torch.device("cpu"))
    assert anchors.shape == (18, 4)
    middles = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert middles[3 * 4].tolist() == [4, 4] and middles[2].tolist() == [0, 0]  # pixel (1, 1), and still the first
    sides = anchors[:, 2:] - anchors[:, :2]
    torch.testing.assert_close(sides.prod(dim=1), torch.full((18,), 32.0**2))
    torch.testing.assert_close((sides[:3, 1] / sides[:3, 0]), torch.tensor([0.5, 1.0, 2.0]))


def test_boxes_are_pooled_from_their_level() -> None:
    sides = torch.tensor([10.0, 111.0, 113.0, 230.0, 460.0, 9000.0])
    boxes = torch.stack([torch.zeros(6), torch.zeros(6), sides, sides], dim=1)
    assert box_levels(boxes, 4).tolist() == [0, 0, 1, 2, 3, 3]
    maps = [torch.full((2, 1, 2**n, 2**n), float(n)) for n in (6, 5, 4, 3)]
    pooled = pool_boxes(maps, boxes[[2, 0, 3]], torch.tensor([0, 1, 0]), 2)
    assert pooled[:, 0, 0, 0].tolist() == [5, 6, 4]
    assert pool_boxes(maps, boxes[:0], torch.zeros(0).long(), 2).shape == (0, 1, 2, 2)


def test_assignment_by_hand() -> None:
    objects = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    boxes = torch.tensor(
        [[0.0, 0, 10, 9], [0, 0, 10, 5], [0, 0, 10, 2], [20, 20, 30, 24], [20, 20, 30, 24], [50, 50, 60, 60]]
    )
    found = IoUAssigner(positive=0.7, negative=0.3, at_least=0.3)(boxes, objects)
    assert found.tolist() == [0, NOTHING, BACKGROUND, 1, 1, BACKGROUND]
    assert IoUAssigner(0.7, 0.3, 0.5)(boxes, objects).tolist()[3:] == [NOTHING, NOTHING, BACKGROUND]
    assert IoUAssigner(0.7, 0.3, 0.3)(boxes, objects[:0]).tolist() == [BACKGROUND] * 6


def test_draws_keep_the_shares() -> None:
    found = torch.tensor([0] * 50 + [BACKGROUND] * 30 + [NOTHING] * 20)
    positive, negative = draw(found, 40, 0.25)
    assert len(positive) == 10 and len(negative) == 30
    assert (found[positive] == 0).all() and (found[negative] == BACKGROUND).all()
    few = draw(found[48:], 40, 0.25)
    assert few[0].tolist() == [0, 1] and len(few[1]) == 30


def test_filter() -> None:
    boxes = torch.tensor([[0.0, 0, 20, 20], [0, 0, 20, 19], [40, 0, 60, 20], [0, 0, 5, 20]])
    scores = torch.tensor([[0.9, 0.01], [0.01, 0.8], [0.2, 0.3], [0.5, 0.5]])
    by_class = boxes[:, None].expand(-1, 2, -1)
    images = torch.zeros(4, dtype=torch.int64)
    found = DetectionFilter()(by_class, scores, images, 2, features=boxes)
    assert found.boxes.tolist() == boxes[[0, 2]].tolist() and found.labels.tolist() == [0, 1]
    assert torch.equal(found.features, boxes[[0, 2]]) and found.num_images == 2
    assert len(DetectionFilter(max_boxes=1)(by_class, scores, images, 1).boxes) == 1
    assert len(DetectionFilter(nms_threshold=None)(by_class, scores, images, 1).boxes) == 4
    assert DetectionFilter(score_threshold=1.0)(by_class, scores, images, 1).boxes.shape == (0, 4)


def found_in(images: list[int], num_images: int) -> ImageDetections:
    numbers = torch.tensor(images)
    scores = torch.arange(len(images)) / 10
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(len(images), 1)
    return ImageDetections(boxes, torch.zeros_like(numbers), numbers, num_images, scores)


def test_frames_are_joined_sample_by_sample() -> None:
    both = join(found_in([0, 1, 1, 3], 4), found_in([0, 2], 4), batch_size=2)
    assert both.images.tolist() == [0, 1, 1, 2, 5, 6] and both.num_images == 8
    torch.testing.assert_close(both.scores, torch.tensor([0.0, 0.1, 0.2, 0.0, 0.3, 0.1]))


def test_missed_objects_are_added() -> None:
    detections = found_in([0, 1], 2)
    boxes = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 3], [30, 0, 39, 9], [30, 0, 37, 30]])
    objects = ImageBoxes(boxes, torch.tensor([1, 2, 3, 3]), torch.tensor([0, 0, 1, 1]), 2)
    complete = with_missed(detections, objects)
    assert complete.images.tolist() == [0, 1, 1] and complete.labels.tolist() == [0, 0, 3]  # small ones are not
    assert complete.scores[-1] == 1 and complete.boxes[-1].tolist() == boxes[2].tolist()


# -- detectors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(3, 0), (0, 0), (40, 1)], ids=str)
@pytest.mark.parametrize("name", DETECTORS)
def test_any_number_of_objects(name: str, counts: tuple[int, ...]) -> None:
    model = build(name)
    _, losses = model(maps_of(2), sizes_of(2), objects_of(*counts))
    assert losses and all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", DETECTORS)
def test_detections_keep_the_rules(name: str) -> None:
    model = build(name).eval()
    model.filter = DetectionFilter(score_threshold=0.0, nms_threshold=0.6, max_boxes=4, min_side=3.0)
    found, losses = model(maps_of(3), sizes_of(3))
    assert not losses and found.num_images == 3 and not found.boxes.requires_grad
    assert (found.images.diff() >= 0).all() and found.labels.max() < 4
    for number in range(3):
        own = found.of_image(number)
        assert 1 <= len(own) <= 4 and (found.scores[own].diff() <= 0).all()
        assert (iou_2d(found.boxes[own], found.boxes[own]).triu(1) <= 0.6).all()
    assert ((found.boxes[:, 2:] - found.boxes[:, :2]) >= 3).all()
    alone, _ = model([level[1:2] for level in maps_of(3)], sizes_of(1))
    own = found.of_image(1)
    torch.testing.assert_close(alone.boxes, found.boxes[own], atol=1e-3, rtol=1e-3)
    assert (found.features is not None) == (name == "SparseRCNN")


def test_sparse_rcnn_with_softmax_knows_background() -> None:
    model = build("SparseRCNN", scoring="softmax")
    found, losses = model(maps_of(1), sizes_of(1), objects_of(2))
    assert model.stages[0].classes.out_features == 5 and all(value.isfinite() for value in losses.values())
    assert (found.labels < 4).all()
    with pytest.raises(ValueError, match="scoring must be one of"):
        build("SparseRCNN", scoring="logistic")


def test_learned_boxes_begin_as_the_whole_image() -> None:
    boxes = build("SparseRCNN").start_boxes(torch.tensor([[30, 50]]))
    assert boxes[0, 0].tolist() == [0, 0, 50, 30]


def test_predictions_that_are_not_finite_are_not_hidden() -> None:
    for name in DETECTORS:
        maps = maps_of(1)
        maps[0].fill_(torch.nan)
        with pytest.raises(ValueError, match=r"NaN|finite"):
            build(name)(maps, sizes_of(1), objects_of(1))


@pytest.mark.parametrize("name", DETECTORS)
def test_it_learns_to_find_a_square(name: str) -> None:
    """The square shines in all maps; after training the best box is the square, with its class."""
    torch.manual_seed(0)
    model = build(name).train()
    box = torch.tensor([[24.0, 16.0, 56.0, 48.0]])
    maps = maps_of(1)
    for number, level in enumerate(maps):
        level.mul_(0.1)
        x1, y1, x2, y2 = (box[0] / 2 ** (number + 2)).round().int().tolist()
        level[0, :8, y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] += 2
    objects = ImageBoxes(box, torch.tensor([2]), torch.tensor([0]), 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(80):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 80)
        _, losses = model(maps, sizes_of(1), objects)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    model.filter = DetectionFilter(score_threshold=0.1, max_boxes=1)
    found, _ = model.eval()(maps, sizes_of(1))
    assert found.labels.tolist() == [2]
    assert float(iou_2d(found.boxes, box)) > 0.7
