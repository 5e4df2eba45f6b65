from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparse3d.datasets.nuscenes_schema import DETECTION_CLASSES
from sparse3d.evaluation import Detections, Submission, read_submission, write_submission
from tests.evaluation.cases import random_case

TOKENS = tuple(f"token-{sample}" for sample in range(6))
MODALITY = {"use_camera": False, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}
BOX = {
    "sample_token": "a",
    "translation": [1.0, 2.0, 3.0],
    "size": [2.0, 4.0, 1.5],
    "rotation": [1.0, 0.0, 0.0, 0.0],
    "velocity": [0.5, 0.0],
    "detection_name": "car",
    "detection_score": 0.5,
    "attribute_name": "vehicle.moving",
}


def submission() -> Submission:
    return Submission(TOKENS, random_case(0).detections, DETECTION_CLASSES, MODALITY)


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written, path = submission(), tmp_path / "deep" / "results.json"
    write_submission(path, written)
    read = read_submission(path, TOKENS[::-1])
    order = np.argsort(written.detections.sample, kind="stable")
    for name, column in vars(written.detections.take(order)).items():
        np.testing.assert_array_equal(getattr(read.detections, name), column, err_msg=name)
    assert (read.sample_tokens, read.class_names, read.modality) == (TOKENS, DETECTION_CLASSES, MODALITY)


def test_the_numbers_survive_the_file(tmp_path: Path) -> None:
    case = random_case(2, score_decimals=1)
    path = tmp_path / "results.json"
    write_submission(path, Submission(TOKENS, case.detections, DETECTION_CLASSES, MODALITY))
    assert case.replace(detections=read_submission(path).detections).evaluate() == case.evaluate()


def test_format(tmp_path: Path) -> None:
    """One box, and a sample without any, exactly as the benchmark wants them."""
    box = {
        "sample": [1],
        "translation": [[1.0, 2, 3]],
        "size": [[2.0, 4, 1.5]],
        "rotation": [[1.0, 0, 0, 0]],
        "velocity": [[0.5, 0]],
        "label": [1],
        "attribute": [0],
        "score": [0.5],
    }
    write_submission(tmp_path / "results.json", Submission(("b", "a"), Detections(**box), ("truck", "car"), MODALITY))
    content = json.loads((tmp_path / "results.json").read_text())
    assert content == {"meta": MODALITY, "results": {"b": [], "a": [BOX]}}
    assert list(content["results"]) == ["b", "a"]


def test_the_development_kit_reads_it(tmp_path: Path) -> None:
    loaders = pytest.importorskip("nuscenes.eval.common.loaders", reason="nuscenes-devkit is not installed")
    from nuscenes.eval.detection.data_classes import DetectionBox

    path = tmp_path / "results.json"
    write_submission(path, submission())
    boxes, meta = loaders.load_prediction(str(path), 500, DetectionBox)
    assert tuple(boxes.sample_tokens) == TOKENS
    assert len(boxes.all) == len(random_case(0).detections)
    assert meta == MODALITY


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    monkeypatch.setattr("json.dumps", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_submission(path, submission())
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]
    assert path.read_text() == "old"


def test_an_empty_meta_is_accepted(tmp_path: Path) -> None:
    path = write(tmp_path / "results.json", {"meta": {}, "results": {"a": [BOX], "b": []}})
    read = read_submission(path, ["a", "b"])
    assert not any(read.modality.values())
    assert len(read.detections) == 1


def test_no_box_at_all(tmp_path: Path) -> None:
    path = write(tmp_path / "results.json", {"meta": MODALITY, "results": {"a": [], "b": []}})
    assert len(read_submission(path).detections) == 0


