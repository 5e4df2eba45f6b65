"""MatrixVT: matrices against their definition, what is legal, and what the options do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.encoding import calibration_codes
from sparse3d.encoding.ring_ray import RingRay, cell_coordinates, column_pixels
from sparse3d.models import Detector3D, MatrixVT
from sparse3d.models.bev.matrixvt import KEPT_RIGS
from sparse3d.models.bev.prime import DepthReducer, HoriConv
from sparse3d.models.images.depth_supervision import NO_TARGET, depth_loss, depth_targets
from sparse3d.registry import MODELS
from sparse3d.structures import Cameras, Grid, Sample

from .build import GRID, head_config, random_objects
from .test_sparsebev import SIZE, rig

BINS = (1.0, 13.0, 0.5)
DEPTHS = torch.arange(1.0, 13.0, 0.5, dtype=torch.float64)
FEATURES = (SIZE[0] // 16, SIZE[1] // 16)
CELLS = GRID.out_shape


def branch_config(**changes: Any) -> dict[str, Any]:
    view_transform = dict(
        type="MatrixVT",
        grid=GRID,
        depth_bins=BINS,
        in_channels=16,
        mid_channels=8,
        channels=8,
        prime_channels=12,
        **changes.pop("view_transform", {}),
    )
    return dict(
        type="ImageBEVBranch",
        backbone=dict(type="ResNet", depth=18, base_channels=8),
        neck=dict(
            type="SECONDFPN", in_channels=[8, 16, 32, 64], up_strides=[0.25, 0.5, 1, 2], up_channels=[4, 4, 4, 4]
        ),
        view_transform=view_transform,
        bev_backbone=dict(
            type="ResNetBEVBackbone",
            in_channels=8,
            num_blocks=[1, 1, 1],
            channels=[8, 12, 16],
            up_channels=[6, 6, 6, 6],
        ),
        **changes,
    )


def detector(**changes: Any) -> Detector3D:
    return MODELS.build(
        dict(
            type="Detector3D",
            data_preprocessor=dict(type="Preprocessor", images=dict(size_divisor=16)),
            image_branch=branch_config(**changes),
            head=head_config(extra_branches=["vel"], loss_weights={}, norm=dict(eps=1e-5, momentum=0.1)),
        )
    )


def sample_with(num_boxes: int = 4, seed: int = 0, cameras: Cameras | None = None) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    cameras = rig(num_frames=1) if cameras is None else cameras
    images = torch.randint(256, (len(cameras), 3, *SIZE), generator=generator, dtype=torch.uint8)
    depths = 20 * torch.rand(len(cameras), *SIZE, generator=generator)
    depths[torch.rand(depths.shape, generator=generator) < 0.9] = 0
    return Sample().replace(images=images, cameras=cameras, depth_maps=depths, gt=random_objects(num_boxes, generator))


def run(model: Detector3D, samples: list[Sample], mode: str) -> Any:
    return model(**model.data_preprocessor(samples), mode=mode)


def build(cameras: Cameras, cells: str = "published", grid: Grid = GRID) -> RingRay:
    return RingRay.build(cameras, SIZE, FEATURES[1], DEPTHS, grid, cells)


def blind(cameras: Cameras, camera: int) -> Cameras:
    lidar2cam = cameras.lidar2cam.clone()
    lidar2cam[camera] = 0
    return replace(cameras, lidar2cam=lidar2cam)


# -- matrices --------------------------------------------------------------------------------------------------------


def literal(cameras: Cameras, cells: str) -> tuple[np.ndarray, np.ndarray]:
    """Column by column and bin by bin; coordinates are averaged over the rows of features, as published."""
    (height, width), (rows, columns) = SIZE, FEATURES
    y_cells, x_cells = CELLS
    ring = np.zeros((len(DEPTHS), y_cells * x_cells))
    ray = np.zeros((len(cameras) * columns, y_cells * x_cells))
    for camera, lidar2img in enumerate(cameras.lidar2img.numpy()):
        if not np.linalg.det(cameras.lidar2cam[camera].numpy()):
            continue
        for column, u in enumerate(np.linspace(0, width - 1, columns)):
            for number, d in enumerate(DEPTHS.numpy()):
                points = [
                    np.linalg.solve(lidar2img, [u * d, v * d, d, 1.0])[:2] for v in np.linspace(0, height - 1, rows)
                ]
                place = (np.mean(points, axis=0) - GRID.lower[:2]) / GRID.cell_size
                x, y = np.trunc(place) if cells == "published" else np.floor(place)
                if 0 <= x < x_cells and 0 <= y < y_cells:
                    cell = int(y * x_cells + x)
                    ring[number, cell] = ray[camera * columns + column, cell] = 1
    if cells == "published":
        lost = y_cells // 2 * x_cells + x_cells // 2
        ring[:, lost] = ray[:, lost] = 0
    return ring, ray


def moved_rig(num_cameras: int, seed: int) -> Cameras:
    """A rig whose images and world were augmented."""
    rng = np.random.default_rng(seed)
    cameras = rig(num_frames=1, num_cameras=num_cameras)
    image_aug = cameras.image_aug.clone()
    turn, scale = rng.uniform(-0.1, 0.1), rng.uniform(0.8, 1.2)
    image_aug[:, :2, :2] = scale * torch.tensor([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    image_aug[:, :2, 2] = torch.from_numpy(rng.uniform(-9, 9, 2))
    move = np.eye(4)
    angle = rng.uniform(-0.4, 0.4)
    move[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    move[:3, :3] *= rng.uniform(0.95, 1.05)
    move[0] *= rng.choice([-1.0, 1.0])
    return replace(cameras, image_aug=image_aug).move_lidar(torch.from_numpy(move))


@settings(deadline=None, max_examples=12, derandomize=True)
@given(st.integers(1, 4), st.sampled_from(["published", "exact"]), st.booleans(), st.integers(0, 1000))
def test_matrices_equal_their_definition(num_cameras: int, cells: str, one_is_blind: bool, seed: int) -> None:
    cameras = moved_rig(num_cameras, seed)
    cameras = blind(cameras, seed % num_cameras) if one_is_blind else cameras
    found, (ring, ray) = build(cameras, cells), literal(cameras, cells)
    assert found.ring.dtype == found.ray.dtype == torch.float32
    # A coordinate on the border of two cells may be rounded either way.
    assert (found.ring.numpy() != ring).mean() < 1e-3 and (found.ray.numpy() != ray).mean() < 1e-3
    assert one_is_blind or (found.ring.any() and found.ray.any())


@settings(deadline=None, max_examples=12, derandomize=True)
@given(st.integers(0, 1000))
def test_a_world_turned_by_half_a_turn_is_a_map_turned_by_half_a_turn(seed: int) -> None:
    cameras = moved_rig(3, seed)
    turned = cameras.move_lidar(torch.diag(torch.tensor([-1.0, -1, 1, 1])))
    for before, after in zip(
        vars(build(cameras, "exact")).values(), vars(build(turned, "exact")).values(), strict=True
    ):
        assert (before.unflatten(1, CELLS).flip(1, 2) != after.unflatten(1, CELLS)).float().mean() < 1e-3


def test_what_lies_just_outside_and_the_cell_in_the_middle() -> None:
    coordinates = torch.tensor([[-0.5, 3.2], [5.0, 2.0], [-1.0, 3.0], [32.0, 3.0], [16.5, 12.5]])
    coordinates = coordinates.view(1, 5, 1, 2)
    published, exact = (
        RingRay.from_cells(coordinates, CELLS, cells).ray.unflatten(1, CELLS) for cells in ("published", "exact")
    )
    assert published.nonzero().tolist() == [[0, 3, 0], [1, 2, 5]]  # rounded toward zero; outside; the middle is empty
    assert exact.nonzero().tolist() == [[1, 2, 5], [4, 12, 16]]


def test_matrices_of_a_rig_are_made_once() -> None:
    transform = MatrixVT(GRID, BINS, in_channels=16, mid_channels=8, channels=8, prime_channels=12)
    first = transform.matrices(rig(1), SIZE, FEATURES[1])
    assert transform.matrices(rig(1), SIZE, FEATURES[1]) is first
    for number in range(KEPT_RIGS):
        other = transform.matrices(moved_rig(3, number), SIZE, FEATURES[1])
        assert other is not first and len(transform._kept) <= KEPT_RIGS
    again = transform.matrices(rig(1), SIZE, FEATURES[1])
    assert again is not first and torch.equal(again.ray, first.ray)


def test_mixed_precision_trains() -> None:
    model, sample = detector(), sample_with()
    with torch.autocast("cpu", torch.bfloat16):
        losses = run(model, [sample], "loss")
    exact = run(model, [sample], "loss")
    sum(losses.values()).backward()
    assert losses["loss_depth"].dtype == torch.float32
    assert abs(losses["loss_depth"] / exact["loss_depth"] - 1) < 0.1


def test_training_after_inference_on_the_same_rig() -> None:
    model, sample = detector(), sample_with()
    with torch.inference_mode():
        run(model.eval(), [sample], "predict")
    losses = run(model.train(), [sample], "loss")
    sum(losses.values()).backward()
    assert model.image_branch.view_transform.horiconv.out[0].weight.grad.any()


# -- prime extraction and projection ---------------------------------------------------------------------------------


def test_columns_keep_distributions_and_see_nothing_of_their_neighbours() -> None:
    context, depth = torch.randn(2, 8, 4, 6), torch.randn(2, 24, 4, 6).softmax(dim=1)
    reduced = DepthReducer(8).eval()(context, depth)
    torch.testing.assert_close(reduced.sum(dim=1), torch.ones(2, 6))
    upside_down = HoriConv(8, 12).eval()
    torch.testing.assert_close(upside_down(context), upside_down(context.flip(2)))


def test_the_map_is_what_rings_and_rays_carry() -> None:
    transform = MatrixVT(GRID, BINS, in_channels=16, mid_channels=8, channels=8, prime_channels=12).eval()
    matrices = build(rig(1))
    logits, context = torch.randn(3, 24, *FEATURES), torch.randn(3, 8, *FEATURES)
    bev, probabilities = transform.project(logits, context, matrices.ring[None], matrices.ray[None])
    torch.testing.assert_close(probabilities, logits.softmax(dim=1))
    depth, feature = transform.depth_reducer(context, probabilities), transform.horiconv(context)
    ray = matrices.ray.view(3, FEATURES[1], -1)
    expected = torch.einsum("ndw,dk,nwk,ncw->ck", depth, matrices.ring, ray, feature)
    assert bev.shape == (1, 8, *CELLS) and bev.any()
    torch.testing.assert_close(bev[0].flatten(1), expected)


def test_transport_stays_in_float32_under_autocast() -> None:
    branch = MODELS.build(branch_config()).eval()
    features = torch.randn(1, 3, 16, *FEATURES)
    with torch.no_grad():
        expected, _ = branch.view_transform(features, [rig(1)], SIZE)
        with torch.autocast("cpu", torch.bfloat16):
            bev, probabilities = branch.view_transform(features, [rig(1)], SIZE)
    assert bev.dtype == probabilities.dtype == torch.float32
    assert (bev - expected).abs().mean() < 0.05 * expected.abs().mean()


# -- calibration -----------------------------------------------------------------------------------------------------


def test_codes_tell_augmentation_from_calibration() -> None:
    cameras = rig(num_frames=1)
    move = torch.diag(torch.tensor([-1.1, 1.1, 1.1, 1]))
    [before], [after] = calibration_codes([cameras]), calibration_codes([cameras.move_lidar(move)])
    assert before.shape == (3, 27) and before.dtype == torch.float32
    torch.testing.assert_close(before[:, :4], torch.tensor([[40.0, 40, SIZE[1] / 2, SIZE[0] / 2]]).expand(3, 4))
    torch.testing.assert_close(before[:, 4:10], torch.tensor([[1.0, 0, 0, 0, 1, 0]]).expand(3, 6))
    torch.testing.assert_close(before[:, 10:15], torch.tensor([[1.0, 0, 0, 1, 1]]).expand(3, 5))
    torch.testing.assert_close(after[:, 10:15], torch.tensor([[-1.1, 0, 0, 1.1, 1.1]]).expand(3, 5))
    torch.testing.assert_close(after[:, 15:], before[:, 15:])
    pose = torch.linalg.inv(cameras.lidar2cam)[:, :3].flatten(1).float()
    torch.testing.assert_close(before[:, 15:], pose)
    assert calibration_codes([blind(cameras, 1)]).isfinite().all()


# -- depth supervision -----------------------------------------------------------------------------------------------


def test_targets_by_hand() -> None:
    maps = torch.zeros(1, 4, 8)
    maps[0, 1, 1], maps[0, 3, 3] = 5.1, 3.6  # the nearest of a patch counts
    maps[0, 0, 5] = 0.9  # before the first bin
    maps[0, 3, 7], maps[0, 2, 6] = 0.5, 2.0  # and so nothing else is a target there
    assert depth_targets(maps, (1, 2), BINS).tolist() == [[[5, NO_TARGET]]]
    assert depth_targets(torch.full((1, 1, 3), 1.0).cumsum(2) * 6 - 5, (1, 3), BINS).tolist() == [[[0, 12, NO_TARGET]]]
    with pytest.raises(ValueError, match="not divisible into 3 x 2 patches"):
        depth_targets(maps, (3, 2), BINS)


def test_nothing_measured_costs_nothing() -> None:
    logits = torch.randn(2, 24, 4, 6, requires_grad=True)
    loss = depth_loss(logits.softmax(dim=1), torch.full((2, 4, 6), NO_TARGET))
    assert loss == 0
    loss.backward()
    assert not logits.grad.any()
    certain = torch.zeros(1, 24, 1, 1)
    certain[0, 7] = 1.0
    assert depth_loss(certain, torch.tensor([[[7]]])) == 0 < depth_loss(certain, torch.tensor([[[8]]]))


# -- what is legal ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(4, 2), (3, 0), (0, 0)], ids=str)
def test_any_number_of_objects(counts: tuple[int, ...]) -> None:
    model = detector()
    losses = run(model, [sample_with(count, seed) for seed, count in enumerate(counts)], "loss")
    assert set(losses) == {"loss_heatmap", "loss_box", "loss_depth"}
    assert all(value.isfinite() for value in losses.values()) and losses["loss_depth"] > 0
    sum(losses.values()).backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


@pytest.mark.parametrize("num_cameras", [1, 2, 5])
def test_any_number_of_cameras(num_cameras: int) -> None:
    sample, model = sample_with(cameras=rig(num_frames=1, num_cameras=num_cameras)), detector()
    sum(run(model, [sample], "loss").values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    [found] = run(model.eval(), [sample], "predict")
    assert found.pred.boxes.tensor.isfinite().all()


def test_black_images_and_cameras_that_see_nothing() -> None:
    sample, model = sample_with(), detector()
    nothing = replace(sample.cameras, lidar2cam=torch.zeros_like(sample.cameras.lidar2cam))
    away = sample.cameras.change_frame(torch.tensor([[1.0, 0, 0, 500], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    for odd in (
        sample.replace(images=torch.zeros_like(sample.images), depth_maps=torch.zeros_like(sample.depth_maps)),
        sample.replace(cameras=nothing),
        sample.replace(cameras=blind(sample.cameras, 1)),
        sample.replace(cameras=away),  # no point of it lies on the map
    ):
        losses = run(model, [odd], "loss")
        model.zero_grad()
        sum(losses.values()).backward()
        assert all(value.isfinite() for value in losses.values())
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_missing_camera_leaves_the_others_alone() -> None:
    """What a blind camera's image holds does not matter."""
    sample, model = sample_with(), detector().eval()
    cameras, images = blind(sample.cameras, 1), sample.images.clone()
    images[1] = 255 - images[1]
    maps = [run(model, [sample.replace(images=each, cameras=cameras)], "tensor") for each in (sample.images, images)]
    for one, other in zip(*maps, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name])


