"""LiDARs: one revolution of a spinning laser through a moving world.

Column c is fired at stamp - T (1 - (c + 1/2) / columns), T the time of a revolution, from where the sensor is then, at
where things are then. nuScenes' file holds the points in the sensor's axes at the stamp, own motion undone but the
motion of others not. A part is only tried against the columns and beams that it can cover in the whole revolution.

A beam returns with probability (1 - loss of the surface) (1 - loss of the distance); ranges carry Gaussian noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .parts import Parts, hull_corners
from .rays import distance_to_part, inlined, kernel, surface_normal, turn_back
from .rig import HDL32E, Laser, pose_matrix
from .street import street_table
from .surfaces import shade, shade_road
from .world import World

ROAD, NOTHING = -2, -1  # where a ray ends that meets no part
SPARE_ANGLE = 0.004  # radians added around the window of a part, against rounding


@dataclass(frozen=True)
class Scan:
    """One revolution as nuScenes stores it.

    Args:
        points: ``[M, 5]`` float32: x, y, z in metres (LiDAR axes at the stamp), intensity 0..255, ring.
        owners: ``[M]`` int64, the object a point lies on, -1 for scenery and ground.
        visibility: ``[N]``, share of the beams towards an object that meet it first; 0 where no beam points at it.
    """

    points: np.ndarray
    owners: np.ndarray
    visibility: np.ndarray


@dataclass(frozen=True)
class Returns:
    """What comes back of one revolution, ray by ray.

    Args:
        kept: ``[C, B]`` bool, rays that return.
        ranges: ``[C, B]`` metres as measured.
        positions: ``[C, B, 3]`` metres as measured, world axes.
        intensity: ``[C, B]`` in 0..255.
        facing: ``[C, B]`` cosine of the angle at which the surface is met.
        owners: ``[C, B]`` int64, the object a ray ends on, -1 for scenery and ground.
        visibility: ``[N]``, share of the beams towards an object that meet it first; 0 where no beam points at it.
    """

    kept: np.ndarray
    ranges: np.ndarray
    positions: np.ndarray
    intensity: np.ndarray
    facing: np.ndarray
    owners: np.ndarray
    visibility: np.ndarray


def beam_delay(world: World, stamp: float, laser: Laser) -> np.ndarray:
    """Return when the beam passes each object of the world: seconds ``[N]`` before (negative) the stamp."""
    lidar2world = pose_matrix(world.ego_pose(stamp)) @ laser.mount.matrix
    poses, _ = world.actor_poses(stamp)
    local = (poses[:, :3] - lidar2world[:3, 3]) @ lidar2world[:3, :3]
    turned = np.mod(laser.first_azimuth - np.arctan2(local[:, 1], local[:, 0]), 2 * np.pi)
    return (turned / (2 * np.pi) - 1) * laser.revolution


def scan(world: World, stamp: float, rng: np.random.Generator) -> Scan:
    """Record one revolution of nuScenes' LiDAR that ends at ``stamp`` (seconds, world time)."""
    returns = cast(world, stamp, HDL32E, rng)
    kept = returns.kept
    lidar2world = pose_matrix(world.ego_pose(stamp)) @ HDL32E.mount.matrix
    local = (returns.positions[kept] - lidar2world[:3, 3]) @ lidar2world[:3, :3]
    rings = np.broadcast_to(np.arange(kept.shape[1]), kept.shape)[kept]
    points = np.column_stack([local, returns.intensity[kept], rings]).astype(np.float32)
    return Scan(points, returns.owners[kept], returns.visibility)


def cast(world: World, stamp: float, laser: Laser, rng: np.random.Generator) -> Returns:
    """Send out one revolution of a laser that ends at ``stamp`` (seconds, world time)."""
    middle = stamp - laser.revolution / 2
    origins, directions = _rays(world, stamp, laser)
    snapshot = world.snapshot(middle).near(*world.ego_pose(middle)[:2], laser.max_range)
    parts, velocities = snapshot.parts, snapshot.velocities
    windows = _windows(world, middle, laser, parts, velocities)
    chances = rng.random(laser.shape, dtype=np.float32)
    noise = rng.standard_normal(laser.shape, dtype=np.float32) * np.float32(laser.noise)
    offsets = (_turned(laser) - 0.5) * laser.revolution
    depth, hit, aimed, met = _cast(
        origins, directions, offsets, parts, velocities, windows, len(world.actors), laser.max_range
    )
    ground = (street_table(world.streets), world.look.asphalt)
    positions, intensity, facing, kept = _return(
        origins, directions, offsets, parts, velocities, depth, hit, chances, noise, ground, laser.max_range
    )
    return Returns(
        kept=kept & _in_view(laser)[:, None],
        ranges=depth + noise,
        positions=positions,
        intensity=intensity,
        facing=facing,
        owners=np.where(hit >= 0, parts.owner[np.maximum(hit, 0)], -1),
        visibility=met / np.maximum(aimed, 1),
    )


