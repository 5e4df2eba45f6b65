"""Time a detector stage by stage: voxelize, encode, partition, each block, image backbone, map, head, decode.

    python tools/benchmark_model.py configs/dsvt/dsvt_pillar_nuscenes.py --json times.json
    python tools/benchmark_model.py configs/matrixvt/matrixvt_r50_256x704_24e_ema_cbgs.py
    python tools/benchmark_model.py CONFIG --data DIR --precision bf16

Without `--data` the sample is made up: ten sweeps of 32 beams for nuScenes, 64 beams for Waymo, noise for images.
Weights are random, which costs the same. A DSVT backbone is timed against its straightforward form too, with the same
weights on the same scan: positions embedded for every voxel, one padded `nn.MultiheadAttention` a layer, gathers before
the projections.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sparse3d  # noqa: F401  # before torch: it says how threads wait

# isort: split
import numpy as np
import torch
from benchmark_ops import machine
from common import add_config, read_config
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from sparse3d.analysis.samples import made_up_sample
from sparse3d.datasets.frame_dataset import open_frames
from sparse3d.datasets.transforms import Compose
from sparse3d.models import DSVT, Detector3D
from sparse3d.models.points.dsvt_layers import SetAttentionLayer
from sparse3d.progress import track
from sparse3d.registry import MODELS
from sparse3d.structures import Sample, Voxels
from sparse3d_ops import Sets
from sparse3d_ops.sets import used_layouts

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WHOLE, BACKBONE = "whole model", "DSVT backbone"
TOLERANCE = 1e-3  # of the two forms of the backbone, whose sums run in another order


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a stage: median and 90th percentile."""

    stage: str
    median: float
    p90: float


class Stopwatch:
    """Collects the seconds of named stages; on a GPU it waits for the kernels."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = defaultdict(list)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start = self._now()
        yield
        self.seconds[name].append(self._now() - start)

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Time every call of a method of an object, or of a module's ``forward``."""
        function = getattr(owner, attribute)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        setattr(owner, attribute, timed)

    def timings(self) -> list[Timing]:
        """Return the stages in the order in which they were first met."""
        return [
            Timing(name, *(np.percentile(values, (50, 90)) * 1e3).round(3).tolist())
            for name, values in self.seconds.items()
        ]

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def main() -> None:
    """Time the config's model and print a table."""
    arguments = parse_arguments()
    config = read_config(arguments)
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    detector = MODELS.build(config.model).eval().to(device)
    sample = made_up_sample(config) if arguments.data is None else load_sample(config, arguments.data)
    cast = torch.autocast(device.type, DTYPES[arguments.precision], enabled=arguments.precision != "fp32")
    with torch.inference_mode(), cast:
        voxels = detector.data_preprocessor([sample])["batch"].voxels
        comparable = voxels is not None and arguments.precision == "fp32"
        ratio = compare_backbone(detector, voxels, arguments.runs) if comparable else {}
        timings, memory = time_stages(detector, sample, arguments.runs)
    result = {
        "config": str(arguments.config),
        **describe(sample, voxels),
        "precision": arguments.precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "machine": machine(),
        "stages": [vars(timing) for timing in timings],
        "peak_memory_mb": memory,
        **ratio,
    }
    report(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser)
    parser.add_argument("--data", type=Path, help="folder with an index or an info file whose first frame is timed")
    parser.add_argument("--runs", type=int, default=10, help="how often (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32", help="autocast to it (default: fp32)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the times to this file")
    return parser.parse_args()


def load_sample(config: Config, folder: Path) -> Sample:
    """Return the first frame of a folder after the config's test pipeline."""
    indexes = sorted(folder.glob("sparse3d_*.arrow")) or sorted(folder.glob("*.pkl"))
    if not indexes:
        raise SystemExit(
            f"benchmark_model: {folder} holds neither an index (sparse3d_*.arrow) nor an info file (*.pkl)"
        )
    frame = open_frames(folder, indexes[0])[0]
    return Compose(config.test_dataloader.dataset.pipeline)(Sample.from_frame(frame), np.random.default_rng(0))


