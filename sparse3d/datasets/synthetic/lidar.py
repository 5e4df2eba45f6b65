"""The LiDAR: one revolution of nuScenes' HDL-32E through a moving world.

Column c is fired at stamp - 50 ms (1 - (c + 1/2) / columns) from where the sensor is then, at where things are then.
The file holds the points in the sensor's axes at the stamp, own motion undone but the motion of others not: exactly
what nuScenes stores. A part is only tried against the columns and beams that it can cover in any of these 50 ms.

A beam returns with probability (1 - loss of the surface) (1 - loss of the distance); ranges carry Gaussian noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .parts import Parts, hull_corners
from .rays import distance_to_part, inlined, kernel, surface_normal, turn_back
from .rig import BEAMS, COLUMNS, ELEVATIONS, FIRST_AZIMUTH, LIDAR, MAX_RANGE, SWEEP_INTERVAL, pose_matrix
from .street import street_table
from .surfaces import shade, shade_road
from .world import World

RANGE_NOISE = 0.02  # metres, standard deviation
ROAD, NOTHING = -2, -1  # where a ray ends that meets no part
REVOLUTION = SWEEP_INTERVAL / 1e6  # seconds
SPARE_ANGLE = 0.004  # radians added around the window of a part, against rounding


@dataclass(frozen=True)
class Scan:
    """One revolution.

    Args:
        points: ``[M, 5]`` float32: x, y, z in metres (LiDAR axes at the stamp), intensity 0..255, ring.
        owners: ``[M]`` int64, the object a point lies on, -1 for scenery and ground.
        visibility: ``[N]``, share of the beams towards an object that meet it first; 0 where no beam points at it.
    """

    points: np.ndarray
    owners: np.ndarray
    visibility: np.ndarray


def beam_delay(world: World, stamp: float) -> np.ndarray:
    """Return when the beam passes each object of the world: seconds ``[N]`` before (negative) the stamp."""
    lidar2world = pose_matrix(world.ego_pose(stamp)) @ LIDAR.matrix
    poses, _ = world.actor_poses(stamp)
    local = (poses[:, :3] - lidar2world[:3, 3]) @ lidar2world[:3, :3]
    turned = np.mod(FIRST_AZIMUTH - np.arctan2(local[:, 1], local[:, 0]), 2 * np.pi)
    return (turned / (2 * np.pi) - 1) * REVOLUTION


def scan(world: World, stamp: float, rng: np.random.Generator) -> Scan:
    """Record one revolution that ends at ``stamp`` (seconds, world time)."""
    middle = stamp - REVOLUTION / 2
    origins, directions = _rays(world, stamp)
    snapshot = world.snapshot(middle).near(*world.ego_pose(middle)[:2], MAX_RANGE)
    parts, velocities = snapshot.parts, snapshot.velocities
    windows = _windows(world, middle, parts, velocities)
    chances = rng.random((COLUMNS, BEAMS), dtype=np.float32)
    noise = rng.standard_normal((COLUMNS, BEAMS), dtype=np.float32) * np.float32(RANGE_NOISE)
    offsets = (_turned() - 0.5) * REVOLUTION
    depth, hit, aimed, met = _cast(origins, directions, offsets, parts, velocities, windows, len(world.actors))
    ground = (street_table(world.streets), world.look.asphalt)
    positions, intensity, kept = _return(
        origins, directions, offsets, parts, velocities, depth, hit, chances, noise, ground
    )
    owners = np.where(hit >= 0, parts.owner[np.maximum(hit, 0)], -1)[kept]
    local = _to_sensor(world, stamp, positions[kept])
    rings = np.broadcast_to(np.arange(BEAMS), (COLUMNS, BEAMS))[kept]
    points = np.column_stack([local, intensity[kept], rings]).astype(np.float32)
    return Scan(points, owners, met / np.maximum(aimed, 1))


def _rays(world: World, stamp: float) -> tuple[np.ndarray, np.ndarray]:
    """Return origins ``[C, 3]`` and unit directions ``[C, B, 3]`` of all rays in the world's axes."""
    x, y, yaw = world.ego_pose(stamp)
    vx, vy, turning = world.ego_velocity(stamp - REVOLUTION / 2)
    ago = (_turned() - 1) * REVOLUTION
    cos, sin = np.cos(yaw + turning * ago), np.sin(yaw + turning * ago)
    ego, (mx, my, mz) = _directions(), LIDAR.translation
    directions = np.empty_like(ego)
    directions[..., 0] = ego[..., 0] * cos[:, None] - ego[..., 1] * sin[:, None]
    directions[..., 1] = ego[..., 0] * sin[:, None] + ego[..., 1] * cos[:, None]
    directions[..., 2] = ego[..., 2]
    places = (x + vx * ago + mx * cos - my * sin, y + vy * ago + mx * sin + my * cos, np.full(COLUMNS, mz))
    return np.stack(places, axis=1), directions


