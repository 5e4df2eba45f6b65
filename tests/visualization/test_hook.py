"""The hook draws the first samples of a test, in the frame as recorded."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from sparse3d.datasets.transforms import move_world
from sparse3d.registry import HOOKS
from sparse3d.structures import Annotations, CameraImage, Frame, LidarScan, Sample
from sparse3d.visualization import VisualizationHook, draw_bev, draw_cameras
from sparse3d.visualization import hook as hook_module
from tests.visualization.scenes import NAMES, box, predictions, truth

RUNNER: Any = SimpleNamespace(logger=logging.getLogger("test"))
POINTS = torch.tensor([[5.0, 0, 0, 1, 0], [0, 7, 1, 2, 0]])


def annotations(categories: tuple[str, ...], points: tuple[int, ...]) -> Annotations:
    count = len(categories)
    blank = ("",) * count
    return Annotations(
        tokens=blank,
        instances=blank,
        categories=categories,
        attributes=blank,
        boxes=np.array([box(10 + 5 * place, 2) for place in range(count)], dtype=np.float64),
        num_lidar_points=np.array(points),
        num_radar_points=np.zeros(count, dtype=np.int64),
        global_centers=np.zeros((count, 3)),
        global_rotations=np.tile([1.0, 0, 0, 0], (count, 1)),
        global_velocities=np.zeros((count, 2)),
    )


def camera(name: str, path: Path) -> CameraImage:
    lidar2cam = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    intrinsic = np.array([[50.0, 0, 40], [0, 50, 25], [0, 0, 1]])
    return CameraImage(name, str(path), 0, intrinsic, np.eye(4), np.eye(4), lidar2cam, width=80, height=50)


def frame(token: str, **fields: Any) -> Frame:
    bare = Frame(token, "scene", 0, LidarScan("", 0, np.eye(4)), (), (), np.eye(4), np.eye(4), None)
    return replace(bare, **fields)


def output(frame: Frame, **fields: Any) -> Sample:
    return Sample.from_frame(frame).replace(points=POINTS, pred=predictions(box(10, 2)), **fields)


def run(hook: VisualizationHook, *batches: list[Sample]) -> None:
    hook.before_test(RUNNER)
    for index, batch in enumerate(batches):
        hook.after_test_iter(RUNNER, index, None, batch)
    hook.after_test(RUNNER)


def scene_of(folder: Path) -> dict[str, Any]:
    text = (folder / "scene.html").read_text(encoding="utf-8")
    return json.loads(text.split('id="data">')[1].split("</script>")[0])


def test_it_is_found_by_its_name(tmp_path: Path) -> None:
    hook = HOOKS.build(dict(type="VisualizationHook", out_dir=str(tmp_path), class_names=NAMES))
    assert isinstance(hook, VisualizationHook)


def test_files_of_the_first_samples(tmp_path: Path) -> None:
    run(
        VisualizationHook(str(tmp_path / "out"), NAMES, max_samples=3),
        [output(frame("a")), output(frame("b"))],
        [output(frame("c/../d")), output(frame("e"))],
        [output(frame("f"))],
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"bev_a.png", "bev_b.png", "bev_c_.._d.png", "scene.html"}
    assert [each["name"] for each in scene_of(tmp_path / "out")["frames"]] == ["a", "b", "c/../d"]


def test_a_second_test_starts_anew(tmp_path: Path) -> None:
    hook = VisualizationHook(str(tmp_path), NAMES, max_samples=1)
    run(hook, [output(frame("a"))])
    run(hook, [output(frame("b"))])
    assert [each["name"] for each in scene_of(tmp_path)["frames"]] == ["b"]


def test_ground_truth_comes_from_the_annotations(tmp_path: Path) -> None:
    annotated = annotations(("vehicle.car", "human.pedestrian.adult", "animal", "vehicle.truck"), (3, 1, 5, 0))
    run(VisualizationHook(str(tmp_path), NAMES), [output(frame("a", annotations=annotated))])
    gt = scene_of(tmp_path)["frames"][0]["gt"]
    assert gt["labels"] == [0, 2]  # no animal, and no truck that no beam met
    assert [each[0] for each in gt["boxes"]] == [10, 15]


def test_ground_truth_of_the_sample_where_the_frame_has_none(tmp_path: Path) -> None:
    run(VisualizationHook(str(tmp_path), NAMES), [output(frame("a"), gt=truth(box(1, 2), labels=[1]))])
    assert scene_of(tmp_path)["frames"][0]["gt"]["labels"] == [1]


def test_moved_samples_are_drawn_as_recorded(tmp_path: Path) -> None:
    matrix = np.array([[0.0, -1.1, 0, 3], [1.1, 0, 0, -2], [0, 0, 1.1, 1], [0, 0, 0, 1]])
    still = output(frame("a"), gt=truth(box(1, 2), labels=[1]))
    run(VisualizationHook(str(tmp_path / "still"), NAMES), [still])
    run(VisualizationHook(str(tmp_path / "moved"), NAMES), [move_world(still, matrix)])
    one, other = (scene_of(tmp_path / name)["frames"][0] for name in ("still", "moved"))
    np.testing.assert_allclose(one["gt"]["boxes"], other["gt"]["boxes"], atol=2e-4)
    assert one["points"] == other["points"]
    assert one["pred"] == other["pred"]  # predictions were in the frame as recorded already


def test_cameras_that_have_no_file_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.full((50, 80, 3), (10, 20, 200), dtype=np.uint8)  # RGB
    cv2.imwrite(str(tmp_path / "front.png"), image[..., ::-1])
    cameras = (camera("CAM_FRONT", tmp_path / "front.png"), camera("CAM_BACK", tmp_path / "back.png"))
    seen = {}

    def record(images, rig, *boxes, **style):
        seen.update(images=images, names=rig.names)
        return draw_cameras(images, rig, *boxes, **style)

    monkeypatch.setattr(hook_module, "draw_cameras", record)
    run(VisualizationHook(str(tmp_path / "out"), NAMES), [output(frame("a", cameras=cameras))])
    assert seen["names"] == ("CAM_FRONT",)
    assert (seen["images"][0] == image).all()
    assert (tmp_path / "out" / "cameras_a.png").is_file()


def test_no_camera_picture_without_images(tmp_path: Path) -> None:
    run(VisualizationHook(str(tmp_path), NAMES), [output(frame("a", cameras=(camera("CAM_FRONT", tmp_path / "no"),)))])
    assert not (tmp_path / "cameras_a.png").exists()


def test_a_broken_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "front.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"front.png"):
        run(
            VisualizationHook(str(tmp_path), NAMES),
            [output(frame("a", cameras=(camera("c", tmp_path / "front.png"),)))],
        )


def test_the_picture_is_that_of_draw_bev(tmp_path: Path) -> None:
    run(VisualizationHook(str(tmp_path), NAMES, score_threshold=0.95), [output(frame("a"))])
    expected = draw_bev(POINTS, None, predictions(box(10, 2)), NAMES, score_threshold=0.95, title="scene   a")
    assert (cv2.imread(str(tmp_path / "bev_a.png"))[..., ::-1] == expected).all()


def test_other_processes_draw_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_module, "is_main_process", lambda: False)
    run(VisualizationHook(str(tmp_path / "out"), NAMES), [output(frame("a"))])
    assert not (tmp_path / "out").exists()


def test_refuses_no_samples() -> None:
    with pytest.raises(ValueError, match="max_samples"):
        VisualizationHook("out", NAMES, max_samples=0)