def describe(sample: Sample, voxels: Voxels | None) -> dict[str, int]:
    """Return what there is of a sample."""
    counts = {} if voxels is None else {"points": len(sample.points), "voxels": len(voxels.coords)}
    return {**counts, "images": len(sample.cameras)} if "cameras" in sample else counts


# -- stages ------------------------------------------------------------------------------------------------------------


def time_stages(detector: Detector3D, sample: Sample, runs: int) -> tuple[list[Timing], float]:
    """Return the times of all stages and the peak of memory in MB, after one run that warms up."""
    device = next(detector.parameters()).device
    predict(detector, sample, Stopwatch(device))
    watch = Stopwatch(device)
    if detector.image_branch is not None:
        for name, part in detector.image_branch.named_children():
            watch.watch(part, "forward", f"images: {name.replace('_', ' ')}")
    if detector.point_branch is not None:
        watch_points(watch, detector.point_branch)
    watch.watch(detector.head, "forward", "head")
    with peak_memory(device) as memory:
        for _ in track(range(runs), "timing stages"):
            predict(detector, sample, watch)
    return watch.timings(), memory()


def watch_points(watch: Stopwatch, branch: nn.Module) -> None:
    """Time the parts of a point branch."""
    watch.watch(branch.voxel_encoder, "forward", "encode points")
    if isinstance(branch.backbone, DSVT):
        watch.watch(branch.backbone, "index", "partition")
        for stage, blocks in enumerate(branch.backbone.stages):
            if stage:
                watch.watch(branch.backbone.poolings[stage - 1], "forward", f"pooling {stage}")
            for number, block in enumerate(blocks):
                watch.watch(block, "forward", f"block {stage}.{number}")
    elif branch.backbone is not None:
        watch.watch(branch.backbone, "forward", "sparse backbone")
    if hasattr(branch, "bev_backbone"):  # not all make a dense map
        watch.watch(branch.bev_backbone, "forward", "map backbone")


