"""What a model looked at, as layers: each point where the model had it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparse3d.analysis.focal_voxels import voxel_centers, watch_focals
from sparse3d.analysis.model_layers import QUERIES, as_recorded, watch_layers
from sparse3d.analysis.sampled_points import watch_sampling
from sparse3d.analysis.samples import ring_of_cameras
from sparse3d.models import Detector3D
from sparse3d.registry import MODELS
from sparse3d.structures import Boxes3D, Grid, Sample
from sparse3d.visualization import PointLayer
from sparse3d_ops import points_in_boxes

GRID = dict(point_range=[-8.0, -8.0, -2.0, 8.0, 8.0, 2.0], voxel_size=[0.5, 0.5, 0.25], stride=4)
NAMES = ["car", "truck"]
IMAGE = (32, 64)


def center_head(in_channels: int) -> dict:
    return dict(
        type="CenterHead", grid=GRID, class_names=NAMES, tasks=[NAMES], in_channels=in_channels,
        decoder=dict(center_range=GRID["point_range"], score_threshold=0.0),
    )  # fmt: skip


@pytest.fixture
def focal_detector() -> Detector3D:
    torch.manual_seed(0)
    encoder = dict(
        type="FocalEncoder", grid=GRID, in_channels=4, channels=[4, 4, 4], num_blocks=[1, 1, 1], block="plain",
        out_channels=8, focal_stages=[1, 2], focal=dict(top_k=True, threshold=0.5),
    )  # fmt: skip
    return MODELS.build(
        dict(
            type="Detector3D",
            data_preprocessor=dict(type="Preprocessor", grid=GRID, num_features=4),
            point_branch=dict(
                type="SparseConvBranch", grid=GRID, backbone=encoder,
                voxel_encoder=dict(type="MeanVoxelEncoder", num_features=4),
                bev_backbone=dict(
                    type="SECONDBEVBackbone", in_channels=8, num_blocks=[1], strides=[1], channels=[8],
                    up_strides=[1], up_channels=[8],
                ),
            ),
            head=center_head(8),
        )
    ).eval()  # fmt: skip


@pytest.fixture
def camera_detector() -> Detector3D:
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type="Detector3D",
            data_preprocessor=dict(type="Preprocessor", images=dict()),
            image_branch=dict(
                type="ImageBranch", backbone=dict(type="ResNet", base_channels=4, out_stages=(1,)),
                neck=dict(type="FPN", in_channels=[32], out_channels=16, num_outs=1),
            ),
            head=dict(
                type="SparseBEVHead", grid=GRID, class_names=NAMES, num_queries=30, num_frames=1, channels=16,
                num_layers=2, decoder=dict(center_range=[-99] * 3 + [99] * 3, score_threshold=0.0),
                layer=dict(num_points=3, num_levels=1, num_groups=2, num_heads=2, mixing=dict(out_points=8)),
            ),
        )
    ).eval()  # fmt: skip


def scan() -> Sample:
    points = torch.rand(400, 4, generator=torch.Generator().manual_seed(0))
    points[:, :3] = points[:, :3] * torch.tensor([16, 16, 4]) - torch.tensor([8, 8, 2])
    return Sample(metainfo={"lidar_aug": np.eye(4)}, points=points)


def rig() -> Sample:
    images = torch.randint(256, (3, 3, *IMAGE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Sample(metainfo={"lidar_aug": np.eye(4)}, images=images, cameras=ring_of_cameras(3, *IMAGE))


def test_voxel_centres_by_hand() -> None:
    centers = voxel_centers(torch.tensor([[0, 0, 0], [3, 1, 2]]), Grid.build(GRID), 2)
    assert centers.tolist() == [[-7.5, -7.5, -1.75], [-5.5, -6.5, -0.25]]


def test_kept_and_grown_voxels_of_each_focal_convolution(focal_detector: Detector3D) -> None:
    sample = scan()
    with watch_layers(focal_detector) as layers:
        focal_detector.test_step([sample])
    found = {layer.name: layer for layer in layers(sample.lidar_aug)}
    assert list(found) == ["stage 1: kept", "stage 1: grown", "stage 2: kept", "stage 2: grown"]
    kept, grown = found["stage 1: kept"], found["stage 1: grown"]
    assert len(kept.points) and len(grown.points) and kept.size == pytest.approx(0.6 * 0.25)
    size = np.array(GRID["voxel_size"])
    cells = {tuple(cell) for cell in np.floor((sample.points[:, :3].numpy() + [8, 8, 2]) / size).astype(int)}
    taken = {
        name: {tuple(cell) for cell in np.floor((found[name].points + [8, 8, 2]) / size).astype(int)} for name in found
    }
    assert taken["stage 1: kept"] <= cells  # foreground was there before
    assert not taken["stage 1: grown"] & cells
    assert found["stage 2: kept"].size == 2 * kept.size


def test_watching_ends(focal_detector: Detector3D, camera_detector: Detector3D) -> None:
    encoder = focal_detector.point_branch.backbone
    with watch_focals(encoder) as seen:
        focal_detector.test_step([scan()])
    focal_detector.test_step([scan()])
    assert len(seen) == 2
    with watch_sampling(camera_detector.head) as watch, pytest.raises(RuntimeError, match="was not called"):
        watch.best(3)
    assert not camera_detector.head.layer._forward_hooks


def test_sampled_points_lie_in_boxes_and_images(camera_detector: Detector3D) -> None:
    """Offsets that no training has moved lie within the box of their query."""
    sample = rig()
    boxes: list[torch.Tensor] = []
    sampling = camera_detector.head.layer.sampling
    handle = sampling.register_forward_hook(lambda module, inputs, output: boxes.append(inputs[0]))
    with watch_sampling(camera_detector.head) as watch:
        [found] = camera_detector.test_step([sample])
    handle.remove()
    sampled = watch.best(5)
    assert sampled.points.shape == (5, 6, 3) and sampled.pixels.shape == (5, 6, 1, 2)
    grown = Boxes3D(boxes[-1][0, :, :7] + torch.tensor([0, 0, 0, 1e-3, 1e-3, 1e-3, 0])).tensor
    assert (points_in_boxes(sampled.points.flatten(0, 1), grown) >= 0).all()
    moved = torch.nn.functional.pad(sampled.points, (0, 1), value=1.0)
    projected = (sample.cameras.lidar2img.float()[sampled.cameras[..., 0]] @ moved[..., None])[..., 0]
    front = projected[..., 2] > 0.1
    assert front.any()
    expected = projected[..., :2] / projected[..., 2:3]
    torch.testing.assert_close(sampled.pixels[..., 0, :][front], expected[front], rtol=1e-3, atol=1e-2)
    assert len(found.pred) == 30 * len(NAMES) and len(watch.best(99).points) == 30


def test_the_best_queries_come_first(camera_detector: Detector3D) -> None:
    with watch_sampling(camera_detector.head) as watch:
        camera_detector.test_step([rig()])
    few, more = watch.best(2), watch.best(9)
    assert torch.equal(few.points, more.points[:2])


def test_only_cameras_with_a_share_have_pixels(camera_detector: Detector3D) -> None:
    camera_detector.head.layer.sampling.all_views = True
    with watch_sampling(camera_detector.head) as watch:
        camera_detector.test_step([rig()])
    sampled = watch.best(30)
    seen = sampled.pixels.isfinite().all(dim=-1)
    assert seen.shape[-1] == 3 and seen.any() and not seen.all()
    inside = (sampled.pixels >= 0) & (sampled.pixels <= torch.tensor(IMAGE[::-1]))
    assert inside[seen].all()


def test_layers_of_a_camera_model(camera_detector: Detector3D) -> None:
    sample = rig()
    with watch_layers(camera_detector) as layers:
        camera_detector.test_step([sample])
    [layer] = layers(sample.lidar_aug)
    assert layer.name == "sampled points" and len(layer.points) == QUERIES * 6


def test_other_models_have_no_layers() -> None:
    detector = MODELS.build(
        dict(
            type="Detector3D",
            data_preprocessor=dict(type="Preprocessor", grid=GRID, num_features=4),
            point_branch=dict(
                type="PointBranch", grid=GRID,
                voxel_encoder=dict(type="DynamicVoxelEncoder", grid=GRID, num_features=4, channels=[4]),
                bev_backbone=dict(
                    type="SECONDBEVBackbone", in_channels=64, num_blocks=[1], strides=[4], channels=[8],
                    up_strides=[1], up_channels=[8],
                ),
            ),
            head=center_head(8),
        )
    ).eval()  # fmt: skip
    with watch_layers(detector) as layers:
        pass
    assert layers(np.eye(4)) == ()


def test_layers_return_to_the_recorded_frame() -> None:
    turned = np.array([[0.0, -1, 0, 5], [1, 0, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]])
    [layer] = as_recorded([PointLayer("one", np.array([[5.0, 3.0, 2.0]]), "#ffffff", 0.1)], turned)
    np.testing.assert_allclose(layer.points, [[3.0, 0.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize(
    ("points", "color", "size"),
    [(np.zeros((2, 2)), "#ffffff", 1.0), (np.zeros((2, 3)), "no", 1.0), (np.zeros((2, 3)), "#ffffff", 0.0)],
)
def test_a_layer_is_checked(points: np.ndarray, color: str, size: float) -> None:
    with pytest.raises(ValueError, match=r"points|layer .one."):
        PointLayer("one", points, color, size)
