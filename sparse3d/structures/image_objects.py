"""Where the objects of a sample appear in its images: the smallest boxes around what can be seen of them.

What appears of an object is the hull of those of its corners that lie in front of the camera, cut to the image. The box
around that is the box around

    what is left of all lines between two corners after cutting to the image, and
    the corners of the image that lie inside the hull.

Objects whose middle lies behind a camera do not appear in it. Occlusion is not looked at.

Source: the 2D boxes that nuScenes' devkit exports (`export_2d_annotations_as_json.py`), which MV2D is trained on.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from .boxes import Boxes3D
from .cameras import Cameras

MIN_AREA = 64.0  # pixels²; what appears smaller is left out
PAIRS = torch.tensor(list(combinations(range(8), 2)))


def objects_in_images(
    boxes: Boxes3D,
    cameras: Cameras,
) -> tuple[Tensor, Tensor]:  # [C, N, 4], [C, N]
    """Return the box of each of N objects in each of C images, and whether it appears there.

    Boxes are ``(x1, y1, x2, y2)`` float32 in pixels of the network's input; where nothing appears they mean nothing.
    """
    count, number = len(cameras), len(boxes)
    corners = boxes.corners().to(cameras.lidar2img).flatten(0, 1)
    pixels, depths = (each.unflatten(1, (number, 8)) for each in cameras.project(corners))
    in_front = depths > 0
    middle_in_front = cameras.project(boxes.centers.to(corners))[1] > 0
    size = cameras.image_sizes.to(pixels).flip(-1)[:, None]  # [C, 1, 2] width, height
    low, high = _cut_lines(pixels, in_front, size[:, :, None])
    at_corners = _image_corners(size).expand(count, number, 4, 2)
    covered = _inside_hull(at_corners, pixels, in_front)[..., None]
    low = torch.minimum(low, at_corners.where(covered, torch.inf).amin(dim=2))
    high = torch.maximum(high, at_corners.where(covered, -torch.inf).amax(dim=2))
    appears = middle_in_front & ((high - low).clamp(min=0).prod(dim=-1) > MIN_AREA)
    return torch.cat([low, high], dim=-1).where(appears[..., None], 0).float(), appears


def _cut_lines(pixels: Tensor, in_front: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lower and upper ends ``[C, N, 2]`` of all lines between corners ``[C, N, 8, 2]``, cut to the image."""
    pairs = PAIRS.to(pixels.device)
    start, end = pixels[:, :, pairs[:, 0]], pixels[:, :, pairs[:, 1]]  # [C, N, 28, 2]
    step = end - start
    both = (in_front[:, :, pairs[:, 0]] & in_front[:, :, pairs[:, 1]])[..., None]
    safe = step.where(step != 0, 1)
    first, last = -start / safe, (size - start) / safe
    outside = (step == 0) & ((start < 0) | (start > size))
    enter = torch.minimum(first, last).where(step != 0, -torch.inf).where(~outside, torch.inf)
    leave = torch.maximum(first, last).where(step != 0, torch.inf)
    enter, leave = enter.amax(dim=-1, keepdim=True).clamp(min=0), leave.amin(dim=-1, keepdim=True).clamp(max=1)
    left = both & (enter <= leave)
    ends = torch.stack([start + enter.where(left, 0) * step, start + leave.where(left, 0) * step])
    low = ends.amin(dim=0).where(left, torch.inf).amin(dim=2)
    return low, ends.amax(dim=0).where(left, -torch.inf).amax(dim=2)


def _image_corners(size: Tensor) -> Tensor:
    """Return ``[C, 1, 4, 2]`` of sizes ``[C, 1, 2]``."""
    signs = size.new_tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    return size[:, :, None] * signs


def _inside_hull(points: Tensor, corners: Tensor, known: Tensor) -> Tensor:
    """Return whether ``points`` ``[C, N, P, 2]`` lie in the hull of the known ``corners`` ``[C, N, 8, 2]``.

    A line from one corner to another is an edge if no other corner lies to its right; whatever lies to the right of an
    edge is outside.
    """
    corners = corners.where(known[..., None], 0)
    start = corners[:, :, :, None]  # from, to
    step = corners[:, :, None] - start
    is_line = known[..., :, None] & known[..., None, :] & (step != 0).any(dim=-1)

    def left_of(places: Tensor) -> Tensor:  # [C, N, X, 2] -> [C, N, 8, 8, X]
        away = places[:, :, None, None] - start[..., None, :]
        return step[..., None, 0] * away[..., 1] - step[..., None, 1] * away[..., 0]

    is_edge = is_line & ((left_of(corners) >= 0) | ~known[:, :, None, None]).all(dim=-1)
    right_of_an_edge = (is_edge[..., None] & (left_of(points) < 0)).any(dim=(2, 3))
    return ~right_of_an_edge & is_edge.any(dim=(2, 3))[..., None]