def predict(detector: Detector3D, sample: Sample, watch: Stopwatch) -> None:
    """Run a detector on a sample; decoding is what the head's prediction takes besides its network."""
    with watch.stage(WHOLE):
        with watch.stage("voxelize" if detector.image_branch is None else "preprocess"):
            batch = detector.data_preprocessor([sample])["batch"]
        features = detector.extract_features(batch)
        before = len(watch.seconds["head"])
        with watch.stage("decode"):
            detector.head.predict(features, [sample])
    if before < len(watch.seconds["head"]):
        watch.seconds["decode"][-1] -= watch.seconds["head"][-1]


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], float]]:
    """Give a function that returns the peak of memory in MB since the start: the GPU's, or the process's resident set.

    Where the operating system keeps no such mark that can be reset (it is Linux that does), the peak is that of the
    process's whole life.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device) / 1e6
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    yield _resident_peak


def _resident_peak() -> float:
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


# -- the straightforward form ------------------------------------------------------------------------------------------


def compare_backbone(detector: Detector3D, voxels: Any, runs: int) -> dict[str, float]:
    """Return the median milliseconds of a DSVT backbone in its own and in the straightforward form, and their ratio.

    The two alternate, so that whatever else the machine does hits both alike.

    Raises:
        RuntimeError: if they do not compute the same.
    """
    backbone = detector.point_branch.backbone
    if not isinstance(backbone, DSVT):
        return {}
    features = detector.point_branch.voxel_encoder(voxels)
    forms = {"ours": backbone, "straightforward": Straightforward(backbone).eval()}
    results = {name: form(features, voxels.coords, 1)[0] for name, form in forms.items()}
    error = float((results["ours"] - results["straightforward"]).abs().max())
    if not error <= TOLERANCE:
        raise RuntimeError(f"the two forms of the backbone differ by {error:.1e}")
    watch = Stopwatch(features.device)
    for _ in track(range(runs), "timing both forms"):
        for name, form in forms.items():
            with watch.stage(name):
                form(features, voxels.coords, 1)
    ours, theirs = (timing.median for timing in watch.timings())
    return {"backbone_ms": ours, "straightforward_ms": theirs, "ratio": theirs / ours, "difference": error}


class Straightforward(nn.Module):
    """A DSVT backbone as one would first write it; weights are shared."""

    def __init__(self, backbone: DSVT) -> None:
        super().__init__()
        self.backbone = backbone
        self.attentions = nn.ModuleDict()
        for stage, blocks in enumerate(backbone.stages):
            for number, block in enumerate(blocks):
                for which, layer in enumerate(block.layers):
                    self.attentions[f"{stage}_{number}_{which}"] = as_torch_attention(layer)

    def forward(self, features: Tensor, coords: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """Run all stages."""
        x, backbone = features, self.backbone
        indices = backbone.index(coords, batch_size)
        for stage, (index, used) in enumerate(zip(indices, used_layouts(backbone.specs), strict=True)):
            if index.pooling is not None:
                x = backbone.poolings[stage - 1](index.pooling.fill(x))
            for number, (block, layout) in enumerate(zip(backbone.stages[stage], used, strict=True)):
                y = x
                for which, layer in enumerate(block.layers):
                    positions, cells = backbone._positions(stage, layout, index)[which]
                    sets = index.layouts[layout].sets[which]
                    attention = self.attentions[f"{stage}_{number}_{which}"]
                    y = run_layer(layer, attention, y, layer.position(positions[cells]), sets)
                x = block.norm(y + x)
        return x, indices[-1].coords


def as_torch_attention(layer: SetAttentionLayer) -> nn.MultiheadAttention:
    """Return torch's own attention with a layer's weights."""
    own = layer.attention
    attention = nn.MultiheadAttention(own.out_proj.in_features, own.num_heads, batch_first=True)
    attention.in_proj_weight, attention.in_proj_bias = own.in_proj.weight, own.in_proj.bias
    attention.out_proj = own.out_proj
    return attention


def run_layer(
    layer: SetAttentionLayer, attention: nn.MultiheadAttention, x: Tensor, position: Tensor, sets: Sets
) -> Tensor:
    """Run one layer: gather, attend on padded sets, scatter, feed forward."""
    matched = x[sets.index] + position[sets.index]
    attended, _ = attention(matched, matched, x[sets.index], key_padding_mask=sets.mask, need_weights=False)
    scattered = torch.empty_like(x)
    scattered[sets.index.flatten()] = attended.flatten(0, 1)
    y = layer.norm1(x + scattered)
    y = layer.norm2(y + layer.linear2(layer.activation(layer.linear1(y))))
    return layer.norm3(x + y)


# -- report ------------------------------------------------------------------------------------------------------------


def report(result: dict[str, Any]) -> None:
    """Print the times."""
    counts = [f"{result[name]} {name}" for name in ("points", "voxels", "images") if name in result]
    table = Table("stage", "median ms", "90 % ms", title=", ".join(counts))
    for stage in sorted(result["stages"], key=lambda stage: stage["stage"] == WHOLE):
        table.add_row(stage["stage"], f"{stage['median']:.2f}", f"{stage['p90']:.2f}")
    console = Console()
    console.print(table)
    console.print(f"peak memory {result['peak_memory_mb']:.0f} MB ({result['device']}, {result['precision']})")
    if "ratio" in result:
        console.print(
            f"{BACKBONE}: {result['backbone_ms']:.1f} ms, straightforward form {result['straightforward_ms']:.1f} ms, "
            f"ratio {result['ratio']:.2f}; they differ by {result['difference']:.1e}"
        )


if __name__ == "__main__":
    main()
