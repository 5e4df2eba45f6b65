"""A procedural driving world, recorded by nuScenes' sensors and written in nuScenes' on-disk format."""

from .writer import Summary, write_synthetic

__all__ = ["Summary", "write_synthetic"]
