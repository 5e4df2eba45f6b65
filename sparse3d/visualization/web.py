"""A 3D page of some frames: one HTML file that opens offline.

The page draws with a small WebGL 2 program of our own (folder `page/`), not with a plotting library: a frame costs 8
bytes a point instead of a library of 5 MB and numbers in text, turning hundreds of thousands of points stays smooth,
lines have a width and dashes, and score, class and frame controls work in the browser without a server.

A point is `(x, y, z) / step` as int16 and intensity and time lag as uint8, little endian; `step` is the largest
coordinate of the frame over 32767, so 100 m are kept to 2 mm.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.colors import to_hex

from ..structures import Sample
from .colors import POINT_MAPS, class_colors, point_map, spread, to_levels
from .files import write_file
from .layers import PointLayer
from .objects import Objects, read_ground_truth, read_points, read_predictions

SCRIPTS = ("geometry.js", "orbit.js", "renderer.js", "cameras.js", "scene.js")
INTENSITY, LAG = 3, 4  # columns of a cloud
INT16_MAX = 32767
DECIMALS = 4  # of box numbers and scores
MATRIX_DECIMALS = 6
IMAGE_WIDTH, JPEG_QUALITY = 480, 80  # of camera images in the page
GROUND_SHARE = 0.1  # of the points lie below the height where the range rings are drawn
POINT_TYPE = np.dtype([("position", "<i2", 3), ("intensity", "u1"), ("lag", "u1")])


def write_scene_html(
    path: str | Path,
    samples: Sequence[Sample],
    class_names: Sequence[str],
    *,
    title: str = "sparse3d",
    score_threshold: float = 0.3,
) -> None:
    """Write frames as a 3D page: orbit view, images with boxes, time line, score slider, facts under the pointer.

    Args:
        path: the ``.html`` file; it replaces an older one in one step.
        samples: one sample a frame. Each of ``points`` (``x, y, z, intensity, ..., time lag``), ``gt``, ``pred``,
            ``layers`` (``PointLayer``), and ``images`` with ``cameras`` may be absent; all are in the same frame.
        class_names: names in the order of the labels.
        title: heading of the page.
        score_threshold: where the score slider starts; predictions below it are in the page as well.

    Raises:
        ValueError: if there are no samples, or points, boxes, labels and scores do not fit together.
    """
    if not len(samples):
        raise ValueError("write_scene_html: samples is empty; a page needs at least one frame")
    scene = _scene(samples, class_names, score_threshold)
    parts = {
        "title": html.escape(title),
        "style": _page_file("scene.css"),
        "script": "\n".join(map(_page_file, SCRIPTS)),
        "data": _script_safe(scene),
    }
    write_file(path, _fill(_page_file("scene.html"), parts).encode())


def _scene(samples: Sequence[Sample], class_names: Sequence[str], score_threshold: float) -> dict[str, Any]:
    clouds = [_cloud(sample) for sample in samples]
    together = np.concatenate(clouds)
    intensities = spread(together[:, INTENSITY])
    lags = (0.0, float(together[:, LAG].max(initial=0)))
    return {
        "classes": [
            {"name": name, "color": to_hex(color)}
            for name, color in zip(class_names, class_colors(class_names), strict=True)
        ],
        "maps": {name: _base64(point_map(name)) for name in POINT_MAPS},
        "score": score_threshold,
        "heights": spread(together[:, 2]),
        "intensities": intensities,
        "lags": lags,
        "ground": float(np.quantile(together[:, 2], GROUND_SHARE)) if len(together) else 0.0,
        "frames": [
            {
                "name": _name(sample, number),
                **_pack_points(cloud, intensities, lags),
                "layers": [_pack_layer(layer) for layer in sample.get("layers", ())],
                "cameras": _pack_cameras(sample),
                "gt": _pack_objects(read_ground_truth(sample.get("gt"), class_names)),
                "pred": _pack_objects(read_predictions(sample.get("pred"), class_names)),
            }
            for number, (sample, cloud) in enumerate(zip(samples, clouds, strict=True), start=1)
        ],
    }


def _cloud(sample: Sample) -> np.ndarray:
    """Return ``[P, 5]`` float32 ``x, y, z, intensity, lag``; what a sample lacks is zero."""
    if "points" not in sample:
        return np.zeros((0, 5), dtype=np.float32)
    points = read_points(sample.points)
    features = points.shape[1]
    if features > 5:  # the time lag comes last
        return points[:, [0, 1, 2, INTENSITY, features - 1]]
    return np.pad(points, ((0, 0), (0, 5 - features)))


def _name(sample: Sample, number: int) -> str:
    return sample.frame.token if "frame" in sample else f"frame {number}"


def _pack_points(
    cloud: np.ndarray, intensities: tuple[float, float], lags: tuple[float, float]
) -> dict[str, int | float | str]:
    step = max(float(np.abs(cloud[:, :3]).max(initial=0)), 1.0) / INT16_MAX
    packed = np.zeros(len(cloud), dtype=POINT_TYPE)
    packed["position"] = np.round(cloud[:, :3] / step)
    packed["intensity"] = to_levels(cloud[:, INTENSITY], *intensities)
    packed["lag"] = to_levels(cloud[:, LAG], *lags)
    return {"count": len(cloud), "step": step, "points": _base64(packed)}


def _pack_layer(layer: PointLayer) -> dict[str, int | float | str]:
    cloud = np.pad(layer.points, ((0, 0), (0, 2)))
    packed = _pack_points(cloud, (0.0, 1.0), (0.0, 1.0))
    return {"name": layer.name, "color": to_hex(layer.color), "size": layer.size, **packed}


def _pack_cameras(sample: Sample) -> list[dict[str, Any]]:
    """Return small images, and the matrices ``[4, 4]`` that take points to their pixels, by rows."""
    if "images" not in sample:
        return []
    matrices = sample.cameras.lidar2img.cpu().numpy()
    views = zip(sample.cameras.names, sample.images, matrices, strict=True)
    return [_pack_camera(name, image.cpu().numpy(), matrix) for name, image, matrix in views]


def _pack_camera(name: str, image: np.ndarray, matrix: np.ndarray) -> dict[str, Any]:
    factor = IMAGE_WIDTH / image.shape[2]
    height = round(image.shape[1] * factor)
    small = cv2.resize(image.transpose(1, 2, 0), (IMAGE_WIDTH, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(small[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    scaled = np.diag([factor, height / image.shape[1], 1.0, 1.0]) @ matrix
    return {
        "name": name,
        "width": IMAGE_WIDTH,
        "height": height,
        "image": f"data:image/jpeg;base64,{_base64(data)}",
        "matrix": np.round(scaled, MATRIX_DECIMALS).ravel().tolist(),
    }


def _pack_objects(objects: Objects) -> dict[str, list]:
    boxes = np.round(objects.boxes, DECIMALS)
    numbers = np.where(np.isnan(boxes), None, boxes)  # JSON has no NaN
    return {
        "boxes": numbers.tolist(),
        "labels": objects.labels.tolist(),
        "scores": np.round(objects.scores, DECIMALS).tolist(),
    }


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _page_file(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")


def _script_safe(value: Any) -> str:
    """Return JSON in which nothing can end the script element that holds it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _fill(template: str, parts: Mapping[str, str]) -> str:
    """Put the parts where the template names them, all at once, so that a part is never searched itself."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)
