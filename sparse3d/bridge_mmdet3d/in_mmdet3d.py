"""sparse3d in configs of mmdetection3d: named `sparse3d.<class>`, with its calling conventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet3d.models.detectors import Base3DDetector
from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModule
from torch import Tensor
from torch.utils.data import Dataset

from sparse3d_ops.sparse import SparseTensor

from ..checkpoints.centerpoint import REST, residual_rules
from ..checkpoints.convert import Rules
from ..config import load_config
from ..datasets.sampling import Draw
from ..models.bev.scatter import scatter_to_bev, stack_layers
from ..models.features import Features
from ..registry import DATASETS, MODELS
from ..structures import Grid, Sample
from ..zoo import find_config
from .scopes import ours
from .structures import detections_to_mmdet3d, pack, unpack

STAGES = range(1, 5)
# Parameters of mmdetection3d's `SparseEncoder` with `block_type="basicblock"`, on spconv 2 -> those of our encoder.
# The strided layer that ends a stage there begins the next one here.
ENCODER_NAMES: Rules = [
    (rf"conv_input\.{REST}", r"stem.\1"),
    *(
        rule
        for stage in STAGES
        for block in (0, 1)
        for rule in residual_rules(
            rf"encoder_layers\.encoder_layer{stage}\.{block}", f"stages.{stage - 1}.{block + (stage > 1)}"
        )
    ),
    *((rf"encoder_layers\.encoder_layer{stage}\.2\.{REST}", rf"stages.{stage}.0.\1") for stage in STAGES[:-1]),
    (rf"conv_out\.{REST}", r"squeeze.\1"),
]

COLLATE = dict(type="mmdet3d.Det3DDataPreprocessor")  # moves to the device; our own preprocessor does the rest


@MODELS.register_module()
class BridgedDetector(Base3DDetector):
    """A whole detector of sparse3d that takes and returns ``Det3DDataSample``s.

    The class names of its head have to stand in the order of the data set's ``metainfo["classes"]``.

    Args:
        config: a name of the zoo (``tools/zoo.py`` lists them) or the path of a config file of sparse3d, of which the
            model is taken.
        options: overrides of that config, e.g. ``{"grid.voxel_size": [0.1, 0.1, 0.2]}``.
        data_preprocessor: mmdetection3d's, which must neither voxelize nor normalise.

    Raises:
        FileNotFoundError: if there is no such config.
        ValueError: if the detector looks at earlier frames, whose times a ``Det3DDataSample`` does not hold.
    """

    def __init__(
        self,
        config: str | Path,
        options: Mapping[str, Any] | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor or COLLATE, init_cfg=init_cfg)
        settings = load_config(find_config(config), options)
        if settings.get("past"):
            raise ValueError(f"BridgedDetector: {config} looks {settings.past} s back, and only one moment is bridged")
        self.detector = MODELS.build(ours(settings.model))

    def loss(
        self, batch_inputs_dict: Mapping[str, Any], batch_data_samples: Sequence[Det3DDataSample], **kwargs: Any
    ) -> dict[str, Tensor]:
        """Return the losses by name; data samples carry ``gt_instances_3d``."""
        return self._run(batch_inputs_dict, batch_data_samples, "loss")

    def predict(
        self, batch_inputs_dict: Mapping[str, Any], batch_data_samples: Sequence[Det3DDataSample], **kwargs: Any
    ) -> list[Det3DDataSample]:
        """Return the data samples with ``pred_instances_3d``, where the points are."""
        samples = self._run(batch_inputs_dict, batch_data_samples, "predict")
        return self.add_pred_to_datasample(batch_data_samples, [detections_to_mmdet3d(each.pred) for each in samples])

    def extract_feat(
        self, batch_inputs_dict: Mapping[str, Any], batch_data_samples: Sequence[Det3DDataSample]
    ) -> Features:
        """Return what the branches make."""
        prepared = self._prepare(batch_inputs_dict, batch_data_samples, training=False)
        return self.detector.extract_features(prepared["batch"])

    def _forward(
        self, batch_inputs_dict: Mapping[str, Any], batch_data_samples: Sequence[Det3DDataSample], **kwargs: Any
    ) -> Any:
        """Return the head's raw output."""
        return self._run(batch_inputs_dict, batch_data_samples, "tensor")

    def _run(self, inputs: Mapping[str, Any], data_samples: Sequence[Det3DDataSample], mode: str) -> Any:
        return self.detector(**self._prepare(inputs, data_samples, training=mode == "loss"), mode=mode)

    def _prepare(
        self, inputs: Mapping[str, Any], data_samples: Sequence[Det3DDataSample], training: bool
    ) -> dict[str, Any]:
        names = {"points": "points", "img": "imgs"}  # of a sample, of a batch
        return self.detector.data_preprocessor(
            [
                unpack({name: inputs[many][row] for name, many in names.items() if many in inputs}, data_sample)
                for row, data_sample in enumerate(data_samples)
            ],
            training,
        )


