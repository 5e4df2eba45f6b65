"""The first number that is not finite stops the training, and the message says where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparse3d.engine import NonFiniteError, build_runner
from sparse3d.registry import MODELS

from .toy import ToyModel, toy_config, train


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


@pytest.mark.parametrize("where", ["loss", "activation", "gradient"])
def test_it_is_found_where_it_began_and_kept(tmp_path: Path, where: str) -> None:
    began = {
        "loss": r"the output of division \(Division\), \[4, 1\] is not finite",
        "activation": r"the output of division \(Division\), \[4, 1\] is not finite",
        "gradient": r"the gradient of linear\.(weight|bias) is not finite",
    }
    config = toy_config(model=dict(type="BreakingModel", where=where), custom_hooks=[dict(type="NonFiniteHook")])
    runner = build_runner(config, work_dir=tmp_path)
    with pytest.raises(NonFiniteError, match=began[where]):
        runner.train()
    saved = torch.load(next(tmp_path.glob("non_finite_iter_*_rank_0.pt")), weights_only=False)
    assert any(float(x) == 0 for x in saved["batch"]["x"])
    assert torch.equal(saved["state_dict"]["linear.weight"], runner.model.linear.weight)
    assert torch.isfinite(runner.model.linear.weight).all()


def test_a_bad_gradient_is_found_in_its_own_iteration_however_long_gradients_are_accumulated(tmp_path: Path) -> None:
    config = toy_config(
        model=dict(type="BreakingModel", where="gradient"),
        custom_hooks=[dict(type="NonFiniteHook")],
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1), accumulative_counts=100, clip_grad=dict(max_norm=1.0)),
    )
    runner = build_runner(config, work_dir=tmp_path)
    with pytest.raises(NonFiniteError, match=r"iteration \d: the gradient"):
        runner.train()
    saved = torch.load(tmp_path / f"non_finite_iter_{runner.iter}_rank_0.pt", weights_only=False)
    assert any(float(x) == 0 for x in saved["batch"]["x"])


def test_a_sound_training_is_left_alone(tmp_path: Path) -> None:
    watched = train(tmp_path / "watched", max_epochs=1, custom_hooks=[dict(type="NonFiniteHook")])
    plain = train(tmp_path / "plain", max_epochs=1)
    assert torch.equal(watched.model.linear.weight, plain.model.linear.weight)
    assert not list(tmp_path.rglob("non_finite*"))
    assert not watched.model._forward_hooks and not watched.model.linear._forward_hooks
