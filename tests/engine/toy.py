"""A model of one layer that learns a line, for tests of the machinery around it."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor
from torch.utils.data import Dataset

from sparse3d.engine import Runner, build_runner
from sparse3d.registry import DATASETS, MODELS


@DATASETS.register_module()
class ToyLine(Dataset):
    """Points of a line."""

    metainfo = {"classes": ["line"]}

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        x = torch.tensor([index / 16])
        return {"x": x, "y": 3 * x + 1}


@MODELS.register_module()
class ToyModel(BaseModel):
    """y = w x + b."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.dropout = torch.nn.Dropout(0.3)
        self.seen: torch.dtype | None = None

    def forward(self, x: Tensor, y: Tensor, mode: str = "tensor") -> dict[str, Tensor]:
        out = self.linear(self.dropout(torch.stack(list(x))))
        self.seen = out.dtype
        return {"loss_line": (out.float() - torch.stack(list(y))).square().mean()}


def toy_config(max_epochs: int = 4, **changes: object) -> Config:
    config = dict(
        default_scope="sparse3d",
        model=dict(type="ToyModel"),
        train_dataloader=dict(
            dataset=dict(type="ToyLine"),
            batch_size=4,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=True),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(optimizer=dict(type="Adam", lr=0.1), clip_grad=dict(max_norm=1.0)),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1)),
        log_level="ERROR",
        randomness=dict(seed=1),
    )
    return Config({**config, **changes})


def train(folder: Path, *, amp: bool = False, deterministic: bool = False, **changes: object) -> Runner:
    runner = build_runner(toy_config(**changes), work_dir=str(folder), amp=amp, deterministic=deterministic)
    runner.train()
    return runner