def _turned() -> np.ndarray:
    """Return the share ``[C]`` of the revolution that is over when each column is fired."""
    return (np.arange(COLUMNS) + 0.5) / COLUMNS


@lru_cache(maxsize=1)
def _directions() -> np.ndarray:
    """Return the unit directions ``[C, B, 3]`` of all rays in the axes of the car."""
    azimuths = (FIRST_AZIMUTH - 2 * np.pi * _turned())[:, None]
    flat = np.cos(ELEVATIONS)
    level = (np.cos(azimuths) * flat, np.sin(azimuths) * flat, np.broadcast_to(np.sin(ELEVATIONS), (COLUMNS, BEAMS)))
    return np.stack(level, axis=-1) @ LIDAR.rotation.T


def _to_sensor(
    world: World,
    stamp: float,
    positions: np.ndarray,  # [M, 3], world axes
) -> np.ndarray:
    lidar2world = pose_matrix(world.ego_pose(stamp)) @ LIDAR.matrix
    return (positions - lidar2world[:3, 3]) @ lidar2world[:3, :3]


def _windows(world: World, middle: float, parts: Parts, velocities: np.ndarray) -> np.ndarray:
    """Return the rays each part can meet, ``[P, 4]`` int64: first column, columns, first beam, one past the last beam.

    Seen from the sensor in the middle of the revolution; the part is inflated by how far the two move apart in half a
    revolution. A convex solid beside the sensor is widest at its corners. For elevations, z / distance is bounded by
    the extreme z of the corners and the nearest or farthest distance.
    """
    lidar2world = pose_matrix(world.ego_pose(middle)) @ LIDAR.matrix
    vx, vy, turning = world.ego_velocity(middle)
    own = np.array([vx, vy, 0.0])
    drift = (np.linalg.norm(velocities - own, axis=1) + abs(turning)) * REVOLUTION / 2
    rotation = lidar2world[:3, :3]
    center = (parts.center - lidar2world[:3, 3]) @ rotation
    seen = parts._replace(center=center, rotation=rotation.T @ parts.rotation)
    corners = hull_corners(seen._replace(lean=np.zeros_like(parts.lean)))
    local = np.abs(np.einsum("pji,pj->pi", seen.rotation, center))
    nearest = np.linalg.norm(np.maximum(local - parts.half, 0.0), axis=1) - drift
    farthest = np.linalg.norm(corners, axis=2).max(axis=1) + drift
    columns = _columns(center, corners, nearest, drift, abs(turning) * REVOLUTION / 2)
    return np.concatenate([columns, _beams(corners[..., 2], nearest, farthest, drift)], axis=1)


def _columns(
    center: np.ndarray, corners: np.ndarray, nearest: np.ndarray, drift: np.ndarray, turned: float
) -> np.ndarray:
    azimuth = np.arctan2(center[:, 1], center[:, 0])
    relative = np.arctan2(corners[..., 1], corners[..., 0]) - azimuth[:, None]
    relative = np.mod(relative + np.pi, 2 * np.pi) - np.pi
    low, high = relative.min(axis=1), relative.max(axis=1)
    horizontal = np.hypot(corners[..., 0], corners[..., 1]).min(axis=1)
    everywhere = (high - low > 0.9 * np.pi) | (nearest < 0.3) | (horizontal < 2 * drift)
    slack = np.where(everywhere, 0.0, 1.6 * drift / np.maximum(nearest, 0.3)) + turned + SPARE_ANGLE
    step = 2 * np.pi / COLUMNS
    first = np.floor((FIRST_AZIMUTH - azimuth - high - slack) / step - 0.5).astype(np.int64)
    last = np.ceil((FIRST_AZIMUTH - azimuth - low + slack) / step - 0.5).astype(np.int64)
    count = np.where(everywhere, COLUMNS, np.minimum(last - first + 1, COLUMNS))
    return np.stack([np.mod(first, COLUMNS), count], axis=1)


def _beams(heights: np.ndarray, nearest: np.ndarray, farthest: np.ndarray, drift: np.ndarray) -> np.ndarray:
    lowest, highest = heights.min(axis=1) - 0.02 - 0.05 * drift, heights.max(axis=1) + 0.02 + 0.05 * drift
    nearest = np.maximum(nearest, 0.05)
    up = np.arcsin(np.clip(highest / np.where(highest > 0, nearest, farthest), -1, 1)) + SPARE_ANGLE
    down = np.arcsin(np.clip(lowest / np.where(lowest < 0, nearest, farthest), -1, 1)) - SPARE_ANGLE
    return np.stack([np.searchsorted(ELEVATIONS, down), np.searchsorted(ELEVATIONS, up, side="right")], axis=1)