def firing_poses(world: World, stamp: float, laser: Laser) -> np.ndarray:
    """Return the vehicle's pose ``(x, y, yaw)`` ``[C, 3]`` as each column is fired; it drives straight meanwhile."""
    ago = np.zeros(laser.columns) if laser.from_stamp else (_turned(laser) - 1) * laser.revolution
    velocity = world.ego_velocity(stamp - laser.revolution / 2)
    return world.ego_pose(stamp) + ago[:, None] * velocity


def _rays(world: World, stamp: float, laser: Laser) -> tuple[np.ndarray, np.ndarray]:
    """Return origins ``[C, 3]`` and unit directions ``[C, B, 3]`` of all rays in the world's axes."""
    x, y, yaw = firing_poses(world, stamp, laser).T
    cos, sin = np.cos(yaw), np.sin(yaw)
    ego, (mx, my, mz) = _directions(laser), laser.mount.translation
    directions = np.empty_like(ego)
    directions[..., 0] = ego[..., 0] * cos[:, None] - ego[..., 1] * sin[:, None]
    directions[..., 1] = ego[..., 0] * sin[:, None] + ego[..., 1] * cos[:, None]
    directions[..., 2] = ego[..., 2]
    places = (x + mx * cos - my * sin, y + mx * sin + my * cos, np.full(laser.columns, mz))
    return np.stack(places, axis=1), directions


def _turned(laser: Laser) -> np.ndarray:
    """Return the share ``[C]`` of the revolution that is over when each column is fired."""
    return (np.arange(laser.columns) + 0.5) / laser.columns


def _azimuths(laser: Laser) -> np.ndarray:
    """Return the azimuth ``[C]`` of each column in the sensor's axes."""
    return laser.first_azimuth - 2 * np.pi * _turned(laser)


def _in_view(laser: Laser) -> np.ndarray:
    """Return the columns ``[C]`` that look out of the car."""
    return np.abs(np.mod(_azimuths(laser) + np.pi, 2 * np.pi) - np.pi) <= laser.view


@lru_cache(maxsize=8)
def _directions(laser: Laser) -> np.ndarray:
    """Return the unit directions ``[C, B, 3]`` of all rays in the axes of the car."""
    azimuths = _azimuths(laser)[:, None]
    flat, rise = np.cos(laser.elevations), np.broadcast_to(np.sin(laser.elevations), laser.shape)
    level = (np.cos(azimuths) * flat, np.sin(azimuths) * flat, rise)
    return np.stack(level, axis=-1) @ laser.mount.rotation.T


def _windows(world: World, middle: float, laser: Laser, parts: Parts, velocities: np.ndarray) -> np.ndarray:
    """Return the rays each part can meet, ``[P, 4]`` int64: first column, columns, first beam, one past the last beam.

    Seen from the sensor in the middle of the revolution; the part is inflated by how far the two move apart in half a
    revolution. A convex solid beside the sensor is widest at its corners. For elevations, z / distance is bounded by
    the extreme z of the corners and the nearest or farthest distance.
    """
    lidar2world = pose_matrix(world.ego_pose(middle)) @ laser.mount.matrix
    vx, vy, turning = world.ego_velocity(middle)
    own = np.array([vx, vy, 0.0])
    half_turn = laser.revolution / 2
    if laser.from_stamp:  # the sensor stands half a revolution further on, and things move by themselves
        drift = (np.linalg.norm(velocities, axis=1) + np.linalg.norm(own) + abs(turning)) * half_turn
    else:
        drift = (np.linalg.norm(velocities - own, axis=1) + abs(turning)) * half_turn
    rotation = lidar2world[:3, :3]
    center = (parts.center - lidar2world[:3, 3]) @ rotation
    seen = parts._replace(center=center, rotation=rotation.T @ parts.rotation)
    corners = hull_corners(seen._replace(lean=np.zeros_like(parts.lean)))
    local = np.abs(np.einsum("pji,pj->pi", seen.rotation, center))
    nearest = np.linalg.norm(np.maximum(local - parts.half, 0.0), axis=1) - drift
    farthest = np.linalg.norm(corners, axis=2).max(axis=1) + drift
    columns = _columns(laser, center, corners, nearest, drift, abs(turning) * half_turn)
    return np.concatenate([columns, _beams(laser, corners[..., 2], nearest, farthest, drift)], axis=1)


