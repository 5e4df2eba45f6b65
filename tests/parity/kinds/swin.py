"""The Swin Transformer that SparseFusion looks through."""

from __future__ import annotations

from sparse3d.checkpoints.backbones import SWIN
from sparse3d.models import SwinTransformer

from ..cases import Case
from .sparsebev import inputs_of, prepare


def check_swin(case: Case) -> None:
    config = case.config["config"]
    backbone = SwinTransformer(
        channels=config["embed_dims"],
        depths=config["depths"],
        num_heads=config["num_heads"],
        window_size=config["window_size"],
        mlp_ratio=config["mlp_ratio"],
        drop_path=config["drop_path_rate"],
        out_stages=config["out_indices"],
    )
    comparison, inputs = prepare(case, backbone, SWIN), inputs_of(case)
    loss = 0
    for stage, output in zip(config["out_indices"], backbone(inputs["x"]), strict=True):
        comparison.output(f"stage{stage}", output)
        loss = loss + (output * inputs[f"loss_weight/stage{stage}"]).sum()
    loss.backward()
    comparison.gradients(backbone)
    comparison.finish()


KINDS = {"sparsefusion/swin": check_swin}
