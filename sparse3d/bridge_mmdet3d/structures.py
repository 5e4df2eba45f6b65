"""Boxes, detections and samples of sparse3d and of mmdetection3d.

    boxes         LiDARInstance3DBoxes: x, y, z, l, w, h, yaw(, vx, vy) as ours, but z of the bottom face
    objects       InstanceData with bboxes_3d, labels_3d, scores_3d; ours with boxes, labels, scores
    one sample    dict(inputs=dict(points=[P, F], img=[C, 3, H, W]), data_samples=Det3DDataSample), channels of images
                  in the order blue, green, red; calibration in the metainfo, `cam2img` with what was done to the image

mmdetection3d moves points and boxes when it augments, and leaves `lidar2cam` as it was: the movement is noted in the
metainfo (`transformation_3d_flow` and the entries it names). Our cameras follow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet3d.models.layers.fusion_layers import apply_3d_transformation
from mmdet3d.structures import Box3DMode, Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData
from torch import Tensor

from ..models.targets.ground_truth import GroundTruth
from ..structures import Boxes3D, Cameras, Sample

BOX_KIND = {"box_type_3d": LiDARInstance3DBoxes, "box_mode_3d": Box3DMode.LIDAR}  # heads make boxes of this type
CORNERS = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))  # of the coordinate system

# -- boxes and detections ---------------------------------------------------------------------------------------------


def boxes_to_mmdet3d(boxes: Boxes3D) -> LiDARInstance3DBoxes:
    """Return mmdetection3d's boxes, float32, with velocities where ours have them."""
    return LiDARInstance3DBoxes(boxes.to_mmdet3d(), box_dim=boxes.tensor.shape[1])


def boxes_from_mmdet3d(boxes: LiDARInstance3DBoxes) -> Boxes3D:
    """Return our boxes.

    Raises:
        TypeError: if the boxes are in the frame of a camera or of an indoor scan.
        ValueError: if they have more numbers than ``[N, 7]`` or ``[N, 9]`` with velocities.
    """
    if not isinstance(boxes, LiDARInstance3DBoxes):
        raise TypeError(
            f"expected LiDARInstance3DBoxes, got {type(boxes).__name__}; its convert_to(Box3DMode.LIDAR) makes them"
        )
    return Boxes3D.from_mmdet3d(boxes.tensor)


def detections_to_mmdet3d(found: InstanceData) -> InstanceData:
    """Return ``bboxes_3d``, ``scores_3d``, ``labels_3d`` for our ``boxes``, ``scores``, ``labels``."""
    return InstanceData(bboxes_3d=boxes_to_mmdet3d(found.boxes), scores_3d=found.scores, labels_3d=found.labels)


def detections_from_mmdet3d(found: InstanceData) -> InstanceData:
    """Return ``boxes``, ``scores``, ``labels`` int64 for mmdetection3d's, in descending order of score."""
    order = found.scores_3d.argsort(descending=True)
    return InstanceData(
        boxes=boxes_from_mmdet3d(found.bboxes_3d)[order],
        scores=found.scores_3d[order],
        labels=found.labels_3d[order].long(),
    )


# -- samples ----------------------------------------------------------------------------------------------------------


def to_data_sample(sample: Sample) -> Det3DDataSample:
    """Return ground truth, detections and calibration of a sample, whichever it has.

    As in mmdetection3d's data sets, objects of no class are left out, and a velocity that is not known is 0.
    """
    data_sample = Det3DDataSample(metainfo={**BOX_KIND, **_origin(sample), **_calibration(sample)})
    if "gt" in sample:
        data_sample.gt_instances_3d = _truth_to_mmdet3d(sample)
    if "pred" in sample:
        data_sample.pred_instances_3d = detections_to_mmdet3d(sample.pred)
    return data_sample


def pack(sample: Sample) -> dict[str, Any]:
    """Return a sample as mmdetection3d's pipelines end with it: ``dict(inputs, data_samples)``."""
    inputs = {}
    if "points" in sample:
        inputs["points"] = sample.points
    if "images" in sample:
        inputs["img"] = torch.stack(list(sample.images)).flip(1)
    return {"inputs": inputs, "data_samples": to_data_sample(sample)}


