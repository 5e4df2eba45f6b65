"""MatrixVT as a graph: images, calibration codes and the two matrices in, the head's maps out; standard operators."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

from sparse3d.deploy.operators import check_operators
from sparse3d.encoding import calibration_codes
from sparse3d.models import Detector3D, Features
from tests.models.test_matrixvt import FEATURES, SIZE, detector, rig


class Graph(nn.Module):
    """Everything between the images and the head's maps."""

    def __init__(self, whole: Detector3D) -> None:
        super().__init__()
        self.branch, self.head = whole.image_branch, whole.head

    def forward(self, images: Tensor, codes: Tensor, ring: Tensor, ray: Tensor) -> list[Tensor]:
        bev, _ = self.branch.view_transform.transport(self.branch.extract(images)[0], codes, ring, ray)
        [maps] = [self.head(Features(bev=self.branch.bev_backbone(bev)))]
        return [each for own in maps for each in own.values()]


def test_onnx_runtime_agrees(tmp_path: Path) -> None:
    whole, cameras = detector().eval(), rig(num_frames=1)
    for module in whole.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for parameter in whole.image_branch.view_transform.depth_net.depth[4].offsets.parameters():
        nn.init.normal_(parameter, std=0.2)  # taps that do look elsewhere
    matrices = whole.image_branch.view_transform.matrices(cameras, SIZE, FEATURES[1])
    inputs = (torch.randn(1, 3, 3, *SIZE), calibration_codes([cameras]), matrices.ring[None], matrices.ray[None])
    graph = Graph(whole)
    with torch.no_grad():
        expected = graph(*inputs)
        torch.onnx.export(graph, inputs, dynamo=True, opset_version=20).save(tmp_path / "matrixvt.onnx")
    assert check_operators(tmp_path / "matrixvt.onnx") == []
    session = onnxruntime.InferenceSession(tmp_path / "matrixvt.onnx", providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    found = session.run(None, dict(zip(names, (each.numpy() for each in inputs), strict=True)))
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), theirs, atol=1e-3, rtol=1e-3)
