"""The cameras: pictures of the world by depth order, sunlight, shadows on the ground, haze and a sky.

    colour = surface (skylight open + sunlight max(0, n . sun) lit) + reflected sky,   then haze, then a square root

`lit` comes from a map of the ground with the shadows of everything near the car, `open` from one of what stands on the
ground, blurred: the dark rim under a car.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from .parts import CABIN, COACH, FACADE, GLASS, PAINT, PAVEMENT, Parts
from .raster import ROAD, SKY, draw_ground, draw_parts, draw_shadows
from .rays import kernel, surface_normal
from .rig import IMAGE_SIZE, Camera, pose_matrix
from .street import street_table
from .surfaces import noise, shade, shade_road
from .world import Look, World

VIEW_DISTANCE = 190.0  # metres; what is farther is not drawn
HAZE_DISTANCE = 420.0  # metres after which 63 % of the light is haze
SHADOW_CELL, SHADOW_REACH = 0.1, 64.0  # metres: resolution of the shadow map, and how far it reaches from the car
CONTACT_HEIGHT = 0.35  # metres; what begins below darkens the ground it stands on


@dataclass(frozen=True)
class GroundLight:
    """Where the ground near the car lies in shadow.

    Args:
        maps: ``[Y, X, 2]`` uint8, 255 where the sun (0) or the sky (1) is hidden.
        origin: ``[2]`` world place of cell (0, 0).
    """

    maps: np.ndarray
    origin: np.ndarray


def image_size(scale: float) -> tuple[int, int]:
    """Return width and height in pixels of images of ``scale`` times the full size."""
    return round(IMAGE_SIZE[0] * scale), round(IMAGE_SIZE[1] * scale)


def light_ground(world: World, time: float) -> GroundLight:
    """Map the shadows around the recording car at a time in seconds."""
    x, y, _ = world.ego_pose(time)
    cells = round(2 * SHADOW_REACH / SHADOW_CELL)
    origin = np.array([x - SHADOW_REACH, y - SHADOW_REACH])
    parts = world.snapshot(time).near(x, y, SHADOW_REACH + 30.0).parts
    hidden, contact = np.zeros((2, cells, cells), dtype=np.uint8)
    draw_shadows(parts, world.look.sun, origin, SHADOW_CELL, np.inf, hidden)
    draw_shadows(parts, np.array([0.0, 0.0, 1.0]), origin, SHADOW_CELL, CONTACT_HEIGHT, contact)
    return GroundLight(np.dstack([cv2.blur(hidden, (3, 3)), cv2.blur(contact, (11, 11))]), origin)


def trace(world: World, camera: Camera, time: float, scale: float) -> tuple[np.ndarray, np.ndarray, Parts]:
    """Find what every pixel shows.

    Args:
        time: exposure, seconds, world time.
        scale: size of the image as a share of 1600x900.

    Returns:
        Inverse depths ``[H, W]`` float32 in 1/m (0: sky), part numbers ``[H, W]`` int32 (`ROAD`, `SKY` or a row of the
        parts), and the parts in camera axes.
    """
    width, height = image_size(scale)
    cam2world = pose_matrix(world.ego_pose(time)) @ camera.mount.matrix
    rotation, origin = cam2world[:3, :3], cam2world[:3, 3]
    parts = world.snapshot(time).near(*origin[:2], VIEW_DISTANCE).parts
    seen = parts._replace(center=(parts.center - origin) @ rotation, rotation=rotation.T @ parts.rotation)
    depth, shown = np.zeros((height, width), dtype=np.float32), np.full((height, width), SKY, dtype=np.int32)
    intrinsic = camera.intrinsic(scale)
    draw_ground(rotation, origin[2], intrinsic, depth, shown)
    draw_parts(seen, intrinsic, depth, shown)
    return depth, shown, seen


def render(world: World, camera: Camera, time: float, scale: float, ground: GroundLight) -> np.ndarray:
    """Take a picture ``[H, W, 3]`` uint8, blue, green, red, at a time in seconds."""
    depth, shown, parts = trace(world, camera, time, scale)
    cam2world = pose_matrix(world.ego_pose(time)) @ camera.mount.matrix
    image = np.empty((*shown.shape, 3), dtype=np.uint8)
    light = _light_table(world.look)
    place = (ground.maps, ground.origin, street_table(world.streets), world.look.asphalt)
    _paint(image, depth, shown, parts, camera.intrinsic(scale), cam2world, light, place)
    return image


def _light_table(look: Look) -> np.ndarray:
    """Return ``[6, 3]`` float64: sun, sunlight, skylight, zenith, horizon, (cloudiness, 0, 0)."""
    return np.stack([look.sun, look.sunlight, look.skylight, look.zenith, look.horizon, [look.cloudiness, 0, 0]])


@kernel
def _paint(image, depth, shown, parts, intrinsic, cam2world, light, place):
    maps, map_origin, streets, asphalt = place
    focal = intrinsic[0, 0]
    sun = light[0]
    for row in range(shown.shape[0]):
        y = (row - intrinsic[1, 2]) / intrinsic[1, 1]
        for column in range(shown.shape[1]):
            x = (column - intrinsic[0, 2]) / focal
            part, inverse = shown[row, column], depth[row, column]
            rx, ry, rz = _turn(cam2world, x, y, 1.0)
            if part == SKY or inverse < 1e-4:
                r, g, b = _sky(rx, ry, rz, light)
                _store(image, row, column, r, g, b)
                continue
            far = 1.0 / inverse
            fine = far / focal
            wx, wy, wz = cam2world[0, 3] + far * rx, cam2world[1, 3] + far * ry, cam2world[2, 3] + far * rz
            if part == ROAD:
                r, g, b = shade_road(wx, wy, streets, asphalt, fine)[:3]
                hidden, contact = _look_up(maps, map_origin, wx, wy)
                lit, sheen, nz = sun[2] * (1 - hidden), 0.0, 1.0
            else:
                r, g, b, lit, sheen, nz, top = _part_colour(parts, part, far * x, far * y, far, cam2world, sun, fine)
                contact = 0.0
                if top and parts.pattern[part] == PAVEMENT:
                    lean = wz / sun[2]
                    hidden, contact = _look_up(maps, map_origin, wx - lean * sun[0], wy - lean * sun[1])
                    lit *= 1 - hidden
            opening = (0.68 + 0.32 * nz) * (1 - 0.6 * contact)
            haze = math.exp(-far / HAZE_DISTANCE)
            r = (r * (light[2, 0] * opening + light[1, 0] * lit) + sheen * light[4, 0]) * haze + (1 - haze) * light[
                4, 0
            ]
            g = (g * (light[2, 1] * opening + light[1, 1] * lit) + sheen * light[4, 1]) * haze + (1 - haze) * light[
                4, 1
            ]
            b = (b * (light[2, 2] * opening + light[1, 2] * lit) + sheen * light[4, 2]) * haze + (1 - haze) * light[
                4, 2
            ]
            _store(image, row, column, r, g, b)


@kernel
def _part_colour(parts, part, cx, cy, cz, cam2world, sun, fine):
    """Return surface colour, sunlight, share of reflected sky, upward part of the normal, and whether it is a top face."""
    turn, center = parts.rotation[part], parts.center[part]
    px, py, pz = cx - center[0], cy - center[1], cz - center[2]
    x = turn[0, 0] * px + turn[1, 0] * py + turn[2, 0] * pz
    y = turn[0, 1] * px + turn[1, 1] * py + turn[2, 1] * pz
    z = turn[0, 2] * px + turn[1, 2] * py + turn[2, 2] * pz
    half, pattern = parts.half[part], parts.pattern[part]
    lx, ly, lz, face = surface_normal(parts.kind[part], x, y, z, half, parts.lean[part])
    r, g, b, _, loss = shade(pattern, face, x, y, z, half, parts.colours[part], fine)
    kx = turn[0, 0] * lx + turn[0, 1] * ly + turn[0, 2] * lz
    ky = turn[1, 0] * lx + turn[1, 1] * ly + turn[1, 2] * lz
    kz = turn[2, 0] * lx + turn[2, 1] * ly + turn[2, 2] * lz
    nx, ny, nz = _turn(cam2world, kx, ky, kz)
    sheen = 0.0
    if pattern in (PAINT, CABIN, COACH, GLASS, FACADE):
        grazing = 1 + (kx * cx + ky * cy + kz * cz) / math.sqrt(cx * cx + cy * cy + cz * cz)
        if loss > 0.45:
            sheen = (0.1 + 0.5 * grazing * grazing * grazing) * (0.4 + 0.6 * max(0.0, nz + 0.6))
        elif pattern != FACADE:
            sheen = 0.03 + 0.12 * grazing * grazing
    return r, g, b, max(0.0, nx * sun[0] + ny * sun[1] + nz * sun[2]), sheen, nz, face == 4


@kernel
def _turn(matrix, x, y, z):
    return (
        matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z,
        matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z,
        matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z,
    )


@kernel
def _look_up(maps, origin, x, y):
    """Return both maps in 0..1 at a place, interpolated; 0 outside."""
    u, v = (x - origin[0]) / SHADOW_CELL, (y - origin[1]) / SHADOW_CELL
    if u < 0 or v < 0 or u >= maps.shape[1] - 1 or v >= maps.shape[0] - 1:
        return 0.0, 0.0
    i, j = int(u), int(v)
    u, v = u - i, v - j
    first = (maps[j, i, 0] * (1 - u) + maps[j, i + 1, 0] * u) * (1 - v)
    first += (maps[j + 1, i, 0] * (1 - u) + maps[j + 1, i + 1, 0] * u) * v
    return first / 255.0, maps[j, i, 1] / 255.0


@kernel
def _sky(x, y, z, light):
    length = math.sqrt(x * x + y * y + z * z)
    up = max(z / length, 0.0)
    share = 1 - (1 - up) ** 4
    r = light[4, 0] + share * (light[3, 0] - light[4, 0])
    g = light[4, 1] + share * (light[3, 1] - light[4, 1])
    b = light[4, 2] + share * (light[3, 2] - light[4, 2])
    if up > 0.02:  # clouds drift on a plane high above
        u, v = 1.6 * x / (z + 0.08 * length), 1.6 * y / (z + 0.08 * length)
        cover = 0.6 * noise(u, v) + 0.28 * noise(2.7 * u, 2.7 * v) + 0.12 * noise(7 * u, 7 * v)
        cloud = min(1.0, max(0.0, 3.0 * (cover - 0.62 + 0.35 * light[5, 0]))) * min(1.0, 8 * up)
        white = 0.9 - 0.25 * light[5, 0]
        r, g, b = r + cloud * (white - r), g + cloud * (white - g), b + cloud * (white + 0.02 - b)
    glow = (x * light[0, 0] + y * light[0, 1] + z * light[0, 2]) / length
    if glow > 0.9:
        bright = (1 - light[5, 0]) * ((glow - 0.9) * 10) ** 6
        r, g, b = r + bright, g + bright, b + 0.9 * bright
    return r, g, b


@kernel
def _store(image, row, column, r, g, b):
    image[row, column, 0] = np.uint8(255 * math.sqrt(min(1.0, max(0.0, b))))
    image[row, column, 1] = np.uint8(255 * math.sqrt(min(1.0, max(0.0, g))))
    image[row, column, 2] = np.uint8(255 * math.sqrt(min(1.0, max(0.0, r))))
