"""The layouts in which spconv has stored the weights of its convolutions, told apart by their shapes.

    spconv 2.x          [out, (kz,) ky, kx, in]      ours
    spconv 1.x          [(kz,) ky, kx, in, out]
    early spconv 2.x    [(kz,) ky, kx, out, in]

A single square weight fits two of them, so all weights of a checkpoint are judged together: one layout has to fit all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from sparse3d_ops.sparse.modules import Convolution

from .convert import State

LAYOUTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "spconv 2.x": lambda weight: weight,
    "spconv 1.x": lambda weight: weight.movedim(-1, 0),
    "early spconv 2.x": lambda weight: weight.movedim(-2, 0),
}


def to_own_layout(state: Mapping[str, Tensor], module: nn.Module) -> State:
    """Return a state whose sparse convolutions have our layout.

    Args:
        state: every entry by our name.
        module: what the state is for; it says which shapes its weights have.

    Raises:
        ValueError: if no layout, or more than one, fits all weights of sparse convolutions; those that fit none are
            listed.
    """
    shapes = {
        f"{name}.weight": each.weight.shape for name, each in module.named_modules() if isinstance(each, Convolution)
    }
    shapes = {name: shape for name, shape in shapes.items() if name in state and state[name].ndim == len(shape)}
    fitting = [
        layout
        for layout, arrange in LAYOUTS.items()
        if all(arrange(state[name]).shape == shape for name, shape in shapes.items())
    ]
    if not shapes:
        return dict(state)
    if len(fitting) != 1:
        raise ValueError(_explain(state, shapes, fitting))
    arrange = LAYOUTS[fitting[0]]
    return {name: arrange(value) if name in shapes else value for name, value in state.items()}


def _explain(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], fitting: list[str]) -> str:
    if fitting:
        return f"the weights of the sparse convolutions fit several layouts ({', '.join(fitting)}); none can be chosen"
    lines = [
        f"{name}: the model has {list(shape)}, the checkpoint {list(state[name].shape)}"
        for name, shape in shapes.items()
    ]
    return "\n  ".join([f"no layout of spconv ({', '.join(LAYOUTS)}) fits all sparse convolutions:", *lines])