def test_images_of_other_sizes_share_a_padded_batch() -> None:
    small = sample_with()
    small = small.replace(
        images=small.images[..., :50, :90],
        depth_maps=small.depth_maps[..., :50, :90],
        cameras=replace(small.cameras, image_sizes=torch.tensor([[50, 90]] * 3)),
    )
    losses = run(detector(), [small, sample_with(seed=1)], "loss")
    assert all(value.isfinite() for value in losses.values())


def test_supervision_needs_depth_maps_unless_it_is_off() -> None:
    sample = Sample().replace(**{name: sample_with().get(name) for name in ("images", "cameras", "gt")})
    with pytest.raises(ValueError, match=r"samples \[0\] of the batch have no 'depth_maps'; put MakeDepthMaps"):
        run(detector(), [sample], "loss")
    assert set(run(detector(depth_weight=0.0), [sample], "loss")) == {"loss_heatmap", "loss_box"}
    assert set(run(detector().eval(), [sample], "predict")[0].pred.keys()) == {"boxes", "scores", "labels"}


def test_predictions_come_back_to_the_recorded_frame() -> None:
    """The same rig and images in another frame: other matrices, and boxes that were moved back."""
    sample, model = sample_with(), detector(view_transform=dict(cells="exact")).eval()
    model.image_branch.view_transform.depth_net.code_norm.running_var.fill_(1e9)  # deaf to the calibration
    turn = np.diag([-1.0, -1, 1, 1])
    moved = sample.replace(cameras=sample.cameras.change_frame(torch.from_numpy(turn)), lidar_aug=turn)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(sample.cameras.lidar2cam, moved.cameras.lidar2cam)
    raw = model.head.predict(model.extract_features(model.data_preprocessor([moved])["batch"]), [moved])
    [found] = run(model, [moved], "predict")
    torch.testing.assert_close(found.pred.boxes.centers[:, :2], -raw[0].boxes.centers[:, :2])


