"""Cars, trucks, buses, trailers and construction vehicles; each has a front that geometry alone gives away.

Sizes scatter around the class means of nuScenes (Caesar et al., CVPR 2020). Lengths in metres, x to the front.
"""

from __future__ import annotations

import numpy as np

from .parts import (
    BLACK,
    CABIN,
    CARGO,
    COACH,
    GLASS,
    GREY,
    PAINT,
    WHITE,
    Colour,
    Part,
    ball,
    box,
    pole,
    wheel,
)  # fmt: skip
from .shapes import Shape, pick, tint

CAR_COLOURS: tuple[Colour, ...] = (
    (0.8, 0.8, 0.79), (0.05, 0.05, 0.06), (0.42, 0.43, 0.45), (0.6, 0.62, 0.64),
    (0.5, 0.06, 0.05), (0.07, 0.13, 0.36), (0.32, 0.28, 0.22), (0.1, 0.26, 0.17), (0.75, 0.55, 0.08),
)  # fmt: skip
CAR_COLOUR_WEIGHTS = (5, 4, 4, 4, 2, 2, 1, 0.7, 0.8)
CARGO_COLOURS: tuple[Colour, ...] = (
    (0.85, 0.85, 0.83),
    (0.7, 0.72, 0.7),
    (0.75, 0.5, 0.1),
    (0.15, 0.3, 0.5),
    (0.5, 0.1, 0.1),
)
COACH_COLOURS: tuple[Colour, ...] = (
    (0.8, 0.8, 0.8),
    (0.65, 0.08, 0.08),
    (0.1, 0.3, 0.55),
    (0.1, 0.4, 0.25),
    (0.8, 0.6, 0.1),
)
SITE_YELLOW: Colour = (0.85, 0.58, 0.05)
SITE_ORANGE: Colour = (0.85, 0.33, 0.05)

# style: (mean length, width, height), share of hood, share of trunk, slope of windscreen and of rear window in metres
CAR_STYLES = {
    "sedan": ((4.75, 1.85, 1.46), 0.27, 0.15, 0.65, 0.45),
    "hatchback": ((4.1, 1.78, 1.5), 0.25, 0.0, 0.6, 0.3),
    "suv": ((4.7, 1.94, 1.75), 0.26, 0.0, 0.5, 0.22),
    "van": ((5.0, 1.98, 2.0), 0.17, 0.0, 0.65, 0.08),
}


def car(rng: np.random.Generator) -> Shape:
    """Build a sedan, hatchback, SUV or van: a low hood in front, the cabin set back."""
    mean, hood, trunk, windscreen, rear = CAR_STYLES[pick(rng, tuple(CAR_STYLES), (4, 3, 4, 1.5))]
    length, width, height = np.asarray(mean) * rng.normal(1.0, (0.05, 0.025, 0.03))
    paint = tint(rng, pick(rng, CAR_COLOURS, CAR_COLOUR_WEIGHTS))
    belt = 0.58 * height if trunk else 0.6 * height
    nose, tail = length * (0.5 - hood), length * (trunk - 0.5)
    radius = 0.21 * height + 0.02
    parts = [
        box(((length / 2 + nose) / 2, 0, 0.36 * height), (length * hood, width * 0.96, 0.4 * height), paint,
            pattern=PAINT, lean=(0.12, 0, 0.06)),
        box(((nose - length / 2) / 2, 0, (0.16 * height + belt) / 2), (nose + length / 2, width, belt - 0.16 * height),
            paint, pattern=PAINT, lean=(0, 0.06, 0.05)),
        box(((nose + tail) / 2 + 0.05, 0, (belt + height) / 2), (nose - tail + 0.1, width * 0.92, height - belt), paint,
            pattern=CABIN, lean=(windscreen, rear, 0.15)),
        *_axles(length / 2 - 0.19 * length, 0.19 * length - length / 2, width, radius, 0.22),
    ]  # fmt: skip
    return Shape.fit("vehicle.car", parts)