@kernel
def _cast(origins, directions, offsets, parts, velocities, windows, actors):
    """Return distance and part ``[C, B]`` of the nearest hits, and beams aimed at and first met ``[N]`` by objects."""
    columns, beams = directions.shape[:2]
    depth = np.full((columns, beams), MAX_RANGE)
    hit = np.full((columns, beams), NOTHING)
    latest = np.full((columns, beams), -1)  # the object that a ray was last counted for; parts come object by object
    aimed = np.zeros(actors, np.int64)
    kind, half, planes, rotation, center = parts.kind, parts.half, parts.planes, parts.rotation, parts.center
    for column in range(columns):
        for beam in range(beams):
            if directions[column, beam, 2] < 0:
                distance = -origins[column, 2] / directions[column, beam, 2]
                if distance < MAX_RANGE:
                    depth[column, beam], hit[column, beam] = distance, ROAD
    for part in range(len(parts.kind)):
        owner = parts.owner[part]
        for step in range(windows[part, 1]):
            column = (windows[part, 0] + step) % columns
            x, y, z = origins[column, 0], origins[column, 1], origins[column, 2]
            x, y, z = _relative(center, velocities, part, offsets[column], x, y, z)
            ox, oy, oz = turn_back(rotation, part, x, y, z)
            for beam in range(windows[part, 2], windows[part, 3]):
                x, y, z = directions[column, beam, 0], directions[column, beam, 1], directions[column, beam, 2]
                dx, dy, dz = turn_back(rotation, part, x, y, z)
                distance = distance_to_part(kind, half, planes, part, ox, oy, oz, dx, dy, dz)
                if distance < MAX_RANGE and owner >= 0 and latest[column, beam] != owner:
                    latest[column, beam] = owner
                    aimed[owner] += 1
                if distance < depth[column, beam]:
                    depth[column, beam], hit[column, beam] = distance, part
    return depth, hit, aimed, _count_owners(hit, parts.owner, actors)


@kernel
def _count_owners(hit, owner, actors):
    met = np.zeros(actors, np.int64)
    for part in hit.flat:
        if part >= 0 and owner[part] >= 0:
            met[owner[part]] += 1
    return met


@kernel
def _return(origins, directions, offsets, parts, velocities, depth, hit, chances, noise, ground):
    """Return measured positions ``[C, B, 3]`` (world axes), intensities ``[C, B]`` and which rays came back."""
    columns, beams = depth.shape
    positions, intensity = np.zeros((columns, beams, 3)), np.zeros((columns, beams))
    kept = np.zeros((columns, beams), np.bool_)
    streets, asphalt = ground
    kind, half, planes, rotation, center = parts.kind, parts.half, parts.planes, parts.rotation, parts.center
    patterns, colours = parts.pattern, parts.colours
    for column in range(columns):
        for beam in range(beams):
            part, distance = hit[column, beam], depth[column, beam]
            if part == NOTHING:
                continue
            rx, ry, rz = directions[column, beam, 0], directions[column, beam, 1], directions[column, beam, 2]
            wx, wy = origins[column, 0] + distance * rx, origins[column, 1] + distance * ry
            wz = origins[column, 2] + distance * rz
            if part == ROAD:
                _, _, _, strength, loss = shade_road(wx, wy, streets, asphalt, 1.0)
                facing = -rz
            else:
                x, y, z = _relative(center, velocities, part, offsets[column], wx, wy, wz)
                x, y, z = turn_back(rotation, part, x, y, z)
                nx, ny, nz, face = surface_normal(kind, half, planes, part, x, y, z)
                _, _, _, strength, loss = shade(patterns, half, colours, part, face, x, y, z, 1.0)
                dx, dy, dz = turn_back(rotation, part, rx, ry, rz)
                facing = max(0.0, -(nx * dx + ny * dy + nz * dz))
            strength *= 0.3 + 0.7 * facing
            lost = 1 - (1 - loss) * (1 - _range_loss(distance, facing, strength))
            error = noise[column, beam]
            kept[column, beam] = chances[column, beam] > lost
            positions[column, beam, 0] = wx + error * rx
            positions[column, beam, 1] = wy + error * ry
            positions[column, beam, 2] = wz + error * rz
            intensity[column, beam] = min(255.0, max(0.0, strength * (1 + 6 * error)))
    return positions, intensity, kept


@inlined
def _range_loss(distance, facing, strength):
    """Return the probability that a return is lost to distance and grazing incidence (judged by eye on real scans)."""
    far = 0.45 * (distance / MAX_RANGE) ** 2 * min(2.0, 25.0 / (strength + 1.0))
    grazing = 0.7 * math.exp(-facing / 0.025)
    return min(0.95, 0.03 + far + grazing)


@inlined
def _relative(center, velocities, part, offset, x, y, z):
    """Return a place relative to a part that has moved for ``offset`` seconds."""
    return (
        x - center[part, 0] - velocities[part, 0] * offset,
        y - center[part, 1] - velocities[part, 1] * offset,
        z - center[part, 2] - velocities[part, 2] * offset,
    )
