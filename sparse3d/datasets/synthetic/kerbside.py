"""What stands along a street: on the parking strip, on the pavement, and behind it."""

from __future__ import annotations

import numpy as np

from . import props, scenery, vehicles
from .builder import Builder
from .character import Character
from .parts import box
from .shapes import pick
from .street import CYCLE_WIDTH, PAVEMENT_WIDTH, STRIP_WIDTH, Street

FURNITURE_LINE = 0.7  # metres from the kerb to the middle of lamps and trees
MIN_PLOT = 10.0  # metres of street that anything behind the pavement needs


def fill_strips(builder: Builder, street: Street, character: Character) -> None:
    """Fill the strips along both kerbs with parked vehicles, sites and cones."""
    segments = (_parked_cars, _parked_heavy, _parked_cycles, _site, _cones, None)
    for direction in (1, -1):
        for begin, end in street.blocks(9.0):
            s = begin + builder.rng.uniform(0, 6)
            while s < end - 8:
                segment = segments[builder.rng.choice(len(segments), p=_shares(character.strip))]
                length = min(builder.rng.uniform(9, 30), end - s)
                if segment is not None:
                    segment(builder, street, direction, s, s + length)
                s += length + builder.rng.uniform(1, 5)


def fill_frontage(builder: Builder, street: Street, character: Character) -> None:
    """Build along the outer edges of both pavements."""
    kinds = (_tower, _house, _trees, _wall, _hedge, _fence, _yard)
    for side in (1, -1):
        for begin, end in street.blocks(PAVEMENT_WIDTH + 1.0):
            s = begin
            while s < end - MIN_PLOT:
                kind = kinds[builder.rng.choice(len(kinds), p=_shares(character.frontage))]
                s += kind(builder, street, character, side, s, end - s) + builder.rng.exponential(character.gap)


def furnish_pavements(builder: Builder, street: Street) -> None:
    """Put lamps, trees, signs and boxes along the kerbs, and signals at the junction."""
    rng = builder.rng
    for side in (1, -1):
        trees = rng.random() < 0.65
        for begin, end in street.blocks(4.5):
            for number, s in enumerate(np.arange(begin + rng.uniform(1, 6), end - 1, rng.uniform(7.5, 10.0))):
                _furnish(builder, street, side, s + rng.normal(0, 0.5), lamp=number % 3 == 0, trees=trees)
    for direction in (1, -1):
        if street.junction is not None:
            middle, half = street.junction
            pose = _beside(street, direction, middle - direction * (half + 4.5), FURNITURE_LINE)
            facing = pose + np.array([0.0, 0.0, -np.pi / 2])  # towards those who wait
            builder.decorate(scenery.traffic_light(), facing, (0.3, 0.3))


# -- the strip -------------------------------------------------------------------------------------------------------


def _parked_cars(builder: Builder, street: Street, direction: int, begin: float, end: float) -> None:
    rng = builder.rng
    for s in np.arange(begin + 3, end - 2.5, rng.uniform(5.6, 6.8)):
        if rng.random() < 0.85:
            backwards = np.pi * (rng.random() < 0.08)
            pose = _on_strip(
                street, direction, s + rng.normal(0, 0.2), rng.normal(0, 0.12), rng.normal(0, 0.03) + backwards
            )
            builder.stand(vehicles.car(rng), pose)


def _parked_heavy(builder: Builder, street: Street, direction: int, begin: float, end: float) -> None:
    rng = builder.rng
    s = begin + 1
    while s < end:
        make = pick(rng, (vehicles.truck, vehicles.trailer, vehicles.bus), (3, 3.5, 2.5))
        shape = make(rng)
        pose = _on_strip(street, direction, s + shape.size[0] / 2, 0.0, rng.normal(0, 0.015))
        placed = builder.stand(shape, pose, parked="bus" not in shape.category)
        if placed and "bus" in shape.category:
            shelter = _beside(street, direction, s + shape.size[0] / 2, 2.6)
            builder.decorate(scenery.bus_shelter(rng), shelter, (4.4, 1.8))
        s += shape.size[0] + rng.uniform(2, 5)


def _parked_cycles(builder: Builder, street: Street, direction: int, begin: float, end: float) -> None:
    rng = builder.rng
    if rng.random() < 0.2:
        _rack(builder, street, direction, begin)
        return
    make = pick(rng, (props.bicycle, props.motorcycle))
    slant = rng.uniform(1.0, 1.6) * pick(rng, (-1, 1))
    end = min(end, begin + rng.uniform(3, 9))
    for s in np.arange(begin + 1, end, rng.uniform(1.1, 1.8)):
        pose = _on_strip(street, direction, s, rng.normal(0.1, 0.1), slant + rng.normal(0, 0.12))
        builder.stand(make(rng, rider=False), pose)


