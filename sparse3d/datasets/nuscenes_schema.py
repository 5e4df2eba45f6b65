"""The names of nuScenes: detection classes, categories, attributes and sensor channels.

Source: nuScenes (Caesar et al., CVPR 2020), the detection task of its development kit.
"""

from __future__ import annotations

from types import MappingProxyType

# The class order of mmdetection3d's info files and published configs; the development kit lists them otherwise.
DETECTION_CLASSES = (
    "car",
    "truck",
    "trailer",
    "bus",
    "construction_vehicle",
    "bicycle",
    "motorcycle",
    "pedestrian",
    "traffic_cone",
    "barrier",
)

# Category -> detection class. Categories that are not named here take no part in detection. Info files of other
# frameworks name the class in place of the raw category, so a class stands for itself.
CATEGORY_TO_CLASS = MappingProxyType(
    {
        **{name: name for name in DETECTION_CLASSES},
        "vehicle.car": "car",
        "vehicle.truck": "truck",
        "vehicle.trailer": "trailer",
        "vehicle.bus.bendy": "bus",
        "vehicle.bus.rigid": "bus",
        "vehicle.construction": "construction_vehicle",
        "vehicle.bicycle": "bicycle",
        "vehicle.motorcycle": "motorcycle",
        "human.pedestrian.adult": "pedestrian",
        "human.pedestrian.child": "pedestrian",
        "human.pedestrian.construction_worker": "pedestrian",
        "human.pedestrian.police_officer": "pedestrian",
        "movable_object.trafficcone": "traffic_cone",
        "movable_object.barrier": "barrier",
    }
)

BICYCLE_RACK = "static_object.bicycle_rack"  # no detection class, but the metric drops cycles that stand in one

VEHICLE_ATTRIBUTES = ("vehicle.moving", "vehicle.stopped", "vehicle.parked")
CYCLE_ATTRIBUTES = ("cycle.with_rider", "cycle.without_rider")
PEDESTRIAN_ATTRIBUTES = ("pedestrian.moving", "pedestrian.standing", "pedestrian.sitting_lying_down")
ATTRIBUTES = VEHICLE_ATTRIBUTES + CYCLE_ATTRIBUTES + PEDESTRIAN_ATTRIBUTES

# Attributes that an object of a class may have; barriers and cones have none.
CLASS_ATTRIBUTES = MappingProxyType(
    {
        **dict.fromkeys(("car", "truck", "trailer", "bus", "construction_vehicle"), VEHICLE_ATTRIBUTES),
        **dict.fromkeys(("bicycle", "motorcycle"), CYCLE_ATTRIBUTES),
        "pedestrian": PEDESTRIAN_ATTRIBUTES,
        **dict.fromkeys(("traffic_cone", "barrier"), ()),
    }
)

LIDAR_CHANNEL = "LIDAR_TOP"
LIDAR_FEATURES = 5  # float32 values a point: x, y, z, intensity (0 to 255), ring
CAMERA_CHANNELS = (
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_RIGHT",
    "CAM_BACK",
    "CAM_BACK_LEFT",
    "CAM_FRONT_LEFT",
)  # clockwise, as seen from above
MAX_SWEEPS = 10  # sweeps before a key frame that an index keeps

VERSIONS = MappingProxyType(
    {
        "v1.0-mini": ("mini_train", "mini_val"),
        "v1.0-trainval": ("train", "val"),
        "v1.0-test": ("test",),
    }
)


def full_version(version: str) -> str:
    """Return the table folder's name of a version: ``"mini"`` and ``"v1.0-mini"`` both give ``"v1.0-mini"``.

    Raises:
        ValueError: if there is no such version.
    """
    name = version if version.startswith("v1.0-") else f"v1.0-{version}"
    if name not in VERSIONS:
        raise ValueError(f"nuScenes has the versions {', '.join(VERSIONS)}, got {version!r}")
    return name
