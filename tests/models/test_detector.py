from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparse3d.models import Detector3D, Features, Preprocessor
from sparse3d.registry import MODELS
from sparse3d.structures import Boxes3D, Sample

from .build import CLASS_NAMES, GRID, detector_config, random_sample


def build() -> Detector3D:
    torch.manual_seed(0)
    return MODELS.build(detector_config())


def losses_of(detector: Detector3D, *samples: Sample) -> dict[str, Tensor]:
    data = detector.data_preprocessor(list(samples), True)
    return detector(**data, mode="loss")


def test_every_parameter_gets_a_gradient() -> None:
    detector = build()
    samples = [random_sample(), random_sample(seed=1)]
    for sample in samples:  # an L1 bias gets no gradient where as many objects pull up as down
        sample.gt.boxes.tensor[:, 7:] = 9.0
    sum(losses_of(detector, *samples).values()).backward()
    silent = [name for name, p in detector.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("points", [(0,), (0, 0), (300, 0), (0, 300), (1, 0)], ids=str)
def test_empty_clouds_train_and_predict(points: tuple[int, ...]) -> None:
    detector = build()
    samples = [random_sample(count, seed=number) for number, count in enumerate(points)]
    losses = losses_of(detector, *samples)
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in detector.parameters())
    assert all(torch.isfinite(value.float()).all() for value in detector.state_dict().values())
    assert len(detector.eval().test_step(samples)) == len(points)


def test_a_sample_without_objects_is_all_background() -> None:
    detector = build()
    losses = losses_of(detector, random_sample(num_boxes=0), random_sample(num_boxes=0, seed=1))
    assert float(losses["loss_heatmap"].detach()) > 0
    assert all(float(losses[f"loss_{name}"].detach()) == 0 for name in ("box", "iou", "diou"))
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters())


def test_prediction_returns_new_samples_in_order() -> None:
    detector = build().eval()
    samples = [random_sample(), random_sample(100, seed=1)]
    results = detector.test_step(samples)
    for sample, result in zip(samples, results, strict=True):
        assert "pred" not in sample
        assert torch.equal(result.points, sample.points)
        assert isinstance(result.pred.boxes, Boxes3D)
        assert len(result.pred.boxes) == len(result.pred.scores) == len(result.pred.labels)
        assert set(result.pred.labels.tolist()) <= set(range(len(CLASS_NAMES)))


def test_a_sample_is_predicted_alike_alone_and_in_a_batch() -> None:
    detector = build().eval()
    other, own = random_sample(seed=1), random_sample()
    together, alone = detector.test_step([other, own])[1].pred, detector.test_step([own])[0].pred
    torch.testing.assert_close(together.scores, alone.scores, rtol=1e-3, atol=1e-4)


def test_training_is_deterministic() -> None:
    def run() -> list[Tensor]:
        detector = build()
        losses = losses_of(detector, random_sample(), random_sample(0), random_sample(seed=2))
        sum(losses.values()).backward()
        return [*losses.values(), *(p.grad for p in detector.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_a_few_steps_lower_the_loss() -> None:
    detector = build()
    samples = [random_sample(), random_sample(seed=1)]
    optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-3)
    history = []
    for _ in range(12):
        loss = sum(losses_of(detector, *samples).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.5 * history[0]


def test_mixed_precision_trains_and_agrees() -> None:
    detector = build()
    full = losses_of(detector, random_sample())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = losses_of(detector, random_sample())
    sum(mixed.values()).backward()
    for name, value in mixed.items():
        assert value.dtype == torch.float32
        assert float(value.detach()) == pytest.approx(float(full[name].detach()), rel=0.1)
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters())


def test_tensor_mode_gives_raw_maps() -> None:
    detector = build()
    data = detector.data_preprocessor([random_sample()])
    maps = detector(**data, mode="tensor")
    assert [own["hm"].shape[1] for own in maps] == [1, 2, 1]
    with pytest.raises(ValueError, match="mode must be one of loss, predict, tensor"):
        detector(**data, mode="train")


def test_preprocessor_sorts_points_and_keeps_the_samples() -> None:
    samples = [random_sample(50), random_sample(0), random_sample(70, seed=1)]
    data = Preprocessor(GRID, 5)(samples)
    batch = data["batch"]
    assert batch.batch_size == 3
    assert torch.equal(torch.bincount(batch.batch_index, minlength=3), torch.tensor([50, 0, 70]))
    assert torch.equal(batch.points, torch.cat([sample.points for sample in samples]))
    voxel = batch.voxels.coords[batch.voxels.point_to_voxel]
    place = (batch.voxels.points[:, :2] - torch.tensor(GRID.lower[:2])) / torch.tensor(GRID.voxel_size[:2])
    assert torch.equal(place.floor().int(), voxel[:, [3, 2]])
    assert len(batch.voxels.points) < 120
    assert [len(sample.gt.boxes) for sample in data["samples"]] == [6, 6, 6]


def test_preprocessor_names_what_is_wrong() -> None:
    preprocess = Preprocessor(GRID, 5)
    good, bad = random_sample(), random_sample()
    with pytest.raises(ValueError, match="no sample"):
        preprocess([])
    bad.points = bad.points[:, :4]
    with pytest.raises(ValueError, match=r"points of sample 1: expected \[P, 5\] float32, got \[600, 4\]"):
        preprocess([good, bad])
    bad.points = torch.zeros(3, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="float32"):
        preprocess([bad])
    del bad.points
    with pytest.raises(ValueError, match=r"sample 0 of the batch has no 'points'; it has \['gt'\]"):
        preprocess([bad])


def test_features_of_two_branches_merge_unless_they_clash() -> None:
    points = Features(bev=torch.zeros(1), losses={"a": torch.zeros(())})
    images = Features(images=(torch.ones(1),), losses={"b": torch.ones(())})
    both = points.merge(images)
    assert both.bev is points.bev
    assert both.images is images.images
    assert set(both.losses) == {"a", "b"}
    with pytest.raises(ValueError, match="'bev'"):
        points.merge(points)
    with pytest.raises(ValueError, match=r"\['b'\]"):
        images.merge(Features(losses=images.losses))


def test_a_detector_needs_a_branch() -> None:
    config = detector_config()
    config.pop("point_branch")
    with pytest.raises(ValueError, match="point_branch, an image_branch, or both"):
        MODELS.build(config)