def _rack(builder: Builder, street: Street, direction: int, begin: float) -> None:
    """Put cycles into a rack on the pavement; the metric leaves them out."""
    rng = builder.rng
    rack = props.bicycle_rack(rng.uniform(2.5, 5.0))
    if not builder.stand(rack, _beside(street, direction, begin + 3, 1.4)):
        return
    for s in np.arange(-rack.size[0] / 2 + 0.6, rack.size[0] / 2 - 0.2, 0.8):
        if rng.random() < 0.6:
            pose = _beside(street, direction, begin + 3 + s, 1.4) + np.array([0, 0, pick(rng, (-1, 1)) * np.pi / 2])
            builder.stand_inside(props.bicycle(rng, rider=False), pose)


def _site(builder: Builder, street: Street, direction: int, begin: float, end: float) -> None:
    """Fence off strip and cycle lane: barriers towards the traffic, cones at the ends, a machine and workers inside."""
    rng = builder.rng
    end = max(end, begin + 12)
    if end > max(limit for _, limit in street.blocks(9.0)):
        return
    inner = STRIP_WIDTH + CYCLE_WIDTH - 0.4  # metres from the kerb to the row of barriers
    builder.stand(
        vehicles.construction_vehicle(rng), _site_pose(street, direction, (begin + end) / 2, -inner / 2 + 0.1, rng)
    )
    plastic = rng.random() < 0.6
    for s in np.arange(begin + 3.5, end - 3, 2.75):
        pose = _beside(street, direction, s, -inner + rng.normal(0, 0.03)) + np.array([0, 0, np.pi / 2])
        builder.stand(props.barrier(rng, plastic=plastic), pose, parked=False)
    for step in range(4):
        for s in (begin + 0.8 * step, end - 0.8 * step):
            builder.stand(
                props.traffic_cone(rng), _beside(street, direction, s, -inner * (step + 0.7) / 4.6), parked=False
            )
    for _ in range(rng.integers(1, 3)):
        pose = _site_pose(
            street, direction, rng.uniform(begin + 2, end - 2), -rng.uniform(0.8, inner - 0.8), rng, free=True
        )
        builder.stand(props.pedestrian(rng, moving=False, worker=True), pose, parked=False)


def _cones(builder: Builder, street: Street, direction: int, begin: float, end: float) -> None:
    rng = builder.rng
    line = -rng.uniform(1.0, STRIP_WIDTH)
    for s in np.arange(begin, min(end, begin + 18), rng.uniform(1.5, 3.5)):
        builder.stand(props.traffic_cone(rng), _beside(street, direction, s, line + rng.normal(0, 0.15)), parked=False)


# -- behind the pavement ---------------------------------------------------------------------------------------------


def _tower(builder: Builder, street: Street, character: Character, side: int, s: float, room: float) -> float:
    rng = builder.rng
    width, depth = min(rng.uniform(10, 28), room), rng.uniform(9, 18)
    height = rng.uniform(*character.storey_range)
    pose = _behind(street, side, s + width / 2, depth / 2 + rng.uniform(0.2, 3.0))
    builder.decorate(scenery.building(rng, width, depth, height), pose, (width, depth))
    return width


def _house(builder: Builder, street: Street, character: Character, side: int, s: float, room: float) -> float:
    rng = builder.rng
    width, depth, garden = min(rng.uniform(8, 13), room), rng.uniform(7, 10), rng.uniform(3.5, 7.0)
    builder.decorate(
        scenery.house(rng, width - 1, depth), _behind(street, side, s + width / 2, garden + depth / 2), (width, depth)
    )
    for _ in range(rng.integers(0, 3)):
        spot = _behind(street, side, s + rng.uniform(0.5, width - 0.5), rng.uniform(0.8, garden - 1))
        builder.decorate(pick(rng, (scenery.bush, scenery.conifer, scenery.tree))(rng), spot, (0.8, 0.8))
    if rng.random() < 0.5:
        edge = pick(rng, (scenery.hedge, scenery.fence, scenery.wall))
        builder.decorate(edge(rng, width - 2), _behind(street, side, s + width / 2, 0.3), (width - 2, 0.5))
    return width


def _trees(builder: Builder, street: Street, character: Character, side: int, s: float, room: float) -> float:
    rng = builder.rng
    width = min(rng.uniform(8, 22), room)
    for _ in range(round(width / 2.2)):
        spot = _behind(street, side, s + rng.uniform(0, width), rng.uniform(0.8, 14))
        builder.decorate(pick(rng, (scenery.tree, scenery.bush, scenery.conifer), (5, 3, 1))(rng), spot, (1.0, 1.0))
    return width