def _columns(
    laser: Laser, center: np.ndarray, corners: np.ndarray, nearest: np.ndarray, drift: np.ndarray, turned: float
) -> np.ndarray:
    azimuth = np.arctan2(center[:, 1], center[:, 0])
    relative = np.arctan2(corners[..., 1], corners[..., 0]) - azimuth[:, None]
    relative = np.mod(relative + np.pi, 2 * np.pi) - np.pi
    low, high = relative.min(axis=1), relative.max(axis=1)
    horizontal = np.hypot(corners[..., 0], corners[..., 1]).min(axis=1)
    everywhere = (high - low > 0.9 * np.pi) | (nearest < 0.3) | (horizontal < 2 * drift)
    slack = np.where(everywhere, 0.0, 1.6 * drift / np.maximum(nearest, 0.3)) + turned + SPARE_ANGLE
    step = 2 * np.pi / laser.columns
    first = np.floor((laser.first_azimuth - azimuth - high - slack) / step - 0.5).astype(np.int64)
    last = np.ceil((laser.first_azimuth - azimuth - low + slack) / step - 0.5).astype(np.int64)
    count = np.where(everywhere, laser.columns, np.minimum(last - first + 1, laser.columns))
    return np.stack([np.mod(first, laser.columns), count], axis=1)


def _beams(
    laser: Laser, heights: np.ndarray, nearest: np.ndarray, farthest: np.ndarray, drift: np.ndarray
) -> np.ndarray:
    lowest, highest = heights.min(axis=1) - 0.02 - 0.05 * drift, heights.max(axis=1) + 0.02 + 0.05 * drift
    nearest = np.maximum(nearest, 0.05)
    up = np.arcsin(np.clip(highest / np.where(highest > 0, nearest, farthest), -1, 1)) + SPARE_ANGLE
    down = np.arcsin(np.clip(lowest / np.where(lowest < 0, nearest, farthest), -1, 1)) - SPARE_ANGLE
    beams = laser.elevations
    return np.stack([np.searchsorted(beams, down), np.searchsorted(beams, up, side="right")], axis=1)


@kernel
def _cast(origins, directions, offsets, parts, velocities, windows, actors, max_range):
    """Return distance and part ``[C, B]`` of the nearest hits, and beams aimed at and first met ``[N]`` by objects."""
    columns, beams = directions.shape[:2]
    depth = np.full((columns, beams), max_range)
    hit = np.full((columns, beams), NOTHING)
    latest = np.full((columns, beams), -1)  # the object that a ray was last counted for; parts come object by object
    aimed = np.zeros(actors, np.int64)
    kind, half, planes, rotation, center = parts.kind, parts.half, parts.planes, parts.rotation, parts.center
    for column in range(columns):
        for beam in range(beams):
            if directions[column, beam, 2] < 0:
                distance = -origins[column, 2] / directions[column, beam, 2]
                if distance < max_range:
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
                if distance < max_range and owner >= 0 and latest[column, beam] != owner:
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
def _return(origins, directions, offsets, parts, velocities, depth, hit, chances, noise, ground, max_range):
    """Return measured positions ``[C, B, 3]`` (world axes), intensities, cosines of incidence, and what came back."""
    columns, beams = depth.shape
    positions, intensity = np.zeros((columns, beams, 3)), np.zeros((columns, beams))
    incidence = np.zeros((columns, beams))
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
            lost = 1 - (1 - loss) * (1 - _range_loss(distance / max_range, facing, strength))
            error = noise[column, beam]
            kept[column, beam] = chances[column, beam] > lost
            positions[column, beam, 0] = wx + error * rx
            positions[column, beam, 1] = wy + error * ry
            positions[column, beam, 2] = wz + error * rz
            intensity[column, beam] = min(255.0, max(0.0, strength * (1 + 6 * error)))
            incidence[column, beam] = facing
    return positions, intensity, incidence, kept


@inlined
def _range_loss(share, facing, strength):
    """Return the probability that a return is lost to distance (a share of the largest) and grazing incidence.

    Judged by eye on real scans.
    """
    far = 0.45 * share**2 * min(2.0, 25.0 / (strength + 1.0))
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