@MODELS.register_module()
class SparseMiddleEncoder(BaseModule):
    """A sparse-convolution encoder of sparse3d in the place of mmdetection3d's ``SparseEncoder``, without spconv.

    Encoders with losses of their own (focal convolutions) are not trained by these here; a whole detector is.

    Args:
        encoder: config of an encoder, e.g. of our ``SparseEncoder``; bare names in it are ours. ``ENCODER_NAMES``
            brings trained weights of theirs.
    """

    def __init__(self, encoder: Mapping[str, Any], init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.encoder = MODELS.build(ours(encoder))

    def forward(
        self,
        voxel_features: Tensor,  # [V, C]
        coors: Tensor,  # [V, 4]
        batch_size: int | Tensor,
    ) -> Tensor:  # [B, C' * Z, Y, X]
        """Return the bird's-eye map, layers stacked as mmdetection3d does.

        Args:
            voxel_features: ``[V, C]``, voxels in any order.
            coors: ``[V, 4]`` integer ``(batch, z, y, x)``.
            batch_size: number of samples.
        """
        x = SparseTensor.coalesce(voxel_features, coors.int(), self.encoder.spatial_shape, int(batch_size))
        return stack_layers(self.encoder(x)[0])


@MODELS.register_module()
class PillarMiddleEncoder(BaseModule):
    """A backbone of sparse3d on voxels of a single layer, e.g. ``DSVT``, in the place of ``PointPillarsScatter``.

    Args:
        grid: the grid of the pillars.
        backbone: config of a backbone; bare names in it are ours.
    """

    def __init__(self, grid: Grid | Mapping[str, Any], backbone: Mapping[str, Any], init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.shape = Grid.build(grid).bev_shape
        self.backbone = MODELS.build(ours(backbone))

    def forward(
        self,
        voxel_features: Tensor,  # [V, C]
        coors: Tensor,  # [V, 4]
        batch_size: int | Tensor,
    ) -> Tensor:  # [B, C', Y, X]
        """Return the bird's-eye map; arguments as of ``SparseMiddleEncoder``."""
        features, coords = self.backbone(voxel_features, coors.int(), int(batch_size))
        return scatter_to_bev(features, coords, int(batch_size), self.shape)


@DATASETS.register_module()
class PackedDataset(Dataset):
    """A data set of sparse3d, its index and its transforms, for models of mmdetection3d.

    Training needs our sampler (``sparse3d.DefaultSampler``), which tells the epoch that augmentation depends on.

    Args:
        dataset: config of a data set; bare names in it are ours.
    """

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        self.dataset = DATASETS.build(ours(dataset))
        self.metainfo = self.dataset.metainfo

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: int | Draw) -> dict[str, Any]:
        """Return ``dict(inputs, data_samples)``; ``sample_idx`` counts the samples."""
        sample: Sample = self.dataset[item]
        packed = pack(sample)
        packed["data_samples"].set_metainfo({"sample_idx": int(item)})
        return packed
