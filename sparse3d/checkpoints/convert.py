"""The mechanism: a table of rules renames parameters, and every parameter of both sides has to be accounted for.

A rule is `(pattern, replacement)`. The pattern is a regular expression that matches a whole official name; the first
rule that matches wins; a replacement of None drops the entry on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

Rules = Sequence[tuple[str, str | None]]
State = dict[str, Tensor]

COUNTER = "num_batches_tracked"  # of BatchNorm; only counts, and older checkpoints lack it


def convert_names(state: Mapping[str, Tensor], rules: Rules) -> State:
    """Rename the entries of a state dictionary.

    Args:
        state: official name -> tensor.
        rules: see the top of the file.

    Raises:
        ValueError: if no rule matches a name, or two entries get the same name; all such names are listed.
    """
    converted: State = {}
    problems = []
    for name, value in state.items():
        known, ours = _rename(name, rules)
        if not known:
            problems.append(f"no rule for {name}")
        elif ours is not None and ours in converted:
            problems.append(f"{name} becomes {ours}, which another entry already is")
        elif ours is not None:
            converted[ours] = value
    _report("the checkpoint does not fit the table of names", problems)
    return converted


def load_converted(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a converted state into a module, in full.

    A convolution with a kernel of 1 is a linear layer: where ours is one, axes of length 1 at the end are dropped.

    Args:
        module: takes the values, in its own dtype and on its own device.
        state: every parameter and buffer by our name; BatchNorm's counters may be missing.

    Raises:
        ValueError: if an entry is missing, unexpected or of another shape; all of them are listed.
    """
    own = module.state_dict()
    state = {name: drop_kernel(value, own[name].ndim) if name in own else value for name, value in state.items()}
    problems = [f"missing {name}" for name in own if name not in state and not name.endswith(COUNTER)]
    problems += [f"unexpected {name}" for name in state if name not in own]
    problems += [
        f"{name}: the model has {list(own[name].shape)}, the checkpoint {list(value.shape)}"
        for name, value in state.items()
        if name in own and own[name].shape != value.shape
    ]
    _report(f"the checkpoint does not fit {type(module).__name__}", problems)
    module.load_state_dict(state, strict=False)


def drop_kernel(weight: Tensor, ndim: int) -> Tensor:
    """Return a weight without the axes of length 1 at its end that exceed ``ndim``."""
    while weight.ndim > ndim and weight.shape[-1] == 1:
        weight = weight[..., 0]
    return weight


def prefixed(theirs: str, ours: str, rules: Rules) -> Rules:
    """Return the rules of a part for its names inside of a whole.

    Args:
        theirs: pattern of the part's official name, without groups.
        ours: our name of the part.
        rules: the part's rules.
    """
    return [
        (rf"{theirs}\.{pattern}", None if replacement is None else f"{ours}.{replacement}")
        for pattern, replacement in rules
    ]


def find_state(checkpoint: object, path: str | Path, *keys: str) -> State:
    """Return the state dictionary in what was read from ``path``: the first of ``keys`` that is there.

    Raises:
        ValueError: if none is.
    """
    entries = checkpoint if isinstance(checkpoint, Mapping) else {}
    for key in keys:
        if key in entries:
            return dict(entries[key])
    found = sorted(map(str, entries)) if entries else type(checkpoint).__name__
    raise ValueError(f"{path}: expected an entry {' or '.join(map(repr, keys))}, found {found}")


def _rename(name: str, rules: Rules) -> tuple[bool, str | None]:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return True, None if replacement is None else match.expand(replacement)
    return False, None


def _report(what: str, problems: Sequence[str]) -> None:
    if problems:
        raise ValueError("\n  ".join([f"{what}; {len(problems)} entries:", *problems]))
