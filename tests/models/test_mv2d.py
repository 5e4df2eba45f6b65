"""MV2D: what is legal, that samples of a batch do not know of each other, and that a small one learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sparse3d.decoding.image_boxes import ImageDetections
from sparse3d.encoding.roi_looks import CellLooks, RegionLooks, touched_cells
from sparse3d.encoding.rois import RoIs, Views
from sparse3d.models import Features, GroundTruth
from sparse3d.models.heads.mv2d_memory import cell_memory, region_memory
from sparse3d.registry import MODELS
from sparse3d.structures import Cameras, Sample

from .mv2d import SPARSE_RCNN, TWO_FRAMES, detector, head_config
from .test_sparsebev import SIZE, rig, run, sample_with

FORMS: dict[str, dict[str, Any]] = {"S": {}, "T": TWO_FRAMES, "S on Sparse R-CNN": dict(detector_2d=SPARSE_RCNN)}


def cameras_of(form: str, **changes: Any) -> Cameras:
    return rig(num_frames=2 if form == "T" else 1, **changes)


def blind(sample: Sample, rows: slice = slice(None)) -> Sample:
    """The same with cameras that are not there."""
    matrices = sample.cameras.lidar2cam.clone()
    matrices[rows] = 0
    images = sample.images.clone()
    images[rows] = 0
    return sample.replace(cameras=replace(sample.cameras, lidar2cam=matrices), images=images)


# -- what is legal ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(4, 1), (0, 3), (0, 0)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_any_number_of_objects(form: str, counts: tuple[int, ...]) -> None:
    model = detector(**FORMS[form])
    samples = [sample_with(count, seed, cameras_of(form)) for seed, count in enumerate(counts)]
    losses = run(model, samples, "loss")
    kinds = ("", "_dn") if form == "T" else ("",)
    assert {name for name in losses if not name.startswith("det_")} == {
        f"{prefix}loss_{name}{kind}" for prefix in ("", "d0.") for name in ("class", "box") for kind in kinds
    }
    assert any(name.startswith("det_loss") for name in losses)
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.head.parameters())
    if not any(counts):
        assert losses["loss_box"] == 0


@pytest.mark.parametrize("form", ["S", "T"])
def test_no_detection_at_all(form: str) -> None:
    model = detector(**FORMS[form])
    model.image_branch.detector.filter = replace(model.image_branch.detector.filter, score_threshold=1.0)
    samples = [sample_with(0, seed, cameras_of(form)) for seed in range(2)]
    losses = run(model, samples, "loss")
    sum(losses.values()).backward()
    assert losses["loss_class"] == losses["loss_box"] == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.head.parameters())
    with torch.no_grad():
        assert all(len(found.pred.boxes) == 0 for found in run(model.eval(), samples, "predict"))


@pytest.mark.parametrize("form", ["S", "T"])
def test_missing_cameras(form: str) -> None:
    """Whatever is found in the image of a missing camera is no query; with none there, nothing is found."""
    model = detector(**FORMS[form]).eval()
    model.image_branch.detector.filter = replace(model.image_branch.detector.filter, score_threshold=0.0)
    whole = sample_with(3, cameras=cameras_of(form))
    for sample in (blind(whole, slice(0, 1)), blind(whole)):
        losses = run(model.train(), [sample], "loss")
        sum(losses.values()).backward()
        assert all(value.isfinite() for value in losses.values())
        assert all(p.grad.isfinite().all() for p in model.head.parameters())
    with torch.no_grad():
        some, none = (run(model.eval(), [each], "predict")[0] for each in (blind(whole, slice(0, 1)), blind(whole)))
    assert len(some.pred.boxes) and not len(none.pred.boxes)
    batch = model.data_preprocessor([blind(whole, slice(0, 1))])["batch"]
    features = model.image_branch(batch)
    rois = RoIs.gather(features.detections, Views.of(features.cameras, SIZE, torch.device("cpu")).seeing)
    assert (features.detections.images == 0).any() and not (rois.views[rois.valid] == 0).any()


def test_one_camera_and_black_images() -> None:
    for sample in (sample_with(3, cameras=rig(1, 1)), sample_with(3, cameras=rig(1))):
        dark = sample.replace(images=torch.zeros_like(sample.images))
        for each in (sample, dark):
            assert all(value.isfinite() for value in run(detector(), [each], "loss").values())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="3 images are not 2 frames of as many"):
        run(detector(**TWO_FRAMES), [sample_with(cameras=rig(1, 3))], "loss")
    with pytest.raises(ValueError, match=r"\[3\] views a sample cannot be 2 frames of as many"):
        run(detector(**TWO_FRAMES), [sample_with(cameras=rig(1, 3))], "predict")
    with pytest.raises(ValueError, match="use a DetectorBranch"):
        MODELS.build(head_config())(Features())
    with pytest.raises(ValueError, match='need keys="cells"'):
        MODELS.build(head_config(denoising=dict(num_groups=2)))
    for changes in (dict(keys="rays"), dict(loss_weights=dict(iou=1)), dict(denoising=dict(groups=3))):
        with pytest.raises(ValueError, match="unknown"):
            MODELS.build(head_config(**changes))


def test_predictions_that_are_not_finite_are_not_hidden() -> None:
    model = detector()
    model.head.branches[0].boxes[-1].bias.data[3] = torch.nan
    with pytest.raises(ValueError, match="have no finite cost"):
        run(model, [sample_with(cameras=rig(1))], "loss")


# -- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_samples_of_a_batch_do_not_know_of_each_other(form: str) -> None:
    """Also where they have different numbers of boxes in their images, or none."""
    model = detector(**FORMS[form]).eval()
    samples = [sample_with(3, seed, cameras_of(form)) for seed in range(3)]
    features = model.extract_features(model.data_preprocessor(samples)["batch"])
    num_views = len(samples[0].cameras)
    found = random_detections(2, num_views, counts=(7, 3))
    found = ImageDetections(found.boxes, found.labels, found.images, 3 * num_views, found.scores)
    together = model.head(replace(features, detections=found))
    assert together.valid.sum(dim=1).tolist() == [7, 3, 0]
    for number in range(3):
        own = replace(
            features,
            images=tuple(level[number : number + 1] for level in features.images),
            cameras=features.cameras[number : number + 1],
            detections=of_sample(found, number, num_views),
        )
        alone = model.head(own)
        count = int(together.valid[number].sum())
        for name in ("logits", "codes"):
            ours, theirs = (getattr(each, name) for each in (together, alone))
            torch.testing.assert_close(ours[:, number, :count], theirs[:, 0, :count], atol=1e-4, rtol=1e-4)


def random_detections(batch_size: int, num_views: int, counts: tuple[int, ...], seed: int = 0) -> ImageDetections:
    generator = torch.Generator().manual_seed(seed)
    images = torch.cat(
        [
            sample * num_views + torch.randint(num_views, (count,), generator=generator).sort().values
            for sample, count in enumerate(counts)
        ]
    )
    low = torch.rand(len(images), 2, generator=generator) * torch.tensor(SIZE[::-1]) * 0.6
    boxes = torch.cat([low, low + 10 + 20 * torch.rand(len(images), 2, generator=generator)], dim=1)
    scores = torch.rand(len(images), generator=generator)
    return ImageDetections(boxes, torch.zeros_like(images), images, batch_size * num_views, scores)


def of_sample(found: ImageDetections, number: int, num_views: int) -> ImageDetections:
    rows = found.images // num_views == number
    return ImageDetections(
        found.boxes[rows], found.labels[rows], found.images[rows] - number * num_views, num_views, found.scores[rows]
    )


def test_the_queries_do_not_know_of_the_noisy_ones() -> None:
    model = detector(**TWO_FRAMES).eval()
    samples = [sample_with(3, 0, cameras_of("T")), sample_with(1, 1, cameras_of("T"))]
    features = replace(
        model.extract_features(model.data_preprocessor(samples)["batch"]),
        detections=random_detections(2, 6, counts=(5, 2)),
    )
    made = model.head.make_noisy(GroundTruth.gather(samples, 4).taken_for_still())
    together, alone = model.head(features, made), model.head(features)
    torch.testing.assert_close(together.codes[:, :, made.num_slots :], alone.codes, atol=1e-4, rtol=1e-4)
    far = (made.labels == 4).float().mean()
    assert 0 < far < 1


# -- what queries look at --------------------------------------------------------------------------------------------


def rois_of(boxes: list[list[float]], views: list[int]) -> RoIs:
    return RoIs(torch.tensor([boxes]), torch.tensor([views]), torch.ones(1, len(views), dtype=torch.bool))


def test_touched_cells_by_hand() -> None:
    rois = rois_of([[0.0, 0.0, 7.0, 7.0], [8.0, 0.0, 20.0, 7.0]], [0, 1])
    cells = touched_cells(rois, 2, (2, 4), 8, 0)[0].int()
    assert cells[0, 0].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]] and not cells[0, 1].any()
    assert cells[1, 1].tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]  # cells end at half pixels, 7.5 and 23.5
    wide = touched_cells(rois, 2, (2, 4), 8, 1)[0].int()
    assert wide[0, 0].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]


def test_a_query_sees_the_cells_of_related_regions_only() -> None:
    rois = rois_of([[0.0, 0.0, 7.0, 7.0], [8.0, 0.0, 20.0, 7.0], [0.0, 9.0, 7.0, 15.0]], [0, 1, 0])
    related = torch.eye(3, dtype=torch.bool)[None].clone()
    related[0, 0, 1] = True
    features = torch.arange(16.0).view(1, 2, 1, 2, 4)
    looks = CellLooks.find(rois, related, (2, 2, 4), 8, 0)
    memory = cell_memory(torch.cat([features, features + 100], dim=2), looks)
    assert memory.keys[0, :, 0].tolist() == [0, 4, 9, 10]
    assert (~memory.hidden[0]).int().tolist() == [[1, 0, 1, 1], [0, 0, 1, 1], [0, 1, 0, 0]]
    assert torch.equal(memory.positions, memory.keys + 100)
    assert (~memory.with_all(2).hidden[0, :2]).all()

    cells = torch.arange(3.0).view(1, 3, 1, 1, 1).expand(1, 3, 2, 2, 2)
    memory = region_memory(cells, RegionLooks.find(related))
    assert memory.keys[:, :, 0].view(3, 2, 4)[:, 0, 0].tolist() == [0, 1, 2]  # the own region first
    assert memory.keys[0, 4:, 0].tolist() == [1] * 4
    assert (~memory.hidden[:, 0]).int().view(3, 2, 4)[:, :, 0].tolist() == [[1, 1], [1, 0], [1, 0]]


def test_velocity_is_the_way_between_the_frames_over_time() -> None:
    head = MODELS.build(head_config(**{**TWO_FRAMES, "denoising": None})).eval()
    codes = torch.ones(1, 1, 1, 10)
    for lag, expected in ((0.5, 2.0), (0.0, 1 / 1.245)):
        speed = head.to_speed(codes, head.lags([rig(lag=lag)]))[0, 0, 0]
        assert speed[:8].tolist() == [1.0] * 8
        assert speed[8:].tolist() == pytest.approx([expected] * 2)


# -- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["S", "T"])
def test_a_small_one_learns_two_scenes_by_heart(form: str) -> None:
    """Images are noise: what is learned is in the features of the regions."""
    torch.manual_seed(0)
    model = detector(**FORMS[form]).train()
    samples = [sample_with(2, seed, cameras_of(form)) for seed in (1, 2)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = model.data_preprocessor(samples)

    def loss() -> Tensor:
        torch.manual_seed(0)
        return sum(value for name, value in model(**batch, mode="loss").items() if not name.startswith("det_"))

    first = float(loss())
    for _ in range(15):
        optimizer.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    assert float(loss()) < 0.8 * first