def truck(rng: np.random.Generator) -> Shape:
    """Build a box truck, a flatbed, a tanker or a pickup: the cab in front, the load behind."""
    build = pick(rng, (_box_truck, _flatbed, _tanker, _pickup), (5, 1.5, 1, 1.5))
    return Shape.fit("vehicle.truck", build(rng))


def tractor(rng: np.random.Generator) -> Shape:
    """Build the tractor of a semi-trailer: a tall cab and a bare frame."""
    width, cab_length = rng.normal(2.5, 0.05), rng.normal(2.3, 0.15)
    parts = [
        *_cab(rng, front=3.0, length=cab_length, width=width, height=rng.normal(3.3, 0.2)),
        box((-1.0, 0, 0.95), (4.0, 1.0, 0.3), BLACK),
        box((-1.9, 0, 1.2), (1.1, 1.0, 0.15), GREY),
        *_axles(2.2, -1.6, width, 0.5, 0.35),
        *_axles(-2.7, -2.7, width, 0.5, 0.45)[:2],
    ]
    return Shape.fit("vehicle.truck", parts)


def trailer(rng: np.random.Generator) -> Shape:
    """Build a trailer that stands alone: a box, a flat bed or a tank behind a drawbar."""
    length, width = float(np.clip(rng.normal(7.5, 2.5), 3.2, 12.0)), rng.normal(2.5, 0.1)
    body = _trailer_body(rng, length, width)
    bar = rng.uniform(1.2, 1.9)
    parts = [
        *body,
        box((length / 2 + bar / 2, 0, 0.75), (bar, 0.25, 0.2), BLACK),
        pole((length / 2 + bar - 0.3, 0, 0.4), 0.08, 0.8, GREY),
    ]
    return Shape.fit("vehicle.trailer", parts)


def semi_trailer(rng: np.random.Generator) -> Shape:
    """Build the trailer that a tractor pulls; its front stands on the tractor's frame."""
    return Shape.fit("vehicle.trailer", _trailer_body(rng, rng.uniform(8.5, 11.5), rng.normal(2.55, 0.05)))


def bus(rng: np.random.Generator) -> Shape:
    """Build a bus: sloped windscreen and mirror arms in front, the engine hump on the roof's rear."""
    bendy = rng.random() < 0.12
    length, width, height = (17.5 if bendy else rng.normal(11.2, 0.8)), rng.normal(2.75, 0.12), rng.normal(3.25, 0.18)
    paint = tint(rng, pick(rng, COACH_COLOURS))
    stripe = tint(rng, pick(rng, COACH_COLOURS))
    front = length / 2
    sections = [(front - 0.56 * length, front), (-front, front - 0.6 * length)] if bendy else [(-front, front)]
    parts = [_coach(rear, nose, width, height, paint, stripe, first=nose == front) for rear, nose in sections]
    if bendy:
        parts.append(
            box((front - 0.58 * length, 0, height / 2 + 0.1), (0.05 * length, width * 0.9, height - 0.5), BLACK)
        )
    parts += [
        box((-front + 1.9, 0, height + 0.13), (2.6, width * 0.7, 0.26), tint(rng, GREY)),
        box((-front + 4.6, 0, height + 0.06), (1.2, width * 0.5, 0.12), WHITE),
        *(box((front + 0.16, side * (width / 2 - 0.12), 0.72 * height), (0.35, 0.2, 0.45), BLACK) for side in (-1, 1)),
        *_axles(front - 2.6, -front + 3.2, width, 0.48, 0.3),
    ]
    return Shape.fit(f"vehicle.bus.{'bendy' if bendy else 'rigid'}", parts)


def construction_vehicle(rng: np.random.Generator) -> Shape:
    """Build an excavator, a wheel loader or a roller: the tool is in front."""
    build = pick(rng, (_excavator, _loader, _roller), (5, 3, 2))
    return Shape.fit("vehicle.construction", build(rng))


