"""Ground-truth paste: the database holds every object with its points, and what is pasted fits into the scene."""

from __future__ import annotations

import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.datasets import Draw, NuScenesDataset, ObjectDatabase, SampleError, create_objects
from sparse3d.datasets.create import create_nuscenes_index
from sparse3d.datasets.create_objects import create_object_database
from sparse3d.datasets.nuscenes_schema import DETECTION_CLASSES
from sparse3d.datasets.transforms import LoadAnnotations, LoadPoints, PasteGroundTruth, RandomFlip, UntilEpoch
from sparse3d.structures import Boxes3D, InstanceData, Sample
from sparse3d_ops import iou_bev, points_in_boxes
from sparse3d_ops.boxes import count_points_in_boxes
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
LOAD = [LoadPoints(sweeps=9), LoadAnnotations(DETECTION_CLASSES)]
MANY = dict.fromkeys(DETECTION_CLASSES, 8)
reproducible = settings(deadline=None, max_examples=20, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the training scene of the fixture."""
    (path,) = create_nuscenes_index(SYNTH, "mini", splits=["mini_train"], out=tmp_path_factory.mktemp("index"))
    return path


@pytest.fixture(scope="module")
def path(index: Path) -> Path:
    """Its object database."""
    return create_object_database(SYNTH, index, workers=1)


@pytest.fixture(scope="module")
def samples(index: Path) -> list[Sample]:
    dataset = NuScenesDataset(SYNTH, index, pipeline=LOAD)
    return [dataset[item] for item in range(len(dataset))]


def _inside(points: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    return points_in_boxes(points[:, :3].contiguous(), boxes[:, :7].contiguous()) >= 0


# -- the database -----------------------------------------------------------------------------------------------------


def test_every_object_with_its_points(path: Path, samples: list[Sample]) -> None:
    database = ObjectDatabase(path)
    counts = [count_points_in_boxes(each.points[:, :3].contiguous(), each.gt.boxes.tensor[:, :7]) for each in samples]
    assert database.num_points.tolist() == [count for each in counts for count in each.tolist() if count]
    row = 0
    for sample, points_in in zip(samples, counts, strict=True):
        for box in points_in.nonzero()[:, 0].tolist():
            objects = database.take(np.array([row]))
            expected = sample.points[_inside(sample.points, sample.gt.boxes.tensor[box : box + 1])]
            np.testing.assert_allclose(objects.points, expected, rtol=0, atol=1e-5)
            np.testing.assert_array_equal(objects.points[:, 3:], expected[:, 3:])  # the lags above all
            np.testing.assert_array_equal(objects.boxes[0], sample.gt.boxes.tensor[box])
            assert objects.num_lidar_points.tolist() == [sample.gt.num_points[box]]
            assert database.class_names[database.labels[row]] == DETECTION_CLASSES[sample.gt.labels[box]]
            row += 1
    assert row == len(database) > 50


def test_several_at_once_and_after_pickling(path: Path) -> None:
    database = pickle.loads(pickle.dumps(ObjectDatabase(path)))
    rows = np.array([40, 3, 3, len(database) - 1])
    together, alone = database.take(rows), [database.take(rows[i : i + 1]) for i in range(4)]
    np.testing.assert_array_equal(together.points, np.concatenate([each.points for each in alone]))
    np.testing.assert_array_equal(together.boxes, np.concatenate([each.boxes for each in alone]))
    nothing = database.take(rows[:0])
    assert nothing.points.shape == (0, 5) and nothing.boxes.shape == (0, 9)


def test_rows_of_a_class(path: Path) -> None:
    database = ObjectDatabase(path)
    cars = database.rows("car", 60)
    assert 0 < len(cars) < len(database.rows("car", 1))
    assert (database.num_points[cars] >= 60).all()
    assert len(database.rows("no such class", 1)) == 0


def test_created_once_and_resumed(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create_objects, "FRAMES_PER_PART", 1)
    (tmp_path / "index.arrow").write_bytes(index.read_bytes())
    write, written = create_objects._write_part, []

    def counted(part: create_objects.Part, stop_at: int = -1) -> None:
        if part.start == stop_at:
            raise KeyboardInterrupt
        written.append(part.start)
        write(part)

    monkeypatch.setattr(create_objects, "_write_part", lambda part: counted(part, stop_at=2))
    with pytest.raises(KeyboardInterrupt):
        create_object_database(SYNTH, tmp_path / "index.arrow", workers=1)
    assert not (tmp_path / "index_objects.arrow").exists()
    monkeypatch.setattr(create_objects, "_write_part", counted)
    for _ in range(2):
        path = create_object_database(SYNTH, tmp_path / "index.arrow", workers=1)
    assert written == [0, 1, 2, 3]
    assert {each.name for each in tmp_path.iterdir()} == {"index.arrow", "index_objects.arrow"}
    assert len(ObjectDatabase(path)) > 50
    create_object_database(SYNTH, tmp_path / "index.arrow", sweeps=0, workers=1)  # another setting: anew
    assert written == [0, 1, 2, 3] * 2
    assert len(ObjectDatabase(path).num_points) > 0


def test_the_number_of_workers_does_not_matter(path: Path, index: Path, tmp_path: Path) -> None:
    (tmp_path / "index.arrow").write_bytes(index.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(create_objects, "FRAMES_PER_PART", 2)
        found = ObjectDatabase(create_object_database(SYNTH, tmp_path / "index.arrow", workers=2))
    expected, rows = ObjectDatabase(path), np.arange(len(found))
    assert [expected.class_names[code] for code in expected.labels] == [
        found.class_names[code] for code in found.labels
    ]
    np.testing.assert_array_equal(found.take(rows).points, expected.take(rows).points)


@pytest.mark.slow
def test_the_tool_writes_it(path: Path, index: Path, tmp_path: Path, python: str) -> None:
    for folder in ("samples", "sweeps"):
        (tmp_path / folder).symlink_to(SYNTH / folder)
    shutil.copy(index, tmp_path / "train.arrow")
    command = [
        python,
        "tools/create_data.py",
        "objects",
        "--root",
        tmp_path,
        "--index",
        "train.arrow",
        "--workers",
        "1",
    ]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"objects: {tmp_path / 'train_objects.arrow'}" in result.stdout
    found, expected = ObjectDatabase(tmp_path / "train_objects.arrow"), ObjectDatabase(path)
    np.testing.assert_array_equal(found.num_points, expected.num_points)


def test_damaged_files_are_named(index: Path, tmp_path: Path) -> None:
    (tmp_path / "index.arrow").write_bytes(index.read_bytes())
    with pytest.raises(SampleError, match=r"sample \w+ .*LIDAR_TOP.*no such LiDAR file"):
        create_object_database(tmp_path, "index.arrow", workers=1)
    with pytest.raises(
        FileNotFoundError, match=r"there is no object database; create it: python tools/create_data\.py objects"
    ):
        ObjectDatabase(tmp_path / "none.arrow")
    with pytest.raises(ValueError, match="object database version None, this sparse3d reads version 3"):
        ObjectDatabase(index)


# -- pasting ----------------------------------------------------------------------------------------------------------


@reproducible
@given(seeds)
def test_what_is_pasted_fits(path: Path, samples: list[Sample], seed: int) -> None:
    sample = samples[seed % len(samples)]
    few = sample.replace(gt=InstanceData(**{name: values[:6] for name, values in sample.gt.items()}))
    pasted = PasteGroundTruth(path.parent, path.name, DETECTION_CLASSES, MANY)(few, np.random.default_rng(seed))
    present, boxes = few.gt.boxes.tensor, pasted.gt.boxes.tensor
    new = boxes[6:]
    assert len(new) > 0
    assert torch.equal(boxes[:6].nan_to_num(), present.nan_to_num())
    assert (iou_bev(new[:, :7], present[:, :7]) == 0).all()
    assert (iou_bev(new[:, :7], new[:, :7]).fill_diagonal_(0) == 0).all()
    for label in range(len(DETECTION_CLASSES)):
        before, after = (few.gt.labels == label).sum(), (pasted.gt.labels == label).sum()
        assert after <= max(before, MANY[DETECTION_CLASSES[label]])
    assert torch.equal(pasted.points[~_inside(pasted.points, new)], few.points[~_inside(few.points, new)])


def test_points_of_pasted_objects_are_the_recorded_ones(path: Path) -> None:
    database = ObjectDatabase(path)
    sample = _scene(torch.rand(500, 5, generator=torch.Generator().manual_seed(0)) * 80 - 40)
    paste = PasteGroundTruth(path.parent, path.name, DETECTION_CLASSES, dict(car=3, pedestrian=2))
    pasted = paste(sample, np.random.default_rng(0))
    assert set(pasted.gt.labels.tolist()) == {0, 7}  # some overlapped others
    everything = database.boxes(np.arange(len(database)))
    rows = [int(np.flatnonzero((everything == box).all(axis=1))[0]) for box in pasted.gt.boxes.numpy()]
    expected = torch.from_numpy(database.take(np.array(rows)).points)
    kept = sample.points[~_inside(sample.points, pasted.gt.boxes.tensor)]
    assert torch.equal(pasted.points, torch.cat([expected, kept]))
    assert (expected[:, 4] > 0).any()  # sweeps, with their lags


def _scene(points: torch.Tensor) -> Sample:
    sample = Sample()
    sample.set_metainfo({"lidar_aug": np.eye(4), "epoch": 0})
    gt = InstanceData(
        boxes=Boxes3D(torch.zeros(0, 9)),
        labels=torch.zeros(0, dtype=torch.int64),
        num_points=torch.zeros(0, dtype=torch.int64),
    )
    return sample.replace(points=points, gt=gt)


def test_full_scenes_stay_as_they_are(path: Path, samples: list[Sample]) -> None:
    paste = PasteGroundTruth(path.parent, path.name, DETECTION_CLASSES, dict(car=1))
    assert (samples[1].gt.labels == 0).any()
    assert paste(samples[1], np.random.default_rng(0)) is samples[1]


def test_empty_cloud(path: Path) -> None:
    paste = PasteGroundTruth(path.parent, path.name, DETECTION_CLASSES, dict(car=3))
    pasted = paste(_scene(torch.zeros(0, 5)), np.random.default_rng(0))
    assert len(pasted.points) == count_points_in_boxes(pasted.points[:, :3].contiguous(), pasted.gt.boxes.tensor).sum()


def test_same_draw_same_paste(path: Path, samples: list[Sample]) -> None:
    paste = PasteGroundTruth(path.parent, path.name, DETECTION_CLASSES, MANY)
    first, again, other = (paste(samples[0], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.points, again.points)
    assert first.points.shape != other.points.shape


def test_fade_out(path: Path, index: Path) -> None:
    """In the last epochs samples are as they are, whatever epoch the run was resumed at."""
    paste = dict(
        type="PasteGroundTruth",
        data_root=str(path.parent),
        database=path.name,
        class_names=DETECTION_CLASSES,
        counts=MANY,
    )
    dataset = NuScenesDataset(SYNTH, index, pipeline=[*LOAD, dict(type="UntilEpoch", epoch=2, transforms=[paste])])
    sizes = [len(dataset[Draw(0, epoch)].gt.labels) for epoch in range(4)]
    plain = len(NuScenesDataset(SYNTH, index, pipeline=LOAD)[0].gt.labels)
    assert min(sizes[:2]) > plain
    assert sizes[2:] == [plain, plain]


def test_refusals(path: Path, samples: list[Sample]) -> None:
    arguments = (path.parent, path.name, DETECTION_CLASSES)
    for counts in (dict(cat=1), dict(car=-1)):
        with pytest.raises(ValueError, match="counts need a class of"):
            PasteGroundTruth(*arguments, counts)
    paste = PasteGroundTruth(*arguments, dict(car=3))
    with pytest.raises(ValueError, match="its points have 5 columns, the sample's 4"):
        paste(samples[0].replace(points=samples[0].points[:, :4]), np.random.default_rng(0))
    with pytest.raises(ValueError, match="PasteGroundTruth must come before"):
        paste(RandomFlip(x=1)(samples[0], np.random.default_rng(0)), np.random.default_rng(0))
    assert UntilEpoch(1, [paste]).transforms == [paste]
