"""What moves: lanes of vehicles, cyclists, and people on the pavements."""

from __future__ import annotations

import numpy as np

from .builder import Builder
from .character import Character
from .motion import WARM_UP_STEPS, follow_traffic, sway, walk, wander
from .props import bicycle, motorcycle, pedestrian
from .shapes import Shape, pick
from .street import PAVEMENT_WIDTH, Street
from .vehicles import bus, car, semi_trailer, tractor, truck

EGO_SIZE = (4.1, 1.75)  # metres, length and width of the recording car
HITCH_GAP = 0.45  # metres between a tractor and its trailer


def place_ego(
    builder: Builder,
    street: Street,
    character: Character,
    *,
    red: bool,
) -> tuple[np.ndarray, int]:
    """Fill the lane of the recording car, which starts near ``s = 0``; returns its poses ``[T, 3]`` and its lane.

    Raises:
        RuntimeError: if the lane is not free; nothing moves before the recording car does.
    """
    rng = builder.rng
    lane = int(rng.integers(street.lanes))
    desired = rng.uniform(5.0, 10.0)
    own = -street.start - desired * WARM_UP_STEPS * 0.05 * 0.7
    ahead = own + 18 + np.cumsum(rng.uniform(14, 2 * character.spacing, size=8))[::-1]
    behind = own - 12 - np.cumsum(rng.uniform(12, 2 * character.spacing, size=4))
    trains = [_train(rng, character) for _ in range(12)]
    trains.insert(len(ahead), [(None, 0.0, EGO_SIZE[0])])
    start = np.concatenate([ahead, [own], behind])
    speeds = np.full(len(start), desired * 1.05)
    speeds[len(ahead)] = desired
    pace = wander(rng, WARM_UP_STEPS + len(builder.times), 0.35, 1.0, 5.0)
    course = follow_traffic(start, _train_lengths(trains), speeds, pace, street.stop_line(1) if red else None)
    ego = builder.lane_poses(street, course[:, len(ahead)], street.lane(1, lane), 1, 0.3)
    if not builder.occupancy.take_track(ego, *EGO_SIZE):
        raise RuntimeError("place_ego: the recording car's lane is taken")
    _drive(builder, street, trains, course, street.lane(1, lane), 1)
    return ego, lane


def fill_lanes(builder: Builder, street: Street, character: Character, *, red: bool, skip: int | None = None) -> None:
    """Fill all lanes of a street; ``skip`` is the lane of direction +1 that is filled already."""
    for direction in (1, -1):
        for lane in range(street.lanes):
            if direction < 0 or lane != skip:
                _fill_lane(builder, street, character, direction, street.lane(direction, lane), red=red)


def fill_cycle_lanes(builder: Builder, street: Street, character: Character, *, red: bool) -> None:
    """Send cyclists along both sides of a street."""
    rng = builder.rng
    seconds = builder.times[-1] - builder.times[0]
    for direction in (1, -1):
        line = street.stop_line(direction) if red else None
        for _ in range(rng.poisson(character.cyclists * (street.end - street.start) / 100)):
            speed = rng.uniform(3.0, 6.0)
            begin = rng.uniform(-speed * seconds * 0.5, street.end - street.start)
            room = line - begin - 1.0 if line is not None and begin < line - 1.0 else np.inf
            course = begin + walk(speed, room, builder.times)
            poses = builder.lane_poses(street, course, street.cycle_lane(direction), direction, 0.15)
            shape = motorcycle(rng, rider=True) if rng.random() < 0.15 else bicycle(rng, rider=True)
            builder.move(shape, poses, rider=True)


def fill_pavements(builder: Builder, street: Street, character: Character, *, cross: bool) -> None:
    """Put people on both pavements; ``cross`` says whether they may cross the other street."""
    rng = builder.rng
    for side in (1, -1):
        blocks = street.blocks(1.0)
        for begin, end in blocks:
            for _ in range(rng.poisson(character.walkers * (end - begin) / 100)):
                limits = (street.start, street.end) if cross else (begin, end)
                _group(builder, street, side, rng.uniform(begin, end), limits)