# -- bodies ----------------------------------------------------------------------------------------------------------


def _axles(front: float, rear: float, width: float, radius: float, tyre: float) -> list[Part]:
    reach = width / 2 - tyre / 2
    return [wheel(x, side * reach, radius, tyre) for x in (front, rear) for side in (-1, 1)]


def _cab(rng: np.random.Generator, *, front: float, length: float, width: float, height: float) -> list[Part]:
    """Build a driver's cab whose front face is at x = ``front``."""
    paint = tint(rng, pick(rng, CAR_COLOURS, CAR_COLOUR_WEIGHTS))
    middle, sill, roof = front - length / 2, 0.45, 0.52 * height
    return [
        box((middle, 0, (sill + roof) / 2), (length, width, roof - sill), paint, pattern=PAINT, lean=(0.04, 0, 0)),
        box((middle - 0.02, 0, (roof + height) / 2), (length - 0.04, width, height - roof), paint,
            pattern=CABIN, lean=(0.28, 0.05, 0.1)),
    ]  # fmt: skip


def _chassis(rng: np.random.Generator, length: float, width: float, cab_height: float, cab_length: float) -> list[Part]:
    parts = _cab(rng, front=length / 2, length=cab_length, width=width * 0.93, height=cab_height)
    parts.append(box((-0.3, 0, 0.75), (length - 0.8, 0.9, 0.3), BLACK))
    return parts + _axles(length / 2 - 1.25, -length / 2 + 0.24 * length, width, 0.46, 0.3)


def _box_truck(rng: np.random.Generator) -> list[Part]:
    length, width, height = rng.normal(7.2, 0.9), rng.normal(2.5, 0.08), rng.normal(3.3, 0.25)
    cab_length = rng.normal(1.75, 0.1)
    load = length - cab_length - rng.uniform(0.2, 0.45)
    cover = tint(rng, pick(rng, CARGO_COLOURS))
    return [
        *_chassis(rng, length, width, 0.76 * height, cab_length),
        box((-length / 2 + load / 2, 0, (0.95 + height) / 2), (load, width, height - 0.95), cover,
            pattern=CARGO, colour2=tint(rng, pick(rng, CARGO_COLOURS))),
    ]  # fmt: skip


def _flatbed(rng: np.random.Generator) -> list[Part]:
    length, width = rng.normal(7.4, 0.7), rng.normal(2.45, 0.06)
    cab_length = rng.normal(1.8, 0.1)
    load = length - cab_length - 0.3
    parts = _chassis(rng, length, width, rng.normal(2.6, 0.1), cab_length)
    parts.append(box((-length / 2 + load / 2, 0, 1.1), (load, width, 0.35), tint(rng, GREY)))
    for x in np.arange(-length / 2 + 0.9, -length / 2 + load - 0.8, 1.7):
        size = rng.uniform((0.9, 1.2, 0.4), (1.5, 2.1, 1.1))
        parts.append(
            box((x, 0, 1.28 + size[2] / 2), tuple(size), tint(rng, pick(rng, ((0.5, 0.36, 0.2), GREY, WHITE))))
        )
    return parts


def _tanker(rng: np.random.Generator) -> list[Part]:
    length, width = rng.normal(8.2, 0.5), rng.normal(2.45, 0.05)
    load = length - 2.3
    tank = ball((-length / 2 + load / 2, 0, 2.05), (load * 1.15, 2.2, 1.9), tint(rng, (0.7, 0.72, 0.75)))
    hull = box(
        (-length / 2 + load / 2, 0, 2.0),
        (load, 1.9, 1.5),
        tint(rng, (0.7, 0.72, 0.75)),
        pattern=CARGO,
        lean=(0, 0, 0.3),
    )
    shortened = tank._replace(half=(load / 2, tank.half[1], tank.half[2]))
    return [*_chassis(rng, length, width, rng.normal(2.7, 0.1), 1.8), shortened, hull]


