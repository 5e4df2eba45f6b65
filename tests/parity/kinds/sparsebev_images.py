"""SparseBEV: the way of images from disk to features."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sparse3d.checkpoints.backbones import EVA02 as EVA02_NAMES
from sparse3d.checkpoints.backbones import VOVNET
from sparse3d.datasets.transforms import CropImages, FlipImages, ResizeImages, frame_cameras, warp_image
from sparse3d.models import ImageBranch, VoVNet
from sparse3d.models.images.eva02 import rotary_table
from sparse3d.structures import Boxes3D, CameraImage, Cameras, Frame, LidarScan

from ..cases import Case
from ..compare import Comparison, assert_equal, section
from .sparsebev import inputs_of, prepare

GREY_LEVELS = 1.0  # mean distance of resized images; Pillow rounds its filter in its own way

# -- data ----------------------------------------------------------------------------------------------------------


def check_geometry(case: Case) -> None:
    comparison, arrays = Comparison(case), section(case, "in")
    cameras = _past_cameras(arrays)
    comparison.output("lidar2img", cameras.lidar2img)
    _check_image_moves(case, comparison, arrays["image"])

    turn, scale = float(arrays["rot_angle"]), float(arrays["scale"])
    move = np.eye(4)
    move[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    move[:3] *= scale
    comparison.output("lidar2img_after_rot_scale", cameras.move_lidar(torch.from_numpy(move)).lidar2img)
    boxes = Boxes3D.from_mmdet3d(arrays["boxes"]).transform(move)
    comparison.output("boxes_after_rot_scale", boxes.to_mmdet3d())
    comparison.finish()


def _past_cameras(arrays: dict[str, np.ndarray]) -> Cameras:
    """Cameras of a past frame, whose own LiDAR frame is taken to be the world."""
    count = len(arrays["cam_intrinsic"])
    sensor2global = np.tile(np.eye(4), (count, 1, 1))
    sensor2global[:, :3, :3] = arrays["sensor2global_rotation_T"].transpose(0, 2, 1)
    sensor2global[:, :3, 3] = arrays["sensor2global_translation"]
    images = tuple(
        CameraImage(str(n), "", 0, arrays["cam_intrinsic"][n], np.eye(4), np.eye(4), np.linalg.inv(pose), 1600, 900)
        for n, pose in enumerate(sensor2global)
    )
    past = Frame("past", "", 0, LidarScan("", 0, np.eye(4)), (), images, np.eye(4), np.eye(4), None)
    poses = (_pose(arrays[f"{name}_rotation"], arrays[f"{name}_translation"]) for name in ("lidar2ego", "ego2global"))
    now = Frame("now", "", 0, LidarScan("", 0, np.eye(4)), (), images, *poses, None)
    both = frame_cameras(now, [past])
    return Cameras.create(both.names[count:], both.intrinsics[count:], both.lidar2cam[count:], both.image_sizes[count:])


def _pose(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation
    return pose


class _Chosen:
    """A generator that draws a number which is known."""

    def __init__(self, value: float) -> None:
        self.value = value

    def uniform(self, low: float, high: float) -> float:
        assert low <= self.value <= high
        return self.value


def _check_image_moves(case: Case, comparison: Comparison, image: np.ndarray) -> None:
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    height, width = case.config["config"]["final_dim"]
    count = len({name.split("/")[2] for name in case.arrays if name.startswith("out/ida/")})
    for number in range(count):
        name = f"ida/{number}"
        factor, left, top, right, bottom = (
            float(comparison.take(f"out/{name}/resize")),
            *comparison.take(f"out/{name}/crop").tolist(),
        )
        assert float(comparison.take(f"out/{name}/rotate")) == 0
        resized, size = ResizeImages((factor, factor)).draw(image.shape[:2], np.random.default_rng(0))
        sides = comparison.take(f"out/{name}/resize_dims")
        assert_equal(f"{name}/resize_dims", size[::-1], sides)
        cropped, size = CropImages((height, width), horizontal="random").draw(size, _Chosen(left))
        assert (right - left, bottom - top) == size[::-1]
        flipped, size = FlipImages(float(comparison.take(f"out/{name}/flip"))).draw(size, np.random.default_rng(0))
        theirs = comparison.take(f"out/{name}/ida_mat")
        comparison.close(f"{name}/ida_mat", flipped @ cropped @ resized, theirs[:3, :3])
        # Their images have a whole number of pixels, their matrix has not; ours follow the matrix.
        whole = np.diag([*(sides / np.array(image.shape[1::-1])), 1.0])
        moved = warp_image(tensor, flipped @ cropped @ whole, size).numpy().transpose(1, 2, 0)
        distance = np.abs(moved.astype(float) - comparison.take(f"out/{name}/image")).mean()
        assert distance < GREY_LEVELS, f"{name}/image: grey levels differ by {distance:.2f} on average"


# -- image branch and detector -------------------------------------------------------------------------------------


def check_vovnet(case: Case) -> None:
    config = case.config["config"]
    assert config["eSE"] and not config["dw"]
    backbone = VoVNet(
        stem_channels=config["stem"],
        conv_channels=config["stage_conv_ch"],
        stage_channels=config["stage_out_ch"],
        num_convs=config["layer_per_block"],
        num_blocks=config["block_per_stage"],
    )
    comparison = prepare(case, backbone, VOVNET)
    with torch.no_grad():
        for number, output in enumerate(backbone(inputs_of(case)["x"])):
            comparison.output(f"stage{number + 2}", output)
    comparison.finish()


def check_eva02(case: Case) -> None:
    config = case.config["config"]
    windowed = config["window_block_indexes"]
    assert config["qkv_bias"] and not config["residual_block_indexes"]
    branch = ImageBranch(
        dict(
            type="EVA02",
            image_size=config["img_size"],
            pretrained_size=config["pretrain_img_size"],
            patch_size=config["patch_size"],
            channels=config["embed_dim"],
            depth=config["depth"],
            num_heads=config["num_heads"],
            mlp_ratio=config["mlp_ratio"],
            window_size=config["window_size"],
            global_blocks=[n for n in range(config["depth"]) if n not in windowed],
            drop_path=config["drop_path_rate"],
        ),
        dict(
            type="SimpleFPN",
            in_channels=config["embed_dim"],
            out_channels=config["fpn_out_channels"],
            num_outs=len(config["fpn_scale_factors"]) + config["fpn_top_block"],
        ),
    )
    comparison = prepare(case, branch, EVA02_NAMES)
    _check_rotary_tables(comparison, config)
    with torch.no_grad():
        maps = branch.backbone(inputs_of(case)["x"])
        comparison.output("vit", maps[0])
        for number, output in enumerate(branch.neck(maps)):
            comparison.output(f"fpn/{number}", output)
    comparison.finish()


def _check_rotary_tables(comparison: Comparison, config: dict[str, Any]) -> None:
    height, width = (size // config["patch_size"] for size in config["real_img_size"])
    window, side = config["window_size"], config["img_size"] // config["patch_size"]
    channels = config["embed_dim"] // config["num_heads"]
    for name, length, grid in (("win", window, (window, window)), ("glb", side, (height, width))):
        tables = rotary_table(length, grid, channels, torch.device("cpu"))
        for part, table in zip(("cos", "sin"), tables, strict=True):
            theirs = comparison.case.arrays[f"state/backbone.net.rope_{name}.freqs_{part}"]
            comparison.close(f"rope_{name}.freqs_{part}", table, theirs)


KINDS = {
    "sparsebev/geometry": check_geometry,
    "sparsebev/backbone_vovnet": check_vovnet,
    "sparsebev/backbone_eva02": check_eva02,
}