def _line_of(make, builder: Builder, street: Street, side: int, s: float, room: float) -> float:
    rng = builder.rng
    width = min(rng.uniform(6, 18), room)
    builder.decorate(make(rng, width), _behind(street, side, s + width / 2, rng.uniform(0.3, 1.0)), (width, 0.8))
    for _ in range(rng.integers(0, 4)):
        spot = _behind(street, side, s + rng.uniform(0, width), rng.uniform(2.5, 9))
        builder.decorate(scenery.tree(rng), spot, (1.0, 1.0))
    return width


def _wall(builder: Builder, street: Street, character: Character, side: int, s: float, room: float) -> float:
    return _line_of(scenery.wall, builder, street, side, s, room)


def _hedge(builder: Builder, street: Street, character: Character, side: int, s: float, room: float) -> float:
    return _line_of(scenery.hedge, builder, street, side, s, room)


def _fence(builder: Builder, street: Street, character: Character, side: int, s: float, room: float) -> float:
    return _line_of(scenery.fence, builder, street, side, s, room)


def _yard(builder: Builder, street: Street, character: Character, side: int, s: float, room: float) -> float:
    """Lay out an open yard: machines and trailers behind barriers and cones."""
    rng = builder.rng
    width = min(rng.uniform(16, 28), room)
    for _ in range(rng.integers(1, 4)):
        make = pick(rng, (vehicles.construction_vehicle, vehicles.trailer, vehicles.truck, vehicles.car), (4, 2, 1, 2))
        spot = _behind(street, side, s + rng.uniform(3, width - 3), rng.uniform(4, 11))
        builder.stand(make(rng), spot + np.array([0, 0, rng.uniform(-np.pi, np.pi)]))
    plastic = rng.random() < 0.5
    for offset in np.arange(1.4, width - 1.2, 2.75):
        if rng.random() < 0.7:
            spot = _behind(street, side, s + offset, 0.6) + np.array([0, 0, np.pi / 2])
            builder.stand(props.barrier(rng, plastic=plastic), spot, parked=False)
    for _ in range(rng.integers(1, 5)):
        spot = _behind(street, side, s + rng.uniform(0, width), rng.uniform(1.6, 4.0))
        builder.stand(props.traffic_cone(rng), spot, parked=False)
    pile = rng.uniform((1.2, 1.2, 0.6), (3.0, 2.5, 1.6))
    heap = [box((0, 0, pile[2] / 2), tuple(pile), (0.42, 0.36, 0.28), lean=tuple(0.3 * pile))]
    builder.decorate(heap, _behind(street, side, s + rng.uniform(2, width - 2), rng.uniform(4, 12)), (pile[0], pile[1]))
    return width


# -- poses -----------------------------------------------------------------------------------------------------------


def _furnish(builder: Builder, street: Street, side: int, s: float, *, lamp: bool, trees: bool) -> None:
    rng = builder.rng
    pose = _pavement(street, side, s, FURNITURE_LINE)
    if lamp:
        builder.decorate(scenery.street_lamp(rng), pose, (0.3, 0.3))
    elif trees and rng.random() < 0.6:
        builder.decorate(scenery.tree(rng), pose, (0.5, 0.5))
    elif rng.random() < 0.5:
        make = pick(rng, (scenery.road_sign, scenery.bin_or_box))
        builder.decorate(make(rng), pose, (0.6, 0.6))


def _on_strip(street: Street, direction: int, s: float, n: float, heading: float) -> np.ndarray:
    return street.pose(s, street.strip(direction) + n, heading + (0.0 if direction > 0 else np.pi))


def _beside(street: Street, direction: int, s: float, distance: float) -> np.ndarray:
    """Return a pose ``distance`` metres behind the kerb (negative: on the road), +y away from the street."""
    return _pavement(street, -direction, s, distance)


def _pavement(street: Street, side: int, s: float, distance: float) -> np.ndarray:
    return street.pose(s, side * (street.half_width + distance), 0.0 if side > 0 else np.pi)


def _behind(street: Street, side: int, s: float, distance: float) -> np.ndarray:
    return _pavement(street, side, s, PAVEMENT_WIDTH + distance)


def _site_pose(
    street: Street, direction: int, s: float, distance: float, rng: np.random.Generator, *, free: bool = False
) -> np.ndarray:
    heading = rng.uniform(-np.pi, np.pi) if free else rng.normal(0, 0.08) + np.pi * (rng.random() < 0.4)
    return _beside(street, direction, s, distance) + np.array([0.0, 0.0, heading])


def _shares(weights: tuple[float, ...]) -> np.ndarray:
    return np.asarray(weights) / np.sum(weights)