def _pickup(rng: np.random.Generator) -> list[Part]:
    length, width, height = rng.normal(5.6, 0.25), rng.normal(2.0, 0.05), rng.normal(1.88, 0.06)
    paint = tint(rng, pick(rng, CAR_COLOURS, CAR_COLOUR_WEIGHTS))
    bed = 0.36 * length
    cabin = 0.37 * length
    middle = -length / 2 + bed + cabin / 2
    sill = 0.58 * height
    return [
        box((0, 0, 0.4), (length * 0.96, width * 0.9, 0.3), BLACK),
        box((0.36 * length, 0, 0.8), (0.28 * length, width, 0.7), paint, pattern=PAINT, lean=(0.08, 0, 0.04)),
        box((middle, 0, 0.8), (cabin, width, 0.7), paint, pattern=PAINT),
        box((middle, 0, (sill + height) / 2), (cabin, width * 0.94, height - sill), paint,
            pattern=CABIN, lean=(0.5, 0.1, 0.12)),
        *(box((-length / 2 + bed / 2, side * (width / 2 - 0.05), 0.8), (bed, 0.1, 0.65), paint, pattern=PAINT)
          for side in (-1, 1)),
        box((-length / 2 + 0.05, 0, 0.8), (0.1, width, 0.65), paint, pattern=PAINT),
        *_axles(length * 0.31, -length * 0.3, width, 0.4, 0.26),
    ]  # fmt: skip


def _trailer_body(rng: np.random.Generator, length: float, width: float) -> list[Part]:
    """Build bed, load, wheels (at the rear) and landing legs (at the front) of a trailer."""
    rear = -length / 2
    parts = [
        box((0, 0, 1.05), (length, width, 0.25), BLACK),
        *(wheel(rear + 0.8 + axle, side * (width / 2 - 0.2), 0.45, 0.35)
          for axle in (0.0, 1.1)[: 1 + (length > 6)] for side in (-1, 1)),
        *(box((length / 2 - 1.6, side * 0.7, 0.5), (0.15, 0.15, 1.0), GREY) for side in (-1, 1)),
    ]  # fmt: skip
    if rng.random() < 0.65:
        height = rng.normal(3.6, 0.25) if length > 6 else rng.normal(2.7, 0.2)
        cover, band = (tint(rng, pick(rng, CARGO_COLOURS)) for _ in range(2))
        parts.append(box((0, 0, (1.2 + height) / 2), (length, width, height - 1.2), cover, pattern=CARGO, colour2=band))
        return parts
    parts.append(box((length / 2 - 0.1, 0, 1.7), (0.2, width, 1.1), tint(rng, GREY)))  # the headboard stands in front
    for x in np.arange(rear + 1.0, length / 2 - 1.5, 2.1):
        size = rng.uniform((1.2, 1.4, 0.4), (1.9, 2.2, 1.2))
        parts.append(
            box((x, 0, 1.18 + size[2] / 2), tuple(size), tint(rng, pick(rng, ((0.5, 0.36, 0.2), GREY, SITE_ORANGE))))
        )
    return parts


def _coach(
    rear: float, nose: float, width: float, height: float, paint: Colour, stripe: Colour, *, first: bool
) -> Part:
    lean = (0.35 if first else 0.0, 0.05, 0.08)
    middle, size = ((rear + nose) / 2, 0, (height + 0.32) / 2), (nose - rear, width, height - 0.32)
    return box(middle, size, paint, pattern=COACH, lean=lean, colour2=stripe)