def test_unknown_options_are_named() -> None:
    for changes, message in (
        (dict(cells="rounded"), "cells of"),
        (dict(depth_bins=(2.0, 1.0, 0.5)), r"expected depth_bins \(low, high, size\)"),
    ):
        with pytest.raises(ValueError, match=message):
            MatrixVT(**{**dict(grid=GRID, depth_bins=BINS, in_channels=8, mid_channels=8, channels=8), **changes})


# -- parts -----------------------------------------------------------------------------------------------------------


def test_rays_begin_at_the_camera_and_columns_at_the_border() -> None:
    cameras = rig(num_frames=1)
    assert column_pixels(SIZE, 3).tolist() == [[0, 31.5], [47.5, 31.5], [95, 31.5]]
    points = cameras.unproject(column_pixels(SIZE, 3), torch.tensor([1.0, 2.0]))
    pixels, depths = cameras.project(points[1].flatten(0, 1))
    torch.testing.assert_close(depths[1], torch.tensor([1.0, 2] * 3).double())
    torch.testing.assert_close(pixels[1], column_pixels(SIZE, 3).repeat_interleave(2, dim=0))
    assert blind(cameras, 0).unproject(column_pixels(SIZE, 3), DEPTHS)[0].isnan().all()
    corner = torch.tensor([GRID.lower, GRID.upper], dtype=torch.float64)
    torch.testing.assert_close(
        cell_coordinates(corner, GRID), torch.tensor([[0, 0, 0], [CELLS[1], CELLS[0], 1]]).double()
    )


def test_lists_that_do_not_fit_are_named() -> None:
    for config, message in (
        (dict(type="SECONDFPN", in_channels=[4], up_strides=[1, 2], up_channels=[4]), "one entry a map each"),
        (dict(type="ResNetBEVBackbone", in_channels=4, strides=[1, 2]), "one entry a stage each"),
    ):
        with pytest.raises(ValueError, match=message):
            MODELS.build(config)
    with pytest.raises(ValueError, match=r"\[12, 16\] cells \(y, x\) are not divisible by the stride 8"):
        MODELS.build(branch_config()["bev_backbone"])(torch.zeros(1, 8, 12, 16))
    neck = MODELS.build(dict(type="SECONDFPN", in_channels=[4], up_strides=[1], up_channels=[4]))
    with pytest.raises(ValueError, match="expected 1 maps, got 2"):
        neck([torch.zeros(1, 4, 2, 2)] * 2)
