"""Parts of SparseFusion against their definitions: cameras, depth maps, heights, lifting, suppression, augmentation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse3d.datasets.transforms import (
    MarkVisible,
    MirrorImagesWithWorld,
    RandomFlip,
    RandomRotate,
    RandomScale,
    RandomTranslate,
    RangeFilter,
    ResizeImages,
    ZoomImages,
)
from sparse3d.decoding.sparsefusion import CandidateHeat, SparseFusionDecoder
from sparse3d.encoding.camera_geometry import CameraGeometry
from sparse3d.encoding.cell_heights import cell_heights
from sparse3d.encoding.depth_maps import DEPTH_MEAN, DEPTH_VARIANCE, draw_depth_maps
from sparse3d.encoding.seen_cells import SeenCells
from sparse3d.models import GroundTruth
from sparse3d.models.heads.sparsefusion_camera import CameraDecoder, CameraPredictions
from sparse3d.models.heads.sparsefusion_view import lift
from sparse3d.models.layers.deformable import DeformableAttention, ImageMemory
from sparse3d.models.targets.camera_truth import CameraTruth
from sparse3d.models.targets.sparsefusion_targets import encode_camera_boxes
from sparse3d.structures import Boxes3D, Sample, Voxels
from sparse3d_ops import voxelize

from .build import CENTER_RANGE, CLASS_NAMES
from .fusion import GRID, SIZE, rig, sample_with

NO_CHANCE = np.random.default_rng(0)


def augmented(seed: int) -> Sample:
    """A sample after all that the published pipeline does to it."""
    rng = np.random.default_rng(seed)
    sample = Sample.from_frame(None).replace(**dict(sample_with(num_boxes=12, seed=seed).items()))
    for transform in (
        MarkVisible(),
        RandomRotate((-0.785, 0.785)),
        RandomScale((0.9, 1.1)),
        RandomTranslate(0.5),
        RandomFlip(),
        MirrorImagesWithWorld(),
        ZoomImages((0.9, 1.1)),
        ResizeImages((0.8, 0.8)),
    ):
        sample = transform(sample, rng)
    return sample


def close(ours: Tensor, expected: Tensor) -> None:
    """The rig's own rotations are orthogonal in float32 only."""
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def geometry(sample: Sample) -> CameraGeometry:
    return CameraGeometry.of([sample.cameras], SIZE, torch.float64)


def truth_of(sample: Sample) -> GroundTruth:
    labels = sample.gt.labels
    return GroundTruth(Boxes3D(sample.gt.boxes.tensor.double()), labels, torch.zeros_like(labels), 1)


# -- cameras -----------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_pixels_are_those_of_the_rig_whatever_moved_it(seed: int) -> None:
    sample = augmented(seed)
    cameras, points = geometry(sample), sample.points[:50, :3].double()
    pixels, depths = cameras.project(points[None])
    expected, _ = sample.cameras.project(points)
    ahead = expected.isfinite().all(dim=-1)
    torch.testing.assert_close(pixels[0][ahead], expected[ahead], atol=1e-6, rtol=1e-6)
    assert torch.equal(cameras.inside(pixels, depths)[0], sample.cameras.visible(points))
    turns = cameras.rotations[0]
    torch.testing.assert_close(turns @ turns.transpose(1, 2), torch.eye(3).double().expand(len(turns), 3, 3))
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(len(turns)).double())  # turned, never mirrored
    assert (cameras.intrinsics.diagonal(dim1=2, dim2=3) > 0).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_objects_come_back_from_the_cameras_that_see_them(seed: int) -> None:
    """Truth -> codes of cameras -> lifted codes: place, size, heading and velocity are those of the truth."""
    sample = augmented(seed)
    truth, cameras = truth_of(sample), geometry(sample)
    seen = CameraTruth.find(truth, cameras)
    codes = {name: code[None] for name, code in encode_camera_boxes(seen, SIZE).items()}
    places = cameras.rays(codes["center"] * torch.tensor(SIZE[::-1]), codes["depth"], seen.views[None])
    found = CameraPredictions(codes, torch.zeros(1, len(seen.views), 4), places, seen.views[None])
    lifted = lift(found, cameras, GRID)
    own = truth.boxes[seen.objects]
    lower, cell = torch.tensor(GRID.lower[:2]), torch.tensor(GRID.cell_size)
    close(lifted["center"][0] * cell + lower, own.centers[:, :2])
    close(lifted["height"][0, :, 0], own.centers[:, 2])
    close(lifted["dim"][0].exp(), own.sizes)
    close(lifted["vel"][0], own.velocities)
    sin, cos = lifted["rot"][0].unbind(1)
    close(torch.stack([sin, cos], 1), torch.stack([own.yaws.sin(), own.yaws.cos()], 1))


