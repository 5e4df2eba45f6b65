"""Our modules against what the original implementations computed.

`pytest tests/parity --golden DIR` judges every fixture below DIR; a kind that no module of `tests/parity/kinds` knows
fails with its name, and so does a folder without fixtures. Without the option, `tests/data/golden` is judged, and
where it exists `../shared/golden` for the kinds that are implemented.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, SHARED

from .cases import Case, find_cases, known_kinds

NO_FIXTURE = "no fixture"
DEFAULT_FOLDERS = (REPOSITORY / "tests" / "data" / "golden", SHARED / "golden")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    named = [Path(folder) for folder in metafunc.config.getoption("--golden")]
    cases = _named_cases(named) if named else _default_cases()
    metafunc.parametrize("case", cases, ids=[f"{case.kind}:{case.json_path.stem}" for case in cases])


def test_case(case: Case) -> None:
    checks = known_kinds()
    if case.kind == NO_FIXTURE:
        pytest.fail(f"--golden {case.json_path}: there is no fixture in it")
    if case.kind not in checks:
        pytest.fail(f"{case.json_path}: kind {case.kind!r} is not implemented; known: {', '.join(sorted(checks))}")
    checks[case.kind](case)


def _named_cases(folders: list[Path]) -> list[Case]:
    checks = known_kinds()
    return [case for folder in folders for case in list(find_cases(folder, checks)) or [Case(NO_FIXTURE, folder)]]


def _default_cases() -> list[Case]:
    checks = known_kinds()
    seen: dict[str, Case] = {}
    for folder in DEFAULT_FOLDERS:
        for case in find_cases(folder, checks):
            if case.kind in checks:
                seen.setdefault(case.name, case)
    return list(seen.values())
