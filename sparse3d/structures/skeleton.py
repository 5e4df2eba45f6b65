"""The human skeleton of Waymo's LiDAR keypoints: 14 points, the bones between them, and their official numbers.

Source: Waymo Open Dataset, human keypoint labels.
"""

from __future__ import annotations

KEYPOINTS = (
    "NOSE",
    "LEFT_SHOULDER",
    "RIGHT_SHOULDER",
    "LEFT_ELBOW",
    "RIGHT_ELBOW",
    "LEFT_WRIST",
    "RIGHT_WRIST",
    "LEFT_HIP",
    "RIGHT_HIP",
    "LEFT_KNEE",
    "RIGHT_KNEE",
    "LEFT_ANKLE",
    "RIGHT_ANKLE",
    "HEAD_CENTER",
)
NUM_KEYPOINTS = len(KEYPOINTS)
KEYPOINT_TYPES = (1, 5, 13, 6, 14, 7, 15, 8, 16, 9, 17, 10, 18, 20)  # official numbers
MIRRORED = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 13)  # the keypoint that each becomes in a mirror
MISSING, OCCLUDED, VISIBLE = 0, 1, 2  # visibility
# Pairs of keypoints: head, arms, legs, neck on both sides, trunk on both sides.
BONES = (
    (0, 13), (1, 3), (2, 4), (3, 5), (4, 6), (7, 9), (8, 10), (9, 11), (10, 12), (13, 1), (13, 2), (1, 7), (2, 8),
)  # fmt: skip
