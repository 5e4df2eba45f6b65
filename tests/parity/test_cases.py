"""The fixture finder itself: what it takes for a case, and which kind it gives it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .cases import find_cases

CHECKS = dict.fromkeys(["dsvt/dsvt_pillar", "nuscenes_eval", "nuscenes_synth"])


def _write(folder: Path, stem: str, *, arrays: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.json").write_text("{}")
    if arrays:
        np.savez(folder / f"{stem}.npz", x=np.zeros(1))


def test_kinds(tmp_path: Path) -> None:
    _write(tmp_path / "dsvt", "dsvt_pillar_b")
    _write(tmp_path / "deep" / "dsvt", "unheard_of_a")
    _write(tmp_path / "nuscenes_eval", "b07_any_name")
    _write(tmp_path / "nuscenes_synth_b", "expected", arrays=False)
    _write(tmp_path / "nuscenes_synth_b" / "v1.0-mini", "sample", arrays=False)
    _write(tmp_path / "other_data_set", "expected", arrays=False)
    _write(tmp_path / "dsvt", "state_dict_keys", arrays=False)
    found = {case.name: case.kind for case in find_cases(tmp_path, CHECKS)}
    assert found == {
        "dsvt/dsvt_pillar_b": "dsvt/dsvt_pillar",
        "dsvt/unheard_of_a": "dsvt/unheard_of",
        "nuscenes_eval/b07_any_name": "nuscenes_eval",
        "nuscenes_synth_b/expected": "nuscenes_synth",
        "other_data_set/expected": "other_data_set",
    }