def unpack(inputs: Mapping[str, Any], data_sample: Det3DDataSample) -> Sample:
    """Return the sample of what ``pack`` returns; what is not there is left out.

    Detections stand where ``points`` do, as mmdetection3d has them, so ``lidar_aug`` says that nothing moved.

    Args:
        inputs: of one sample, with ``points`` ``[P, F]`` float32, ``img`` ``[C, 3, H, W]``, or both.
        data_sample: with ``gt_instances_3d``, ``pred_instances_3d``, and for images ``cam2img`` and ``lidar2cam``, one
            matrix a camera, in its metainfo (`Pack3DDetInputs` takes them there).

    Raises:
        ValueError: if images have another shape, or no calibration.
        TypeError: if boxes are not in the LiDAR's frame.
    """
    fields: dict[str, Any] = {"points": inputs["points"]} if "points" in inputs else {}
    if "img" in inputs:
        images = inputs["img"]
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"img: expected [C, 3, H, W], the images of all cameras, got {list(images.shape)}")
        fields["images"] = images.flip(1)
        fields["cameras"] = _cameras(data_sample.metainfo, images.shape)
    if "bboxes_3d" in data_sample.get("gt_instances_3d", ()):
        truth = data_sample.gt_instances_3d
        fields["gt"] = InstanceData(boxes=boxes_from_mmdet3d(truth.bboxes_3d), labels=truth.labels_3d.long())
    if "bboxes_3d" in data_sample.get("pred_instances_3d", ()):
        fields["pred"] = detections_from_mmdet3d(data_sample.pred_instances_3d)
    return Sample(metainfo={"lidar_aug": np.eye(4)}, **fields)


def _truth_to_mmdet3d(sample: Sample) -> InstanceData:
    truth = GroundTruth.gather([sample]).taken_for_still()
    return InstanceData(bboxes_3d=boxes_to_mmdet3d(truth.boxes), labels_3d=truth.labels)


def _origin(sample: Sample) -> dict[str, Any]:
    frame = sample.get("frame")
    return {} if frame is None else {"token": frame.token, "lidar_path": frame.lidar.path}


def _calibration(sample: Sample) -> dict[str, Any]:
    if "cameras" not in sample:
        return {}
    cameras = sample.cameras.to("cpu")
    cam2img = cameras.lidar2img @ torch.linalg.inv(cameras.lidar2cam)
    return {
        "cam2img": list(cam2img.numpy()),
        "lidar2cam": list(cameras.lidar2cam.numpy()),
        "lidar2img": list(cameras.lidar2img.numpy()),
    }


def _cameras(metainfo: Mapping[str, Any], shape: Sequence[int]) -> Cameras:
    """Return the rig of images ``[C, 3, H, W]``; cameras have no names there but their places."""
    count, _, height, width = shape
    missing = [name for name in ("cam2img", "lidar2cam") if len(metainfo.get(name, ())) != count]
    if missing:
        raise ValueError(
            f"{count} images need as many {' and '.join(missing)} in the metainfo; "
            "name them in the meta_keys of Pack3DDetInputs"
        )
    cameras = Cameras.create(
        names=[str(place) for place in range(count)],
        intrinsics=_stack(metainfo["cam2img"])[:, :3, :3],
        lidar2cam=_stack(metainfo["lidar2cam"]),
        image_sizes=torch.tensor([height, width]).expand(count, 2),
    )
    return cameras.move_lidar(_movement(metainfo))


def _stack(matrices: Sequence[Any]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(matrix, dtype=np.float64) for matrix in matrices]))


def _movement(metainfo: Mapping[str, Any]) -> Tensor:
    """Return the 4x4 matrix by which augmentation moved the points: where it takes the axes' ends."""
    moved = apply_3d_transformation(torch.tensor(CORNERS), "LIDAR", metainfo).double()
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = (moved[1:] - moved[0]).T
    matrix[:3, 3] = moved[0]
    return matrix
