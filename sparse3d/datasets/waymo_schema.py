"""What the Waymo Open Dataset calls things; positions in the tuples are the official numbers.

Source: label.proto, dataset.proto and keypoint.proto of the Waymo Open Dataset.
"""

from __future__ import annotations

from types import MappingProxyType

TYPES = ("UNKNOWN", "VEHICLE", "PEDESTRIAN", "SIGN", "CYCLIST")
CATEGORIES = ("Unknown", "Vehicle", "Pedestrian", "Sign", "Cyclist")  # of annotations, and names of classes
CAMERAS = ("UNKNOWN", "FRONT", "FRONT-LEFT", "FRONT-RIGHT", "SIDE-LEFT", "SIDE-RIGHT")  # as rows of results write them
CAMERA_NAMES = ("UNKNOWN", "FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT")
LASERS = ("UNKNOWN", "TOP", "FRONT", "SIDE_LEFT", "SIDE_RIGHT", "REAR")
TOP = LASERS.index("TOP")  # the only laser whose cells have a pose of their own

# Columns of points as read: metres in the vehicle frame, intensity (not bounded), elongation, 1 in a no-label zone.
POINT_COLUMNS = ("x", "y", "z", "intensity", "elongation", "no_label_zone")
MAX_SWEEPS = 9  # frames before a frame that its index row lists
SPLITS = MappingProxyType({"training": "train", "validation": "val", "testing": "test"})  # folder -> name of the index
