"""The first number that is not finite stops the training, and the message says where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparse3d.engine import NonFiniteError, NonFiniteHook, build_runner
from sparse3d.registry import MODELS

from .toy import ToyModel, toy_config


class Division(torch.nn.Module):
    """1 / x."""

    def forward(self, x: Tensor) -> Tensor:
        return 1 / x


@MODELS.register_module()
class BreakingModel(ToyModel):
    """Breaks in one of three ways at the sample with x = 0.

    Args:
        where: ``"loss"`` divides by zero, ``"gradient"`` takes the square root of zero, ``"activation"`` divides by
            zero and hides it from the loss.
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.division = Division()
        self.after = torch.nn.Identity()

    def forward(self, x: Tensor, y: Tensor, mode: str = "tensor") -> dict[str, Tensor]:
        inputs = torch.stack(list(x))
        losses = super().forward(x, y, mode)
        if self.where == "gradient":
            losses["loss_root"] = (inputs * self.linear.weight).abs().sqrt().sum()
            return losses
        divided = self.after(self.division(inputs))
        if self.where == "activation":
            divided = torch.where(divided.isfinite(), divided, 0 * inputs)
        losses["loss_divided"] = (divided * self.linear.weight).sum()
        return losses


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("loss", r"loss_divided = (-?inf|nan); the first output that is not finite is that of division \(Division"),
        ("activation", r"the output of division \(Division, \[4, 1\]\) is not finite"),
        ("gradient", r"the gradient of linear\.weight, linear\.bias is not finite"),
    ],
)
def test_it_is_found_named_and_kept(tmp_path: Path, where: str, message: str) -> None:
    config = toy_config(
        model=dict(type="BreakingModel", where=where),
        custom_hooks=[dict(type="NonFiniteHook", activation_interval=1 if where == "activation" else 1000)],
    )
    runner = build_runner(config, work_dir=tmp_path)
    before = runner.model.linear.weight.detach().clone()
    with pytest.raises(NonFiniteError, match=message):
        runner.train()
    saved = next(tmp_path.glob("non_finite_iter_*.pt"))
    batch = torch.load(saved, weights_only=False)
    assert any(float(x) == 0 for x in batch["x"])
    if runner.iter == 0:
        assert torch.equal(runner.model.linear.weight, before)
    assert torch.isfinite(runner.model.linear.weight).all()


def test_a_sound_training_is_left_alone(tmp_path: Path) -> None:
    config = toy_config(max_epochs=1, custom_hooks=[dict(type="NonFiniteHook", activation_interval=1)])
    runner = build_runner(config, work_dir=tmp_path)
    runner.train()
    assert runner.iter == 4
    assert not list(tmp_path.glob("non_finite*"))
    assert not runner.model._forward_hooks and not runner.model.linear._forward_hooks


def test_intervals_are_positive() -> None:
    with pytest.raises(ValueError, match="activation_interval"):
        NonFiniteHook(activation_interval=0)
