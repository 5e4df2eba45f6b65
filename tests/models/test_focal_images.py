"""What voxels see in images, and how focal convolutions use it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sparse3d.config import load_config
from sparse3d.datasets.transforms import ResizeImages
from sparse3d.encoding.image_sampling import PixelRule, read_pixels, sample_images
from sparse3d.models import Detector3D, FocalConv
from sparse3d.registry import MODELS
from sparse3d.structures import Cameras, Sample
from sparse3d.structures.cameras import TENSORS
from sparse3d_ops.sparse import Sites, SparseTensor
from tests.conftest import REPOSITORY

SIZE = (12, 20)  # height, width


def pinhole(focal: float = 10.0) -> Tensor:
    """A camera at the origin that looks along z, with the optical axis in the middle of the image."""
    matrix = torch.eye(4)
    matrix[0, 0] = matrix[1, 1] = focal
    matrix[0, 2], matrix[1, 2] = SIZE[1] / 2, SIZE[0] / 2
    return matrix


@pytest.mark.parametrize("shape", [(3, 5), (12, 20), (7, 9)])
def test_pixels_are_read_as_from_an_interpolated_map(shape: tuple[int, int]) -> None:
    view = torch.randn(4, *shape)
    v, u = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    pixels = torch.stack([u.flatten(), v.flatten()], dim=1)
    whole = F.interpolate(view[None], SIZE, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(read_pixels(view, pixels, SIZE), whole.flatten(1).T, rtol=1e-4, atol=1e-5)


def test_a_position_falls_on_the_pixel_that_its_ray_meets() -> None:
    positions = torch.tensor([[0.19, -0.1, 2.0], [5.0, 0, 1.0], [0.0, 0.0, 0.0]])
    rows, pixels = PixelRule().find(positions, pinhole(), "front", SIZE)
    assert rows.tolist() == [0]
    assert pixels.tolist() == [[10, 5]]


def test_what_lies_behind_is_seen_unless_there_is_a_least_depth() -> None:
    behind = torch.tensor([[0.1, 0.1, -2.0]])
    assert len(PixelRule().find(behind, pinhole(), "front", SIZE)[0]) == 1
    assert len(PixelRule(min_depths={}).find(behind, pinhole(), "front", SIZE)[0]) == 0
    ahead = torch.tensor([[0.1, 0.1, 0.9], [0.1, 0.1, 1.1]])
    assert PixelRule(min_depths={"left": 9.0, "front": 1.0}).find(ahead, pinhole(), "front", SIZE)[0].tolist() == [1]


def test_pixels_are_truncated_before_and_after_the_scale() -> None:
    position = torch.tensor([[0.77, 0.0, 1.0]])  # u = 17.7 -> 17 -> 11.33 -> 11; without the first step 11.8
    _, pixels = PixelRule(scale=2 / 3).find(position, pinhole(), "front", SIZE)
    assert pixels.tolist() == [[11, 4]]


def test_the_first_row_and_column_may_be_blind() -> None:
    corner = torch.tensor([[-0.95, 0.0, 1.0], [0.0, -0.55, 1.0], [0.0, 0.0, 1.0]])
    assert PixelRule().find(corner, pinhole(), "front", SIZE)[0].tolist() == [0, 1, 2]
    assert PixelRule(skip_first=True).find(corner, pinhole(), "front", SIZE)[0].tolist() == [2]


def test_cameras_add_up_and_samples_look_into_their_own_images() -> None:
    maps = torch.randn(2, 2, 3, 6, 10, requires_grad=True)
    matrices = torch.stack([pinhole(), pinhole(8.0)]).repeat(2, 1, 1, 1)
    positions = torch.tensor([[0.1, 0.1, 1.0], [0.1, 0.1, 1.0], [50.0, 0, 1.0]])
    sample = torch.tensor([0, 1, 1], dtype=torch.int32)
    seen = sample_images(maps, matrices, [("left", "right")] * 2, SIZE, positions, sample, PixelRule())
    for row in (0, 1):
        parts = []
        for camera in (0, 1):
            _, pixels = PixelRule().find(positions[row : row + 1], matrices[row, camera], "left", SIZE)
            parts.append(read_pixels(maps[row, camera], pixels, SIZE)[0])
        torch.testing.assert_close(seen[row], sum(parts))
    assert not seen[2].any()
    seen.sum().backward()
    assert maps.grad.abs().sum() > 0


def test_new_voxels_look_for_themselves() -> None:
    indices = torch.tensor([[0, 2, 2, 2], [0, 3, 3, 3]]).int()
    x = SparseTensor(torch.randn(2, 4), indices, (6, 6, 6), 1)
    looks: list[Sites] = []

    def look(sites: Sites) -> Tensor:
        looks.append(sites)
        return torch.ones(len(sites), 4)

    torch.manual_seed(0)
    for fusion in ("concat", "sum"):
        looks.clear()
        block = FocalConv(4, threshold=0.0, top_k=False, image_fusion=fusion).eval()
        out, _ = block(x, look)
        assert looks[0] is x.sites
        assert looks[1] is out.sites
        assert len(out) > len(x)


def test_images_and_fusion_go_together() -> None:
    x = SparseTensor(torch.randn(1, 4), torch.zeros(1, 4).int(), (6, 6, 6), 1)
    with pytest.raises(ValueError, match="image_fusion"):
        FocalConv(4, image_fusion="sum")(x)
    with pytest.raises(ValueError, match="image_fusion"):
        FocalConv(4)(x, lambda sites: torch.zeros(len(sites), 4))
    with pytest.raises(ValueError, match="must be one of"):
        FocalConv(4, image_fusion="mean")


# -- the whole detector ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fused() -> tuple[Detector3D, list[Sample]]:
    """The published detector on a small grid, and a sample of it with two cameras."""
    config = load_config(
        REPOSITORY / "configs" / "focals_conv" / "focals_conv_f_voxel0075_nuscenes.py",
        {"grid.point_range": [-4.8, -4.8, -5, 4.8, 4.8, 3], "pretrained": None},
    )
    torch.manual_seed(0)
    detector = MODELS.build(config.model).eval()
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(400, 5, generator=generator) * torch.tensor([9.6, 9.6, 4, 1, 0.5]) - torch.tensor(
        [4.8, 4.8, 3, 0, 0]
    )
    forward = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    backward = torch.tensor([[0.0, 1, 0, 0], [0, 0, -1, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
    intrinsics = torch.tensor([[60.0, 0, 48], [0, 60, 32], [0, 0, 1]]).repeat(2, 1, 1)
    cameras = Cameras.create(
        ["CAM_FRONT", "CAM_BACK"], intrinsics, torch.stack([forward, backward]), torch.tensor([[64, 96]] * 2)
    )
    images = torch.randint(0, 256, (2, 3, 64, 96), generator=generator, dtype=torch.uint8)
    whole = Sample(points=points, images=images, cameras=cameras)
    return detector, [ResizeImages(factors=[2 / 3, 2 / 3])(whole, np.random.default_rng(0))]


def raw(detector: Detector3D, samples: list[Sample]) -> Tensor:
    with torch.no_grad():
        data = detector.data_preprocessor(samples)
        return detector.extract_features(data["batch"]).bev


def test_images_change_what_the_detector_makes_of_points(fused: tuple[Detector3D, list[Sample]]) -> None:
    detector, (sample,) = fused
    dark = sample.replace(images=torch.zeros_like(sample.images))
    assert not torch.equal(raw(detector, [sample]), raw(detector, [dark]))


def test_a_camera_that_a_sample_lacks_shows_nothing(fused: tuple[Detector3D, list[Sample]]) -> None:
    """A blind camera and no camera are the same, and so is another order of cameras."""
    detector, (sample,) = fused
    rig = sample.cameras
    blind = sample.replace(cameras=replace(rig, lidar2cam=rig.lidar2cam * torch.tensor([1.0, 0.0])[:, None, None]))
    first = {name: getattr(rig, name)[:1] for name in TENSORS}
    alone = sample.replace(images=sample.images[:1], cameras=Cameras(names=rig.names[:1], **first))
    torch.testing.assert_close(raw(detector, [blind]), raw(detector, [alone]))
    other_way = {name: getattr(rig, name).flip(0) for name in TENSORS}
    turned = sample.replace(images=sample.images.flip(0), cameras=Cameras(names=rig.names[::-1], **other_way))
    torch.testing.assert_close(raw(detector, [turned]), raw(detector, [sample]), rtol=1e-4, atol=1e-5)


def test_nothing_at_all_is_an_empty_map(fused: tuple[Detector3D, list[Sample]]) -> None:
    detector, (sample,) = fused
    rig = sample.cameras
    blind = sample.replace(cameras=replace(rig, lidar2cam=torch.zeros_like(rig.lidar2cam)), points=sample.points[:0])
    assert torch.isfinite(raw(detector, [blind, blind])).all()


def test_gradients_reach_the_images(fused: tuple[Detector3D, list[Sample]]) -> None:
    detector, samples = fused
    batch = detector.data_preprocessor(samples)["batch"]
    detector.extract_features(batch).bev.sum().backward()
    assert detector.image_branch.backbone.stem[0].weight.grad.abs().sum() > 0
    detector.zero_grad()
