"""Weights of the official SparseFusion code (mmdetection3d 0.11's names and boxes) -> ours.

What differs besides the names, with r = -yaw - π/2 the heading in its LiDAR boxes and (w, l, h) their size, and with
ψ the heading about the camera's y axis and (l, h, w) the size in its camera boxes:

    rot        (sin r, cos r) = -(cos yaw, sin yaw): the last layer's outputs change places and signs
    dim        log (w, l, h) there: its first two outputs change places
    camera     (sin ψ, cos ψ) = (-sin yaw, cos yaw) in the level frame, log (l, h, w) there
    view       its positions hold logit((sin r + 1) / 2) = -logit((cos yaw + 1) / 2), and the same for the cosine
    necks      upsampling by 1 is a plain 1x1 convolution there and a transposed one here: the axes change places

Its own LiDAR heat map is computed and not used there; here it does not exist.

`initialise` starts a training as the published one does: from the weights of a LiDAR detector (TransFusion-L) and of an
image detector (Mask R-CNN), each of which knows a part of the model.

Source: github.com/yichen928/SparseFusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ..engine.files import read_checkpoint
from .backbones import FPN, RESNET, SWIN
from .convert import Rules, State, convert_names, drop_kernel, find_state, prefixed
from .initialise import Initialisation, load_known
from .spconv import to_own_layout

STATE_KEYS = ("state_dict",)
REST = r"(.+)"
MAX_BLOCKS = 16  # of a level of the bird's-eye backbone

# -- names -------------------------------------------------------------------------------------------------------------


def _residual(theirs: str, ours: str) -> Rules:
    return [
        (rf"{theirs}\.conv([12])\.{REST}", rf"{ours}.conv\1.\2"),
        (rf"{theirs}\.bn([12])\.{REST}", rf"{ours}.norm\1.\2"),
    ]


# A stage there ends with the strided convolution that a stage here begins with.
ENCODER: Rules = [
    (rf"conv_input\.{REST}", r"stem.\1"),
    *(rule for block in (0, 1) for rule in _residual(rf"encoder_layers\.encoder_layer1\.{block}", f"stages.0.{block}")),
    *(
        rule
        for stage in (2, 3, 4)
        for block in (0, 1)
        for rule in _residual(rf"encoder_layers\.encoder_layer{stage}\.{block}", f"stages.{stage - 1}.{block + 1}")
    ),
    *((rf"encoder_layers\.encoder_layer{stage}\.2\.{REST}", rf"stages.{stage}.0.\1") for stage in (1, 2, 3)),
    (rf"conv_out\.{REST}", r"squeeze.\1"),
]
BEV: Rules = [
    (rf"blocks\.(\d+)\.{3 * block + part}\.{REST}", rf"levels.\1.{block}.{part}.\2")
    for block in range(MAX_BLOCKS)
    for part in (0, 1)
]
BEV_NECK: Rules = [(rf"deblocks\.{REST}", r"necks.\1")]

DEPTH: Rules = [
    (rf"conv_depth\.{REST}", r"stem.\1"),
    (rf"layers\.(\d)\.0\.downsample\.{REST}", r"blocks.\1.shortcut.\2"),
    (rf"layers\.(\d)\.0\.conv([12])\.{REST}", r"blocks.\1.conv\2.\3"),
    (rf"layers\.(\d)\.0\.bn([12])\.{REST}", r"blocks.\1.norm\2.\3"),
    (rf"fuse_layers\.{REST}", r"fusions.\1"),
]

_LAYER: Rules = [
    (rf"self_attn\.in_proj_{REST}", r"layer.self_attention.in_proj.\1"),
    (rf"self_attn\.out_proj\.{REST}", r"layer.self_attention.out_proj.\1"),
    (rf"multihead_attn\.in_proj_{REST}", r"layer.cross_attention.in_proj.\1"),
    (rf"multihead_attn\.out_proj\.{REST}", r"layer.cross_attention.out_proj.\1"),
    (rf"multihead_attn\.sampling_offsets\.{REST}", r"layer.cross_attention.offsets.\1"),
    (rf"multihead_attn\.attention_weights\.{REST}", r"layer.cross_attention.weights.\1"),
    (rf"multihead_attn\.value_proj\.{REST}", r"layer.cross_attention.value.\1"),
    (rf"multihead_attn\.output_proj\.{REST}", r"layer.cross_attention.out.\1"),
    (rf"(linear[12]|norm[123])\.{REST}", r"layer.\1.\2"),
    (rf"self_posembed\.position_embedding_head\.{REST}", r"query_position.\1"),
    (rf"cross_posembed\.position_embedding_head\.{REST}", r"key_position.\1"),
]
_BRANCHES: Rules = [
    (rf"prediction_heads\.([a-z]+)(?:_view)?\.0\.conv\.{REST}", r"branches.\1.0.0.\2"),
    (rf"prediction_heads\.([a-z]+)(?:_view)?\.0\.bn\.{REST}", r"branches.\1.0.1.\2"),
    (rf"prediction_heads\.([a-z]+)(?:_view)?\.1\.{REST}", r"branches.\1.1.\2"),
]
_CAMERA_BRANCHES: Rules = [
    (rf"prediction_heads\.cls\.{REST}", r"class_branch.\1"),
    (rf"prediction_heads\.([a-z]+)_2d\.{REST}", r"branches.\1.\2"),
]


def _layers(theirs: str, *dropped: str) -> Rules:
    """Return the rules of a decoder layer called ``theirs``; what is ``dropped`` is not used there either."""
    return [
        *((rf"{theirs}\.{name}\..+", None) for name in dropped),
        *((rf"{theirs}\.{pattern}", ours) for pattern, ours in _LAYER),
    ]


LIDAR_DECODER: Rules = [*_layers(r"decoder\.0"), *_BRANCHES]
CAMERA_DECODER: Rules = [*_layers(r"decoder\.0"), *_CAMERA_BRANCHES]
VIEW: Rules = [
    (rf"camera_net\.bn\.{REST}", r"gate.norm.\1"),
    (rf"camera_net\.mlp_depth\.{REST}", r"gate.network.\1"),
    (rf"view_projection\.feat_proj\.{REST}", r"projection.0.\1"),
    (rf"view_projection\.norm\.{REST}", r"projection.1.\1"),
    *_layers("decoder", "norm1"),
    *_BRANCHES,
]
FUSION: Rules = [
    *(
        (rf"{theirs}_projection\.{name}\.{REST}", rf"{ours}_projection.{number}.\1")
        for theirs, ours in (("pts", "lidar"), ("img", "camera"))
        for number, name in enumerate(("feat_proj", "norm"))
    ),
    # One network for queries and keys, stored twice.
    (rf"decoder\.0\.self_posembed\.position_embedding_head\.{REST}", r"position.\1"),
    *_layers(r"decoder\.0", "norm1", "cross_posembed"),
    *_BRANCHES,
]
SEMANTIC: Rules = [
    (rf"heatmap_pts_proj\.{REST}", r"cell_projection.\1"),
    (rf"heatmap_img_proj\.{REST}", r"image_projection.\1"),
    *_layers("cross_heatmap_decoder"),
    (rf"reduce_conv\.module\.{REST}", r"reduce.\1"),
    (rf"cross_heatmap_head\.0\.{REST}", r"heatmap.\1"),
]
IMAGE_HEATMAPS: Rules = [
    (rf"img_heatmap_head\.(\d)\.0\.module\.{REST}", r"\1.0.\2"),
    (rf"img_heatmap_head\.(\d)\.1\.{REST}", r"\1.1.\2"),
]
HEAD: Rules = [
    ("level_pos", "level_embedding"),
    (rf"shared_conv\.(?:conv\.)?{REST}", r"shared.\1"),
    (rf"class_encoding\.{REST}", r"class_embedding.\1"),
    (rf"img_class_encoding\.{REST}", r"image_class_embedding.\1"),
    (r"heatmap_head\..+", None),  # not used
    *((theirs, f"semantic.{ours}") for theirs, ours in SEMANTIC),
    *((theirs, f"image_heatmaps.{ours}") for theirs, ours in IMAGE_HEATMAPS),
    *prefixed("point_transformer", "lidar", LIDAR_DECODER),
    *prefixed("img_transformer", "camera", CAMERA_DECODER),
    *prefixed("view_transformer", "view", VIEW),
    *prefixed("fusion_transformer", "fusion", FUSION),
]
TRUNK: Rules = [
    *prefixed("pts_middle_encoder", "point_branch.backbone", ENCODER),
    *prefixed("pts_backbone", "point_branch.bev_backbone", BEV),
    *prefixed("pts_neck", "point_branch.bev_backbone", BEV_NECK),
]
IMAGES: Rules = [
    *prefixed("(?:img_)?backbone", "image_branch.backbone", [*RESNET, *SWIN]),
    *prefixed("(?:img_)?neck", "image_branch.neck", FPN),
]
DETECTOR: Rules = [
    *TRUNK,
    *IMAGES,
    *prefixed(r"pts_bbox_head\.depth_resnet", "image_branch.depth", DEPTH),
    *prefixed("pts_bbox_head", "head", HEAD),
]
# TransFusion-L: the layer and its predictions lie directly in the head.
LIDAR_DETECTOR: Rules = [
    *TRUNK,
    *prefixed(r"pts_bbox_head", "head.lidar", _layers(r"decoder\.0")),
    *(
        (pattern.replace("prediction_heads", r"pts_bbox_head\.prediction_heads\.0"), f"head.lidar.{ours}")
        for pattern, ours in _BRANCHES
    ),
    *prefixed("pts_bbox_head", "head", HEAD),
]

# -- values ------------------------------------------------------------------------------------------------------------


def convert(state: Mapping[str, Tensor]) -> State:
    """Bring a whole official ``state_dict`` to the names and boxes of our ``Detector3D``.

    Raises:
        ValueError: if an entry is unknown; all of them are listed.
    """
    return to_our_boxes(convert_names(state, DETECTOR))


def to_our_boxes(state: Mapping[str, Tensor]) -> State:
    """Undo what differs from the original besides names; see the top of the file."""
    return {name: _adapt(name, value) for name, value in state.items()}


def _adapt(name: str, value: Tensor) -> Tensor:
    if "camera.branches.rot.4." in name:
        return value * value.new_tensor([-1.0, 1.0]).view(-1, *[1] * (value.ndim - 1))
    if "camera.branches.dim.4." in name:
        return value[[0, 2, 1]]
    if "branches.rot.1." in name:
        return -value.flip(0)
    if "branches.dim.1." in name:
        return value[[1, 0, 2]]
    if name.endswith(("view.query_position.0.weight", "view.key_position.0.weight")):
        heading = -value[:, 3:5].flip(1)
        return drop_kernel(value.clone().index_copy_(1, value.new_tensor([3, 4]).long(), heading), 2)
    if "bev_backbone.necks." in name and value.ndim == 4 and value.shape[-2:] == (1, 1):
        return value.transpose(0, 1)
    return value


# -- a start from two detectors ----------------------------------------------------------------------------------------


def initialise(
    detector: nn.Module, lidar: str | Path | None = None, images: str | Path | None = None, *, trusted: bool = False
) -> Initialisation:
    """Load what a LiDAR detector and an image detector know into a SparseFusion detector.

    Args:
        detector: takes the values.
        lidar: checkpoint of TransFusion-L as published.
        images: checkpoint of a detector of mmdetection or mmdetection3d, of which backbone and neck count.
        trusted: read pickled objects as well, which can run any code.

    Raises:
        CheckpointError: if a file is missing or damaged, or holds objects and is not ``trusted``.
        ValueError: if a file knows nothing of this model, or a tensor has another shape than its namesake here.
    """
    files = {
        str(path): (find_state(read_checkpoint(path, trusted=trusted), path, *STATE_KEYS), rules)
        for path, rules in ((lidar, LIDAR_DETECTOR), (images, IMAGES))
        if path is not None
    }
    return load_known(detector, files, lambda state: to_own_layout(to_our_boxes(state), detector))
