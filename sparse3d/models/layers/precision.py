"""Where mixed precision has no business: metric coordinates, losses and decoding."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch

Function = TypeVar("Function", bound=Callable)


def full_precision(method: Function) -> Function:
    """Run a method of a module outside autocast, on the device that its parameters live on.

    The method receives its arguments as they are: casting them up is its own business.
    """

    @functools.wraps(method)
    def run(self, *args, **kwargs):
        device = next(self.parameters()).device.type
        with torch.autocast(device, enabled=False):
            return method(self, *args, **kwargs)

    return run  # type: ignore[return-value]
