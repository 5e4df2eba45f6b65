"""The keypoint head: targets and decoding undo each other, losses, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.decoding.center import CenterDecoder
from sparse3d.decoding.keypoints import CellValues, decode_people
from sparse3d.models import Features, KeypointHead
from sparse3d.models.keypoint_losses import bone_loss, keypoint_l1_loss, visibility_loss
from sparse3d.models.targets.keypoint_targets import CODES, KeypointTargetAssigner, KeypointTargets, PeopleTruth
from sparse3d.registry import MODELS
from sparse3d.structures import Boxes3D, InstanceData, Sample
from sparse3d.structures.skeleton import BONES, MISSING, NUM_KEYPOINTS
from sparse3d_ops.sparse import SparseTensor

from .people import CENTER_RANGE, GRID, detector_config, head_config, people, sample_of

HEIGHT, WIDTH = GRID.out_shape
WIDTHS = {"center": 2, "center_z": 1, "dim": 3, "rot": 2}


def occupied(counts: list[int], seed: int = 0) -> torch.Tensor:
    """Cells ``(b * Y + y) * X + x`` of which each sample has so many, ascending."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        torch.randperm(HEIGHT * WIDTH, generator=generator)[:count].sort().values + sample * HEIGHT * WIDTH
        for sample, count in enumerate(counts)
    ]
    return torch.cat(parts)


