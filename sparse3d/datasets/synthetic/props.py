"""Pedestrians, two-wheelers, cones, barriers and bicycle racks. Lengths in metres, x to the front."""

from __future__ import annotations

import numpy as np

from .parts import BANDS, BLACK, BLOCKS, GLASS, GREY, RETRO, WHITE, Colour, Part, ball, box, wheel
from .shapes import Shape, pick, tint

CLOTHES: tuple[Colour, ...] = (
    (0.1, 0.12, 0.2), (0.5, 0.1, 0.1), (0.75, 0.75, 0.72), (0.15, 0.3, 0.45), (0.25, 0.35, 0.2), (0.5, 0.42, 0.3),
    (0.06, 0.06, 0.07), (0.6, 0.5, 0.1),
)  # fmt: skip
SKIN: tuple[Colour, ...] = ((0.75, 0.55, 0.43), (0.55, 0.38, 0.27), (0.32, 0.2, 0.14))
SAFETY_ORANGE: Colour = (0.95, 0.3, 0.04)
ARM = 0.56  # metres from shoulder to wrist


def pedestrian(rng: np.random.Generator, *, moving: bool, worker: bool = False) -> Shape:
    """Build a person; one who walks has one leg and the other arm in front."""
    height = float(np.clip(rng.normal(1.72, 0.09), 1.5, 1.95))
    stride = rng.uniform(0.18, 0.3) if moving else 0.03
    shirt = SAFETY_ORANGE if worker else tint(rng, pick(rng, CLOTHES))
    trousers, skin = tint(rng, pick(rng, CLOTHES)), tint(rng, pick(rng, SKIN))
    hip, neck = 0.48 * height, 0.84 * height
    parts = [
        *_legs(hip, stride, trousers),
        box(
            (0.02, 0, (hip + neck) / 2),
            (0.24, 0.42, neck - hip),
            shirt,
            pattern=RETRO if worker else 0,
            lean=(0.03, 0.03, 0.04),
        ),
        *(
            box((side * stride * 0.6, side * 0.26, hip + 0.27), (0.12, 0.1, ARM), shirt, pitch=side * stride)
            for side in (-1, 1)
        ),
        ball((0.04, 0, (neck + height) / 2 + 0.01), (0.23, 0.18, height - neck), skin),
        ball((0.0, 0, height - 0.06), (0.24, 0.2, 0.14), (0.9, 0.75, 0.1) if worker else tint(rng, (0.12, 0.08, 0.05))),
    ]
    if rng.random() < 0.35:
        parts.append(box((-0.2, 0, (hip + neck) / 2 + 0.08), (0.18, 0.3, 0.42), tint(rng, pick(rng, CLOTHES))))
    category = "construction_worker" if worker else "adult"
    return Shape.fit(f"human.pedestrian.{category}", parts, _joints(height, hip, neck, stride))


def bicycle(rng: np.random.Generator, *, rider: bool) -> Shape:
    """Build a bicycle: handlebar in front, saddle behind the middle, a rider who leans forward."""
    frame = tint(rng, pick(rng, CLOTHES))
    parts = [
        wheel(0.52, 0, 0.34, 0.05), wheel(-0.52, 0, 0.34, 0.05),
        box((0.0, 0, 0.62), (0.75, 0.05, 0.3), frame, lean=(0.1, 0.3, 0)),
        box((0.43, 0, 0.72), (0.07, 0.06, 0.7), frame, pitch=0.15),
        box((0.4, 0, 1.04), (0.12, rng.uniform(0.5, 0.64), 0.07), BLACK),
        box((-0.22, 0, 0.93), (0.28, 0.16, 0.08), BLACK),
        box((-0.68, 0, 0.78), (0.36, 0.14, 0.12), BLACK),
        box((-0.87, 0, 0.72), (0.03, 0.08, 0.08), (0.8, 0.05, 0.05), pattern=RETRO),
    ]  # fmt: skip
    if rider:
        parts += _rider(rng, saddle=(-0.2, 0.95), hands=(0.38, 1.08), foot=0.3)
    return Shape.fit("vehicle.bicycle", parts)


def motorcycle(rng: np.random.Generator, *, rider: bool) -> Shape:
    """Build a motorcycle or scooter: shield and lamp in front, low tail with a red lamp."""
    paint = tint(rng, pick(rng, CLOTHES))
    parts = [
        wheel(0.72, 0, 0.31, 0.13), wheel(-0.68, 0, 0.31, 0.17),
        box((0.0, 0, 0.48), (0.8, 0.34, 0.42), BLACK, lean=(0.1, 0.1, 0.03)),
        box((0.2, 0, 0.82), (0.55, 0.36, 0.28), paint, lean=(0.15, 0.05, 0.06)),
        box((-0.42, 0, 0.78), (0.75, 0.32, 0.16), BLACK),
        box((-0.8, 0, 0.78), (0.2, 0.26, 0.2), paint),
        box((-0.91, 0, 0.78), (0.03, 0.2, 0.16), (0.8, 0.04, 0.04), pattern=RETRO),
        box((0.52, 0, 1.0), (0.12, 0.78, 0.08), BLACK),
        box((0.66, 0, 0.95), (0.2, 0.4, 0.5), paint, lean=(0.15, 0, 0.08)),
        box((0.64, 0, 1.25), (0.1, 0.36, 0.2), BLACK, pattern=GLASS, lean=(0.08, 0, 0.04)),
    ]  # fmt: skip
    if rider:
        parts += _rider(rng, saddle=(-0.3, 0.86), hands=(0.45, 1.03), foot=0.35)
    return Shape.fit("vehicle.motorcycle", parts)


