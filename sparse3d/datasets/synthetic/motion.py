"""How things move: cars follow each other, walkers walk, and every course is smooth.

Cars accelerate by the intelligent driver model (Treiber, Hennecke and Helbing, Physical Review E 62, 2000, eq. 3):

    dv/dt = a [1 - (v / v0)^4 - (d* / d)^2],   d* = d0 + v T + v (v - v_leader) / (2 sqrt(a b))

with the gap d to the vehicle ahead, or to a red light.
"""

from __future__ import annotations

import numpy as np

TIME_STEP = 0.05  # seconds between stored poses
WARM_UP_STEPS = 80  # driven before the recording, for the traffic to settle
ACCELERATION, BRAKING, HEADWAY, STANDSTILL_GAP = 1.4, 2.0, 1.3, 2.5


def time_grid(frames: int, interval: float) -> np.ndarray:
    """Return the times ``[T]`` in seconds at which poses are stored, around ``frames`` key frames.

    They begin early enough for the sweeps of the interval before the first key frame.
    """
    steps = round(interval / TIME_STEP)
    return np.arange(-steps - 3, (frames - 1) * steps + 3) * TIME_STEP


def follow_traffic(
    start: np.ndarray,  # [N], metres travelled at the beginning, descending
    length: np.ndarray,  # [N], metres
    desired: np.ndarray,  # [N], m/s
    pace: np.ndarray,  # [WARM_UP_STEPS + T], share of the desired speed that the traffic allows
    stop_line: float | None,
) -> np.ndarray:
    """Drive the vehicles of one lane; returns the distance travelled by their middles ``[T, N]`` in metres.

    Args:
        stop_line: distance travelled at a red light; None for a free lane.
    """
    position, speed = np.array(start, dtype=np.float64), desired * pace[0]
    course = np.empty((len(pace), len(start)))
    for step, share in enumerate(pace):
        course[step] = position
        speed = np.maximum(speed + TIME_STEP * _acceleration(position, speed, length, desired * share, stop_line), 0.0)
        position = position + TIME_STEP * speed
    return course[WARM_UP_STEPS:]


def sway(
    rng: np.random.Generator,
    s: np.ndarray,  # [T], metres travelled
    amplitude: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return lateral offsets ``[T]`` in metres and headings ``[T]`` in radians of one who does not steer exactly.

    Both depend on the distance alone, so that what stands still does not turn.
    """
    rate, phase = 2 * np.pi / rng.uniform(35.0, 70.0), rng.uniform(0, 2 * np.pi)
    return amplitude * np.sin(rate * s + phase), np.arctan(amplitude * rate * np.cos(rate * s + phase))


def walk(
    speed: float,
    room: float,
    times: np.ndarray,  # [T]
) -> np.ndarray:
    """Return the distance walked ``[T]`` in metres; a walker stops where the room ends."""
    return np.minimum(speed * (times - times[0]), room)


def wander(
    rng: np.random.Generator,
    steps: int,
    low: float,
    high: float,
    period: float,
) -> np.ndarray:
    """Return a smooth random course ``[steps]`` between two bounds: cosine steps between draws every ``period`` s."""
    phase = np.arange(steps) * TIME_STEP / period
    knots = rng.uniform(low, high, size=int(phase[-1]) + 2)
    index = phase.astype(np.int64)
    blend = (1 - np.cos(np.pi * (phase - index))) / 2
    return knots[index] * (1 - blend) + knots[index + 1] * blend


def _acceleration(
    position: np.ndarray, speed: np.ndarray, length: np.ndarray, desired: np.ndarray, stop_line: float | None
) -> np.ndarray:
    free = 1 - (speed / np.maximum(desired, 0.1)) ** 4
    gap = np.full(len(position), np.inf)
    gap[1:] = position[:-1] - position[1:] - (length[:-1] + length[1:]) / 2
    closing = np.zeros(len(position))
    closing[1:] = speed[1:] - speed[:-1]
    brake = _interaction(speed, closing, gap)
    if stop_line is not None:
        to_line = stop_line - position - length / 2
        ahead = to_line > -1.0
        brake = np.maximum(brake, np.where(ahead, _interaction(speed, speed, to_line + STANDSTILL_GAP), 0.0))
    return np.clip(ACCELERATION * (free - brake), -6.0, ACCELERATION)


def _interaction(speed: np.ndarray, closing: np.ndarray, gap: np.ndarray) -> np.ndarray:
    wanted = STANDSTILL_GAP + np.maximum(speed * HEADWAY + speed * closing / (2 * np.sqrt(ACCELERATION * BRAKING)), 0.0)
    return (wanted / np.maximum(gap, 0.3)) ** 2
