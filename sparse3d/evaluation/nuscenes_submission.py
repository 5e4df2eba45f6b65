"""The result file of the nuScenes detection benchmark.

    {"meta": {"use_lidar": true, ...}, "results": {sample token: [box, ...]}}
    box: sample_token, translation, size, rotation, velocity, detection_name, detection_score, attribute_name

A box stands in the world frame, its velocity may be NaN (unknown), its attribute "" (none). Every sample of the split
has an entry, an empty list if nothing was detected.

Source: the detection task's page of nuScenes' development kit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import numpy as np

from ..datasets.nuscenes_schema import ATTRIBUTES, DETECTION_CLASSES
from ..whole_file import writing_whole
from .nuscenes_boxes import MAX_BOXES_PER_SAMPLE, NO_ATTRIBUTE, Detections, check_box_counts, check_detections

MODALITY_KEYS = ("use_camera", "use_lidar", "use_radar", "use_map", "use_external")
NO_MODALITY = MappingProxyType(dict.fromkeys(MODALITY_KEYS, False))
VECTORS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}
BOX_KEYS = ("sample_token", *VECTORS, "detection_name", "detection_score", "attribute_name")
TOKENS_IN_MESSAGE = 3


@dataclass(frozen=True, eq=False)
class Submission:
    """The contents of a result file.

    Args:
        sample_tokens: one token a sample, in the order of the file.
        detections: the boxes; ``sample`` is a position in ``sample_tokens``, ``attribute`` one in ``ATTRIBUTES``.
        class_names: names of the labels.
        modality: which inputs were used: ``use_camera``, ``use_lidar``, ``use_radar``, ``use_map``, ``use_external``.

    Raises:
        ValueError: if ``modality`` has other keys, a token occurs twice, or the detections cannot be scored.
    """

    sample_tokens: tuple[str, ...]
    detections: Detections
    class_names: tuple[str, ...]
    modality: Mapping[str, bool]

    def __post_init__(self) -> None:
        """Check the parts against each other."""
        check_modality(self.modality)
        if len(set(self.sample_tokens)) < len(self.sample_tokens):
            twice = sorted({token for token in self.sample_tokens if self.sample_tokens.count(token) > 1})
            raise ValueError(f"sample_tokens: more than once: {_listed(twice)}")
        unknown = [name for name in self.class_names if name not in DETECTION_CLASSES]
        if unknown:
            raise ValueError(f"class_names: not a detection class: {unknown}; expected {list(DETECTION_CLASSES)}")
        counts = len(self.sample_tokens), len(self.class_names), len(ATTRIBUTES)
        check_detections("detections", self.detections, *counts)
        check_box_counts("detections", self.detections, len(self.sample_tokens))


def check_modality(modality: Mapping[str, bool]) -> None:
    """Check the flags of a result file.

    Raises:
        ValueError: if a key is missing or unknown, or a value is no bool.
    """
    if set(modality) != set(MODALITY_KEYS) or not all(isinstance(flag, bool) for flag in modality.values()):
        raise ValueError(f"meta: expected a bool for each of {list(MODALITY_KEYS)}, got {dict(modality)}")


def write_submission(path: str | Path, submission: Submission) -> None:
    """Write a result file, all of it or nothing: it replaces ``path`` only when it is complete."""
    with writing_whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        _write(file, submission)


def _write(file: TextIO, submission: Submission) -> None:
    # Sample by sample: json.dumps of one list is fast, and the text of a whole split need not fit into memory.
    meta = {key: submission.modality[key] for key in MODALITY_KEYS}
    file.write('{"meta": ' + json.dumps(meta) + ', "results": {')
    separator = "\n"
    for token, boxes in sample_records(submission):
        file.write(f"{separator}{json.dumps(token)}: {json.dumps(boxes)}")
        separator = ",\n"
    file.write("}}\n")


def sample_records(submission: Submission) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each sample's token and the records of its boxes, as the file has them."""
    detections = submission.detections.take(np.argsort(submission.detections.sample, kind="stable"))
    attribute_names = (*ATTRIBUTES, "")  # NO_ATTRIBUTE is the last one
    bounds = np.searchsorted(detections.sample, np.arange(len(submission.sample_tokens) + 1))
    for token, first, last in zip(submission.sample_tokens, bounds[:-1], bounds[1:], strict=True):
        part = detections.take(np.arange(first, last))
        columns = (
            *(getattr(part, name).tolist() for name in VECTORS),
            [submission.class_names[label] for label in part.label],
            part.score.tolist(),
            [attribute_names[attribute] for attribute in part.attribute],
        )
        yield token, [dict(zip(BOX_KEYS, (token, *values), strict=True)) for values in zip(*columns, strict=True)]


