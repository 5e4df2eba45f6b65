"""nuScenes' 13 tables as lists of records, and the records of all that is the same in every scene.

A token is the hash of what it names and of the seed, so the same seed gives the same tables. "No link" is an empty
string. Source: the schema of the nuScenes development kit, release 1.2.0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ..nuscenes_schema import ATTRIBUTES, BICYCLE_RACK, CATEGORY_TO_CLASS, LIDAR_CHANNEL
from .rig import CAMERAS

TABLE_NAMES = (
    "category", "attribute", "visibility", "instance", "sensor", "calibrated_sensor", "ego_pose", "log", "scene",
    "sample", "sample_data", "sample_annotation", "map",
)  # fmt: skip
VISIBILITIES = {"1": "v0-40", "2": "v40-60", "3": "v60-80", "4": "v80-100"}
MAP_FILE = "maps/synthetic.png"

Record = dict
Tables = dict[str, list[Record]]


class Tokens:
    """Names records: 32 hexadecimal digits that depend on the seed and on what is named."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, *what: object) -> str:
        """Return the token of a thing, e.g. ``tokens("sample", "scene-0061", 3)``."""
        name = "/".join(str(part) for part in (self.seed, *what))
        return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def shared_tables(tokens: Tokens, logs: Iterable[str]) -> Tables:
    """Return the tables that do not belong to a scene; the map covers all ``logs`` (tokens)."""
    categories = (*CATEGORY_TO_CLASS, BICYCLE_RACK)
    channels = [(LIDAR_CHANNEL, "lidar"), *((camera.name, "camera") for camera in CAMERAS)]
    return {
        "category": [{"token": tokens("category", name), "name": name, "description": ""} for name in categories],
        "attribute": [{"token": tokens("attribute", name), "name": name, "description": ""} for name in ATTRIBUTES],
        "visibility": [
            {"token": token, "level": level, "description": "share of the beams towards the object that meet it"}
            for token, level in VISIBILITIES.items()
        ],
        "sensor": [
            {"token": tokens("sensor", channel), "channel": channel, "modality": modality}
            for channel, modality in channels
        ],
        "map": [
            {"token": tokens("map"), "category": "semantic_prior", "filename": MAP_FILE, "log_tokens": list(logs)},
        ],
    }


def merge_tables(parts: Iterable[Tables]) -> Tables:
    """Join tables in the given order."""
    merged: Tables = {name: [] for name in TABLE_NAMES}
    for tables in parts:
        for name, records in tables.items():
            merged[name] += records
    return merged


def link(records: list[Record]) -> list[Record]:
    """Chain records in their order by ``prev`` and ``next``, in place; returns them."""
    tokens = ["", *(record["token"] for record in records), ""]
    for record, previous, following in zip(records, tokens, tokens[2:], strict=False):
        record["prev"], record["next"] = previous, following
    return records


def write_tables(folder: Path, tables: Tables) -> None:
    """Write one JSON file a table."""
    folder.mkdir(parents=True)
    for name in TABLE_NAMES:
        (folder / f"{name}.json").write_text(json.dumps(tables[name], indent=0), encoding="utf-8")