def sparse_map(cells: torch.Tensor, batch_size: int, channels: int = 32) -> SparseTensor:
    indices = torch.stack([cells // (HEIGHT * WIDTH), cells // WIDTH % HEIGHT, cells % WIDTH], dim=1).int()
    return SparseTensor(torch.randn(len(cells), channels), indices, GRID.out_shape, batch_size)


def truth_of(*several: InstanceData) -> PeopleTruth:
    return PeopleTruth.gather([Sample().replace(gt=gt) for gt in several])


def as_values(targets: KeypointTargets, num_cells: int) -> dict[str, torch.Tensor]:
    """Values that say exactly what the targets do."""
    values = {name: torch.zeros(num_cells, width) for name, width in WIDTHS.items()}
    for name, part in zip(CODES, targets.box_codes.split([WIDTHS[name] for name in CODES], dim=1), strict=True):
        values[name][targets.rows] = part
    values["keypoints"] = torch.zeros(num_cells, NUM_KEYPOINTS, 3).index_copy(0, targets.rows, targets.keypoints)
    values["visibility"] = torch.zeros(num_cells, NUM_KEYPOINTS).index_copy(0, targets.rows, targets.visibility)
    values["hm"] = torch.where(targets.heatmap == 1, 9.0, -9.0)
    values["iou"] = torch.ones(num_cells, 1)
    return values


# -- targets and decoding --------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), counts=st.lists(st.integers(60, 120), min_size=1, max_size=3))
def test_decoding_gives_back_the_people_that_targets_were_made_of(seed: int, counts: list[int]) -> None:
    found = [people(4, seed + number) for number in range(len(counts))]
    cells = occupied(counts, seed)
    targets = KeypointTargetAssigner(GRID)(truth_of(*found), cells, len(counts))
    if len(targets.rows.unique()) < len(targets.rows):
        return  # two people have one cell: only one of them can be regressed
    values = CellValues(as_values(targets, len(cells)), cells, len(counts))
    for own, gt in zip(decode_people(values, GRID, CenterDecoder(CENTER_RANGE, top_k=20)), found, strict=True):
        assert len(own) == len(gt.boxes)
        order = own.boxes.centers[:, 0].argsort()
        expected = gt.boxes.centers[:, 0].argsort()
        torch.testing.assert_close(own.boxes.tensor[order], gt.boxes.tensor[expected], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(own.keypoints[order], gt.keypoints[expected], atol=1e-4, rtol=1e-4)
        assert torch.equal(own.keypoint_visibility[order].long(), gt.keypoint_visibility[expected])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), counts=st.lists(st.integers(0, 60), min_size=1, max_size=3))
def test_heat_and_cells_are_those_of_the_definition(seed: int, counts: list[int]) -> None:
    """One person and one cell at a time."""
    truth = truth_of(*(people(3, seed + number) for number in range(len(counts))))
    cells = occupied(counts, seed)
    assigner = KeypointTargetAssigner(GRID)
    targets = assigner(truth, cells, len(counts))
    places = [(int(cell) // (HEIGHT * WIDTH), int(cell) % WIDTH, int(cell) // WIDTH % HEIGHT) for cell in cells]
    heat, rows = [0.0] * len(cells), []
    for person in range(len(truth.batch_index)):
        own = [row for row, place in enumerate(places) if place[0] == truth.batch_index[person]]
        if not own:
            continue
        x, y = ((truth.boxes.centers[person, :2] + torch.tensor([12.8, 6.4])) / 0.2 / 8).tolist()
        distance = {row: (places[row][1] - x) ** 2 + (places[row][2] - y) ** 2 for row in own}
        best = min(own, key=distance.__getitem__)
        rows.append(best)
        sigma = (2 * 2 + 1) / 6  # people are small: the smallest radius
        for row in own:
            to_cell = sum((a - b) ** 2 for a, b in zip(places[row][1:], places[best][1:], strict=True))
            value = torch.exp(torch.tensor(-min(distance[row], to_cell) / (2 * sigma**2)))
            heat[row] = max(heat[row], float(value))
    torch.testing.assert_close(targets.heatmap[:, 0], torch.tensor(heat), atol=1e-5, rtol=1e-4)
    assert targets.rows.tolist() == rows
    assert (targets.heatmap[targets.rows] == 1).all()


def test_people_beyond_the_number_and_without_a_size_are_left_out() -> None:
    gt = people(5, 0)
    gt.boxes.tensor[1, 3] = 0
    cells = occupied([100])
    assert len(KeypointTargetAssigner(GRID)(truth_of(gt), cells, 1).rows) == 4
    assert len(KeypointTargetAssigner(GRID, max_objects=3)(truth_of(gt), cells, 1).rows) == 2


def test_missing_keypoints_can_be_left_free() -> None:
    gt = people(4, 0)
    cells = occupied([100])
    learnt, free = (KeypointTargetAssigner(GRID, learn_missing=each)(truth_of(gt), cells, 1) for each in (True, False))
    missing = gt.keypoint_visibility == MISSING
    assert missing.any() and not missing.all()
    assert torch.equal(free.keypoints.isnan().any(dim=-1), missing)
    torch.testing.assert_close(free.keypoints[~missing], learnt.keypoints[~missing])
    prediction = torch.randn_like(learnt.keypoints, requires_grad=True)
    loss = keypoint_l1_loss(prediction, free.keypoints) + bone_loss(prediction, free.keypoints, 4)
    loss.backward()
    assert loss.isfinite() and torch.equal(prediction.grad.abs().sum(dim=-1) > 0, ~missing)


def test_only_the_hottest_cells_of_each_sample_are_decoded() -> None:
    cells = occupied([30, 5])
    targets = KeypointTargetAssigner(GRID)(truth_of(people(2, 0), people(2, 1)), cells, 2)
    values = as_values(targets, len(cells))
    values["hm"] = torch.arange(len(cells))[:, None] * 0.1
    values["center"] = torch.rand(len(cells), 2)
    decoder = CenterDecoder(CENTER_RANGE, top_k=8, nms_threshold=1.0, score_threshold=-1.0)
    found = decode_people(CellValues(values, cells, 2), GRID, decoder)
    assert [len(each) for each in found] == [8, 5]
    assert found[0].scores.tolist() == sorted(found[0].scores.tolist(), reverse=True)


# -- losses ----------------------------------------------------------------------------------------------------------


def test_bones_compare_mean_lengths_over_all_slots() -> None:
    target = torch.rand(3, NUM_KEYPOINTS, 3)
    start, end = torch.tensor(BONES).T
    prediction = 1.5 * target
    lengths = (target[:, start] - target[:, end]).norm(dim=-1)
    expected = 0.5 * lengths.sum(dim=0).mean() / 20
    torch.testing.assert_close(bone_loss(prediction, target, 20), expected)
    swapped = prediction[[1, 2, 0]]  # lengths of single people do not matter
    torch.testing.assert_close(bone_loss(swapped, target, 20), expected)


def test_wrists_and_ankles_weigh_three_times_as_much() -> None:
    target = torch.zeros(2, NUM_KEYPOINTS, 3)
    losses = []
    for keypoint in range(NUM_KEYPOINTS):
        prediction = target.clone()
        prediction[0, keypoint] = torch.tensor([0.3, 0.0, 0.6])
        losses.append(float(keypoint_l1_loss(prediction, target)))
    assert losses == pytest.approx([0.15 * (3 if index in (5, 6, 11, 12) else 1) for index in range(NUM_KEYPOINTS)])
    assert float(visibility_loss(target[..., 0] + 0.5, target[..., 0])) == pytest.approx(0.5)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(("num_people", "counts"), [(0, [40, 3]), (3, [40, 0]), (3, [0, 0])])
def test_batches_without_people_or_cells_have_losses(num_people: int, counts: list[int], separate: bool) -> None:
    head = MODELS.build(head_config(separate_branches=separate))
    x = sparse_map(occupied(counts), 2)
    samples = [Sample().replace(gt=people(num_people, seed)) for seed in range(2)]
    losses = head.loss(Features(sparse_bev=x), samples)
    total = sum(losses.values())
    total.backward()
    assert total.isfinite() and len(losses) == 7
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters() if parameter.grad is not None)
    assert len(head.predict(Features(sparse_bev=x), samples)) == 2


@pytest.mark.parametrize("separate", [False, True])
def test_the_head_learns_people_by_heart(separate: bool) -> None:
    """From features that say which cell it is: boxes and keypoints come out to a few centimetres."""
    head = MODELS.build(head_config(separate_branches=separate)).train()
    x = sparse_map(occupied([60, 50]), 2)
    samples = [Sample().replace(gt=people(4, seed)) for seed in range(2)]
    truth = PeopleTruth.gather(samples)
    for branch in head.branches.values():  # the norms of evaluation are those of this one batch
        branch[0][1].momentum = 0.5
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=160)
    for _ in range(160):
        losses = head.loss_from_values(head(Features(sparse_bev=x)), truth)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        schedule.step()
    head.eval()
    with torch.no_grad():
        predictions = head.predict(Features(sparse_bev=x), samples)
    for pred, sample in zip(predictions, samples, strict=True):
        assert (pred.scores > 0.8).sum() >= len(sample.gt.boxes)
        nearest = torch.cdist(sample.gt.boxes.centers, pred.boxes.centers).argmin(dim=1)
        error = (pred.keypoints[nearest] - sample.gt.keypoints).norm(dim=-1)
        assert error.mean() < 0.05
        assert (pred.boxes.centers[nearest] - sample.gt.boxes.centers).norm(dim=-1).max() < 0.1
        assert (pred.keypoint_visibility[nearest] - sample.gt.keypoint_visibility).abs().mean() < 0.2


def test_a_whole_detector_learns() -> None:
    detector = MODELS.build(detector_config()).train()
    samples = [sample_of(people(3, seed), seed, clutter=100) for seed in range(2)]
    optimizer = torch.optim.AdamW(detector.parameters(), lr=4e-3)
    totals = []
    for _ in range(12):
        losses = detector(**detector.data_preprocessor(samples, training=True), mode="loss")
        totals.append(sum(losses.values()))
        optimizer.zero_grad()
        totals[-1].backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 10)
        optimizer.step()
    assert totals[-1] < 0.5 * totals[0]


