"""Run the cases of our Triton kernels in a process of their own, where the interpreter is asked for from the start."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")
HERE = Path(__file__).parent
CASES = {"sparse convolution": HERE / "triton_cases.py", "sampling": HERE.parent / "triton_sampling_cases.py"}


@pytest.mark.parametrize("name", CASES)
def test_kernels_equal_the_definition(name: str, python: str) -> None:
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    command = [python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(CASES[name])]
    done = subprocess.run(
        command, cwd=HERE.parents[2], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
