"""The TransFusion head: its windows against copied keys, what it encodes and decodes, its options and its errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparse3d.decoding.transfusion import Queries, TransFusionDecoder, decode_boxes
from sparse3d.models import Features, GroundTruth, TransFusionHead, TransFusionTargetAssigner
from sparse3d.models.heads.transfusion_head import TransFusionOutput
from sparse3d.models.heads.transfusion_queries import Windows, find_peaks, select_queries, window_log_counts
from sparse3d.models.targets.transfusion_targets import encode_boxes
from sparse3d.structures import Boxes3D, InstanceData, Sample
from sparse3d_ops import iou_3d

from .build import CENTER_RANGE, CLASS_NAMES, GRID, random_objects, transfusion_config

WIDTH, LENGTH = GRID.out_shape  # the head's maps are transposed: [X, Y]
NUM_QUERIES = 12
FAR = 12.0  # a logit that is as good as certain


def build_head(**changes: Any) -> TransFusionHead:
    decoder = {"center_range": CENTER_RANGE, **changes.pop("decoder", {})}
    options = {**transfusion_config()["head"], "decoder": decoder, **changes}
    options.pop("type")
    return TransFusionHead(**options)


def random_bev(batch_size: int = 2) -> Features:
    return Features(bev=torch.randn(batch_size, 24, *GRID.out_shape))


def sample_of(boxes: Tensor, labels: list[int]) -> Sample:
    sample = Sample()
    sample.gt = InstanceData(boxes=Boxes3D(boxes), labels=torch.tensor(labels, dtype=torch.long))
    return sample


def random_samples() -> list[Sample]:
    """Three objects, then a sample without any."""
    sample = Sample()
    sample.gt = random_objects(3, torch.Generator().manual_seed(1))
    return [sample, sample_of(torch.zeros(0, 9), [])]


# -- queries -----------------------------------------------------------------------------------------------------------


def test_peaks_by_hand() -> None:
    heat = torch.zeros(1, 2, 5, 5)
    heat[0, :, 2, 2], heat[0, :, 2, 3], heat[0, :, 0, 0] = 0.9, 0.5, 0.7
    peaks = find_peaks(heat, kernel_size=3, every_cell=[1])
    assert peaks[0, 0].nonzero().tolist() == [[2, 2]]  # neither the neighbour nor the corner
    assert torch.equal(peaks[0, 1], heat[0, 1])
    assert torch.equal(find_peaks(heat, kernel_size=1), heat)


def test_a_map_without_a_whole_neighbourhood_has_no_peaks() -> None:
    heat = torch.rand(1, 2, 2, 5) + 0.1
    peaks = find_peaks(heat, kernel_size=3, every_cell=[1])
    assert not peaks[0, 0].any() and torch.equal(peaks[0, 1], heat[0, 1])


def test_the_hottest_peaks_of_all_classes_become_queries() -> None:
    peaks = torch.zeros(1, 3, 4, 5)
    peaks[0, 2, 1, 4], peaks[0, 0, 3, 0], peaks[0, 1, 1, 4] = 0.3, 0.8, 0.1
    queries = select_queries(peaks, 4)
    assert queries.labels[0, :3].tolist() == [0, 2, 1]
    assert queries.cells[0, :3].tolist() == [15, 9, 9]
    torch.testing.assert_close(queries.heat, torch.tensor([[0.8, 0.3, 0.1, 0.0]]))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 4), st.booleans(), st.integers(0, 10**6))
def test_windows_cell_by_cell(height: int, width: int, radius: int, wrap: bool, seed: int) -> None:
    cell = seed % (height * width)
    u, v = divmod(cell, width)
    seen: list[int] = []
    everywhere: list[int] = []
    for du in range(-radius, radius + 1):
        for dv in range(-radius, radius + 1):
            if wrap:
                flat = (u + du) * width + v + dv
                visible, moved = 0 <= flat < height * width, min(max(flat, 0), height * width - 1)
            else:
                visible = 0 <= u + du < height and 0 <= v + dv < width
                moved = min(max(u + du, 0), height - 1) * width + min(max(v + dv, 0), width - 1)
            seen += [moved] * visible
            everywhere.append(moved)
    windows = Windows.around(torch.tensor([[cell]]), (height, width), radius, wrap)
    counts = torch.tensor(seen).bincount(minlength=height * width).float()
    log_counts = window_log_counts(torch.tensor([[cell]]), (height, width), radius, wrap)
    torch.testing.assert_close(log_counts[0, 0].exp(), counts)
    assert (
        windows.occurrences(height * width).tolist()
        == torch.tensor(everywhere).bincount(minlength=height * width).tolist()
    )


@pytest.mark.parametrize("radius", [2, 14], ids=["small", "wider than the map"])
@pytest.mark.parametrize("wrap", [True, False])
def test_refining_equals_attention_to_copied_keys(radius: int, wrap: bool) -> None:
    """In training mode too: the statistics of the key positions are those of all copies."""
    head = build_head(window_radius=radius, wrap_windows=wrap).train()
    shared = torch.randn(2, 16, LENGTH, WIDTH)
    queries = select_queries(torch.rand(2, 4, LENGTH, WIDTH), NUM_QUERIES)
    expected = refine_copies(head, shared, queries, Windows.around(queries.cells, (LENGTH, WIDTH), radius, wrap))
    torch.testing.assert_close(head.refine(shared, queries), expected, rtol=1e-3, atol=1e-4)


def refine_copies(head: TransFusionHead, shared: Tensor, queries: Queries, windows: Windows) -> Tensor:
    """The definition: every query is a sequence of its own, with a copy of each key in its window."""
    memory = shared.flatten(2).transpose(1, 2)
    rows = torch.arange(2)[:, None]
    content = memory[rows, queries.cells] + head.class_embedding.weight.T[queries.labels] + head.class_embedding.bias
    keys = memory[rows[..., None], windows.cells].flatten(0, 1)
    positions = head._positions(shared)
    first, norm, activation, second = head.key_position
    batch_norm = nn.BatchNorm1d(norm.weight.numel())
    batch_norm.weight, batch_norm.bias = norm.weight, norm.bias
    embedded = second(activation(batch_norm(first(positions[windows.cells.flatten()])))).view(keys.shape)
    own_position = head.query_position(positions[queries.cells.flatten()])[:, None]
    hidden = torch.zeros(windows.visible.shape).masked_fill(~windows.visible, -torch.inf).flatten(0, 1)[:, None]
    refined = head.layer(content.flatten(0, 1)[:, None], own_position, keys, embedded, hidden)
    return refined.view(content.shape)


def test_a_query_sees_nothing_beyond_its_window() -> None:
    head = build_head(window_radius=2, wrap_windows=False).eval()
    shared = torch.randn(1, 16, LENGTH, WIDTH)
    queries = Queries(torch.tensor([[5 * WIDTH + 3]]), torch.tensor([[0]]), torch.ones(1, 1))
    before = head.refine(shared, queries)
    outside = torch.ones(LENGTH, WIDTH, dtype=torch.bool)
    outside[3:8, 1:6] = False
    shared[:, :, outside] += 1.0
    torch.testing.assert_close(head.refine(shared, queries), before)
    shared[:, :, 7, 5] += 1.0
    assert not torch.allclose(head.refine(shared, queries), before, atol=1e-4)


# -- targets -----------------------------------------------------------------------------------------------------------


def test_queries_get_the_objects_they_stand_on() -> None:
    samples = random_samples()
    truth = GroundTruth.gather(samples, len(CLASS_NAMES))
    boxes = torch.cat([truth.boxes.tensor.flip(0), torch.zeros(3, 9) + 0.5])[None].repeat(2, 1, 1)
    logits = torch.full((2, 6, 4), -FAR)
    targets = TransFusionTargetAssigner(GRID)(logits, boxes, truth)
    assert targets.queries.tolist() == [0, 1, 2]
    assert targets.labels.tolist() == [[*truth.labels.flip(0).tolist(), 4, 4, 4], [4] * 6]
    torch.testing.assert_close(targets.boxes, truth.boxes.tensor.flip(0))
    torch.testing.assert_close(targets.ious, torch.ones(3))
    torch.testing.assert_close(decode_boxes(targets.codes, GRID), Boxes3D(targets.boxes).tensor, rtol=1e-4, atol=1e-4)


def test_the_class_decides_between_queries_of_one_box() -> None:
    truth = GroundTruth.gather(random_samples()[:1], len(CLASS_NAMES))[:1]
    logits = torch.full((1, 3, 4), -FAR)
    logits[0, 1, truth.labels] = FAR
    boxes = truth.boxes.tensor.repeat(3, 1)[None]
    assert TransFusionTargetAssigner(GRID)(logits, boxes, truth).queries.tolist() == [1]


def test_published_overlap_takes_the_centre_for_the_bottom() -> None:
    low, high = torch.tensor([[0, 0, 0, 4, 2, 1.0, 0]]), torch.tensor([[0, 0, 0, 4, 2, 2.0, 0]])
    published, true = (TransFusionTargetAssigner(GRID, center_as_bottom=flag) for flag in (True, False))
    assert float(iou_3d(published.stand(low), published.stand(high))) == pytest.approx(0.5)
    shifted = high + torch.tensor([0, 0, 0.5, 0, 0, 0, 0])
    assert float(iou_3d(true.stand(low), true.stand(shifted))) == pytest.approx(0.5)
    assert float(iou_3d(published.stand(low), published.stand(shifted))) == pytest.approx(0.5 / 2.5)


def test_heat_maps_are_transposed_and_cut_off_at_the_border() -> None:
    rows = torch.tensor([[-12.4, 9.0, 0, 4, 2, 1.5, 0, 0, 0], [40.0, 0, 0, 4, 2, 1.5, 0, 0, 0]])
    truth = GroundTruth(Boxes3D(rows), torch.tensor([0, 3]), torch.tensor([0, 0]), 1)
    heat = TransFusionTargetAssigner(GRID).draw(truth, 4)
    assert heat.shape == (1, 4, LENGTH, WIDTH)
    assert (heat == 1).nonzero().tolist() == [[0, 0, 0, 23]]  # x = -12.4 is in column 0, y = 9 in row 23


def test_boxes_without_extent_are_left_out() -> None:
    sample = random_samples()[0]
    sample.gt.boxes.tensor[0, 5] = 0
    targets = TransFusionTargetAssigner(GRID)(
        torch.zeros(1, 6, 4), torch.ones(1, 6, 9), GroundTruth.gather([sample], len(CLASS_NAMES))
    )
    assert len(targets.queries) == 2
    assert all(code.isfinite().all() for code in targets.codes.values())


# -- losses ------------------------------------------------------------------------------------------------------------


def perfect_output(head: TransFusionHead, samples: list[Sample]) -> TransFusionOutput:
    """What a head says that knows the objects: a query on each, the rest on nothing."""
    truth = GroundTruth.gather(samples, head.num_classes)
    heat = head.assigner.draw(truth, head.num_classes)
    cells = torch.zeros(len(samples), NUM_QUERIES, dtype=torch.long)
    labels, height = torch.zeros_like(cells), torch.zeros(len(samples), NUM_QUERIES)
    codes = {name: torch.zeros(len(samples), NUM_QUERIES, branch[-1].out_features)
             for name, branch in head.branches.items() if name != "heatmap"}  # fmt: skip
    logits = torch.full((len(samples), NUM_QUERIES, head.num_classes), -FAR)
    place = torch.cat([torch.arange(int(n)) for n in truth.batch_index.bincount(minlength=len(samples))])
    at = truth.batch_index, place
    labels[at], height[at], logits[(*at, truth.labels)] = truth.labels, 1.0, FAR
    for name, code in encode_boxes(truth.boxes, GRID).items():
        if name in codes:
            codes[name][at] = code
    if "iou" in codes:
        codes["iou"][at] = 1.0
    return TransFusionOutput(torch.where(heat == 1, FAR, -FAR), Queries(cells, labels, height), codes, logits)


def test_a_perfect_output_costs_next_to_nothing_and_is_decoded() -> None:
    head, samples = build_head(), random_samples()
    losses = head.loss_from_output(perfect_output(head, samples), samples)
    assert set(losses) == {"loss_heatmap", "loss_class", "loss_box", "loss_iou", "matched_iou"}
    assert float(losses.pop("matched_iou")) == pytest.approx(0.5)  # the second sample has no object
    assert all(float(value) < 1e-2 for value in losses.values())
    first, second = head.predict_from_output(perfect_output(head, samples))
    assert len(second.scores) == 0
    order, wanted = first.labels.argsort(stable=True), samples[0].gt.labels.argsort(stable=True)
    assert first.labels[order].tolist() == samples[0].gt.labels[wanted].tolist()
    expected = samples[0].gt.boxes[wanted].wrap_yaw().tensor
    torch.testing.assert_close(first.boxes[order].wrap_yaw().tensor, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("extra", [["vel", "iou"], []], ids=str)
def test_every_parameter_learns(extra: list[str]) -> None:
    head = build_head(extra_branches=extra)
    losses = head.loss(random_bev(), random_samples())
    sum(value for name, value in losses.items() if name.startswith("loss")).backward()
    assert ("loss_iou" in losses) == ("iou" in extra)
    assert [name for name, each in head.named_parameters() if each.grad is None or not each.grad.isfinite().all()] == []


def test_no_object_at_all_is_background() -> None:
    head = build_head()
    losses = head.loss(random_bev(), [sample_of(torch.zeros(0, 9), [])] * 2)
    sum(losses.values()).backward()
    assert float(losses["loss_box"].detach()) == float(losses["loss_iou"].detach()) == 0
    assert float(losses["loss_class"].detach()) > 0
    assert all(each.grad.isfinite().all() for each in head.parameters() if each.grad is not None)


def test_unknown_velocity_leaves_no_trace() -> None:
    head, samples = build_head(), random_samples()
    samples[0].gt.boxes.tensor[:, 7:] = math.nan
    output = head(random_bev())
    codes = {name: code.detach().requires_grad_() for name, code in output.codes.items()}
    losses = head.loss_from_output(TransFusionOutput(output.heatmap, output.queries, codes, output.logits), samples)
    losses["loss_box"].backward()
    assert losses["loss_box"].isfinite()
    assert not codes["vel"].grad.any()
    assert codes["center"].grad.any()


def test_predictions_that_are_not_finite_are_named() -> None:
    head = build_head()
    output = perfect_output(head, random_samples())
    output.logits[0, 0] = math.nan
    with pytest.raises(ValueError, match="prediction 0 with object 0"):
        head.loss_from_output(output, random_samples())


# -- detections --------------------------------------------------------------------------------------------------------


def decode(rows: Tensor, labels: list[int], heat: list[float], iou: list[float] | None = None, **options: Any) -> Any:
    """Detections of one sample from boxes ``[Q, 7]`` that are certain of their class."""
    decoder = TransFusionDecoder(CLASS_NAMES, **{"center_range": CENTER_RANGE, **options})
    queries = Queries(torch.zeros(1, len(labels), dtype=torch.long), torch.tensor([labels]), torch.tensor([heat]))
    logits = torch.full((1, len(labels), len(CLASS_NAMES)), FAR)
    return decoder(rows[None], logits, queries, None if iou is None else torch.tensor([iou]))[0]


ONE_METRE_APART = torch.tensor([[0, 0, 0, 4, 2, 1.5, 0], [1, 0, 0, 4, 2, 1.5, 0], [2, 0, 0, 4, 2, 1.5, 0]]).float()


def test_only_the_named_classes_are_suppressed() -> None:
    heat = [0.5, 0.9, 0.4]
    threshold = dict(nms_thresholds=dict(pedestrian=0.5))
    found = decode(ONE_METRE_APART, [3, 3, 3], heat, **threshold)
    torch.testing.assert_close(found.scores, torch.tensor([0.9]), rtol=1e-4, atol=1e-4)
    assert len(decode(ONE_METRE_APART, [0, 0, 0], heat, **threshold).scores) == 3
    found = decode(ONE_METRE_APART, [3, 0, 3], heat, **threshold)
    assert found.labels.tolist() == [0, 3, 3]  # 2 m apart they overlap by a third
    assert len(decode(ONE_METRE_APART, [3, 0, 3], heat, **threshold, nms_post=1).scores) == 2
    assert len(decode(ONE_METRE_APART, [3, 0, 3], heat, **threshold, nms_pre=1).scores) == 2


def test_cold_and_distant_boxes_are_left_out() -> None:
    rows = ONE_METRE_APART.clone()
    rows[0, 0] = 21
    assert decode(rows, [0, 1, 2], [0.5, 0.5, 0.0]).labels.tolist() == [1]
    assert decode(rows, [0, 1, 2], [0.5, 0.5, 0.6], score_threshold=0.55).labels.tolist() == [2]


def test_iou_rectifies_scores() -> None:
    iou = [-0.28, 1.5, -3.0]  # 0.36, and beyond both ends
    scores = decode(ONE_METRE_APART, [0, 1, 2], [0.64, 0.64, 0.64], iou, iou_exponents=0.5).scores
    torch.testing.assert_close(scores, torch.tensor([0.8, 0.48, 0.0]), rtol=1e-4, atol=1e-4)
    by_class = decode(ONE_METRE_APART, [0, 1, 2], [0.64] * 3, iou, iou_exponents=[0, 1, 0, 0.5])
    assert by_class.scores.tolist() == pytest.approx([1.0, 0.64, 0.64], abs=1e-4)
    assert by_class.labels.tolist()[0] == 1


# -- options and errors ------------------------------------------------------------------------------------------------


def test_the_published_head_has_the_published_size() -> None:
    head = TransFusionHead(GRID, [str(i) for i in range(10)], 384, {"center_range": CENTER_RANGE}, num_queries=200)
    published = dict(shared=442_496, heatmap=147_584 + 256 + 11_530, class_embedding=1_408)
    for name, count in published.items():
        assert sum(each.numel() for each in getattr(head, name).parameters()) == count


def test_it_runs_in_mixed_precision_and_positions_stay_exact() -> None:
    head = build_head().eval()
    features = random_bev(1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = head(features)
    assert output.codes["center"].dtype == torch.float32
    head.train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = head.loss(features, random_samples()[:1])
    sum(losses.values()).backward()
    assert all(value.isfinite() and value.dtype == torch.float32 for value in losses.values())


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"every_cell: unknown \['cyclist'\]"):
        build_head(every_cell=["cyclist"])
    with pytest.raises(ValueError, match=r"extra_branches: unknown \['axis'\]"):
        build_head(extra_branches=["axis"])
    with pytest.raises(ValueError, match=r"loss_weights: unknown \['cls'\]"):
        build_head(loss_weights=dict(cls=1.0))
    with pytest.raises(ValueError, match="need 10 numbers, got 8"):
        build_head(code_weights=[1.0] * 8)
    with pytest.raises(ValueError, match="num_queries: 5000 are more than the map"):
        build_head(num_queries=5000)
    with pytest.raises(ValueError, match="peak_size: expected an odd number, got 4"):
        build_head(peak_size=4)
    with pytest.raises(ValueError, match=r"nms_thresholds: \['cone'\] are none of the classes"):
        build_head(decoder=dict(nms_thresholds=dict(cone=0.2)))
    with pytest.raises(ValueError, match="iou_exponents: expected one a class, 4, got 2"):
        build_head(decoder=dict(iou_exponents=[0.5, 0.5]))
    with pytest.raises(ValueError, match=r"features.bev: expected .*24, 32.*, got \[1, 24, 8, 8\]"):
        build_head()(Features(bev=torch.zeros(1, 24, 8, 8)))
    with pytest.raises(ValueError, match=r"samples \[1\] of the batch have no 'gt'"):
        build_head().loss(random_bev(), [random_samples()[0], Sample()])
