"""A result file of Waymo with one mistake of each kind, and how it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparse3d.analysis.errors import KINDS, RIGHT, Analysis
from sparse3d.analysis.errors_waymo import analyze_waymo
from sparse3d.datasets import write_index
from sparse3d.evaluation import CAMERA_ONLY, FrameKey, WaymoDetections, read_detections, write_detections
from sparse3d.evaluation.waymo_results import WaymoResults
from sparse3d.structures import Frame
from tests.e2e.conftest import ToolRunner, tool  # noqa: F401 (a fixture)
from tests.evaluation.test_waymo_submission import detections, frame_keys
from tests.evaluation.waymo_cases import annotations, frame

VEHICLE, PEDESTRIAN = 1, 2
CAR, OTHER_CAR, WALKER = [10.0, 0, 0, 4, 2, 1.5, 0], [35.0, 5, 0, 4, 2, 1.5, 0], [5.0, -5, 0, 0.8, 0.8, 1.8, 0]


def frames() -> list[Frame]:
    objects = annotations([CAR, OTHER_CAR, WALKER], ["Vehicle", "Vehicle", "Pedestrian"], num_lidar_points=[50, 3, 10])
    return [frame(objects, number) for number in range(2)]


def results(rows: list[tuple[int, list[float], int, float]], zones: tuple[int, ...] = ()) -> WaymoResults:
    """Rows of frame, box, type and score; some lie in a no-label zone."""
    sample, box, kind, score = (np.array(column) for column in zip(*rows, strict=True))
    overlaps = np.isin(np.arange(len(rows)), zones)
    table = WaymoDetections(sample=sample, box=box, type=kind, score=score, overlaps_no_label_zone=overlaps)
    return WaymoResults(tuple(FrameKey.of(each) for each in frames()), table)


def everything(score: float = 0.5) -> list[tuple[int, list[float], int, float]]:
    boxes = ((CAR, VEHICLE), (OTHER_CAR, VEHICLE), (WALKER, PEDESTRIAN))
    return [(number, box, kind, score) for number in range(2) for box, kind in boxes]


def kinds(found: Analysis) -> list[tuple[str, str]]:
    rows = zip(found.detections.label, found.kind, strict=True)
    return [(found.class_names[label], KINDS[kind]) for label, kind in rows if kind != RIGHT]


def test_perfect_detections_have_no_mistakes() -> None:
    found = analyze_waymo(results(everything()), frames())
    assert found.class_names == ["Vehicle", "Pedestrian"]
    assert found.found.all() and not kinds(found) and not found.mistakes().any()
    assert found.thresholds.tolist() == [0, 0]  # nothing is gained by leaving out what scores less
    counts = {(name, label): count for name, label, count, *_ in found.recalls()}
    assert counts["distance (m)", "0 to 30"] == 4 and counts["distance (m)", "30 to 50"] == 2
    assert counts["difficulty", "level 1"] == 4 and counts["difficulty", "level 2"] == 2
    assert counts["LiDAR points", "1 to 6"] == 2


@pytest.mark.parametrize(
    ("box", "type", "kind"),
    [
        ([10.3, 0, 0, 4, 2, 1.5, 0], VEHICLE, ("Vehicle", "duplicate")),
        ([5.05, -5, 0, 0.8, 0.8, 1.8, 0], VEHICLE, ("Vehicle", "wrong class")),
        ([12.0, 0.5, 0, 4, 2, 1.5, 0], VEHICLE, ("Vehicle", "misplaced")),
        ([-30.0, 0, 0, 4, 2, 1.5, 0], VEHICLE, ("Vehicle", "background")),
    ],
)
def test_each_kind_of_mistake(box: list[float], type: int, kind: tuple[str, str]) -> None:
    rows = [*everything(), (0, box, type, 0.4)]
    found = analyze_waymo(results([*rows[:-1], (0, box, type, 0.9)]), frames())
    assert kinds(found) == [kind] and found.mistakes().tolist() == [1, 0]
    found = analyze_waymo(results(rows), frames())  # it scores less than all that are right
    assert not kinds(found) and 0.4 < found.thresholds[0] <= 0.5


def test_a_no_label_zone_holds_no_mistakes() -> None:
    rows = [*everything(), (0, [-30.0, 0, 0, 4, 2, 1.5, 0], VEHICLE, 0.9)]
    assert not kinds(analyze_waymo(results(rows, zones=(6,)), frames()))


def test_the_camera_task_forgives_errors_of_depth() -> None:
    rows = [(number, [10.6, 0, 0.04, 4, 2, 1.5, 0], VEHICLE, 0.9) for number in range(2)]
    assert analyze_waymo(results(rows), frames(), CAMERA_ONLY).found.sum() == 2
    assert not analyze_waymo(results([(0, [11.5, 0, 0, 4, 2, 1.5, 0], VEHICLE, 0.9)]), frames()).found.any()


def test_results_of_other_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="1 frames of the results are not in the index"):
        analyze_waymo(results(everything()), frames()[:1])


@pytest.mark.parametrize("count", [0, 1, 300])
@pytest.mark.parametrize("suffix", [".bin", ".tar.gz"])
def test_a_file_is_read_as_it_was_written(tmp_path: Path, count: int, suffix: str) -> None:
    table, keys = detections(count, 4), frame_keys(4)
    table = table.take(np.argsort(table.sample, kind="stable"))
    table = table.take(table.score >= 0.03)  # what the server's archive leaves out
    write_detections(tmp_path / f"r{suffix}", keys, table)
    found = read_detections(tmp_path / f"r{suffix}")
    assert [found.keys[row] for row in found.detections.sample] == [keys[row] for row in table.sample]
    for name in ("box", "type", "score", "overlaps_no_label_zone"):
        np.testing.assert_array_equal(getattr(found.detections, name), getattr(table, name))


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.bin"
    write_detections(path, frame_keys(2), detections(20, 2))
    content = path.read_bytes()
    for end in (len(content) - 1, len(content) - 40, 3):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"\.bin: .*cut off"):
            read_detections(path)


def test_the_tool_prints(tmp_path: Path, tool: ToolRunner) -> None:  # noqa: F811
    index = tmp_path / "index.arrow"
    write_index(index, frames(), {}, Path("/"))
    found = results(everything())
    write_detections(tmp_path / "r.bin", found.keys, found.detections)
    printed = tool("analyze_errors", tmp_path / "r.bin", index)
    assert "Pedestrian" in printed and "level 2" in printed and "LiDAR points" in printed
