"""People with keypoints: which frames have them, and whom to learn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sparse3d.datasets import FrameIndex, WaymoDataset, write_index
from sparse3d.datasets.arrow_file import arrow_writer
from sparse3d.datasets.object_database import COLUMNS, IMAGES, OBJECTS, encode_objects
from sparse3d.datasets.transforms import LoadAnnotations, PasteGroundTruth, RemoveUnlabelledPeople
from sparse3d.structures import Boxes3D, Frame, InstanceData, Sample
from sparse3d.structures.skeleton import MISSING, NUM_KEYPOINTS, OCCLUDED, VISIBLE
from tests.evaluation.waymo_cases import annotations, frame

WALKER, RIDER = [12.0, -5, 1, 0.8, 0.8, 1.7, 1.0], [40.0, 8, 1, 1.8, 0.7, 1.7, 2.0]


def in_folder(recorded: Frame, folder: Path) -> Frame:
    return replace(recorded, lidar=replace(recorded.lidar, path=str(folder / "points.f32")))


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A labelled person; no annotations; people whom nobody labelled; nobody; two people of whom one is labelled."""
    both = annotations([WALKER, RIDER], ["Pedestrian", "Cyclist"])
    nobody = annotations([WALKER, RIDER], ["Pedestrian", "Cyclist"])
    nobody.waymo.keypoint_visibility[:] = MISSING
    both.waymo.keypoint_visibility[0] = MISSING
    both.waymo.keypoint_visibility[1, 3:] = MISSING
    labelled = annotations([WALKER], ["Pedestrian"])
    objects = [labelled, None, nobody, annotations([], []), both]
    frames = [in_folder(frame(each, number), tmp_path) for number, each in enumerate(objects)]
    path = tmp_path / "index.arrow"
    write_index(path, frames, {"dataset": "waymo"}, tmp_path)
    return path


def test_the_index_knows_who_has_keypoints(index: Path) -> None:
    shows = FrameIndex(index, index.parent).shows_keypoints()
    assert shows.tolist() == [True, False, False, False, True]


def test_a_data_set_of_frames_with_keypoints(index: Path) -> None:
    people = ["Pedestrian", "Cyclist"]
    chosen = WaymoDataset(index.parent, index.name, people, indices=[4, 3, 0, 1], keypoints_only=True)
    assert [chosen.frame(item).token for item in range(2)] == [frame(None, 4).token, frame(None, 0).token]
    assert len(chosen) == 2
    assert len(WaymoDataset(index.parent, index.name, people)) == 5
    with pytest.raises(ValueError, match="nobody has keypoints"):
        WaymoDataset(index.parent, index.name, people, indices=[1, 2, 3], keypoints_only=True)


def test_an_index_of_another_data_set_shows_none(tmp_path: Path) -> None:
    objects = annotations([WALKER], ["Pedestrian"])
    object.__setattr__(objects, "waymo", None)
    write_index(tmp_path / "index.arrow", [in_folder(frame(objects), tmp_path)], {}, tmp_path)
    assert FrameIndex(tmp_path / "index.arrow", tmp_path).shows_keypoints().tolist() == [False]


def test_people_nobody_labelled_leave_with_their_points() -> None:
    visibility = torch.full((3, NUM_KEYPOINTS), MISSING)
    visibility[1, 5], visibility[2] = OCCLUDED, VISIBLE
    gt = InstanceData(
        boxes=Boxes3D([[0.0, 0, 0, 2, 2, 2, 0], [10, 0, 0, 2, 2, 2, 0], [20, 0, 0, 2, 2, 2, 0]]),
        labels=torch.arange(3),
        keypoints=torch.zeros(3, NUM_KEYPOINTS, 3),
        keypoint_visibility=visibility,
    )
    points = torch.tensor([[0.5, 0.5, 0.5, 1], [10.5, 0, 0, 2], [5.0, 0, 0, 3], [0.9, -0.9, 0.9, 4]])
    sample = Sample().replace(points=points, gt=gt)
    left = RemoveUnlabelledPeople()(sample, np.random.default_rng(0))
    assert left.points[:, 3].tolist() == [2, 3]
    assert left.gt.labels.tolist() == [1, 2] and len(left.gt.keypoints) == 2
    assert len(sample.points) == 4 and len(sample.gt.labels) == 3
    background = RemoveUnlabelledPeople(with_points=False)(sample, np.random.default_rng(0))
    assert len(background.points) == 4 and background.gt.labels.tolist() == [1, 2]


def test_keypoints_are_loaded_beside_the_boxes() -> None:
    objects = annotations([WALKER, RIDER], ["Pedestrian", "Cyclist"])
    objects.waymo.keypoint_visibility[1, 2] = MISSING
    load = LoadAnnotations(["Pedestrian", "Cyclist"], keypoints=True)
    gt = load(Sample.from_frame(frame(objects)), np.random.default_rng(0)).gt
    assert gt.keypoints.shape == (2, NUM_KEYPOINTS, 3)
    torch.testing.assert_close(gt.keypoints[1, 2], gt.boxes.centers[1])
    np.testing.assert_allclose(gt.keypoints[0], objects.waymo.keypoints[0], rtol=1e-6)


# -- paste ------------------------------------------------------------------------------------------------------------


def scene(number: int, boxes: list[list[float]], missing: int) -> Sample:
    """People with keypoints, but for the one of this number, and five points in each box."""
    objects = annotations(boxes, ["Pedestrian"] * len(boxes))
    objects.waymo.keypoint_visibility[missing] = MISSING
    sample = Sample.from_frame(frame(objects, number))
    spread = torch.tensor([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1], [0.1, 0.1, 0.1]])
    points = (torch.tensor(boxes)[:, None, :3] + spread).reshape(-1, 3)
    sample = sample.replace(points=torch.nn.functional.pad(points, (0, 2)))
    return LoadAnnotations(["Pedestrian"], keypoints=True)(sample, np.random.default_rng(0))


@pytest.mark.parametrize("keypoints_only", [False, True])
def test_pasted_people_bring_their_keypoints(tmp_path: Path, keypoints_only: bool) -> None:
    source = scene(0, [WALKER, RIDER, [-9.0, 3, 1, 0.8, 0.8, 1.7, 0]], missing=1)
    with arrow_writer(tmp_path / "objects.arrow", OBJECTS, {COLUMNS: "5", IMAGES: "no"}) as writer:
        writer.write_batch(encode_objects(source, ["Pedestrian"]))
    paste = PasteGroundTruth(
        tmp_path, "objects.arrow", ["Pedestrian"], dict(Pedestrian=9), min_points=1, keypoints_only=keypoints_only
    )
    present = scene(1, [[5.0, 5, 1, 0.8, 0.8, 1.7, 0]], missing=0)
    gt = paste(present, np.random.default_rng(0)).gt
    assert len(gt.boxes) == (3 if keypoints_only else 4)
    for row in range(1, len(gt.boxes)):
        (origin,) = (source.gt.boxes.centers == gt.boxes.centers[row]).all(dim=1).nonzero()[:, 0].tolist()
        torch.testing.assert_close(gt.keypoints[row], source.gt.keypoints[origin])
        assert torch.equal(gt.keypoint_visibility[row], source.gt.keypoint_visibility[origin])
    assert (gt.keypoint_visibility[1:] != MISSING).any(dim=1).all() == keypoints_only
