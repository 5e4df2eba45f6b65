"""The human skeleton: names, mirror images and bones agree with each other."""

from __future__ import annotations

import numpy as np

from sparse3d.structures.skeleton import BONES, KEYPOINT_TYPES, KEYPOINTS, MIRRORED, NUM_KEYPOINTS


def test_a_mirror_exchanges_left_and_right_and_nothing_else() -> None:
    assert [MIRRORED[other] for other in MIRRORED] == list(range(NUM_KEYPOINTS))
    for name, other in zip(KEYPOINTS, MIRRORED, strict=True):
        swapped = name.replace("LEFT", "?").replace("RIGHT", "LEFT").replace("?", "RIGHT")
        assert KEYPOINTS[other] == swapped


def test_official_numbers_of_the_right_side_are_those_of_the_left_plus_eight() -> None:
    types = np.array(KEYPOINT_TYPES)
    left = [number for number, name in enumerate(KEYPOINTS) if name.startswith("LEFT")]
    np.testing.assert_array_equal(types[np.array(MIRRORED)[left]], types[left] + 8)


def test_bones_connect_all_keypoints_and_are_the_same_in_a_mirror() -> None:
    reached, bones = {0}, {frozenset(bone) for bone in BONES}
    while new := {end for bone in bones if bone & reached for end in bone} - reached:
        reached |= new
    assert reached == set(range(NUM_KEYPOINTS))
    assert {frozenset(MIRRORED[end] for end in bone) for bone in bones} == bones
