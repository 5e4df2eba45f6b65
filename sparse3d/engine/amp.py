"""Mixed precision on any device, under mmengine's name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from ..registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(OptimWrapper):
    """Mixed-precision optimizer wrapper for any device, under mmengine's name.

    Args:
        dtype: ``"bfloat16"`` or ``"float16"``; float16 scales the loss and needs CUDA.
        kwargs: arguments of ``mmengine.optim.OptimWrapper``.
    """

    def __init__(self, dtype: str = "bfloat16", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if dtype not in ("bfloat16", "float16"):
            raise ValueError(f"AmpOptimWrapper: dtype must be 'bfloat16' or 'float16', got {dtype!r}")
        self.device_type = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "float16" and self.device_type == "cpu":
            raise ValueError("AmpOptimWrapper: float16 needs CUDA; use dtype='bfloat16' on a CPU")
        self.dtype = getattr(torch, dtype)
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=dtype == "float16")

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass under autocast."""
        with super().optim_context(model), torch.autocast(self.device_type, self.dtype):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Back-propagate the (scaled) loss."""
        self.scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        """Unscale, clip, and update the parameters."""
        if self.clip_grad_kwargs:
            self.scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()

    def state_dict(self) -> dict:
        """Return the optimizer's state with the scaler's."""
        return {**super().state_dict(), "loss_scaler": self.scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        """Load what ``state_dict`` returned; a state saved without mixed precision is welcome too."""
        state = dict(state_dict)
        scaler_state = state.pop("loss_scaler", None)
        if scaler_state:
            self.scaler.load_state_dict(scaler_state)
        super().load_state_dict(state)
