"""Features: what the branches of a detector hand to its head."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Feature maps of a batch and the auxiliary losses of the branch that made them.

    Args:
        bev: ``[B, C, Y, X]`` bird's-eye map in the config's grid, or None.
        images: one ``[B, cameras, C, H, W]`` map a level, finest first, or None.
        losses: scalar auxiliary losses by name; empty outside training.
    """

    bev: Tensor | None = None
    images: tuple[Tensor, ...] | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)

    def merge(self, other: Features) -> Features:
        """Return the union of two branches' features.

        Raises:
            ValueError: if both made a bird's-eye map, image maps, or a loss of the same name.
        """
        for name in ("bev", "images"):
            if getattr(self, name) is not None and getattr(other, name) is not None:
                raise ValueError(f"Features.merge: both branches made {name!r}; one of them has to fuse the other's")
        shared = self.losses.keys() & other.losses.keys()
        if shared:
            raise ValueError(f"Features.merge: both branches made the losses {sorted(shared)}")
        return Features(
            bev=other.bev if self.bev is None else self.bev,
            images=other.images if self.images is None else self.images,
            losses={**self.losses, **other.losses},
        )
