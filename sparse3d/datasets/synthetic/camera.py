"""The cameras: pictures of the world by depth order, sunlight, shadows on the ground, haze and a sky.

    colour = surface (skylight open + sunlight max(0, n . sun) lit) + reflected sky
    pixel = sqrt(clear colour + (1 - clear) horizon),    clear = H / (H + distance)

`lit` comes from a map of the ground with the shadows of everything near the car, `open` from one of what stands on the
ground, blurred: the dark rim under a car.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from .parts import CABIN, COACH, FACADE, GLASS, HULL, PAINT, PAVEMENT, Parts
from .raster import FACES, ROAD, SKY, draw_ground, draw_parts, draw_shadows
from .rays import TOP, inlined, kernel, surface_normal, turn_back
from .rig import Camera, pose_matrix
from .street import street_table
from .surfaces import shade, shade_road
from .textures import smooth_noise
from .world import Look, World

VIEW_DISTANCE = 190.0  # metres; what is farther is not drawn
HAZE_DISTANCE = 420.0  # metres after which half of the light is haze
SHADOW_CELL, SHADOW_REACH = 0.125, 60.0  # metres: resolution of the shadow map, and how far it reaches from the car
SKY_RUN = 4  # pixels of a row that share a colour of the sky, which changes slowly
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


def light_ground(world: World, time: float) -> GroundLight:
    """Map the shadows around the recording car at a time in seconds."""
    x, y, _ = world.ego_pose(time)
    cells = round(2 * SHADOW_REACH / SHADOW_CELL)
    origin = np.array([x - SHADOW_REACH, y - SHADOW_REACH])
    parts = world.snapshot(time).near(x, y, SHADOW_REACH + 30.0).parts
    hidden, contact = np.zeros((2, cells, cells), dtype=np.uint8)
    draw_shadows(parts, world.look.sun, origin, SHADOW_CELL, np.inf, hidden)
    draw_shadows(parts, np.array([0.0, 0.0, 1.0]), origin, SHADOW_CELL, CONTACT_HEIGHT, contact)
    maps = np.dstack([cv2.blur(hidden, (3, 3)), cv2.blur(contact, (11, 11))])
    maps[[0, -1]] = maps[:, [0, -1]] = 0
    return GroundLight(maps, origin)


def trace(world: World, camera: Camera, time: float, scale: float) -> tuple[np.ndarray, np.ndarray, Parts]:
    """Find what every pixel shows.

    Args:
        time: exposure, seconds, world time.
        scale: size of the image as a share of the camera's.

    Returns:
        Inverse depths ``[H, W]`` float32 in 1/m (0: sky), what is shown ``[H, W]`` int32 (`ROAD`, `SKY`, or `FACES`
        times the part's number plus its face), and the parts in camera axes.
    """
    width, height = camera.scaled_size(scale)
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
    faces = _face_table(parts, cam2world, world.look.sun)
    place = (ground.maps, ground.origin, street_table(world.streets), world.look.asphalt)
    _paint(image, depth, shown, parts, faces, camera.intrinsic(scale), cam2world, light, place)
    return image


def _light_table(look: Look) -> np.ndarray:
    """Return ``[6, 3]`` float64: sun, sunlight, skylight, zenith, horizon, (cloudiness, 0, 0)."""
    return np.stack([look.sun, look.sunlight, look.skylight, look.zenith, look.horizon, [look.cloudiness, 0, 0]])


def _face_table(parts: Parts, cam2world: np.ndarray, sun: np.ndarray) -> np.ndarray:
    """Return ``[P, 6, 5]`` of all faces of hulls: normal in camera axes, sunlight, upward part of the normal."""
    normals = parts.planes[..., :3] @ parts.rotation.transpose(0, 2, 1)
    lit = np.maximum(normals @ (sun @ cam2world[:3, :3]), 0.0)
    return np.concatenate([normals, lit[..., None], (normals @ cam2world[2, :3])[..., None]], axis=2)


@kernel
def _paint(image, depth, shown, parts, faces, intrinsic, cam2world, light, ground):
    maps, map_origin, streets, asphalt = ground
    kind, center, half, rotation = parts.kind, parts.center, parts.half, parts.rotation
    patterns, colours, planes = parts.pattern, parts.colours, parts.planes
    focal = intrinsic[0, 0]
    sx, sy, sz = light[0, 0], light[0, 1], light[0, 2]
    for row in range(shown.shape[0]):
        y = (row - intrinsic[1, 2]) / intrinsic[1, 1]
        sky, sky_ends = (0.0, 0.0, 0.0), 0
        for column in range(shown.shape[1]):
            x = (column - intrinsic[0, 2]) / focal
            code, inverse = shown[row, column], depth[row, column]
            if column & 1 and code == shown[row, column - 1]:  # edges are sharp to the pixel, surfaces to two of them
                image[row, column] = image[row, column - 1]
                continue
            rx, ry, rz = _turn(cam2world, x, y, 1.0)
            if code == SKY or inverse < 1e-4:
                if column >= sky_ends:
                    sky, sky_ends = _sky(rx, ry, rz, light), column + SKY_RUN
                _store(image, row, column, sky[0], sky[1], sky[2])
                continue
            far = 1.0 / inverse
            wx, wy = cam2world[0, 3] + far * rx, cam2world[1, 3] + far * ry
            if code == ROAD:
                r, g, b, _, _ = shade_road(wx, wy, streets, asphalt, far / focal)
                hidden, contact = _look_up(maps, map_origin, wx, wy)
                lit, sheen, up = sz * (1 - hidden), 0.0, 1.0
            else:
                part, face = code // FACES, code % FACES
                cx, cy = far * x, far * y
                px, py, pz = turn_back(
                    rotation, part, cx - center[part, 0], cy - center[part, 1], far - center[part, 2]
                )
                r, g, b, _, loss = shade(patterns, half, colours, part, face, px, py, pz, far / focal)
                lit, up, sheen = faces[part, face, 3], faces[part, face, 4], 0.0
                if kind[part] != HULL:
                    nx, ny, nz, _ = surface_normal(kind, half, planes, part, px, py, pz)
                    lit, up = _round_light(rotation, part, nx, ny, nz, cam2world, light)
                elif _glossy(patterns[part]):
                    toward = (faces[part, face, 0] * cx + faces[part, face, 1] * cy + faces[part, face, 2] * far) / far
                    sheen = _sheen(patterns[part], loss, up, 1 + toward / math.sqrt(x * x + y * y + 1))
                contact = 0.0
                if face == TOP and patterns[part] == PAVEMENT:
                    lean = (cam2world[2, 3] + far * rz) / sz
                    hidden, contact = _look_up(maps, map_origin, wx - lean * sx, wy - lean * sy)
                    lit *= 1 - hidden
            opening = (0.68 + 0.32 * up) * (1 - 0.6 * contact)
            clear = HAZE_DISTANCE / (HAZE_DISTANCE + far)
            veil = 1 - clear + sheen * clear
            r = r * (light[2, 0] * opening + light[1, 0] * lit) * clear + veil * light[4, 0]
            g = g * (light[2, 1] * opening + light[1, 1] * lit) * clear + veil * light[4, 1]
            b = b * (light[2, 2] * opening + light[1, 2] * lit) * clear + veil * light[4, 2]
            _store(image, row, column, r, g, b)


@inlined
def _round_light(rotation, part, nx, ny, nz, cam2world, light):
    """Return sunlight and the upward part of a normal given in the axes of a part."""
    kx = rotation[part, 0, 0] * nx + rotation[part, 0, 1] * ny + rotation[part, 0, 2] * nz
    ky = rotation[part, 1, 0] * nx + rotation[part, 1, 1] * ny + rotation[part, 1, 2] * nz
    kz = rotation[part, 2, 0] * nx + rotation[part, 2, 1] * ny + rotation[part, 2, 2] * nz
    wx, wy, wz = _turn(cam2world, kx, ky, kz)
    return max(0.0, wx * light[0, 0] + wy * light[0, 1] + wz * light[0, 2]), wz


@inlined
def _glossy(pattern):
    return pattern in (PAINT, CABIN, COACH, GLASS, FACADE)


@inlined
def _sheen(pattern, loss, up, grazing):
    """Return the share of sky that glass and paint mirror; ``grazing`` is 1 minus the cosine of incidence."""
    if loss > 0.45:
        return (0.1 + 0.5 * grazing * grazing * grazing) * (0.4 + 0.6 * max(0.0, up + 0.6))
    return 0.0 if pattern == FACADE else 0.03 + 0.12 * grazing * grazing


@inlined
def _turn(matrix, x, y, z):
    return (
        matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z,
        matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z,
        matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z,
    )


@inlined
def _look_up(maps, origin, x, y):
    """Return both maps in 0..1 at a place, interpolated; 0 outside."""
    u, v = (x - origin[0]) / SHADOW_CELL, (y - origin[1]) / SHADOW_CELL
    # The rim of the maps is empty, so what lies outside looks up the rim.
    u, v = min(max(u, 0.0), maps.shape[1] - 1.001), min(max(v, 0.0), maps.shape[0] - 1.001)
    i, j = int(u), int(v)
    u, v = u - i, v - j
    first = (maps[j, i, 0] * (1 - u) + maps[j, i + 1, 0] * u) * (1 - v)
    first += (maps[j + 1, i, 0] * (1 - u) + maps[j + 1, i + 1, 0] * u) * v
    return first / 255.0, maps[j, i, 1] / 255.0


@inlined
def _sky(x, y, z, light):
    length = math.sqrt(x * x + y * y + z * z)
    up = max(z / length, 0.0)
    share = 1 - (1 - up) * (1 - up) * (1 - up) * (1 - up)
    r = light[4, 0] + share * (light[3, 0] - light[4, 0])
    g = light[4, 1] + share * (light[3, 1] - light[4, 1])
    b = light[4, 2] + share * (light[3, 2] - light[4, 2])
    plane = 1.6 / (max(z, 0.0) + 0.08 * length)  # clouds drift on a plane high above
    u, v = plane * x, plane * y
    cover = 0.68 * smooth_noise(u, v) + 0.32 * smooth_noise(3.4 * u, 3.4 * v)
    cloud = min(1.0, max(0.0, 3.0 * (cover - 0.62 + 0.35 * light[5, 0]))) * min(1.0, 8 * up)
    bright = 0.9 - 0.25 * light[5, 0]
    glow = max(0.0, 10 * (x * light[0, 0] + y * light[0, 1] + z * light[0, 2]) / length - 9)
    glow = (1 - light[5, 0]) * glow * glow * glow * glow * glow * glow
    r += cloud * (bright - r) + glow
    g += cloud * (bright - g) + glow
    b += cloud * (bright + 0.02 - b) + 0.9 * glow
    return r, g, b


@inlined
def _store(image, row, column, r, g, b):
    image[row, column, 0] = np.uint8(255 * math.sqrt(min(1.0, max(0.0, b))))
    image[row, column, 1] = np.uint8(255 * math.sqrt(min(1.0, max(0.0, g))))
    image[row, column, 2] = np.uint8(255 * math.sqrt(min(1.0, max(0.0, r))))
