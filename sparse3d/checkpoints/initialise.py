"""A start from checkpoints that know a part of a model: what they know is loaded, and a report says what that was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from .convert import COUNTER, Rules, State, convert_names, drop_kernel

OTHERS: Rules = [(r".+", None)]  # what a file has besides


@dataclass(frozen=True)
class Initialisation:
    """What was loaded and what was not.

    Args:
        loaded: our names of parameters and buffers that a file gave.
        random: our names that no file gave.
        unused: file -> its entries that this model has no use for.
    """

    loaded: tuple[str, ...]
    random: tuple[str, ...]
    unused: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded, {len(self.random)} left as they were initialised"]
        lines += [f"  loaded  {part}: {count}" for part, count in _by_part(self.loaded).items()]
        lines += [f"  random  {part}: {count}" for part, count in _by_part(self.random).items()]
        lines += [f"  {file}: {len(names)} entries not used" for file, names in self.unused.items()]
        return "\n".join(lines)


def load_known(
    module: nn.Module,
    files: Mapping[str, tuple[Mapping[str, Tensor], Rules]],
    adapt: Callable[[State], State] = dict,
) -> Initialisation:
    """Load what some files know into a module, one after the other.

    Args:
        module: takes the values.
        files: name of each file -> its state dictionary, and the rules that rename what it knows.
        adapt: what differs besides names; takes and returns all renamed entries of a file.

    Raises:
        ValueError: if a file knows nothing of this module, or a tensor has another shape than its namesake here.
    """
    own, converted, unused = module.state_dict(), {}, {}
    for path, (state, rules) in files.items():
        known = [*rules, *OTHERS]
        found = adapt(convert_names(state, known))
        found = {name: drop_kernel(value, own[name].ndim) for name, value in found.items() if name in own}
        if not found:
            raise ValueError(f"{path}: none of its {len(state)} entries belongs to this model")
        wrong = [
            f"{name}: the model has {list(own[name].shape)}, {path} {list(value.shape)}"
            for name, value in found.items()
            if value.shape != own[name].shape
        ]
        if wrong:
            raise ValueError("\n  ".join([f"{path} does not fit the model; {len(wrong)} entries:", *wrong]))
        converted.update(found)
        unused[path] = tuple(name for name in state if not convert_names({name: state[name]}, known).keys() & own)
    module.load_state_dict(converted, strict=False)
    return Initialisation(
        loaded=tuple(name for name in own if name in converted),
        random=tuple(name for name in own if name not in converted and not name.endswith(COUNTER)),
        unused=unused,
    )


def _by_part(names: tuple[str, ...]) -> dict[str, int]:
    """Return how many names begin with the same two words."""
    counts: dict[str, int] = {}
    for name in names:
        part = ".".join(name.split(".")[:2])
        counts[part] = counts.get(part, 0) + 1
    return counts
