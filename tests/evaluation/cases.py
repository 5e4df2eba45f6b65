"""Random scenes for the metric: annotated objects, and detections made from them with every kind of mistake."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sparse3d.datasets.nuscenes_schema import ATTRIBUTES, CLASS_ATTRIBUTES, DETECTION_CLASSES
from sparse3d.evaluation import BoxTable, Detections, GroundTruth, NuScenesResult, evaluate_detections

NUM_CLASSES = len(DETECTION_CLASSES)
CYCLES = [DETECTION_CLASSES.index(name) for name in ("bicycle", "motorcycle")]
BORDERS = np.array([(30, 40), (-48, 14), (24, 32), (18, 24), (-30, 0), (0, 50)])  # 50, 50, 40, 30, 30, 50 m away
GRID = 0.5  # metres; centres on a grid make equal distances, and distances that equal a threshold


@dataclass(frozen=True)
class Case:
    """What is scored."""

    ground_truth: GroundTruth
    detections: Detections
    ego_translations: np.ndarray  # [S, 3]
    racks: BoxTable

    def evaluate(self, **options: object) -> NuScenesResult:
        return evaluate_detections(
            self.ground_truth, self.detections, self.ego_translations, bike_racks=self.racks, **options
        )

    def replace(self, **parts: object) -> Case:
        return replace(self, **parts)


def random_case(
    seed: int,
    num_samples: int = 6,
    objects_per_sample: int = 30,
    *,
    on_grid: bool = False,
    score_decimals: int = 3,
    absent_classes: tuple[int, ...] = (),
    undetected_classes: tuple[int, ...] = (),
) -> Case:
    """Draw a case; equal arguments give equal cases."""
    rng = np.random.default_rng(seed)
    ego = np.column_stack([rng.integers(500, 2000, (num_samples, 2)), np.zeros(num_samples)]).astype(float)
    racks = _racks(rng, ego)
    ground_truth = _ground_truth(rng, ego, racks, objects_per_sample, on_grid)
    detections = _detections(rng, ground_truth, num_samples, on_grid, score_decimals)
    return Case(
        ground_truth.take(~np.isin(ground_truth.label, absent_classes)),
        detections.take(~np.isin(detections.label, undetected_classes)),
        ego,
        racks,
    )


def detections_of(ground_truth: GroundTruth, **changes: np.ndarray) -> Detections:
    """Ground truth as detections with score 1, except for ``changes``."""
    columns = {name: getattr(ground_truth, name) for name in vars(ground_truth) if name != "num_points"}
    return Detections(**{**columns, "score": np.ones(len(ground_truth)), **changes})


def unit_quaternions(yaws: np.ndarray, tilts: np.ndarray) -> np.ndarray:
    """Rotations ``[N, 4]`` about z, after a tilt about x."""
    cos_yaw, sin_yaw, cos_tilt, sin_tilt = np.cos(yaws / 2), np.sin(yaws / 2), np.cos(tilts / 2), np.sin(tilts / 2)
    return np.stack([cos_yaw * cos_tilt, cos_yaw * sin_tilt, sin_yaw * sin_tilt, sin_yaw * cos_tilt], axis=1)


def _racks(rng: np.random.Generator, ego: np.ndarray) -> BoxTable:
    sample = rng.integers(0, len(ego), len(ego))
    yaws = rng.choice([0, math.pi / 2, 0.4], len(sample))
    return BoxTable(
        sample=sample,
        translation=ego[sample] + np.column_stack([rng.integers(-20, 20, (len(sample), 2)), np.ones(len(sample))]),
        size=np.tile([4.0, 6.0, 3.0], (len(sample), 1)),
        rotation=unit_quaternions(yaws, np.zeros(len(sample))),
    )


def _ground_truth(
    rng: np.random.Generator, ego: np.ndarray, racks: BoxTable, objects_per_sample: int, on_grid: bool
) -> GroundTruth:
    count = len(ego) * objects_per_sample
    sample = np.repeat(np.arange(len(ego)), objects_per_sample)
    offsets = np.column_stack([rng.uniform(-40, 40, (count, 2)), rng.uniform(0, 2, count)])
    at_border = rng.random(count) < 0.1
    offsets[at_border, :2] = BORDERS[rng.integers(0, len(BORDERS), at_border.sum())]
    if on_grid:
        offsets[:, :2] = np.round(offsets[:, :2] / 4 / GRID) * GRID
    translation = ego[sample] + offsets
    label = rng.integers(0, NUM_CLASSES, count)
    near = rng.random(count) < 0.1
    chosen = rng.integers(0, len(racks), near.sum())
    sample[near], label[near] = racks.sample[chosen], rng.choice(CYCLES, near.sum())
    translation[near] = racks.translation[chosen] + rng.choice([-3, -2, -1.5, 0, 1.5, 2, 3], (near.sum(), 3))
    velocity = rng.normal(0, 3, (count, 2))
    velocity[rng.random(count) < 0.2] = np.nan
    return GroundTruth(
        sample=sample,
        translation=translation,
        size=rng.uniform(0.3, 6, (count, 3)),
        rotation=unit_quaternions(rng.uniform(-4, 4, count), rng.normal(0, 0.1, count)) * rng.choice([1, -1, 1.001]),
        velocity=velocity,
        label=label,
        attribute=_attributes(rng, label),
        num_points=rng.integers(0, 8, count),
    )


def _attributes(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """One of the attributes of each label's class, or none."""
    choices = [[-1, *map(ATTRIBUTES.index, CLASS_ATTRIBUTES[name])] for name in DETECTION_CLASSES]
    return np.array([rng.choice(choices[label]) for label in labels])


def _detections(
    rng: np.random.Generator, ground_truth: GroundTruth, num_samples: int, on_grid: bool, score_decimals: int
) -> Detections:
    """Noisy ground truth, some of it twice, and false boxes, in random order."""
    rows = rng.permutation(np.concatenate([np.arange(len(ground_truth)), rng.integers(0, len(ground_truth), 30)]))
    source = ground_truth.take(rows)
    count = len(rows)
    shift = rng.normal(0, rng.choice([0.1, 0.6, 3], (count, 1)), (count, 3))
    if on_grid:
        shift = np.round(shift / GRID) * GRID
    false = rng.random(count) < 0.2
    velocity = source.velocity + rng.normal(0, 1, (count, 2))
    velocity[rng.random(count) < 0.1] = np.nan
    return Detections(
        sample=np.where(false, rng.integers(0, num_samples, count), source.sample),
        translation=source.translation + shift,
        size=source.size * rng.uniform(0.7, 1.4, (count, 3)),
        rotation=source.rotation + rng.normal(0, 0.1, (count, 4)),
        velocity=velocity,
        label=np.where(false, rng.integers(0, NUM_CLASSES, count), source.label),
        attribute=np.where(false, rng.integers(-1, len(ATTRIBUTES), count), source.attribute),
        score=rng.random(count).round(score_decimals),
    )
