"""Run a tool inside of the test's own process: what it prints, without the seconds that a new interpreter takes."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

TOOLS = REPOSITORY / "tools"


class ToolRunner:
    """``run("zoo", "--check")`` returns what ``python tools/zoo.py --check`` prints.

    Raises:
        SystemExit: as the tool does.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        monkeypatch.syspath_prepend(TOOLS)
        monkeypatch.setenv("COLUMNS", "200")

    def __call__(self, tool: str, *arguments: str | Path) -> str:
        """Run it from the repository's root."""
        self.monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
        self.monkeypatch.chdir(REPOSITORY)
        self.capsys.readouterr()
        runpy.run_path(str(TOOLS / f"{tool}.py"), run_name="__main__")
        return self.capsys.readouterr().out


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ToolRunner:
    return ToolRunner(monkeypatch, capsys)
