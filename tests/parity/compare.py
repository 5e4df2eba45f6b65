"""Comparing what we compute with what a fixture holds, by the rule that its `.json` states.

outputs      |ours - theirs| <= atol + rtol * |theirs|
gradients    |ours - theirs| <= grad_rtol * |theirs| + grad_atol_rel_to_max * max |theirs|; where these are not given,
             rtol * |theirs| + atol * max(|theirs|, 1)
integers     equal

A rule may be one for both, or have a part `forward` and a part `grad`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparse3d.checkpoints import convert_names, load_converted
from sparse3d.checkpoints.convert import Rules, State, drop_kernel

from .cases import Case

NOISE = 1e-6


def section(case: Case, name: str) -> dict[str, np.ndarray]:
    """The arrays `name/...` of a case, without the prefix."""
    prefix = f"{name}/"
    return {key[len(prefix) :]: value for key, value in case.arrays.items() if key.startswith(prefix)}


def tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def load_state(case: Case, module: nn.Module, rules: Rules, adapt: Callable[[State], State] = dict) -> None:
    """Load `state/...` in full, renamed by the rules."""
    load_converted(module, adapt(convert_names(tensors(section(case, "state")), rules)))


class Comparison:
    """Compares a case array by array and, at the end, fails if one was left out."""

    def __init__(self, case: Case, rules: Rules = (), adapt: Callable[[State], State] = dict) -> None:
        self.case = case
        self.rules, self.adapt = rules, adapt  # official names and values -> ours
        gradients = section(case, "grad").values()
        self.noise = NOISE * max((float(np.abs(each).max(initial=0)) for each in gradients), default=0.0)
        self.left = {name for name in case.arrays if name.startswith(("out/", "grad/"))}

    def has(self, name: str) -> bool:
        return f"out/{name}" in self.case.arrays

    def take(self, name: str) -> np.ndarray:
        """The array of this name, which then counts as compared."""
        self.left.discard(name)
        return self.case.arrays[name]

    def output(self, name: str, ours: Any) -> None:
        """Compare with `out/name`."""
        theirs = self.take(f"out/{name}")
        if np.issubdtype(theirs.dtype, np.floating):
            self.close(name, ours, theirs)
        else:
            assert_equal(name, ours, theirs)

    def close(self, name: str, ours: Any, theirs: np.ndarray) -> None:
        """Compare floating outputs by the case's rule."""
        rule = self._rule("forward")
        assert_close(name, ours, theirs, rule["atol"] + rule["rtol"] * np.abs(theirs))

    def gradients(self, module: nn.Module, of: str = "", **inputs: Tensor) -> None:
        """Compare with every `grad/...` and `out/gradnorm/...` after a backward pass, or with the `grad/<of>/...`."""
        ours = gradients(module, **inputs)
        for name in section(self.case, f"grad/{of}" if of else "grad"):
            if "/" not in name:  # of another loss
                place = our_name(name, self.rules)
                self.gradient("/".join(filter(None, ("grad", of, name))), ours[place], place)
        for name in section(self.case, "out/gradnorm"):
            self.gradient(f"out/gradnorm/{name}", ours[our_name(name, self.rules)].norm())

    def finish(self) -> None:
        assert not self.left, f"{self.case.name}: nothing was compared with {sorted(self.left)}"

    def gradient(self, name: str, ours: Tensor, place: str = "") -> None:
        """Compare a gradient with the array `name`; `place` is the parameter of ours that it belongs to."""
        theirs = self.adapt({place: torch.from_numpy(self.take(name))})[place]
        theirs = drop_kernel(theirs, ours.ndim).numpy()
        rule = self._rule("grad")
        size = np.abs(theirs)
        if "grad_rtol" in rule:
            tolerance = rule["grad_rtol"] * size + rule["grad_atol_rel_to_max"] * size.max(initial=0)
        else:
            tolerance = rule["rtol"] * size + rule["atol"] * max(size.max(initial=0), 1.0)
        assert_close(name, ours, theirs, tolerance + self.noise)

    def _rule(self, part: str) -> dict[str, float]:
        """The tolerances of `forward` or `grad`, which some cases state together."""
        tolerance = self.case.config["tolerance"]
        return tolerance.get(part, tolerance)


def batch_norm_trains(mode: str) -> bool:
    """Whether a case's `mode` means that BatchNorm used and updated its batch statistics."""
    return mode == "train" or re.search(r"BatchNorm in train", mode) is not None


def our_name(theirs: str, rules: Rules) -> str:
    """Our name of an official parameter; inputs are `in.x`, which some fixtures write `@x`."""
    if theirs.startswith(("in.", "@")):
        return f"in.{theirs.removeprefix('in.').removeprefix('@')}"
    (name,) = convert_names({theirs: torch.empty(0)}, rules)
    return name


def gradients(module: nn.Module, **inputs: Tensor) -> dict[str, Tensor]:
    """The gradients after a backward pass: of parameters by name, of inputs as `in.<name>`; zeros for none."""
    found = {**dict(module.named_parameters()), **{f"in.{name}": value for name, value in inputs.items()}}
    return {name: torch.zeros_like(value) if value.grad is None else value.grad for name, value in found.items()}


def assert_close(name: str, ours: Any, theirs: np.ndarray, tolerance: Any) -> None:
    """Fail with the largest excess if an element is further off than its tolerance (or not finite)."""
    found = _array(ours)
    assert found.shape == theirs.shape, f"{name}: shape {found.shape}, expected {theirs.shape}"
    distance = np.abs(found.astype(np.float64) - theirs.astype(np.float64))
    outside = ~(distance <= tolerance)  # not `>`: NaN is outside
    if outside.any():
        excess = np.where(np.isfinite(distance), distance - tolerance, np.inf)
        worst = np.unravel_index(np.argmax(excess), excess.shape)
        raise AssertionError(
            f"{name}: {outside.sum()} of {outside.size} elements are off; worst at {tuple(map(int, worst))}: "
            f"{found[worst]} instead of {theirs[worst]}"
        )


def assert_equal(name: str, ours: Any, theirs: np.ndarray) -> None:
    found = _array(ours)
    assert found.shape == theirs.shape, f"{name}: shape {found.shape}, expected {theirs.shape}"
    different = found != theirs
    assert not different.any(), f"{name}: {different.sum()} of {different.size} elements differ"


def match_rows(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """For two tables with the same unique rows in different orders: the row of ours for each row of theirs."""
    assert ours.shape == theirs.shape, f"rows: shape {ours.shape}, expected {theirs.shape}"
    our_order, their_order = _row_order(ours), _row_order(theirs)
    assert_equal("rows as sets", ours[our_order], theirs[their_order])
    match = np.empty(len(ours), dtype=np.int64)
    match[their_order] = our_order
    return match


def _row_order(rows: np.ndarray) -> np.ndarray:
    return np.lexsort(rows.T[::-1])


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
