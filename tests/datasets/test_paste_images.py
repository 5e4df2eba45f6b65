"""Ground-truth paste into images: crops come from where objects appear, and what is in front stays in front."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sparse3d.datasets import NuScenesDataset, ObjectDatabase
from sparse3d.datasets.create import create_nuscenes_index
from sparse3d.datasets.create_objects import create_object_database
from sparse3d.datasets.nuscenes_schema import DETECTION_CLASSES
from sparse3d.datasets.object_crops import Appearances, decode, encode, paste_crops
from sparse3d.datasets.transforms import LoadAnnotations, LoadImages, LoadPoints, PasteGroundTruth, ResizeImages
from sparse3d.structures import Boxes3D, Cameras, Sample
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
LOAD = [LoadPoints(sweeps=9), LoadImages(), LoadAnnotations(DETECTION_CLASSES)]
SIZE = (60, 100)
MANY = dict.fromkeys(DETECTION_CLASSES, 8)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = create_nuscenes_index(SYNTH, "mini", splits=["mini_train"], out=tmp_path_factory.mktemp("index"))
    return path


@pytest.fixture(scope="module")
def path(index: Path) -> Path:
    return create_object_database(SYNTH, index, workers=1, images=True)


@pytest.fixture(scope="module")
def samples(index: Path) -> list[Sample]:
    dataset = NuScenesDataset(SYNTH, index, pipeline=LOAD)
    return [dataset[item] for item in range(len(dataset))]


def forward_camera() -> Cameras:
    """One camera at the origin that looks along x."""
    intrinsics = torch.tensor([[[50.0, 0, 50], [0, 50, 30], [0, 0, 1]]])
    lidar2cam = torch.tensor([[[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]])
    return Cameras.create(["front"], intrinsics, lidar2cam, torch.tensor([SIZE]))


def crop(box: Tensor, colour: int) -> list[dict]:
    left, top, right, bottom = Appearances.find(Boxes3D(box[None]), forward_camera()).rectangles[0, 0].tolist()
    pixels = np.full((3, bottom - top, right - left), colour, np.uint8)
    return [dict(camera="front", left=left, top=top, jpeg=encode(pixels))]


def test_the_database_holds_what_lies_in_the_boxes(path: Path, samples: list[Sample]) -> None:
    database = ObjectDatabase(path)
    assert database.has_crops
    crops = database.crops(np.arange(len(database)))
    frames = {sample.frame.token: sample for sample in samples}
    tokens = [sample.frame.token for sample in samples for box in sample.gt.boxes.tensor if _has_points(sample, box)]
    checked = 0
    for token, own in zip(tokens, crops, strict=True):
        sample = frames[token]
        for each in own:
            image = sample.images[sample.cameras.names.index(each["camera"])]
            pixels = torch.from_numpy(decode(each["jpeg"])).float()
            height, width = pixels.shape[1:]
            place = image[:, each["top"] : each["top"] + height, each["left"] : each["left"] + width].float()
            assert place.shape == pixels.shape
            assert (place - pixels).abs().mean() < 12  # JPEG
            checked += 1
    assert checked > 20


def _has_points(sample: Sample, box: Tensor) -> bool:
    from sparse3d_ops import points_in_boxes

    return bool((points_in_boxes(sample.points[:, :3].contiguous(), box[None, :7]) >= 0).any())


def test_pasted_objects_appear_at_their_place_and_nothing_else_changes(path: Path, samples: list[Sample]) -> None:
    paste = PasteGroundTruth(path.parent, path.name, DETECTION_CLASSES, MANY, min_points=1, images=True)
    sample = samples[0]
    before = sample.images.clone()
    pasted = paste(sample, np.random.default_rng(1))
    assert torch.equal(sample.images, before)
    assert len(pasted.gt.boxes) > len(sample.gt.boxes)
    seen = Appearances.find(pasted.gt.boxes[len(sample.gt.boxes) :], sample.cameras)
    changed = (pasted.images != before).any(dim=1)  # [C, H, W]
    assert changed.any()
    allowed = torch.zeros_like(changed)
    for camera, row in seen.appears.nonzero().tolist():
        left, top, right, bottom = seen.rectangles[camera, row].tolist()
        allowed[camera, max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = True
    # rigs of one set are alike, so nearly all that was pasted lies where the box appears
    assert (changed & ~allowed).sum() <= 0.05 * changed.sum()


def test_what_is_nearer_hides_what_is_pasted_behind_it() -> None:
    near, far = torch.tensor([[10.0, 0, 0, 2, 2, 2, 0], [20.0, 0, 0, 8, 8, 4, 0]])
    image = torch.full((3, *SIZE), 100, dtype=torch.uint8)
    middle = (slice(None), SIZE[0] // 2, SIZE[1] // 2)
    (behind,) = paste_crops([image], forward_camera(), Boxes3D(torch.stack([near, far])), [crop(far, 200)])
    assert (behind[middle] == 100).all() and (behind >= 190).any()
    (ahead,) = paste_crops([image], forward_camera(), Boxes3D(torch.stack([far, near])), [crop(near, 200)])
    assert (ahead[middle] > 190).all()
    (both,) = paste_crops(
        [image], forward_camera(), Boxes3D(torch.stack([near, far])), [crop(near, 50), crop(far, 200)]
    )
    assert (both[middle] < 60).all() and (both >= 190).any()


def test_a_crop_that_reaches_beyond_the_image_is_cut() -> None:
    box = torch.tensor([10.0, 0, 0, 2, 2, 2, 0])
    image = torch.zeros(3, *SIZE, dtype=torch.uint8)
    own = crop(box, 200)
    own[0].update(left=SIZE[1] - 3, top=SIZE[0] - 2)
    (pasted,) = paste_crops([image], forward_camera(), Boxes3D(box[None]), [own])
    assert (pasted > 190).any(dim=0).sum() == 6


def test_an_object_that_would_hide_another_is_not_pasted(path: Path, samples: list[Sample]) -> None:
    counts = []
    for limit in (1.0, 0.5, 0.0):
        paste = PasteGroundTruth(
            path.parent, path.name, DETECTION_CLASSES, MANY, min_points=1, images=True, max_image_overlap=limit
        )
        pasted = paste(samples[0], np.random.default_rng(1))
        counts.append(len(pasted.gt.boxes))
        first = len(samples[0].gt.boxes)
        seen = Appearances.find(pasted.gt.boxes, samples[0].cameras)
        if limit == 0:
            for rectangles, appears in zip(seen.rectangles, seen.appears, strict=True):
                for row in range(first, len(appears)):
                    others = [r for r in range(row) if appears[r]] if appears[row] else []
                    assert not any(_overlap(rectangles[row], rectangles[other]) for other in others)
    assert counts[0] >= counts[1] >= counts[2]
    assert counts[0] > counts[2]


def _overlap(a: Tensor, b: Tensor) -> bool:
    return bool((torch.minimum(a[2:], b[2:]) > torch.maximum(a[:2], b[:2])).all())


def test_a_database_without_crops_and_moved_images_are_refused(
    path: Path, index: Path, samples: list[Sample], tmp_path: Path
) -> None:
    (tmp_path / "index.arrow").write_bytes(index.read_bytes())
    plain = create_object_database(SYNTH, tmp_path / "index.arrow", workers=1)
    assert not ObjectDatabase(plain).has_crops
    with pytest.raises(ValueError, match=r"create_data\.py objects --images"):
        PasteGroundTruth(plain.parent, plain.name, DETECTION_CLASSES, MANY, images=True)
    paste = PasteGroundTruth(path.parent, path.name, DETECTION_CLASSES, MANY, images=True)
    small = ResizeImages(factors=(0.5, 0.5))(samples[0], np.random.default_rng(0))
    with pytest.raises(ValueError, match="before every transform that moves the images"):
        paste(small, np.random.default_rng(0))
    blind = Sample(points=samples[0].points, gt=samples[0].gt, metainfo=samples[0].metainfo)
    with pytest.raises(ValueError, match="LoadImages comes first"):
        paste(blind, np.random.default_rng(0))


def test_a_camera_that_is_not_there_gets_nothing(path: Path, samples: list[Sample]) -> None:
    paste = PasteGroundTruth(path.parent, path.name, DETECTION_CLASSES, MANY, min_points=1, images=True)
    frame = samples[0].frame
    lacking = replace(frame, cameras=frame.cameras[1:])
    names = [camera.name for camera in frame.cameras]
    sample = Sample.from_frame(lacking)
    for load in (LoadPoints(sweeps=9), LoadImages(names), LoadAnnotations(DETECTION_CLASSES)):
        sample = load(sample, np.random.default_rng(0))
    pasted = paste(sample, np.random.default_rng(1))
    assert not sample.images[0].any()
    assert torch.isfinite(pasted.points).all() and len(pasted.gt.boxes) > len(sample.gt.boxes)