def _group(builder: Builder, street: Street, side: int, s: float, limits: tuple[float, float]) -> None:
    rng = builder.rng
    direction, speed = int(pick(rng, (-1, 1))), rng.uniform(0.7, 1.8)
    moving = rng.random() < 0.7
    n = side * (street.half_width + rng.uniform(1.2, PAVEMENT_WIDTH - 0.9))
    for member in range(int(pick(rng, (1, 2, 3), (5, 3, 1)))):
        begin, lateral = s + rng.normal(0, 0.5) + 0.9 * (member == 2), n + 0.75 * (member % 2)
        shape = pedestrian(rng, moving=moving)
        if moving:
            room = limits[1] - begin if direction > 0 else begin - limits[0]
            travelled = walk(speed, max(room, 0.0), builder.times)
            offset, heading = sway(rng, travelled, 0.15)
            turned = 0.0 if direction > 0 else np.pi
            builder.move(
                shape, street.pose(begin + direction * travelled, lateral + direction * offset, turned + heading)
            )
        else:
            builder.stand(shape, street.pose(begin, lateral, rng.uniform(-np.pi, np.pi)), parked=False)


# A train is what shares one place in a lane: [(shape, offset of its middle from the train's, length), ...].
Train = list[tuple[Shape | None, float, float]]


def _fill_lane(builder: Builder, street: Street, character: Character, direction: int, n: float, *, red: bool) -> None:
    rng = builder.rng
    desired = rng.uniform(6.0, 14.0)
    seconds = builder.times[-1] - builder.times[0]
    span = street.end - street.start + desired * seconds
    start = np.cumsum(10 + rng.exponential(character.spacing, size=int(span / (10 + character.spacing)) + 2))
    start = street.end - street.start - start[start < span]
    trains = [_train(rng, character) for _ in start]
    start = start - np.concatenate([[0.0], np.cumsum(_train_lengths(trains))[:-1]])[: len(start)] * 0.8
    stop_line = street.stop_line(direction) if red else None
    if stop_line is not None:  # nobody starts on the junction while the others have green
        clear = (start < stop_line - 6) | (start > stop_line + 2 * (street.junction[1] + 8))
        start, trains = start[clear], [train for train, keep in zip(trains, clear, strict=True) if keep]
    if not len(start):
        return
    speeds = desired * rng.uniform(0.9, 1.1, size=len(start))
    pace = wander(rng, WARM_UP_STEPS + len(builder.times), 0.7, 1.0, 5.0)
    course = follow_traffic(start, _train_lengths(trains), speeds, pace, stop_line)
    _drive(builder, street, trains, course, n, direction)


def _train(rng: np.random.Generator, character: Character) -> Train:
    kind = pick(rng, ("car", "truck", "semi", "bus", "motorcycle"), character.mix)
    if kind == "semi":
        head, tail = tractor(rng), semi_trailer(rng)
        total = head.size[0] + HITCH_GAP + tail.size[0]
        return [(head, (total - head.size[0]) / 2, total), (tail, (tail.size[0] - total) / 2, total)]
    make = {"car": car, "truck": truck, "bus": bus, "motorcycle": lambda rng: motorcycle(rng, rider=True)}[kind]
    shape = make(rng)
    return [(shape, 0.0, shape.size[0])]


def _train_lengths(trains: list[Train]) -> np.ndarray:
    return np.array([train[0][2] for train in trains])


def _drive(builder: Builder, street: Street, trains: list[Train], course: np.ndarray, n: float, direction: int) -> None:
    for train, travelled in zip(trains, course.T, strict=True):
        amplitude = builder.rng.uniform(0.0, 0.25) if len(train) == 1 else 0.0
        for shape, offset, _ in train:
            if shape is None:
                continue
            poses = builder.lane_poses(street, travelled + offset, n, direction, amplitude)
            rider = shape.category == "vehicle.motorcycle"
            if not builder.move(shape, poses, rider=rider):
                break