# -- bad input -------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused() -> None:
    head = MODELS.build(head_config())
    x = sparse_map(occupied([20]), 1)
    bare = InstanceData(boxes=Boxes3D(torch.zeros(1, 7)), labels=torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"gt of samples \[0\] of the batch has no 'keypoints'"):
        head.loss(Features(sparse_bev=x), [Sample().replace(gt=bare)])
    with pytest.raises(ValueError, match=r"features.sparse_bev: expected cells \[8, 16\]"):
        head(Features())
    with pytest.raises(ValueError, match="loss_weights: unknown"):
        MODELS.build(head_config(loss_weights=dict(hands=1.0)))


def test_labels_of_no_class_are_nobody() -> None:
    gt = people(4, 0)
    gt.labels[2] = -1
    assert len(truth_of(gt).keypoints) == 3
    torch.testing.assert_close(truth_of(gt).keypoints[2], gt.keypoints[3])


def test_mixed_precision_reaches_no_loss() -> None:
    head: Any = MODELS.build(head_config())
    x = sparse_map(occupied([40]), 1)
    samples = [Sample().replace(gt=people(3, 0))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = head.loss(Features(sparse_bev=x), samples)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    assert isinstance(head, KeypointHead) and replace(head.assigner, max_objects=3).max_objects == 3
