"""SparseBEV as a graph: images and projections in, logits and codes out, with standard operators alone."""

from __future__ import annotations

import io

import onnxruntime
import torch
from torch import Tensor, nn

from sparse3d.models import Detector3D
from sparse3d.models.layers.frame_views import FrameViews
from sparse3d_ops import FeatureMaps
from tests.models.test_sparsebev import SIZE, detector, rig

FRAMES, CAMERAS = 2, 3


class Graph(nn.Module):
    """Backbone, neck and head between tensors."""

    def __init__(self, whole: Detector3D) -> None:
        super().__init__()
        self.branch, self.head = whole.image_branch, whole.head

    def forward(self, images: Tensor, lidar2img: Tensor, lags: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last layer's logits ``[1, Q, K]`` and codes ``[1, Q, 10]``."""
        maps = FeatureMaps([level.unflatten(1, (FRAMES, CAMERAS)) for level in self.branch.extract(images)])
        output = self.head.refine(FrameViews(maps, lidar2img, lags, SIZE))
        return output.logits[-1], output.codes[-1]


def test_onnx_runtime_agrees() -> None:
    torch.manual_seed(0)
    whole = detector().eval()
    cameras = rig(FRAMES, CAMERAS)
    inputs = (
        torch.randn(1, FRAMES * CAMERAS, 3, *SIZE),
        cameras.lidar2img.float().unflatten(0, (FRAMES, CAMERAS))[None],
        torch.tensor([[0.0, 0.5]]),
    )
    graph = Graph(whole)
    file = io.BytesIO()
    with torch.no_grad():
        expected = graph(*inputs)
        torch.onnx.export(graph, inputs, dynamo=True, opset_version=20).save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    found = session.run(None, dict(zip(names, (each.numpy() for each in inputs), strict=True)))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), theirs, atol=2e-3, rtol=2e-3)
