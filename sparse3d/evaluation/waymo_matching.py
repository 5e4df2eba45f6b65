"""Pairs of a detection and an object that overlap, and their assignment at every score cut-off.

Of the detections that score at least as much as a cut-off, those are matched that make the sum of weights largest, a
weight being the IoU in whole millionths and pairs below the threshold no pairs. Taking the detections one by one, best
first, every cut-off is a stop on one way: if M is a best matching of the detections so far, a best one with one more
detection differs from M along one path that begins at that detection, alternates between pairs out of M and pairs in
M, and ends at an object without partner or at a detection that loses its own (Hungarian method, Kuhn 1955). The path
of largest gain is searched for in the sparse graph of overlapping boxes, which falls apart into small components.

LET (longitudinal error tolerant) matching, for cameras, which know directions better than distances: a detection is
first moved along its line of sight to where it is nearest to the object.

    P, G       centres of detection and object relative to the sensor
    error      | |P| cos(P, G) - |G| | / max(0.1 |G|, 0.5 m)
    affinity   max(0, 1 - error)
    weight     IoU after moving the detection by (P.G / |P|^2) P - P, times the affinity

Source: Waymo Open Dataset metrics; LET-3D-AP (Hung et al., 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numba import njit

from sparse3d_ops import iou_3d_paired

from .waymo_boxes import TYPES, WaymoDetections, WaymoGroundTruth

CHUNK = 1 << 20  # pairs of boxes of one frame and type that are held at once, about 100 MB
MIN_SIDE, MAX_SIDE = 0.01, 1e6  # metres; boxes with a side beyond overlap with nothing
MIN_OVERLAP = 0.01  # IoU from which on a pair says what a detection is about
WEIGHT_SCALE = 1e6

SENSOR = (1.43, 0.0, 2.18)  # metres, in the vehicle frame
TOLERANCE = 0.1  # of the distance
MIN_TOLERANCE = 0.5  # metres
MIN_NORM = 1e-6

Overlap = Literal["3d", "bev", "let"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Detections and objects of the same frame and type that overlap, in the order of the detections.

    Args:
        detection: ``[E]`` int64 rows.
        ground_truth: ``[E]`` int64 rows, ascending for a detection.
        iou: ``[E]`` float32.
        affinity: ``[E]`` float64 in [0, 1], 1 without tolerance of longitudinal errors. Pairs of affinity 0 cannot be
            matched, but tell what a detection is about.
    """

    detection: np.ndarray
    ground_truth: np.ndarray
    iou: np.ndarray
    affinity: np.ndarray

    def take(self, rows: np.ndarray) -> Pairs:
        """Return the pairs that a mask selects."""
        return Pairs(*(getattr(self, column.name)[rows] for column in fields(self)))

    @property
    def weight(self) -> np.ndarray:
        """Weights ``[E]`` int64 of the assignment, in millionths."""
        return np.rint(WEIGHT_SCALE * self.iou.astype(np.float64) * self.affinity).astype(np.int64)


def find_pairs(
    detections: WaymoDetections,
    ground_truth: WaymoGroundTruth,
    overlap: Overlap,
) -> Pairs:
    """Find the pairs with an IoU of at least ``MIN_OVERLAP``.

    Args:
        detections: of all frames.
        ground_truth: of all frames.
        overlap: ``3d``, ``bev`` (as seen from above) or ``let`` (3D, tolerant of longitudinal errors).
    """
    boxes, targets = (table.box.astype(np.float64) for table in (detections, ground_truth))
    if overlap == "bev":
        boxes[:, [2, 5]] = targets[:, [2, 5]] = (0, 1)
    candidates = _same_frame_and_type(detections, ground_truth)
    parts = [_overlapping(rows, objects, boxes, targets, overlap == "let") for rows, objects in candidates]
    return Pairs(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(Pairs)))


