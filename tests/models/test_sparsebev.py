"""SparseBEV: what is legal, what the options do, and that a small one learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sparse3d.models import Detector3D, Features, GroundTruth
from sparse3d.models.heads.sparsebev_head import start_codes
from sparse3d.models.layers.adaptive_mixing import AdaptiveMixing
from sparse3d.models.layers.adaptive_sampling import AdaptiveSampling
from sparse3d.models.layers.frame_views import FrameViews
from sparse3d.models.layers.scale_adaptive_attention import ScaleAdaptiveAttention
from sparse3d.models.targets.denoising import DenoisingQueries, Noise
from sparse3d.registry import MODELS
from sparse3d.structures import Boxes3D, Cameras, InstanceData, Sample

from .build import CENTER_RANGE, CLASS_NAMES, GRID, random_objects

SIZE = (64, 96)


def rig(num_frames: int = 2, num_cameras: int = 3, lag: float = 0.5) -> Cameras:
    """Cameras that look around in equal steps, the same at all times."""
    turns = torch.arange(num_cameras) * 2 * np.pi / num_cameras
    cos, sin, zero, one = turns.cos(), turns.sin(), torch.zeros(num_cameras), torch.ones(num_cameras)
    rows = [[sin, -cos, zero, zero], [zero, zero, -one, one], [cos, sin, zero, zero], [zero, zero, zero, one]]
    lidar2cam = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    intrinsic = torch.tensor([[40.0, 0, SIZE[1] / 2], [0, 40, SIZE[0] / 2], [0, 0, 1]])
    return Cameras.create(
        [f"camera {n}" for n in range(num_cameras)] * num_frames,
        intrinsic.repeat(num_frames * num_cameras, 1, 1),
        lidar2cam.repeat(num_frames, 1, 1),
        torch.tensor([SIZE] * num_frames * num_cameras),
        -lag * torch.arange(num_frames).repeat_interleave(num_cameras),
    )


def sample_with(num_boxes: int = 4, seed: int = 0, cameras: Cameras | None = None) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    cameras = rig() if cameras is None else cameras
    images = torch.randint(256, (len(cameras), 3, *SIZE), generator=generator, dtype=torch.uint8)
    return Sample().replace(images=images, cameras=cameras, gt=random_objects(num_boxes, generator))


def head_config(**changes: Any) -> dict[str, Any]:
    layer = dict(num_points=2, num_levels=2, num_groups=2, num_heads=2, ffn_channels=24, mixing=dict(out_points=8))
    return dict(
        type="SparseBEVHead",
        grid=GRID,
        class_names=CLASS_NAMES,
        decoder=dict(center_range=CENTER_RANGE, top_k=20),
        num_queries=changes.pop("num_queries", 9),
        num_frames=changes.pop("num_frames", 2),
        channels=16,
        num_layers=2,
        layer={**layer, **changes.pop("layer", {})},
        denoising=dict(num_groups=2),
        **changes,
    )


def detector(**changes: Any) -> Detector3D:
    return MODELS.build(
        dict(
            type="Detector3D",
            data_preprocessor=dict(type="Preprocessor", images=dict(size_divisor=32)),
            image_branch=dict(
                type="ImageBranch",
                backbone=dict(type="ResNet", base_channels=4, out_stages=(1, 2)),
                neck=dict(type="FPN", in_channels=[32, 64], out_channels=16, num_outs=2),
            ),
            head=head_config(**changes),
        )
    )


def features(batch_size: int = 1, cameras: Cameras | None = None, seed: int = 0) -> Features:
    cameras = rig() if cameras is None else cameras
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(batch_size, len(cameras), 16, SIZE[0] // s, SIZE[1] // s, generator=generator) for s in (8, 16)]
    return Features(images=tuple(maps), cameras=(cameras,) * batch_size, image_size=SIZE)


def run(model: Detector3D, samples: list[Sample], mode: str):
    return model(**model.data_preprocessor(samples), mode=mode)


# -- what is legal ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(4, 2), (3, 0), (0, 0), (30, 1)], ids=str)
def test_any_number_of_objects(counts: tuple[int, ...]) -> None:
    model = detector()
    losses = run(model, [sample_with(count, seed) for seed, count in enumerate(counts)], "loss")
    assert set(losses) == {
        f"{prefix}loss_{name}{kind}" for prefix in ("", "d0.") for name in ("class", "box") for kind in ("", "_dn")
    }
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.head.parameters())
    if not any(counts):
        assert losses["loss_box"] == losses["loss_box_dn"] == losses["loss_class_dn"] == 0 < losses["loss_class"]


@pytest.mark.parametrize("num_queries", [1, 2, 7, 25])
def test_any_number_of_queries(num_queries: int) -> None:
    model = detector(num_queries=num_queries).eval()
    with torch.no_grad():
        [found] = run(model, [sample_with()], "predict")
    assert len(found.pred.boxes) <= 20
    codes = start_codes(num_queries)
    assert ((codes[:, :2] > 0) & (codes[:, :2] < 1)).all() and len(codes[:, :2].unique(dim=0)) == num_queries


@pytest.mark.parametrize("num_cameras", [1, 2, 5])
def test_any_number_of_cameras(num_cameras: int) -> None:
    sample = sample_with(cameras=rig(num_cameras=num_cameras))
    assert all(value.isfinite() for value in run(detector(), [sample], "loss").values())


def test_black_images_and_cameras_that_see_nothing() -> None:
    sample = sample_with()
    blind = replace(sample.cameras, lidar2cam=torch.zeros_like(sample.cameras.lidar2cam))
    model = detector()
    for odd in (sample.replace(images=torch.zeros_like(sample.images)), sample.replace(cameras=blind)):
        losses = run(model, [odd], "loss")
        sum(losses.values()).backward()
        assert all(value.isfinite() for value in losses.values())
        assert all(p.grad.isfinite().all() for p in model.head.parameters())


def test_what_cannot_be_sorted_into_frames_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[5\] views a sample cannot be 2 frames"):
        run(detector(), [sample_with(cameras=rig(num_frames=1, num_cameras=5))], "predict")
    with pytest.raises(ValueError, match="expected the image branch's maps, got None"):
        MODELS.build(head_config())(Features())


def test_unknown_options_are_named() -> None:
    for changes, message in (
        (dict(unknown_velocity="fast"), "unknown_velocity: unknown"),
        (dict(loss_weights=dict(iou=1)), "loss_weights: unknown"),
        (dict(layer=dict(velocity="fast")), "velocity must be"),
        (dict(layer=dict(sampling=dict(views="some"))), "views of first, all"),
        (dict(layer=dict(num_groups=3)), "16 are not divisible by 3 groups"),
    ):
        with pytest.raises(ValueError, match=message):
            MODELS.build(head_config(**changes))


def test_predictions_that_are_not_finite_are_not_hidden() -> None:
    model = detector()
    model.head.layer.box_branch[-1].bias.data[3] = torch.nan
    with pytest.raises(ValueError, match="have no finite cost"):
        run(model, [sample_with()], "loss")


# -- frames and views ------------------------------------------------------------------------------------------------


def test_a_moving_box_is_looked_for_where_it_was() -> None:
    sampling = AdaptiveSampling(16, num_groups=2, num_points=3, num_levels=2)
    boxes = torch.tensor([[[5.0, 1, 0, 4, 2, 1.5, 0.3, 6, -2]]], requires_grad=True)
    points = sampling.points(boxes, torch.zeros(1, 1, 16), torch.tensor([[0.0, 0.5, -0.5]]))
    moved = points - points[:, :, :, :1]
    expected = torch.tensor([[0.0, 0, 0], [-3, 1, 0], [3, -1, 0]])
    torch.testing.assert_close(moved[0, 0], expected[None, :, None].expand(2, 3, 3, 3))
    points.sum().backward()
    assert boxes.grad[0, 0, 0] != 0 and not boxes.grad[0, 0, 7:].any()


def test_level_weights_of_another_group_unless_told_otherwise() -> None:
    queries = torch.randn(1, 2, 16)
    published = AdaptiveSampling(16, num_groups=2, num_points=3, num_levels=4)
    own = AdaptiveSampling(16, num_groups=2, num_points=3, num_levels=4, level_weights="own")
    own.load_state_dict(published.state_dict())
    mixed, right = published.weights(queries, 4), own.weights(queries, 4)
    assert torch.equal(right[:, :, 0], right[:, :, 0, :1].expand_as(right[:, :, 0]))
    for frame in range(4):
        for group in range(2):
            assert torch.equal(mixed[:, :, group, frame], right[:, :, (frame * 2 + group) // 4, frame])
    assert torch.equal(published.weights(queries, 1), own.weights(queries, 1))


def test_all_views_are_averaged_and_nothing_is_seen_where_none_is() -> None:
    cameras = rig(num_frames=1, num_cameras=6)  # their views overlap
    frames = FrameViews.group(features(cameras=cameras), 1)
    sampling = AdaptiveSampling(16, num_groups=1, num_points=2, num_levels=2, views="all")
    points = torch.randn(1, 50, 1, 1, 2, 3) * 20
    points[..., 2] *= 0.1
    points[0, 0] = torch.tensor([0.0, 0, 50])  # above all images
    locations, views, shares = sampling.look(points, frames)
    visible = cameras.visible(points.view(-1, 3)).T.view(1, 50, 1, 1, 2, 6)
    assert torch.equal(shares > 0, visible) and not shares[0, 0].any()
    total = shares.sum(dim=-1)
    torch.testing.assert_close(total, visible.any(dim=-1).float())
    assert (visible.sum(dim=-1) > 1).any()
    sampling.all_views = False
    first, camera, _ = sampling.look(points, frames)
    assert torch.equal(camera[..., 0], visible.int().argmax(dim=-1))
    picked = locations.gather(5, camera[..., None].expand_as(first))
    assert torch.equal(first, picked) and torch.equal(views[..., 2], torch.full_like(views[..., 2], 2))


def test_velocity_is_a_displacement_unless_told_otherwise() -> None:
    heads = [MODELS.build(head_config(layer=dict(velocity=velocity))).eval() for velocity in ("displacement", "speed")]
    heads[1].load_state_dict(heads[0].state_dict())
    for head in heads:
        head.num_layers = 1
    seen = features(cameras=rig(lag=0.25))
    displacement, speed = (head(seen).codes for head in heads)
    torch.testing.assert_close(displacement[..., 8:], speed[..., 8:] / 0.25)
    torch.testing.assert_close(displacement[..., :8], speed[..., :8])
    still = features(cameras=rig(lag=0.0))  # the first frame of a scene is its own past
    torch.testing.assert_close(heads[0](still).codes[..., 8:], heads[1](still).codes[..., 8:])


def test_attention_that_grows_with_distance_can_be_forbidden() -> None:
    free = ScaleAdaptiveAttention(16, 2).eval()
    torch.nn.init.constant_(free.tau.bias, -1.0)
    bounded = ScaleAdaptiveAttention(16, 2, clamp_tau=True).eval()
    bounded.load_state_dict(free.state_dict())
    queries, centers = torch.randn(1, 5, 16), torch.randn(1, 5, 2) * 10
    nowhere = torch.zeros_like(centers)
    torch.testing.assert_close(bounded(queries, centers), free(queries, nowhere))
    assert not torch.allclose(free(queries, centers), free(queries, nowhere))


@pytest.mark.parametrize("recompute", [True, False])
def test_mixing_some_queries_at_a_time_is_mixing_all(recompute: bool) -> None:
    some, all_ = (
        AdaptiveMixing(16, 2, 6, out_points=8, queries_at_once=count, recompute=recompute) for count in (3, 100)
    )
    torch.nn.init.normal_(some.generator.weight, std=0.1)
    all_.load_state_dict(some.state_dict())
    x, queries = torch.randn(2, 5, 2, 6, 8), torch.randn(2, 5, 16)
    found = []
    for mixing in (some, all_):
        leaves = [x.clone().requires_grad_(), queries.clone().requires_grad_()]
        out = mixing(*leaves)
        found.append([out, *torch.autograd.grad(out.square().sum(), [*leaves, *mixing.parameters()])])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


# -- denoising and targets -------------------------------------------------------------------------------------------


def truth_of(*counts: int) -> GroundTruth:
    generator = torch.Generator().manual_seed(5)
    return GroundTruth.gather([Sample().replace(gt=random_objects(count, generator)) for count in counts], 4)


def test_denoising_queries_are_near_their_object() -> None:
    truth = truth_of(3, 0, 5)
    noise = Noise.draw(4 * 8, 4, 0.5, torch.device("cpu"))
    made = DenoisingQueries.make(truth, 4, noise, scale=0.5)
    boxes = truth.boxes.tensor[made.objects]
    assert ((made.boxes[:, :3] - boxes[:, :3]).abs() <= boxes[:, 3:6] / 4 + 1e-5).all()
    assert torch.equal(made.boxes[:, 3:], boxes[:, 3:]) and not torch.equal(made.boxes, boxes)
    assert made.num_slots == 20 and len({*zip(made.samples.tolist(), made.slots.tolist(), strict=True)}) == 32
    kept = truth.labels[made.objects][~noise.changes]
    assert torch.equal(made.labels[~noise.changes], kept)


def test_who_sees_whom() -> None:
    made = DenoisingQueries.make(truth_of(2, 3), 2, Noise.draw(10, 4, 0.5, torch.device("cpu")), 0.5)
    sees = ~made.hidden(4)
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    assert torch.equal(sees[:6, :6], groups[:, None] == groups)
    assert sees[:6, 6:].all() and sees[6:, 6:].all() and not sees[6:, :6].any()


def test_the_learned_queries_do_not_know_of_the_noisy_ones() -> None:
    head = MODELS.build(head_config()).eval()
    truth, seen = truth_of(3), features()
    noise = Noise.draw(6, 4, 0.5, torch.device("cpu"))
    made = DenoisingQueries.make(truth, 2, noise, 0.5)
    with torch.no_grad():
        together, alone = head(seen, made), head(seen)
    torch.testing.assert_close(together.codes[:, :, made.num_slots :], alone.codes)
    torch.testing.assert_close(together.logits[:, :, made.num_slots :], alone.logits)


def test_objects_of_unknown_velocity() -> None:
    sample = sample_with(4)
    sample.gt.boxes = Boxes3D(sample.gt.boxes.tensor.index_fill(1, torch.tensor([7, 8]), 0))
    unknown = sample.replace(gt=sample.gt.clone())
    unknown.gt.boxes = Boxes3D(sample.gt.boxes.tensor.index_fill(1, torch.tensor([7, 8]), torch.nan))
    model = detector(layer=dict(dropout=0.0)).eval()  # BatchNorm and dropout out of the way
    losses = []
    for each in (sample, unknown):
        torch.manual_seed(1)
        losses.append(run(model, [each], "loss"))
    assert {name: float(value) for name, value in losses[0].items()} == pytest.approx(
        {name: float(value) for name, value in losses[1].items()}
    )
    model.head.take_for_still = False
    left_out = run(model, [unknown], "loss")
    assert left_out["loss_box"] == 0 < left_out["loss_class"]


# -- learning --------------------------------------------------------------------------------------------------------


def test_a_small_one_learns_two_scenes_by_heart() -> None:
    """Images are noise: what is learned is in the features at the projected points."""
    torch.manual_seed(0)
    model = detector(layer=dict(dropout=0.0)).train()
    samples = [sample_with(2, seed) for seed in (1, 2)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = model.data_preprocessor(samples)

    def loss() -> Tensor:
        torch.manual_seed(0)
        return sum(model(**batch, mode="loss").values())

    first = float(loss())
    for _ in range(40):
        optimizer.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    assert float(loss()) < 0.5 * first


def test_the_head_computes_in_float32_under_autocast() -> None:
    model = detector().eval()
    sample = sample_with()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        batch = model.data_preprocessor([sample])["batch"]
        seen = model.extract_features(batch)
        output = model.head(seen)
    assert seen.images[0].dtype == torch.bfloat16 and output.codes.dtype == torch.float32
    wide = replace(seen, images=tuple(level.float() for level in seen.images))
    torch.testing.assert_close(model.head(wide).codes, output.codes)


def test_objects_of_no_class_are_left_out() -> None:
    """A label of -1 is no object."""
    sample = sample_with(3)
    without = sample.replace(gt=InstanceData(boxes=sample.gt.boxes, labels=torch.full((3,), -1)))
    losses = run(detector(), [without], "loss")
    assert losses["loss_box"] == 0
