"""Deployment: export a detector as a graph, and run it without the training framework.

`Runtime` needs no mmengine; exporting (`sparse3d.deploy.onnx`) does, and is imported on its own.
"""

from .runtime import Runtime
from .sensor_scan import CameraScan, FusionScan

__all__ = ["CameraScan", "FusionScan", "Runtime"]
