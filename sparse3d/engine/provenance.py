"""What a run was made of, for its checkpoints: versions, git state, data."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmengine.runner import Runner

PACKAGES = ("sparse3d", "torch", "mmengine-lite", "mmengine", "numpy", "numba", "scipy", "pyarrow", "spconv")
CHUNK = 1 << 22  # bytes


def provenance(runner: Runner) -> dict[str, Any]:
    """Return plain values: packages, git commit and whether it was changed, seed, and the checksums of the indexes."""
    return {
        "python": platform.python_version(),
        "packages": package_versions(),
        "git": git_state(),
        "seed": runner.seed,
        "data": data_checksums(runner.train_dataloader),
    }


@lru_cache(maxsize=1)
def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that results depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=1)
def git_state() -> dict[str, Any]:
    """Return the commit of the source tree and whether files differ from it; empty outside a repository."""
    folder = Path(__file__).parent

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *command], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(Path(__file__)))  # fails if the repository around us is another one
        return {"commit": git("rev-parse", "HEAD"), "changed": git("status", "--porcelain", "-uno") != ""}
    except (OSError, subprocess.SubprocessError):
        return {}


def data_checksums(dataloader: Any) -> dict[str, str]:
    """Return the SHA-256 of each index that the training data set reads, by file name."""
    frames = getattr(getattr(dataloader, "dataset", None), "frames", None)
    path = getattr(frames, "path", None)
    return {} if path is None else {Path(path).name: _sha256(str(path), Path(path).stat().st_mtime_ns)}


@lru_cache(maxsize=8)
def _sha256(path: str, modified: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
