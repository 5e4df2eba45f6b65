"""sparse3d: sparse 3D perception from LiDAR scans and surround cameras.

from sparse3d import Detector
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference import Detector, camera_sample

# How torch's threads wait; see sparse3d_ops/_waiting.py, which comes too late where torch is imported before it.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

__version__ = "0.1.0"
__all__ = ["Detector", "__version__", "camera_sample"]


def __getattr__(name: str) -> Any:
    """Import what detects when it is first asked for: the package itself costs nothing."""
    if name in ("Detector", "camera_sample"):
        return getattr(import_module(".inference", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