def test_unknown_velocity_and_no_attribute(tmp_path: Path) -> None:
    box = {**BOX, "velocity": [float("nan")] * 2, "attribute_name": ""}
    path = write(tmp_path / "results.json", {"meta": {}, "results": {"a": [box]}})
    detections = read_submission(path).detections
    assert np.isnan(detections.velocity).all()
    assert detections.attribute.tolist() == [-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "entry 'results'"),
        ({"meta": {}}, "entry 'results'"),
        ({"meta": {}, "results": []}, "entry 'results'"),
        ({"results": {}}, "entry 'meta'"),
        ({"meta": {"use_sonar": True}, "results": {}}, "meta: expected a bool for each of"),
        ({"meta": {"use_lidar": 1}, "results": {}}, "meta: expected a bool for each of"),
        ({"meta": {}, "results": {"a": {}}}, "sample a: expected a list of boxes, got dict"),
        ({"meta": {}, "results": {"a": [BOX] * 501}}, "sample a has 501 boxes; 500 are allowed"),
    ],
)
def test_bad_files(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path / "results.json", content)
    with pytest.raises(ValueError, match=message) as error:
        read_submission(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sample_token", "b", "sample a, box 1: sample_token is 'b', expected 'a'"),
        ("detection_name", "cat", "box 1: detection_name is 'cat', expected one of"),
        ("detection_name", ["car"], "box 1: detection_name is"),
        ("attribute_name", "None", "box 1: attribute_name is 'None', expected one of"),
        ("detection_score", "high", "box 1: detection_score must be a number, got 'high'"),
        ("detection_score", 1.5, r"score: not in \[0, 1\] in row 1"),
        ("detection_score", float("nan"), r"score: not in \[0, 1\] in row 1"),
        ("translation", [1, 2], "box 1: translation must be a list of 3 numbers"),
        ("translation", [1, 2, float("nan")], "translation: NaN or infinite in row 1"),
        ("size", [1, 0, 1], "size: not positive in row 1"),
        ("size", [1, float("nan"), 1], "size: NaN or infinite in row 1"),
        ("rotation", [float("nan"), 0, 0, 0], "rotation: NaN or infinite in row 1"),
        ("velocity", [None, None], "box 1: velocity must be a list of 2 numbers"),
    ],
)
def test_bad_boxes(tmp_path: Path, key: str, value: Any, message: str) -> None:
    path = write(tmp_path / "results.json", {"meta": {}, "results": {"a": [BOX, {**BOX, key: value}]}})
    with pytest.raises(ValueError, match=message):
        read_submission(path)


@pytest.mark.parametrize("key", list(BOX))
def test_missing_entries(tmp_path: Path, key: str) -> None:
    box = {name: value for name, value in BOX.items() if name != key}
    path = write(tmp_path / "results.json", {"meta": {}, "results": {"a": [box]}})
    with pytest.raises(ValueError, match=f"sample a, box 0: .*; missing: {key}$"):
        read_submission(path)


def test_samples_must_be_the_split_s(tmp_path: Path) -> None:
    path = write(tmp_path / "results.json", {"meta": {}, "results": {"a": [], "x": []}})
    with pytest.raises(
        ValueError, match=r"4 samples of the split are missing \(b, c, d, ...\) and 1 are not in it \(x\)"
    ):
        read_submission(path, ["a", "b", "c", "d", "e"])


def test_bad_submissions() -> None:
    detections = random_case(0).detections
    with pytest.raises(ValueError, match=r"more than once: token-1$"):
        Submission((*TOKENS, "token-1"), detections, DETECTION_CLASSES, MODALITY)
    with pytest.raises(ValueError, match=r"detections\.sample: not in \[0, 5\)"):
        Submission(TOKENS[:5], detections, DETECTION_CLASSES, MODALITY)
    with pytest.raises(ValueError, match="not a detection class: \\['cat'\\]"):
        Submission(TOKENS, detections, ("cat",), MODALITY)
    with pytest.raises(ValueError, match="meta"):
        Submission(TOKENS, detections, DETECTION_CLASSES, {"use_lidar": True})