def traffic_cone(rng: np.random.Generator) -> Shape:
    """Build a cone of tapering sections on a square foot."""
    height, foot = rng.uniform(0.7, 1.05), rng.uniform(0.36, 0.46)
    width = 0.8 * foot
    parts = [box((0, 0, 0.03), (foot, foot, 0.06), BLACK)]
    for level in range(3):
        base = width * (1 - level / 3.3)
        taper = width / 6.6
        parts.append(box((0, 0, 0.06 + (level + 0.5) * height / 3), (base, base, height / 3),
                         SAFETY_ORANGE, pattern=BANDS, lean=(taper, taper, taper), colour2=WHITE))  # fmt: skip
    return Shape.fit("movable_object.trafficcone", parts)


def barrier(rng: np.random.Generator, *, plastic: bool) -> Shape:
    """Build a barrier across the x axis: a moulded block, or two boards between posts."""
    width, height = rng.normal(2.45, 0.08), rng.normal(1.0, 0.05)
    first = SAFETY_ORANGE if plastic else (0.62, 0.61, 0.58)
    second = WHITE if plastic else (0.55, 0.54, 0.52)
    if plastic or rng.random() < 0.6:
        parts = [
            box((0, 0, 0.14), (0.6, width, 0.28), first, pattern=BLOCKS, colour2=second, lean=(0.05, 0.05, 0)),
            box((0, 0, (0.28 + height) / 2), (0.46, width, height - 0.28), first,
                pattern=BLOCKS, colour2=second, lean=(0.14, 0.14, 0.02)),
        ]  # fmt: skip
    else:
        parts = [
            *(box((0, side * (width / 2 - 0.2), height / 2), (0.5, 0.08, height), GREY, lean=(0.2, 0.2, 0))
              for side in (-1, 1)),
            *(box((0, 0, level * height), (0.07, width, 0.26), SAFETY_ORANGE, pattern=BLOCKS, colour2=WHITE)
              for level in (0.45, 0.86)),
        ]  # fmt: skip
    return Shape.fit("movable_object.barrier", parts)


def bicycle_rack(length: float) -> Shape:
    """Build a row of hoops along x, tall enough to hold the cycles that stand in it."""
    hoops = np.arange(-length / 2 + 0.3, length / 2, 0.8)
    parts = [box((x, 0, 0.4), (0.05, 0.9, 0.8), GREY) for x in hoops]
    parts.append(box((0, 0, 0.04), (length, 1.9, 0.04), GREY))
    parts.append(box((-length / 2 + 0.06, 0, 0.65), (0.08, 0.08, 1.3), GREY))
    return Shape.fit("static_object.bicycle_rack", parts)


def _joints(height: float, hip: float, neck: float, stride: float) -> np.ndarray:
    """Return the keypoints ``[14, 3]`` of a person, in and on the solids of ``pedestrian``; +y is the left side."""
    head = np.array([0.04, 0.0, (neck + height) / 2 + 0.01])
    both = []
    for along in (0.5, 0.0, -0.5):  # shoulder, elbow, wrist: along the arm from its middle
        both.append([
            (side * stride * 0.6 - along * ARM * np.sin(side * stride), side * 0.26,
             hip + 0.27 + along * ARM * np.cos(side * stride)) for side in (1, -1)
        ])  # fmt: skip
    for down in (0.0, 0.5, 1.0):  # hip, knee, ankle: down the leg
        ankle = 0.08 * (down == 1.0)
        both.append([(-side * stride * down, side * 0.1, hip * (1 - down) + ankle) for side in (1, -1)])
    nose = head + (0.115, 0.0, 0.0)
    return np.array([nose, *(joint for pair in both for joint in pair), head])


def _legs(hip: float, stride: float, colour: Colour) -> list[Part]:
    lean = np.arctan2(stride, hip)
    return [
        part
        for side in (-1, 1)
        for part in (
            box((-side * stride / 2, side * 0.1, hip / 2), (0.15, 0.15, hip), colour, pitch=-side * lean),
            box((-side * stride + 0.06, side * 0.1, 0.04), (0.27, 0.1, 0.08), BLACK),
        )
    ]


def _rider(
    rng: np.random.Generator, *, saddle: tuple[float, float], hands: tuple[float, float], foot: float
) -> list[Part]:
    """Build a rider from the saddle's ``(x, z)`` to the handlebar's."""
    shirt, trousers, skin = tint(rng, pick(rng, CLOTHES)), tint(rng, pick(rng, CLOTHES)), tint(rng, pick(rng, SKIN))
    shoulder = (saddle[0] + 0.22, saddle[1] + 0.52)
    slope = np.arctan2(hands[1] - shoulder[1], hands[0] - shoulder[0])
    reach = float(np.hypot(hands[0] - shoulder[0], hands[1] - shoulder[1]))
    thigh = float(np.arctan2(-0.5, 0.3))
    return [
        box(((saddle[0] + shoulder[0]) / 2, 0, (saddle[1] + shoulder[1]) / 2), (0.26, 0.42, 0.62), shirt, pitch=-0.4),
        ball((shoulder[0] + 0.1, 0, shoulder[1] + 0.2), (0.28, 0.24, 0.28), (0.85, 0.85, 0.85), colour2=skin),
        *(box(((shoulder[0] + hands[0]) / 2, side * 0.24, (shoulder[1] + hands[1]) / 2), (reach, 0.1, 0.11), shirt,
              pitch=float(slope)) for side in (-1, 1)),
        *(box((saddle[0] + 0.2, side * 0.15, saddle[1] - 0.2), (0.6, 0.15, 0.17), trousers, pitch=thigh)
          for side in (-1, 1)),
        *(box((saddle[0] + 0.3, side * 0.15, foot + 0.1), (0.14, 0.13, 0.36), trousers) for side in (-1, 1)),
    ]  # fmt: skip