def test_a_missing_camera_sees_nothing() -> None:
    cameras = CameraGeometry.of([rig(missing=(1,))], SIZE)
    pixels, depths = cameras.project(torch.rand(1, 20, 3) * 10)
    assert not cameras.inside(pixels, depths)[0, 1].any()
    assert cameras.seeing.tolist() == [[True, False, True]]
    views = torch.ones(1, 4, dtype=torch.int64)
    assert (cameras.to_lidar(torch.rand(1, 4, 3), views, places=True) == 0).all()
    assert cameras.hidden([(16, 24)], 4)[0][0, 1].all()


def test_rigs_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected rigs of as many cameras each, got \[2, 3\]"):
        CameraGeometry.of([rig(2), rig(3)], SIZE)


# -- what the sensors say ----------------------------------------------------------------------------------------------


def test_depth_maps_point_by_point() -> None:
    sample, stride = sample_with(num_points=300), 4
    cameras = CameraGeometry.of([sample.cameras, sample.cameras], SIZE)
    points, owners = sample.points[:, :3], torch.arange(300) % 2
    maps = draw_depth_maps(points, owners, cameras, stride)
    expected = torch.full((2, 3, *(side // stride for side in SIZE)), math.inf)
    for point, owner in zip(points, owners.tolist(), strict=True):
        pixels, depths = sample.cameras.project(point[None].double())
        for view, ((u, v), depth) in enumerate(zip(pixels[:, 0].tolist(), depths[:, 0].tolist(), strict=True)):
            if depth > 0 and 0 < u < SIZE[1] - 1 and 0 < v < SIZE[0] - 1:
                place = (owner, view, int(v / stride), int(u / stride))
                expected[place] = min(float(expected[place]), depth)
    hit = expected.isfinite()
    assert torch.equal(maps[:, :, 1] == 1, hit) and hit.any()
    depths = maps[:, :, 0] * math.sqrt(DEPTH_VARIANCE) + DEPTH_MEAN
    torch.testing.assert_close(depths[hit], expected[hit], atol=1e-4, rtol=1e-4)
    assert (maps[:, :, 0][~hit] == 0).all()


@pytest.mark.parametrize("max_points", [None, 2])
def test_heights_point_by_point(max_points: int | None) -> None:
    points = torch.rand(400, 5) * torch.tensor([4.0, 4.0, 5.9, 1, 1]) - torch.tensor([2.0, 2.0, 2.9, 0, 0])
    owners = torch.arange(400) // 200
    found = voxelize(points, owners, GRID.point_range, GRID.voxel_size, 3)
    voxels = Voxels(found.coords, points, found.point_to_voxel, 3)
    low, high = cell_heights(voxels, GRID, max_points)
    expected_low, expected_high = torch.full_like(low, math.inf), torch.full_like(high, -math.inf)
    counts = [0] * len(found.coords)
    for point, voxel in zip(points, found.point_to_voxel.tolist(), strict=True):
        counts[voxel] += 1
        if max_points is not None and counts[voxel] > max_points:
            continue
        sample, _, y, x = found.coords[voxel].tolist()
        place = (sample, y // GRID.stride, x // GRID.stride)
        expected_low[place] = min(expected_low[place], point[2])
        expected_high[place] = max(expected_high[place], point[2])
    assert torch.equal(low, expected_low) and torch.equal(high, expected_high)
    assert low[2].isinf().all()  # a sample without points


# -- layers ------------------------------------------------------------------------------------------------------------


def test_hidden_pixels_read_as_zero() -> None:
    attention = DeformableAttention(8, num_heads=2, num_levels=1, num_points=2)
    level = torch.randn(1, 1, 8, 6, 9)
    hidden = torch.zeros(1, 1, 6, 9, dtype=torch.bool)
    hidden[..., 5:] = True
    other = level + 10 * hidden[:, :, None]
    queries, references, views = torch.randn(1, 30, 8), torch.rand(1, 30, 2), torch.zeros(1, 30, dtype=torch.int64)
    seen = [attention(queries, references, views, ImageMemory((each,), (hidden,))) for each in (level, other)]
    torch.testing.assert_close(*seen)
    shown = attention(queries, references, views, ImageMemory((other,), (torch.zeros_like(hidden),)))
    assert (seen[0] - shown).abs().max() > 0.1


def test_cells_of_several_cameras_take_the_maximum() -> None:
    cameras = CameraGeometry.of([rig(6)], SIZE)  # neighbours overlap
    points = torch.randn(1, 200, 3) * torch.tensor([6.0, 6.0, 0.5])
    points[0, :20] = math.nan  # cells without points
    seen = SeenCells.find(points, cameras)
    looked = torch.randn(*seen.rows.shape, 5)
    cells = torch.randn(1, 200, 5)
    merged, by_any = seen.merge(looked, cells), seen.by_any(cells)[0, :, 0] > 0
    several = 0
    for cell in range(200):
        own = looked[(seen.rows == cell) & seen.filled]
        several += len(own) > 1
        assert by_any[cell] == (len(own) > 0)
        torch.testing.assert_close(merged[0, cell], own.amax(dim=0) if len(own) else cells[0, cell])
    assert several > 10 and not by_any[:20].any()
    assert torch.equal(seen.gather(cells)[seen.filled], cells[0, seen.rows[seen.filled]])


@pytest.mark.parametrize("lone", ["zero", "keep"])
def test_a_query_that_is_alone_in_its_camera(lone: str) -> None:
    decoder = CameraDecoder(16, 4, 1, 2, 24, 0.0, lone_queries=lone).eval()
    cameras = CameraGeometry.of([rig()], SIZE)
    memory = ImageMemory((torch.randn(1, 3, 16, 16, 24),), (torch.zeros(1, 3, 16, 24, dtype=torch.bool),))
    queries, views = torch.randn(1, 4, 16), torch.tensor([[0, 2, 0, 0]])
    refined, _, _ = decoder(queries, torch.randn(1, 4, 2), views, memory, cameras)
    zero = (refined == 0).all(dim=2)[0].tolist()
    assert zero == [False, lone == "zero", False, False]


# -- boxes -------------------------------------------------------------------------------------------------------------


def decode(centers: Tensor, heat: Tensor, labels: Tensor, **options) -> list[list[float]]:
    """The x of what is left, for candidates at ``(x, 0)`` metres whose logits are all 0."""
    count = len(heat)
    lower, cell = torch.tensor(GRID.lower[:2]), torch.tensor(GRID.cell_size)
    codes = {
        "center": ((torch.stack([centers, torch.zeros(count)], 1) - lower) / cell)[None],
        "height": torch.zeros(1, count, 1),
        "dim": torch.zeros(1, count, 3),
        "rot": torch.tensor([0.0, 1.0]).expand(1, count, 2),
        "vel": torch.zeros(1, count, 2),
    }
    decoder = SparseFusionDecoder(CLASS_NAMES, CENTER_RANGE, dict(car=0.36), **options)
    (found,) = decoder.decode(codes, torch.zeros(1, count, 4), CandidateHeat(labels[None], heat[None]), GRID)
    return [[round(x, 3) for x in found.boxes.centers[:, 0].tolist()], found.scores.tolist(), found.labels.tolist()]


def test_suppression_by_squared_distance() -> None:
    """0.5 m lies within 0.36 m² but not within 0.36 m; a box that goes takes no other one with it."""
    centers, heat = torch.tensor([0.0, 0.5, 1.0, 5.0]), torch.tensor([0.8, 0.6, 0.4, 0.9])
    labels = torch.zeros(4, dtype=torch.int64)
    assert decode(centers, heat, labels)[0] == [5.0, 0.0, 1.0]
    assert decode(centers, heat, labels, distance="metres")[0] == [5.0, 0.0, 0.5, 1.0]
    assert decode(centers, heat, labels + 1)[0] == [5.0, 0.0, 0.5, 1.0]  # a class without suppression


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 30), st.integers(0, 10**6))
def test_suppression_equals_the_greedy_one(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(count, generator=generator) * 6
    heat = (torch.randint(1, 9, (count,), generator=generator)).float() / 10  # with ties
    labels = torch.randint(2, (count,), generator=generator)
    gone = [False] * count
    for i in heat.argsort(descending=True, stable=True).tolist():
        for j in range(count):
            near = (centers[i] - centers[j]).square() <= 0.36
            if not gone[i] and labels[i] == labels[j] == 0 and heat[j] < heat[i] and near:
                gone[j] = True
    expected = sorted(round(float(x), 3) for x, lost in zip(centers, gone, strict=True) if not lost)
    assert sorted(decode(centers, heat, labels)[0]) == expected


def test_candidates_without_a_score() -> None:
    centers, heat, labels = torch.tensor([0.0, 3.0]), torch.tensor([0.0, 0.4]), torch.tensor([2, 2])
    assert decode(centers, heat, labels) == [[3.0, 0.0], [pytest.approx(0.2), 0.0], [2, 0]]
    assert decode(centers, heat, labels, keep_zero_scores=False)[0] == [3.0]


def test_cameras_count_half_and_only_where_their_decoder_agrees() -> None:
    labels, heat = torch.tensor([[1, 2]]), torch.tensor([[0.6, 0.8]])
    logits = torch.tensor([[[0.0, 3.0, 0.0], [0.0, 3.0, 0.0]]])
    joined = CandidateHeat.join(labels, heat, labels, heat, logits)
    torch.testing.assert_close(joined.heat, torch.tensor([[0.6, 0.8, 0.3, 0.0]]))


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match=r"nms_thresholds: \['tram'\]"):
        SparseFusionDecoder(CLASS_NAMES, CENTER_RANGE, dict(tram=1.0))
    with pytest.raises(ValueError, match="distance must be one of squared, metres"):
        SparseFusionDecoder(CLASS_NAMES, CENTER_RANGE, distance="feet")


# -- transforms --------------------------------------------------------------------------------------------------------


def test_zooming_keeps_the_size_or_shrinks_it() -> None:
    sample = sample_with()
    grown = ZoomImages((1.5, 1.5))(sample, NO_CHANCE)
    assert tuple(grown.images.shape[2:]) == SIZE
    shrunk = ZoomImages((0.5, 0.5))(sample, NO_CHANCE)
    assert tuple(shrunk.images.shape[2:]) == (SIZE[0] // 2, SIZE[1] // 2)
    assert shrunk.cameras.image_sizes.tolist() == [[SIZE[0] // 2, SIZE[1] // 2]] * 3


def test_images_are_mirrored_with_the_world_only() -> None:
    sample = Sample.from_frame(None).replace(**dict(sample_with().items()))
    once = MirrorImagesWithWorld()(RandomFlip(x=1, y=0)(sample, NO_CHANCE), NO_CHANCE)
    assert torch.equal(once.images, sample.images.flip(-1))
    twice = MirrorImagesWithWorld()(RandomFlip(x=1, y=1)(sample, NO_CHANCE), NO_CHANCE)
    assert torch.equal(twice.images, sample.images)


def test_visible_is_what_cameras_saw_before() -> None:
    sample = sample_with(num_boxes=30)
    marked = MarkVisible()(sample, NO_CHANCE)
    assert torch.equal(marked.gt.visible, sample.cameras.visible(sample.gt.boxes.centers).any(dim=0))
    assert 0 < marked.gt.visible.sum() < 30
    kept = RangeFilter(replace(GRID, point_range=(-4, -4, -3, 4, 4, 3), voxel_size=(0.5, 0.5, 0.5)), points=False)(
        marked, NO_CHANCE
    )
    assert len(kept.gt.visible) == len(kept.gt.boxes) < 30
    assert len(kept.points) == len(sample.points)
