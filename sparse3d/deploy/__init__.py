"""Deployment: export a detector as a graph, and run it without the training framework.

`Runtime` needs no mmengine; exporting (`sparse3d.deploy.onnx`) does, and is imported on its own.
"""

from .camera_inputs import CameraScan
from .runtime import Runtime

__all__ = ["CameraScan", "Runtime"]
