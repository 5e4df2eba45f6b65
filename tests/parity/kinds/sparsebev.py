"""SparseBEV: boxes, attention, sampling, mixing, decoder layer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from sparse3d.checkpoints import sparsebev as names
from sparse3d.checkpoints.convert import Rules
from sparse3d.decoding.sparsebev import decode_boxes, decode_queries, encode_boxes, encode_queries, inverse_sigmoid
from sparse3d.models import Features
from sparse3d.models.heads.sparsebev_decoder import SparseBEVDecoderLayer
from sparse3d.models.heads.sparsebev_head import start_codes
from sparse3d.models.layers.adaptive_mixing import AdaptiveMixing
from sparse3d.models.layers.adaptive_sampling import AdaptiveSampling, points_around
from sparse3d.models.layers.frame_views import FrameViews
from sparse3d.models.layers.scale_adaptive_attention import ScaleAdaptiveAttention, ground_distances
from sparse3d.structures import Cameras

from ..cases import Case
from ..compare import Comparison, load_state, section, tensors

FLIPPED = 1e-3  # share of points whose camera may change where a projection lies on an image border


def inputs_of(case: Case) -> dict[str, Tensor]:
    return tensors(section(case, "in"))


def prepare(case: Case, module: nn.Module, rules: Rules) -> Comparison:
    load_state(case, module, rules)
    module.eval()
    return Comparison(case, rules)


# -- boxes and queries ---------------------------------------------------------------------------------------------


def check_box_utils(case: Case) -> None:
    comparison, inputs, point_range = Comparison(case), inputs_of(case), case.config["config"]["pc_range"]
    encoded, code = encode_queries(inputs["boxes9"], point_range), encode_boxes(inputs["boxes9"])
    comparison.output("encode_bbox", encoded)
    comparison.output("decode_bbox", decode_queries(encoded, point_range))
    comparison.output("normalize_bbox", code)
    comparison.output("denormalize_bbox", decode_boxes(code))
    comparison.output("make_sample_points", points_around(decode_queries(encoded, point_range), inputs["offset"]))
    comparison.output("inverse_sigmoid", inverse_sigmoid(inputs["inverse_sigmoid_x"]))
    comparison.finish()


def check_head_init(case: Case) -> None:
    theirs = case.arrays["state/init_query_bbox.weight"]
    Comparison(case).close("query codes", start_codes(len(theirs))[:, [0, 1, 2, 5, 8, 9]], theirs)


# -- layers --------------------------------------------------------------------------------------------------------


def check_self_attention(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    attention = ScaleAdaptiveAttention(config["embed_dims"], config["num_heads"])
    comparison = prepare(case, attention, names.ATTENTION)
    queries = inputs["query_feat"].requires_grad_()
    centers = decode_queries(inputs["query_bbox"], config["pc_range"])[..., :2]
    output = attention(queries, centers)
    comparison.output("y", output)
    comparison.output("y_masked", attention(queries, centers, inputs["pre_attn_mask"]))
    comparison.output("dist", -ground_distances(centers))
    comparison.output("tau", attention.tau(queries))
    (output * inputs["loss_weight"]).sum().backward()
    comparison.output("grad_query_feat", queries.grad)
    comparison.gradients(attention)
    comparison.finish()


def check_mixing(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    channels, points = config["embed_dims"], config["num_frames"] * config["num_points"]
    mixing = AdaptiveMixing(channels, config["num_groups"], points, queries_at_once=3)
    comparison = prepare(case, mixing, names.MIXING)
    x, queries = inputs["x"].requires_grad_(), inputs["query"].requires_grad_()
    output = mixing(x, queries)
    comparison.output("y", output)
    (output * inputs["loss_weight"]).sum().backward()
    comparison.output("grad_x", x.grad)
    comparison.output("grad_query", queries.grad)
    comparison.gradients(mixing)
    comparison.finish()


def check_sampling(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    sampling = AdaptiveSampling(config["embed_dims"], config["num_groups"], config["num_points"], config["num_levels"])
    comparison = prepare(case, sampling, names.SAMPLING)
    features, maps = features_of(inputs)
    codes, queries = inputs["query_bbox"].requires_grad_(), inputs["query_feat"].requires_grad_()
    maps[-1].requires_grad_()
    frames = FrameViews.group(features, config["num_frames"])
    boxes = decode_queries(codes, config["pc_range"])
    comparison.output("time_diff", frames.lags)

    points = sampling.points(boxes, queries, frames.lags)
    comparison.output("sampling_points", points.permute(0, 1, 3, 2, 4, 5))
    weights = sampling.weights(queries, config["num_frames"])
    comparison.output("scale_weights_flat", weights.permute(0, 3, 2, 1, 4, 5).flatten(0, 2))
    sampling.own_level_weights = True
    comparison.output("scale_weights", sampling.weights(queries, config["num_frames"])[:, :, :, 0])
    sampling.own_level_weights = False
    same = _check_locations(comparison, sampling.look(points, frames), len(frames.lidar2img[0, 0]))

    output = sampling(boxes, queries, frames)
    theirs = comparison.take("out/sampled_feats")
    comparison.close("sampled_feats", output[same], theirs[same.numpy()])
    (output * inputs["loss_weight"]).sum().backward()
    comparison.output("grad_query_feat", queries.grad)
    comparison.output("grad_query_bbox", codes.grad)
    comparison.output("grad_feat_last_level", maps[-1].grad)
    comparison.gradients(sampling)
    comparison.finish()


def _check_locations(comparison: Comparison, looked: tuple[Tensor, Tensor, Tensor], num_cameras: int) -> Tensor:
    """Compare locations and cameras; return the mask ``[B, Q, G, T P]`` of points whose camera is the same."""
    locations, cameras, _ = looked
    by_slab = torch.cat([locations, cameras[..., None] / (num_cameras - 1)], dim=-1).permute(0, 3, 2, 1, 4, 5, 6)
    ours, theirs = by_slab.flatten(0, 2)[..., 0, :], comparison.take("out/sampling_locations")
    same = np.abs(ours[..., 2].detach().numpy() - theirs[..., 2]) < 0.5 / (num_cameras - 1)
    assert (~same).mean() <= FLIPPED, f"sampling_locations: {(~same).sum()} of {same.size} points look elsewhere"
    comparison.close("sampling_locations", ours[torch.from_numpy(same)], theirs[same])
    in_order = torch.from_numpy(same).view(by_slab.shape[:5]).permute(0, 3, 2, 1, 4)
    return in_order.flatten(3, 4)


def check_decoder_layer(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    layer = SparseBEVDecoderLayer(
        config["pc_range"],
        num_classes=inputs["loss_weight_cls"].shape[-1],
        channels=config["embed_dims"],
        num_frames=config["num_frames"],
        num_points=config["num_points"],
        num_levels=config["num_levels"],
        num_groups=config["num_groups"],
        num_heads=config["num_heads"],
    )
    comparison = prepare(case, layer, names.LAYER)
    frames = FrameViews.group(features_of(inputs)[0], config["num_frames"])
    queries, logits, codes = layer(inputs["query_bbox"], inputs["query_feat"], frames)
    for name, weight, output in (
        ("query_feat", "query", queries),
        ("cls_score", "cls", logits),
        ("bbox_pred", "bbox", codes),
    ):
        comparison.output(name, output)
        (output * inputs[f"loss_weight_{weight}"]).sum().backward(retain_graph=True)
    comparison.gradients(layer)
    comparison.finish()


def features_of(inputs: dict[str, Tensor]) -> tuple[Features, list[Tensor]]:
    """Image features as they are given, and the maps inside."""
    maps = [inputs[name] for name in sorted(inputs) if name.startswith("mlvl_feats/")]
    features = Features(images=tuple(maps), cameras=cameras_of(inputs), image_size=tuple(inputs["image_hw"].tolist()))
    return features, maps


def cameras_of(inputs: dict[str, Tensor]) -> tuple[Cameras, ...]:
    size = inputs["image_hw"].expand(inputs["lidar2img"].shape[1], 2)
    names = [str(number) for number in range(len(size))]
    eye = torch.eye(3).repeat(len(size), 1, 1)
    return tuple(
        Cameras.create(names, eye, matrices, size, times)
        for matrices, times in zip(inputs["lidar2img"], inputs["timestamps_f64"], strict=True)
    )


KINDS = {
    "sparsebev/box_utils": check_box_utils,
    "sparsebev/head_init": check_head_init,
    "sparsebev/self_attention": check_self_attention,
    "sparsebev/adaptive_mixing": check_mixing,
    "sparsebev/sampling": check_sampling,
    "sparsebev/decoder_layer": check_decoder_layer,
}
