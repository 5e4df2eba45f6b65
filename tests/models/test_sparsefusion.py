"""SparseFusion: what is legal, what a missing sensor does, what the options do, and that a small one learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from sparse3d.models import Detector3D, Features
from sparse3d.models.heads.sparsefusion_losses import LOSS_WEIGHTS
from sparse3d.structures import Sample

from .fusion import detector, sample_with


def run(model: Detector3D, samples: list[Sample], mode: str):
    torch.manual_seed(0)
    return model(**model.data_preprocessor(samples, training=mode == "loss"), mode=mode)


def features_of(model: Detector3D, samples: list[Sample]) -> Features:
    with torch.no_grad():
        return model.extract_features(model.data_preprocessor(samples)["batch"])


# -- what is legal -----------------------------------------------------------------------------------------------------


def test_losses_and_predictions_of_a_batch() -> None:
    model = detector()
    samples = [sample_with(), sample_with(seed=1)]
    losses = run(model.train(), samples, "loss")
    assert set(losses) == {f"loss_{name}" for name in LOSS_WEIGHTS} | {"matched_iou"}
    assert all(value.isfinite() for value in losses.values())
    sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
    without = [name for name, value in model.named_parameters() if value.grad is None]
    assert not without
    for found in run(model.eval(), samples, "predict"):
        assert len(found.pred.boxes) == len(found.pred.scores) == len(found.pred.labels) <= 14
        assert (found.pred.scores.diff() <= 0).all()


def test_a_sample_is_predicted_alike_alone_and_in_a_batch() -> None:
    model = detector().eval()
    samples = [sample_with(), sample_with(seed=1, num_points=60)]
    together = run(model, samples, "predict")
    for sample, expected in zip(samples, together, strict=True):
        (alone,) = run(model, [sample], "predict")
        torch.testing.assert_close(alone.pred.boxes.tensor, expected.pred.boxes.tensor, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone.pred.scores, expected.pred.scores, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("num_boxes", [0, 1, 9], ids=["no object", "one object", "more objects than LiDAR queries"])
def test_any_number_of_objects(num_boxes: int) -> None:
    losses = run(detector().train(), [sample_with(num_boxes=num_boxes)], "loss")
    assert all(value.isfinite() for value in losses.values())
    for name, value in losses.items():
        if num_boxes == 0 and name.endswith(("_box", "_center", "_depth", "_dim", "_rot", "_vel")):
            assert value == 0


def test_images_of_different_sizes_are_padded() -> None:
    sample = sample_with()
    images = [image[:, : 64 - 8 * n, : 96 - 16 * n] for n, image in enumerate(sample.images)]
    sizes = torch.tensor([image.shape[1:] for image in images])
    smaller = sample.replace(images=images, cameras=replace(sample.cameras, image_sizes=sizes))
    losses = run(detector().train(), [smaller], "loss")
    assert all(value.isfinite() for value in losses.values())


def test_mixed_precision() -> None:
    model = detector().train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = run(model, [sample_with()], "loss")
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
    assert all(value.grad.isfinite().all() for value in model.parameters())


# -- missing sensors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [(1,), (0, 1, 2)], ids=["one camera", "all cameras"])
@pytest.mark.parametrize("num_points", [500, 0], ids=["points", "no points"])
def test_missing_sensors_are_legal(missing: tuple[int, ...], num_points: int) -> None:
    model = detector()
    samples = [sample_with(missing=missing, num_points=num_points), sample_with(seed=1)]
    losses = run(model.train(), samples, "loss")
    sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
    assert all(value.grad.isfinite().all() for value in model.parameters())
    for found in run(model.eval(), samples, "predict"):
        assert found.pred.boxes.tensor.isfinite().all() and found.pred.scores.isfinite().all()


def test_a_missing_camera_has_no_say() -> None:
    """Whatever its features are, heat maps and candidates of the others stay the same."""
    model = detector().eval()
    features = features_of(model, [sample_with(missing=(1,))])
    images = tuple(level.clone() for level in features.images)
    for level in images:
        level[:, 1] += torch.randn_like(level[:, 1])
    with torch.no_grad():
        before, after = (model.head(replace(features, images=each)) for each in (features.images, images))
    torch.testing.assert_close(before.heatmap, after.heatmap)
    torch.testing.assert_close(before.camera_queries.heat, after.camera_queries.heat)
    seeing = before.camera_queries.heat[0] > 0
    assert (before.camera_queries.views[0, seeing] != 1).all()
    kept = torch.cat([torch.ones(6, dtype=torch.bool), seeing])
    torch.testing.assert_close(before.fusion.logits[0, kept], after.fusion.logits[0, kept])


def test_without_cameras_only_the_lidar_scores() -> None:
    model = detector(decoder=dict(keep_zero_scores=False)).eval()
    output = model.head(features_of(model, [sample_with(missing=(0, 1, 2))]))
    assert (output.camera_queries.heat == 0).all()
    assert not output.cameras.seeing.any()
    (found,) = model.head.predict_from_output(output)
    assert len(found.boxes) <= 6


def test_without_points_no_cell_looks_at_an_image() -> None:
    model = detector().eval()
    features = features_of(model, [sample_with(num_points=0)])
    assert not features.heights.occupied.any()
    other = replace(features, images=tuple(torch.randn_like(level) for level in features.images))
    torch.testing.assert_close(model.head(features).heatmap, model.head(other).heatmap)


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_frozen_parts_keep_weights_and_buffers(statistics: str) -> None:
    model = detector(frozen=statistics)
    frozen = {name: value.clone() for name, value in model.state_dict().items() if _is_frozen(name)}
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    losses = run(model.train(), [sample_with()], "loss")
    sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
    optimizer.step()
    after = model.state_dict()
    assert frozen and all(torch.equal(after[name], value) for name, value in frozen.items())
    assert not any(value.requires_grad for name, value in model.named_parameters() if _is_frozen(name))
    assert all(value.requires_grad for name, value in model.named_parameters() if not _is_frozen(name))


def _is_frozen(name: str) -> bool:
    parts = ("point_branch.", "head.shared.", "head.class_embedding.", "head.lidar.")
    return name.startswith(parts) and not name.endswith("num_batches_tracked")


def test_frozen_statistics() -> None:
    """In training "batch" normalises by the batch, "running" by what test time uses; at test time both do that."""
    samples, maps = [sample_with()], {}
    models = {each: detector(frozen=each) for each in ("batch", "running")}
    models["running"].load_state_dict(models["batch"].state_dict())
    for name, model in models.items():
        batch = model.data_preprocessor(samples)["batch"]
        maps[name] = [model.train(mode).point_branch(batch).bev for mode in (True, False)]
    torch.testing.assert_close(maps["batch"][1], maps["running"][1])
    torch.testing.assert_close(maps["running"][0], maps["running"][1])
    assert (maps["batch"][0] - maps["batch"][1]).abs().max() > 0.1
    assert all(not each.training for each in models["running"].train().head.lidar.modules())


def test_unknown_options_are_named() -> None:
    with pytest.raises(ValueError, match="every_cell: unknown"):
        detector(every_cell=["tram"])
    with pytest.raises(ValueError, match="lone_queries must be one of"):
        detector(lone_queries="drop")
    with pytest.raises(ValueError, match="frozen: must be one of running, batch"):
        detector(frozen="eval")
    with pytest.raises(ValueError, match="camera_cost must be one of"):
        detector(targets=dict(camera_cost="depth"))
    with pytest.raises(ValueError, match="loss_weights: unknown"):
        detector(loss_weights=dict(iou=1.0))


def test_missing_features_are_named() -> None:
    model = detector().eval()
    features = features_of(model, [sample_with()])
    with pytest.raises(ValueError, match=r"features\.heights is None"):
        model.head(replace(features, heights=None))
    with pytest.raises(ValueError, match=r"features\.images: expected 2 maps, got 1 maps"):
        model.head(replace(features, images=features.images[:1]))
    with pytest.raises(ValueError, match=r"features\.bev: expected \[B, C, \*\[24, 32\]\]"):
        model.head(replace(features, bev=features.bev[..., 1:]))


# -- learning ----------------------------------------------------------------------------------------------------------


def test_it_learns_a_sample_by_heart() -> None:
    model = detector().train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.1
    sample = sample_with(num_boxes=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    inputs = model.data_preprocessor([sample])
    history = []
    for _ in range(25):
        losses = model(**inputs, mode="loss")
        loss = sum(value for name, value in losses.items() if name.startswith("loss_"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({name: value.item() for name, value in losses.items()})
    first, last = history[0], history[-1]
    bounds = dict(heatmap=0.2, image_heatmap=0.2, fusion_class=0.2, fusion_box=0.7, lidar_box=0.95, view_box=0.95)
    for name, share in {**bounds, "camera_depth": 0.8, "camera_center": 0.8}.items():
        assert last[f"loss_{name}"] < share * first[f"loss_{name}"], name