def read_submission(path: str | Path, sample_tokens: Sequence[str] | None = None) -> Submission:
    """Read and check a result file.

    Args:
        path: the JSON file.
        sample_tokens: the split's tokens, which the file must have exactly, in any order; None: any tokens will do.

    Returns:
        Its contents, samples in the order of the file, labels in the order of ``DETECTION_CLASSES``. Flags that
        ``meta`` lacks are false: the benchmark accepts an empty one.

    Raises:
        ValueError: if the file is no JSON, a part is missing or of another kind, a box lacks an entry or has a name
            that does not exist, a sample has too many boxes, the tokens are not the split's, or a number is out of
            range.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not a JSON file: {error}") from error
    results = _part(path, content, "results")
    modality = _part(path, content, "meta")
    if sample_tokens is not None:
        _check_tokens(path, set(results), set(sample_tokens))
    _check_lists(path, results)
    try:
        return Submission(tuple(results), _read_boxes(results), DETECTION_CLASSES, dict(NO_MODALITY, **modality))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _part(path: str | Path, content: Any, key: str) -> dict[str, Any]:
    part = content.get(key) if isinstance(content, dict) else None
    if not isinstance(part, dict):
        raise ValueError(f"{path}: expected an object with the entry {key!r}, itself an object")
    return part


def _check_tokens(path: str | Path, found: set[str], expected: set[str]) -> None:
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing or extra:
        raise ValueError(
            f"{path}: {len(missing)} samples of the split are missing ({_listed(missing)}) "
            f"and {len(extra)} are not in it ({_listed(extra)})"
        )


def _listed(tokens: Sequence[str]) -> str:
    return ", ".join(tokens[:TOKENS_IN_MESSAGE]) + (", ..." if len(tokens) > TOKENS_IN_MESSAGE else "") or "none"


def _check_lists(path: str | Path, results: Mapping[str, Any]) -> None:
    for token, boxes in results.items():
        if not isinstance(boxes, list):
            raise ValueError(f"{path}: sample {token}: expected a list of boxes, got {type(boxes).__name__}")
        if len(boxes) > MAX_BOXES_PER_SAMPLE:
            raise ValueError(f"{path}: sample {token} has {len(boxes)} boxes; {MAX_BOXES_PER_SAMPLE} are allowed")


def _read_boxes(results: Mapping[str, list[Any]]) -> Detections:
    """Return the boxes as a table; the error of a box that cannot be read names its sample and place."""
    labels = {name: label for label, name in enumerate(DETECTION_CLASSES)}
    attributes = {"": NO_ATTRIBUTE, **{name: index for index, name in enumerate(ATTRIBUTES)}}
    rows: dict[str, list[Any]] = {name: [] for name in ("sample", *VECTORS, "label", "score", "attribute")}
    for sample, (token, boxes) in enumerate(results.items()):
        for place, box in enumerate(boxes):
            _check_box(f"sample {token}, box {place}", token, box, labels, attributes)
            values = (labels[box["detection_name"]], box["detection_score"], attributes[box["attribute_name"]])
            for column, value in zip(rows.values(), (sample, *map(box.get, VECTORS), *values), strict=True):
                column.append(value)
    count = len(rows["sample"])
    vectors = {name: np.array(rows.pop(name), dtype=np.float64).reshape(count, size) for name, size in VECTORS.items()}
    return Detections(**vectors, **{name: np.array(values) for name, values in rows.items()})


def _check_box(where: str, token: str, box: Any, labels: Mapping[str, int], attributes: Mapping[str, int]) -> None:
    missing = [key for key in BOX_KEYS if key not in box] if isinstance(box, dict) else list(BOX_KEYS)
    if missing:
        raise ValueError(f"{where}: expected an object with {', '.join(BOX_KEYS)}; missing: {', '.join(missing)}")
    if box["sample_token"] != token:
        raise ValueError(f"{where}: sample_token is {box['sample_token']!r}, expected {token!r}")
    for key, size in VECTORS.items():
        if not (isinstance(box[key], list) and len(box[key]) == size and all(map(_is_number, box[key]))):
            raise ValueError(f"{where}: {key} must be a list of {size} numbers, got {box[key]!r}")
    if not _is_number(box["detection_score"]):
        raise ValueError(f"{where}: detection_score must be a number, got {box['detection_score']!r}")
    for key, known in (("detection_name", labels), ("attribute_name", attributes)):
        if not isinstance(box[key], str) or box[key] not in known:
            raise ValueError(f"{where}: {key} is {box[key]!r}, expected one of {list(known)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