def matched_sums(
    num_cutoffs: np.ndarray,  # [P]
    pairs: Pairs,  # [E], of at least the threshold
    num_ground_truth: int,
    values: np.ndarray,  # [E, V]
    cutoffs: int,
) -> np.ndarray:
    """Return the sum of values over the matched pairs at every cut-off.

    Args:
        num_cutoffs: how many of the cut-offs, which rise, each detection reaches.
        pairs: whom the detections may be matched with.
        num_ground_truth: number of objects.
        values: what is summed, float64.
        cutoffs: number C of cut-offs.

    Returns:
        ``[C, V]`` float64.
    """
    ranked = np.argsort(-num_cutoffs, kind="stable")
    changes = np.zeros((cutoffs, values.shape[1]))
    _run_match(ranked[num_cutoffs[ranked] > 0], num_cutoffs - 1, pairs, num_ground_truth, values, changes)
    return changes[::-1].cumsum(axis=0)[::-1]


def best_pairs(pairs: Pairs, num_detections: int, num_ground_truth: int) -> Pairs:
    """Return those of the pairs that match all detections, whatever their scores, best."""
    rows, cutoff = np.arange(num_detections), np.zeros(num_detections, np.int64)
    held = _run_match(rows, cutoff, pairs, num_ground_truth, np.zeros((len(pairs.iou), 0)), np.zeros((1, 0)))
    return pairs.take(held[held >= 0])


def _run_match(
    ranked: np.ndarray,  # [R]
    cutoff: np.ndarray,  # [P]
    pairs: Pairs,  # [E]
    num_ground_truth: int,
    values: np.ndarray,  # [E, V]
    changes: np.ndarray,  # [C, V]
) -> np.ndarray:
    offsets = np.searchsorted(pairs.detection, np.arange(len(cutoff) + 1))
    return _match(ranked, cutoff, offsets, pairs.ground_truth, pairs.weight, num_ground_truth, values, changes)


