"""Options and fixtures that every room of the test suite shares."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"  # recorded data and fixtures that are too large or not free to be committed


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        action="append",
        default=[],
        metavar="DIR",
        help="judge the fixtures found anywhere below DIR instead of the default ones (tests/parity); may be repeated",
    )


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same torch seed, in whatever order the tests run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded data beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with recorded data is not there")
    return SHARED


@pytest.fixture(scope="session")
def python() -> str:
    """The interpreter, for tests that run the real tools."""
    return sys.executable
