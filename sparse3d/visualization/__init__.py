"""Pictures of point clouds, boxes and camera images."""

from .colors import class_colors, point_map
from .draw import draw_bev, draw_cameras
from .files import save_image
from .hook import VisualizationHook
from .layers import PointLayer
from .skeletons import draw_skeletons
from .web import write_scene_html

__all__ = [
    "PointLayer",
    "VisualizationHook",
    "class_colors",
    "draw_bev",
    "draw_cameras",
    "draw_skeletons",
    "point_map",
    "save_image",
    "write_scene_html",
]