def _same_frame_and_type(
    detections: WaymoDetections, ground_truth: WaymoGroundTruth
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows ``[K]`` of detections and of objects that may meet, about ``CHUNK`` at a time."""
    keys = ground_truth.sample * len(TYPES) + ground_truth.type
    objects = np.argsort(keys, kind="stable")
    wanted = detections.sample * len(TYPES) + detections.type
    first = np.searchsorted(keys[objects], wanted, side="left")
    counts = np.searchsorted(keys[objects], wanted, side="right") - first
    begins = np.concatenate([[0], np.cumsum(counts)])
    marks = np.searchsorted(begins, np.arange(CHUNK, begins[-1], CHUNK))
    for start, stop in pairwise([0, *marks.tolist(), len(wanted)]):
        rows = np.repeat(np.arange(start, stop), counts[start:stop])
        yield rows, objects[np.arange(begins[start], begins[stop]) + (first - begins[:-1])[rows]]


def _overlapping(
    rows: np.ndarray,  # [K]
    objects: np.ndarray,  # [K]
    boxes: np.ndarray,  # [P, 7] float64, detections
    targets: np.ndarray,  # [G, 7] float64
    tolerant: bool,
) -> Pairs:
    """Return those of ``K`` possible pairs that overlap."""
    centre, goal = boxes[:, :3][rows], targets[:, :3][objects]
    affinity = np.ones(len(rows))
    if tolerant:
        centre, affinity = _move_along_sight(centre, goal)
    distance = np.hypot(*(centre - goal)[:, :2].T)
    near = np.flatnonzero(distance < _reach(boxes)[rows] + _reach(targets)[objects])
    moved = np.concatenate([centre[near], boxes[rows[near], 3:]], axis=1)
    iou = iou_3d_paired(torch.from_numpy(moved), torch.from_numpy(targets[objects[near]])).numpy().astype(np.float32)
    near, iou = near[iou >= MIN_OVERLAP], iou[iou >= MIN_OVERLAP]
    return Pairs(rows[near], objects[near], iou, affinity[near])


def _reach(boxes: np.ndarray) -> np.ndarray:
    """Return half the diagonal ``[N]`` seen from above; boxes with sides that do not count reach nowhere."""
    sides = boxes[:, 3:6]
    countable = ((sides > MIN_SIDE) & (sides < MAX_SIDE)).all(axis=1)
    return np.where(countable, np.hypot(sides[:, 0], sides[:, 1]) / 2, -np.inf)


def _move_along_sight(
    centre: np.ndarray,  # [K, 3]
    goal: np.ndarray,  # [K, 3]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the moved centres ``[K, 3]`` and the affinities ``[K]``; see the top of the file."""
    position, target = centre - SENSOR, goal - SENSOR
    product = (position * target).sum(axis=1)
    distance, target_distance = (np.maximum(np.linalg.norm(each, axis=1), MIN_NORM) for each in (position, target))
    error = np.abs(product / target_distance - target_distance)
    affinity = np.clip(1 - error / np.maximum(TOLERANCE * target_distance, MIN_TOLERANCE), 0, 1)
    return (product / distance**2)[:, None] * position + SENSOR, affinity


@njit(cache=True, nogil=True)
def _match(
    ranked: np.ndarray,  # [R] int64, detections, best first
    cutoff: np.ndarray,  # [P] int64, the highest cut-off that a detection reaches
    offsets: np.ndarray,  # [P + 1] int64
    objects: np.ndarray,  # [E] int64
    weights: np.ndarray,  # [E] int64
    num_objects: int,
    values: np.ndarray,  # [E, V] float64
    changes: np.ndarray,  # [C, V] float64
) -> np.ndarray:
    """Add, at the cut-off where a detection comes in, what its coming changes in the sums over matched pairs.

    Returns the pair ``[P]`` that each detection is matched by in the end, -1 for none.
    """
    owner = np.empty(len(objects), np.int64)  # detection of a pair
    for row in ranked:
        owner[offsets[row] : offsets[row + 1]] = row
    held = np.full(len(cutoff), -1)  # pair that a detection is matched by
    taken = np.full(num_objects, -1)  # pair that an object is matched by
    gain = np.zeros(num_objects, np.int64)  # of the best path that ends by giving a detection this object; 0: no path
    reached_by = np.empty(num_objects, np.int64)  # the last pair of that path
    reached = np.empty(num_objects, np.int64)
    for row in ranked:
        count = _grow_paths(row, offsets, objects, weights, owner, taken, gain, reached_by, reached)
        end, best = -1, 0
        for obj in reached[:count]:
            lost = weights[taken[obj]] if taken[obj] >= 0 else 0
            if gain[obj] - lost > best:
                end, best = obj, gain[obj] - lost
            gain[obj] = 0
        if end >= 0:
            _turn_path(end, objects, owner, held, taken, reached_by, values, changes[cutoff[row]])
    return held


@njit(cache=True, nogil=True)
def _grow_paths(
    row: int,
    offsets: np.ndarray,  # [P + 1]
    objects: np.ndarray,  # [E]
    weights: np.ndarray,  # [E]
    owner: np.ndarray,  # [E]
    taken: np.ndarray,  # [G]
    gain: np.ndarray,  # [G]
    reached_by: np.ndarray,  # [G]
    reached: np.ndarray,  # [G]
) -> int:
    """Find the best alternating path from a detection to every object; return how many objects there are in reach.

    All paths are extended until none improves (Bellman and Ford), which ends because a best matching has no alternating
    circle that gains. For the same reason, no path goes on to gain from where it has gained nothing.
    """
    count = 0
    improved = True
    while improved:
        improved = False
        place = -1
        while place < count:
            if place < 0:
                free, start = row, 0
            elif taken[reached[place]] >= 0:
                free, start = owner[taken[reached[place]]], gain[reached[place]] - weights[taken[reached[place]]]
            else:
                place += 1
                continue
            for pair in range(offsets[free], offsets[free + 1]):
                obj = objects[pair]
                if start + weights[pair] > gain[obj]:
                    if gain[obj] == 0:
                        reached[count] = obj
                        count += 1
                    gain[obj] = start + weights[pair]
                    reached_by[obj] = pair
                    improved = True
            place += 1
    return count


@njit(cache=True, nogil=True)
def _turn_path(
    end: int,
    objects: np.ndarray,  # [E]
    owner: np.ndarray,  # [E]
    held: np.ndarray,  # [P]
    taken: np.ndarray,  # [G]
    reached_by: np.ndarray,  # [G]
    values: np.ndarray,  # [E, V]
    change: np.ndarray,  # [V]
) -> None:
    """Match along the path that ends at an object; who held that object before goes without."""
    if taken[end] >= 0:
        change -= values[taken[end]]
        held[owner[taken[end]]] = -1
    pair = reached_by[end]
    while pair >= 0:
        left = held[owner[pair]]
        held[owner[pair]] = taken[objects[pair]] = pair
        change += values[pair]
        pair = -1
        if left >= 0:
            change -= values[left]
            pair = reached_by[objects[left]]