def _excavator(rng: np.random.Generator) -> list[Part]:
    scale = rng.uniform(0.75, 1.05)
    paint, reach = tint(rng, pick(rng, (SITE_YELLOW, SITE_ORANGE))), rng.uniform(0.55, 0.85)  # reach: boom pitch
    boom_end = (0.9 + 3.4 * np.cos(reach), 1.7 + 3.4 * np.sin(reach))
    stick_end = (boom_end[0] + 1.0, boom_end[1] - 2.2)
    parts = [
        *(box((0, side * 1.05, 0.42), (3.7, 0.55, 0.84), BLACK, lean=(0.35, 0.35, 0)) for side in (-1, 1)),
        box((-0.35, 0, 1.35), (3.1, 2.4, 0.75), paint),
        box((-1.55, 0, 2.0), (1.0, 2.3, 0.75), paint, lean=(0.15, 0.25, 0.15)),
        box((0.55, 0.72, 2.15), (1.35, 0.95, 1.5), paint, pattern=CABIN, lean=(0.25, 0, 0.05)),
        _beam((0.9, -0.25, 1.7), (boom_end[0], -0.25, boom_end[1]), 0.45, paint),
        _beam((boom_end[0], -0.25, boom_end[1]), (stick_end[0], -0.25, stick_end[1]), 0.35, paint),
        box((stick_end[0], -0.25, stick_end[1] - 0.3), (0.8, 1.0, 0.7), GREY, lean=(0.25, 0.1, 0)),
    ]
    return [_scaled(part, scale) for part in parts]


def _loader(rng: np.random.Generator) -> list[Part]:
    scale, lift, paint = rng.uniform(0.75, 1.0), rng.uniform(0.0, 0.9), tint(rng, pick(rng, (SITE_YELLOW, SITE_ORANGE)))
    parts = [
        box((-1.7, 0, 1.5), (2.2, 2.0, 1.3), paint, lean=(0, 0.25, 0.1)),
        box((0.0, 0, 2.35), (1.5, 1.6, 1.7), paint, pattern=CABIN, lean=(0.2, 0.1, 0.1)),
        box((0.9, 0, 1.1), (1.5, 1.3, 0.8), paint),
        *(_beam((0.9, side * 0.6, 1.6), (2.9, side * 0.6, 0.8 + lift), 0.28, paint) for side in (-1, 1)),
        box((3.3, 0, 0.75 + lift), (1.1, 2.8, 1.1), GREY, lean=(0.7, 0, 0)),
        *_axles(1.3, -1.5, 2.6, 0.75, 0.6),
    ]
    return [_scaled(part, scale) for part in parts]


def _roller(rng: np.random.Generator) -> list[Part]:
    scale, paint = rng.uniform(0.8, 1.05), tint(rng, pick(rng, (SITE_YELLOW, SITE_ORANGE)))
    parts = [
        wheel(1.9, 0, 0.75, 2.1),
        *(box((1.6, side * 1.12, 0.85), (1.9, 0.12, 0.35), paint) for side in (-1, 1)),
        box((-1.4, 0, 1.3), (2.2, 1.7, 0.9), paint, lean=(0, 0.3, 0.1)),
        box((-0.1, 0, 2.7), (1.5, 1.7, 0.12), WHITE),
        *(box((x, side * 0.75, 1.9), (0.08, 0.08, 1.6), BLACK) for x in (-0.75, 0.55) for side in (-1, 1)),
        box((0.35, 0, 1.5), (0.3, 1.4, 0.7), BLACK, pattern=GLASS),
        *_axles(-1.6, -1.6, 2.1, 0.75, 0.5)[:2],
    ]
    return [_scaled(part, scale) for part in parts]


def _beam(start: Colour, end: Colour, thickness: float, colour: Colour) -> Part:
    """Build a beam between two points of one vertical plane along x."""
    run, rise = end[0] - start[0], end[2] - start[2]
    middle = tuple((a + b) / 2 for a, b in zip(start, end, strict=True))
    return box(
        middle, (float(np.hypot(run, rise)), thickness * 0.8, thickness), colour, pitch=float(np.arctan2(rise, run))
    )


def _scaled(part: Part, scale: float) -> Part:
    return part._replace(
        center=tuple(scale * value for value in part.center),
        half=tuple(scale * value for value in part.half),
        lean=tuple(scale * value for value in part.lean),
    )
