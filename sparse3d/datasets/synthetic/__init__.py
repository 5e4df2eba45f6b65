"""A procedural driving world, recorded by the sensors of nuScenes or Waymo and written in their on-disk formats."""

from .waymo_writer import WaymoSummary, write_synthetic_waymo
from .writer import Summary, write_synthetic

__all__ = ["Summary", "WaymoSummary", "write_synthetic", "write_synthetic_waymo"]
