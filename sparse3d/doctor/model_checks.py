"""Checks that run things: the pipeline on a few samples, and the model on one batch, there and back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from mmengine.model import BaseModel
from torch import Tensor

from ..registry import MODELS
from ..structures import Sample
from .config_checks import GIGABYTE, device_memory
from .subject import NOTE, OK, PROBLEM, Finding, Subject

NUM_SAMPLES = 3
BYTES_A_PARAMETER = 16  # weight, gradient and Adam's two moments in float32


def check_samples(subject: Subject) -> Iterator[Finding]:
    """The training pipeline makes samples with points and objects, all of them finite."""
    rows = subject.chosen_rows(len(subject.dataset))[:NUM_SAMPLES]
    start = time.perf_counter()
    samples = [subject.dataset[row] for row in rows]
    seconds = (time.perf_counter() - start) / len(rows)
    subject.samples = samples
    for sample in samples:
        yield from _check_finite(sample)
    objects = [len(sample.gt.labels) for sample in samples if "gt" in sample]
    points = [len(sample.points) for sample in samples if "points" in sample]
    text = f"{len(rows)} samples, {seconds:.2f} s each, with {objects} objects and {points} points"
    if not any(objects):
        yield Finding("samples", PROBLEM, text, "look at what the pipeline does: tools/browse_dataset.py CONFIG")
    elif points and not all(points):
        yield Finding("samples", PROBLEM, text, "no point is left: look at grid.point_range and the point filters")
    else:
        yield Finding("samples", OK, text)


def _check_finite(sample: Sample) -> Iterator[Finding]:
    parts = {"points": sample.get("points"), "gt.boxes": sample.gt.boxes.tensor[:, :7] if "gt" in sample else None}
    for name, values in parts.items():
        if values is not None and not bool(values.isfinite().all()):
            text = f"sample {sample.frame.token}: {name} hold NaN or infinity after the pipeline"
            yield Finding("samples", PROBLEM, text, "look at the transforms of train_pipeline, one after the other")


def check_model(subject: Subject) -> Iterator[Finding]:
    """The model takes a batch of one, its losses are finite, and each of its parameters gets a gradient."""
    model: BaseModel = MODELS.build(subject.config.model)
    model.init_weights()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    start = time.perf_counter()
    saved = SavedBytes(model)
    with saved:
        losses = model(**model.data_preprocessor(subject.samples[:1], training=True), mode="loss")
        loss, _ = model.parse_losses(losses)
    loss.backward()
    seconds = time.perf_counter() - start
    values = {name: float(value.detach().sum()) for name, value in losses.items() if isinstance(value, Tensor)}
    text = f"one step of one sample in {seconds:.1f} s, losses " + ", ".join(f"{k} {v:.3g}" for k, v in values.items())
    if not all(torch.isfinite(torch.tensor(list(values.values())))):
        yield Finding("model", PROBLEM, text, "a loss is not finite: start from smaller weights or a lower rate")
        return
    yield Finding("model", OK, text)
    yield from _check_gradients(model)
    yield _estimate_memory(model, saved.total, subject.config.train_dataloader.batch_size)
    predictions = model.eval().test_step(subject.samples[:1])
    yield Finding("model", OK, f"untrained, it predicts {len(predictions[0].pred.scores)} boxes")


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts what autograd keeps for the backward pass: ``total`` bytes, each storage once, parameters left out."""

    def __init__(self, model: BaseModel) -> None:
        self._storages: dict[int, int] = {}
        self._parameters = {each.untyped_storage().data_ptr() for each in model.parameters()}
        super().__init__(self._keep, lambda tensor: tensor)

    @property
    def total(self) -> int:
        """Bytes of all storages that were kept."""
        return sum(self._storages.values())

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._parameters:
            self._storages[storage.data_ptr()] = storage.nbytes()
        return tensor


def _check_gradients(model: BaseModel) -> Iterator[Finding]:
    idle = [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]
    if idle:
        text = f"{len(idle)} parameters got no gradient, first {idle[0]}"
        advice = "set find_unused_parameters=True for distributed training, or freeze what is not meant to learn"
        yield Finding("model", NOTE, text, advice)


def _estimate_memory(model: BaseModel, activations: int, batch_size: int) -> Finding:
    """Estimate from the bytes that one sample keeps for its backward pass."""
    parameters = sum(each.numel() for each in model.parameters())
    total = BYTES_A_PARAMETER * parameters + batch_size * activations
    text = (
        f"{parameters / 1e6:.2f} M parameters; training with {batch_size} samples a process keeps about "
        f"{total / GIGABYTE:.1f} GB ({activations / GIGABYTE:.2f} GB a sample)"
    )
    if total > device_memory():
        advice = "lower train_dataloader.batch_size, use --amp, or a coarser grid"
        return Finding("model", PROBLEM, f"{text}, more than the {device_memory() / GIGABYTE:.1f} GB there are", advice)
    return Finding("model", OK, text)
