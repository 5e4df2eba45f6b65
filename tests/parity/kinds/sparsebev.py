"""SparseBEV: boxes, attention, sampling, mixing, decoder, head, targets, losses, image branch, the whole detector."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparse3d.checkpoints import sparsebev as names
from sparse3d.checkpoints.backbones import EVA02 as EVA02_NAMES
from sparse3d.checkpoints.backbones import VOVNET
from sparse3d.checkpoints.convert import Rules
from sparse3d.datasets.transforms import CropImages, FlipImages, ResizeImages, frame_cameras, move_boxes, warp_image
from sparse3d.decoding.sparsebev import (
    TopKDecoder,
    decode_boxes,
    decode_queries,
    encode_boxes,
    encode_queries,
    inverse_sigmoid,
)
from sparse3d.models import Features, GroundTruth, ImageBranch, SparseBEVHead, VoVNet
from sparse3d.models.heads.sparsebev_decoder import SparseBEVDecoderLayer
from sparse3d.models.heads.sparsebev_head import SparseBEVOutput, start_codes
from sparse3d.models.images.eva02 import rotary_table
from sparse3d.models.layers.adaptive_mixing import AdaptiveMixing
from sparse3d.models.layers.adaptive_sampling import AdaptiveSampling, points_around
from sparse3d.models.layers.frame_views import FrameViews
from sparse3d.models.layers.scale_adaptive_attention import ScaleAdaptiveAttention, ground_distances
from sparse3d.models.targets.denoising import DenoisingQueries, Noise
from sparse3d.models.targets.sparsebev_targets import SparseBEVTargetAssigner
from sparse3d.registry import MODELS
from sparse3d.structures import Boxes3D, CameraImage, Cameras, Frame, InstanceData, LidarScan, Sample

from ..cases import Case
from ..compare import Comparison, assert_equal, load_state, section, tensors

FLIPPED = 1e-3  # share of points whose camera may change where a projection lies on an image border
GREY_LEVELS = 1.0  # mean distance of resized images; Pillow rounds its filter in its own way


def _inputs(case: Case) -> dict[str, Tensor]:
    return tensors(section(case, "in"))


def _prepare(case: Case, module: nn.Module, rules: Rules) -> Comparison:
    load_state(case, module, rules)
    module.eval()
    return Comparison(case, rules)


# -- boxes and queries ---------------------------------------------------------------------------------------------


def check_box_utils(case: Case) -> None:
    comparison, inputs, point_range = Comparison(case), _inputs(case), case.config["config"]["pc_range"]
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
    config, inputs = case.config["config"], _inputs(case)
    attention = ScaleAdaptiveAttention(config["embed_dims"], config["num_heads"])
    comparison = _prepare(case, attention, names.ATTENTION)
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
    config, inputs = case.config["config"], _inputs(case)
    channels, points = config["embed_dims"], config["num_frames"] * config["num_points"]
    mixing = AdaptiveMixing(channels, config["num_groups"], points, queries_at_once=3)
    comparison = _prepare(case, mixing, names.MIXING)
    x, queries = inputs["x"].requires_grad_(), inputs["query"].requires_grad_()
    output = mixing(x, queries)
    comparison.output("y", output)
    (output * inputs["loss_weight"]).sum().backward()
    comparison.output("grad_x", x.grad)
    comparison.output("grad_query", queries.grad)
    comparison.gradients(mixing)
    comparison.finish()


def check_sampling(case: Case) -> None:
    config, inputs = case.config["config"], _inputs(case)
    sampling = AdaptiveSampling(config["embed_dims"], config["num_groups"], config["num_points"], config["num_levels"])
    comparison = _prepare(case, sampling, names.SAMPLING)
    features, maps = _features(inputs)
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
    config, inputs = case.config["config"], _inputs(case)
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
    comparison = _prepare(case, layer, names.LAYER)
    frames = FrameViews.group(_features(inputs)[0], config["num_frames"])
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


def _features(inputs: dict[str, Tensor]) -> tuple[Features, list[Tensor]]:
    """Image features as they are given, and the maps inside."""
    maps = [inputs[name] for name in sorted(inputs) if name.startswith("mlvl_feats/")]
    features = Features(images=tuple(maps), cameras=_cameras(inputs), image_size=tuple(inputs["image_hw"].tolist()))
    return features, maps


def _cameras(inputs: dict[str, Tensor]) -> tuple[Cameras, ...]:
    size = inputs["image_hw"].expand(inputs["lidar2img"].shape[1], 2)
    names = [str(number) for number in range(len(size))]
    eye = torch.eye(3).repeat(len(size), 1, 1)
    return tuple(
        Cameras.create(names, eye, matrices, size, times)
        for matrices, times in zip(inputs["lidar2img"], inputs["timestamps_f64"], strict=True)
    )


# -- head ----------------------------------------------------------------------------------------------------------


def check_head_forward(case: Case) -> None:
    head = MODELS.build(_head(case.config["head_config"], case.config["config"]))
    comparison = _prepare(case, head, names.HEAD)
    with torch.no_grad():
        output = head(_features(_inputs(case))[0])
        _check_output(comparison, head, output)
    comparison.finish()


def _check_output(comparison: Comparison, head: SparseBEVHead, output: SparseBEVOutput) -> None:
    comparison.output("all_cls_scores", output.logits)
    comparison.output("all_bbox_preds", output.codes)
    for number, own in enumerate(head.predict_from_output(output)):
        own.boxes = Boxes3D(own.boxes.to_mmdet3d())
        _check_detections(comparison, f"det/{number}", own)


def check_bbox_coder(case: Case) -> None:
    config, comparison, inputs = case.config["config"], Comparison(case), _inputs(case)
    decoder = TopKDecoder(config["post_center_range"], config["max_num"], config["score_threshold"])
    found = decoder(inputs["all_cls_scores"][-1], inputs["all_bbox_preds"][-1])
    for number, own in enumerate(found):
        _check_detections(comparison, str(number), InstanceData(**vars(own)))
    comparison.finish()


def _check_detections(comparison: Comparison, name: str, ours: InstanceData) -> None:
    """Scores may tie, so detections are matched by box and class."""
    boxes, labels = comparison.take(f"out/{name}/bboxes"), comparison.take(f"out/{name}/labels")
    assert len(ours.labels) == len(labels), f"{name}: {len(ours.labels)} detections, expected {len(labels)}"
    tables = np.c_[boxes, 1e3 * labels], np.c_[ours.boxes.numpy(), 1e3 * ours.labels.numpy()]
    match = np.abs(tables[0][:, None] - tables[1][None]).max(axis=2).argmin(axis=1)
    assert_equal(f"{name}: rows of ours that theirs are nearest to", np.sort(match), np.arange(len(labels)))
    comparison.close(f"{name}/bboxes", ours.boxes.tensor[match], boxes)
    assert_equal(f"{name}/labels", ours.labels[match], labels)
    comparison.output(f"{name}/scores", ours.scores[match])
    assert bool((ours.scores.diff() <= 0).all()), f"{name}: scores are not in descending order"


def _head(head: dict[str, Any], config: dict[str, Any] | None = None) -> dict[str, Any]:
    """Our config of their head; the number of groups, heads and levels is fixed in their code."""
    transformer, coder = head["transformer"], head["bbox_coder"]
    assert (head["loss_cls"]["gamma"], head["loss_cls"]["alpha"]) == (2.0, 0.25)
    return dict(
        type="SparseBEVHead",
        grid=dict(point_range=transformer["pc_range"], voxel_size=_voxel_size(transformer["pc_range"])),
        class_names=[str(number) for number in range(head["num_classes"])],
        decoder=dict(
            center_range=coder["post_center_range"], top_k=coder["max_num"], score_threshold=coder["score_threshold"]
        ),
        num_queries=head["num_query"],
        num_frames=transformer["num_frames"],
        channels=transformer["embed_dims"],
        num_layers=transformer["num_layers"],
        layer=dict(
            num_points=transformer["num_points"],
            num_levels=transformer["num_levels"],
            num_groups=(config or {}).get("num_groups", 4),
            num_heads=(config or {}).get("num_heads", 8),
        ),
        denoising=dict(num_groups=head["query_denoising_groups"]),
        targets=_costs(head.get("train_cfg")),
        loss_weights={"class": head["loss_cls"]["loss_weight"], "box": head["loss_bbox"]["loss_weight"]},
        code_weights=head["code_weights"],
        unknown_velocity="left_out",
    )


def _costs(config: dict[str, Any] | None) -> dict[str, float]:
    if config is None:
        return {}  # the whole detector is given without what only training needs
    costs = config["assigner"]
    assert costs["iou_cost"]["weight"] == 0
    return dict(class_cost=costs["cls_cost"]["weight"], box_cost=costs["reg_cost"]["weight"])


def _voxel_size(point_range: list[float]) -> list[float]:
    """Their head knows no voxels; one fills the range."""
    return [high - low for low, high in zip(point_range[:3], point_range[3:], strict=True)]


# -- targets and losses --------------------------------------------------------------------------------------------


def check_assigner(case: Case) -> None:
    config, comparison, inputs = case.config["config"], Comparison(case), _inputs(case)
    assigner = SparseBEVTargetAssigner(
        class_cost=config["cls_weight"],
        box_cost=config["reg_weight"],
        code_weights=inputs["code_weights"].tolist(),
        alpha=config["alpha"],
        gamma=config["gamma"],
    )
    logits, codes = inputs["cls_pred"], inputs["bbox_pred"]
    truth = _truth([(inputs["gt_bboxes"], inputs["gt_labels"])])
    by_class = SparseBEVTargetAssigner(config["cls_weight"], 0.0, alpha=config["alpha"], gamma=config["gamma"])
    known = GroundTruth(Boxes3D(truth.boxes.tensor.nan_to_num()), truth.labels, truth.batch_index, 1)
    comparison.output("cls_cost", by_class.cost(logits, codes, known))
    comparison.output("cost", assigner.cost(logits, codes, truth))
    targets = assigner(logits[None], codes[None], truth)
    assigned = torch.zeros(len(logits), dtype=torch.int64)
    assigned[targets.queries] = targets.objects + 1
    comparison.output("assigned_gt_inds", assigned)
    comparison.output("assigned_labels", targets.labels[0].where(assigned > 0, -1))
    comparison.finish()


def check_denoising(case: Case) -> None:
    config, comparison, inputs = case.config["config"], Comparison(case), _inputs(case)
    truth = _truth(_objects(inputs))
    state = tensors(section(case, "state"))
    embedding, learned = state["label_enc.weight"], state["init_query_bbox.weight"]
    changes = inputs["noise/label_uniform01"] < config["label_noise_scale"]
    labels = torch.zeros(len(changes), dtype=torch.int64)
    labels[changes] = inputs["noise/label_replacement"]
    noise = Noise(inputs["noise/box_uniform01"][:, :3] * 2 - 1, changes, labels)
    made = DenoisingQueries.make(truth, config["groups"], noise, config["bbox_noise_scale"])
    comparison.output("map_known_indice", made.slots)
    comparison.output("batch_idx", truth.batch_index)
    comparison.output("known_indice", made.objects)
    comparison.output("known_labels", truth.labels[made.objects])
    comparison.output("known_bboxes", truth.boxes.tensor[made.objects])
    comparison.output("pad_size", made.num_slots)
    comparison.output("attn_mask", made.hidden(len(learned)))

    head = SparseBEVHead(
        dict(point_range=POINT_RANGE, voxel_size=_voxel_size(POINT_RANGE)),
        [str(number) for number in range(len(embedding) - 1)],
        dict(center_range=POINT_RANGE),
        num_queries=len(learned),
        channels=embedding.shape[1] + 1,
    )
    head.label_embedding.weight.data, head.query_codes.data = embedding, learned
    codes, queries = head._start(truth.batch_size, made)
    comparison.output("query_bbox", codes)
    comparison.output("query_feat", queries)
    comparison.finish()


POINT_RANGE = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]  # of all published configs


def check_head_loss(case: Case) -> None:
    head = MODELS.build(_head(case.config["head_config"], case.config["config"]))
    comparison, inputs = Comparison(case), _inputs(case)
    assert_equal("code_weights", head.code_weights, case.arrays["in/code_weights"])
    truth = _truth(_objects(inputs))
    denoising = DenoisingQueries(
        boxes=inputs["known_bboxes"],
        labels=inputs["known_labels"],
        samples=inputs["batch_idx"][inputs["known_indice"]],
        slots=inputs["map_known_indice"],
        objects=inputs["known_indice"],
        num_slots=int(inputs["pad_size"]),
        num_groups=head.denoising["num_groups"],
    )
    logits, codes = (inputs[name].requires_grad_() for name in ("all_cls_scores", "all_bbox_preds"))
    losses = head.loss_from_output(SparseBEVOutput(logits, codes), truth, denoising)
    theirs = {"loss_class": "loss_cls", "loss_box": "loss_bbox"}
    for name, value in losses.items():
        for ours, official in theirs.items():
            name = name.replace(ours, official)
        shape = case.arrays[f"out/losses/{name}"].shape
        comparison.output(f"losses/{name}", value.reshape(shape))
    sum(losses.values()).backward()
    comparison.output("grad_cls", logits.grad)
    comparison.output("grad_bbox", codes.grad)
    comparison.finish()


def _objects(inputs: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Boxes and labels of each sample, which the fixture numbers."""
    count = sum(name.startswith("gt/") and name.endswith("/labels") for name in inputs)
    return [(inputs[f"gt/{n}/bboxes_gravity_center"], inputs[f"gt/{n}/labels"]) for n in range(count)]


def _truth(objects: list[tuple[Tensor, Tensor]]) -> GroundTruth:
    samples = [Sample().replace(gt=InstanceData(boxes=Boxes3D(boxes), labels=labels)) for boxes, labels in objects]
    return GroundTruth.gather(samples)


# -- data ----------------------------------------------------------------------------------------------------------


def check_geometry(case: Case) -> None:
    comparison, arrays = Comparison(case), section(case, "in")
    cameras = _past_cameras(arrays)
    comparison.output("lidar2img", cameras.lidar2img)
    _check_image_moves(case, comparison, arrays["image"])

    turn, scale = float(arrays["rot_angle"]), float(arrays["scale"])
    move = np.eye(4)
    move[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    move[:3] *= scale
    comparison.output("lidar2img_after_rot_scale", cameras.move_lidar(torch.from_numpy(move)).lidar2img)
    boxes = move_boxes(Boxes3D.from_mmdet3d(arrays["boxes"]), move)
    comparison.output("boxes_after_rot_scale", boxes.to_mmdet3d())
    comparison.finish()


def _past_cameras(arrays: dict[str, np.ndarray]) -> Cameras:
    """Cameras of a past frame, whose own LiDAR frame is taken to be the world."""
    count = len(arrays["cam_intrinsic"])
    sensor2global = np.tile(np.eye(4), (count, 1, 1))
    sensor2global[:, :3, :3] = arrays["sensor2global_rotation_T"].transpose(0, 2, 1)
    sensor2global[:, :3, 3] = arrays["sensor2global_translation"]
    images = tuple(
        CameraImage(str(n), "", 0, arrays["cam_intrinsic"][n], np.eye(4), np.eye(4), np.linalg.inv(pose), 1600, 900)
        for n, pose in enumerate(sensor2global)
    )
    past = Frame("past", "", 0, LidarScan("", 0, np.eye(4)), (), images, np.eye(4), np.eye(4), None)
    poses = (_pose(arrays[f"{name}_rotation"], arrays[f"{name}_translation"]) for name in ("lidar2ego", "ego2global"))
    now = Frame("now", "", 0, LidarScan("", 0, np.eye(4)), (), images, *poses, None)
    both = frame_cameras(now, [past])
    return Cameras.create(both.names[count:], both.intrinsics[count:], both.lidar2cam[count:], both.image_sizes[count:])


def _pose(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation
    return pose


class _Chosen:
    """A generator that draws a number which is known."""

    def __init__(self, value: float) -> None:
        self.value = value

    def uniform(self, low: float, high: float) -> float:
        assert low <= self.value <= high
        return self.value


def _check_image_moves(case: Case, comparison: Comparison, image: np.ndarray) -> None:
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    height, width = case.config["config"]["final_dim"]
    count = len({name.split("/")[2] for name in case.arrays if name.startswith("out/ida/")})
    for number in range(count):
        name = f"ida/{number}"
        factor, left, top, right, bottom = (
            float(comparison.take(f"out/{name}/resize")),
            *comparison.take(f"out/{name}/crop").tolist(),
        )
        assert float(comparison.take(f"out/{name}/rotate")) == 0
        resized, size = ResizeImages((factor, factor)).draw(image.shape[:2], np.random.default_rng(0))
        sides = comparison.take(f"out/{name}/resize_dims")
        assert_equal(f"{name}/resize_dims", size[::-1], sides)
        cropped, size = CropImages((height, width), horizontal="random").draw(size, _Chosen(left))
        assert (right - left, bottom - top) == size[::-1]
        flipped, size = FlipImages(float(comparison.take(f"out/{name}/flip"))).draw(size, np.random.default_rng(0))
        theirs = comparison.take(f"out/{name}/ida_mat")
        comparison.close(f"{name}/ida_mat", flipped @ cropped @ resized, theirs[:3, :3])
        # Their images have a whole number of pixels, their matrix has not; ours follow the matrix.
        whole = np.diag([*(sides / np.array(image.shape[1::-1])), 1.0])
        moved = warp_image(tensor, flipped @ cropped @ whole, size).numpy().transpose(1, 2, 0)
        distance = np.abs(moved.astype(float) - comparison.take(f"out/{name}/image")).mean()
        assert distance < GREY_LEVELS, f"{name}/image: grey levels differ by {distance:.2f} on average"


# -- image branch and detector -------------------------------------------------------------------------------------


def check_vovnet(case: Case) -> None:
    config = case.config["config"]
    assert config["eSE"] and not config["dw"]
    backbone = VoVNet(
        stem_channels=config["stem"],
        conv_channels=config["stage_conv_ch"],
        stage_channels=config["stage_out_ch"],
        num_convs=config["layer_per_block"],
        num_blocks=config["block_per_stage"],
    )
    comparison = _prepare(case, backbone, VOVNET)
    with torch.no_grad():
        for number, output in enumerate(backbone(_inputs(case)["x"])):
            comparison.output(f"stage{number + 2}", output)
    comparison.finish()


def check_eva02(case: Case) -> None:
    config = case.config["config"]
    windowed = config["window_block_indexes"]
    assert config["qkv_bias"] and not config["residual_block_indexes"]
    branch = ImageBranch(
        dict(
            type="EVA02",
            image_size=config["img_size"],
            pretrained_size=config["pretrain_img_size"],
            patch_size=config["patch_size"],
            channels=config["embed_dim"],
            depth=config["depth"],
            num_heads=config["num_heads"],
            mlp_ratio=config["mlp_ratio"],
            window_size=config["window_size"],
            global_blocks=[n for n in range(config["depth"]) if n not in windowed],
            drop_path=config["drop_path_rate"],
        ),
        dict(
            type="SimpleFPN",
            in_channels=config["embed_dim"],
            out_channels=config["fpn_out_channels"],
            num_outs=len(config["fpn_scale_factors"]) + config["fpn_top_block"],
        ),
    )
    comparison = _prepare(case, branch, EVA02_NAMES)
    _check_rotary_tables(comparison, config)
    with torch.no_grad():
        maps = branch.backbone(_inputs(case)["x"])
        comparison.output("vit", maps[0])
        for number, output in enumerate(branch.neck(maps)):
            comparison.output(f"fpn/{number}", output)
    comparison.finish()


def _check_rotary_tables(comparison: Comparison, config: dict[str, Any]) -> None:
    height, width = (size // config["patch_size"] for size in config["real_img_size"])
    window, side = config["window_size"], config["img_size"] // config["patch_size"]
    channels = config["embed_dim"] // config["num_heads"]
    for name, length, grid in (("win", window, (window, window)), ("glb", side, (height, width))):
        tables = rotary_table(length, grid, channels, torch.device("cpu"))
        for part, table in zip(("cos", "sin"), tables, strict=True):
            theirs = comparison.case.arrays[f"state/backbone.net.rope_{name}.freqs_{part}"]
            comparison.close(f"rope_{name}.freqs_{part}", table, theirs)


def check_full_model(case: Case) -> None:
    config = case.config["config"]
    detector = MODELS.build(_detector(config))
    comparison = _prepare(case, detector, names.DETECTOR)
    inputs = _inputs(case)
    samples = [
        Sample().replace(images=images.flip(1), cameras=cameras)
        for images, cameras in zip(inputs["img_uint8"], _cameras(inputs), strict=True)
    ]
    batch = detector.data_preprocessor(samples)["batch"]
    with torch.no_grad():
        features = detector.extract_features(batch)
        assert_equal("padded_hw", features.image_size, comparison.take("out/padded_hw"))
        for level, maps in enumerate(features.images):
            name = f"feats_frame0/{level}"
            if comparison.has(name):
                comparison.output(name, maps[:, : maps.shape[1] // detector.head.num_frames])
        _check_output(comparison, detector.head, detector.head(features))
    comparison.finish()


def _detector(config: dict[str, Any]) -> dict[str, Any]:
    norm, backbone, neck = config["data_aug"]["img_norm_cfg"], config["img_backbone"], config["img_neck"]
    assert backbone["type"] == "ResNet" and backbone["stem_channels"] == backbone["base_channels"]
    return dict(
        type="Detector3D",
        data_preprocessor=dict(
            type="Preprocessor",
            images=dict(
                mean=norm["mean"],
                std=norm["std"],
                bgr=not norm["to_rgb"],
                size_divisor=config["data_aug"]["img_pad_cfg"]["size_divisor"],
            ),
        ),
        image_branch=dict(
            type="ImageBranch",
            backbone=dict(
                type="ResNet",
                depth=backbone["depth"],
                base_channels=backbone["base_channels"],
                out_stages=backbone["out_indices"],
                frozen_stages=backbone["frozen_stages"],
                norm_eval=backbone["norm_eval"],
            ),
            neck=dict(
                type="FPN",
                in_channels=neck["in_channels"],
                out_channels=neck["out_channels"],
                num_outs=neck["num_outs"],
            ),
        ),
        head=_head(config["pts_bbox_head"]),
    )


KINDS = {
    "sparsebev/box_utils": check_box_utils,
    "sparsebev/head_init": check_head_init,
    "sparsebev/self_attention": check_self_attention,
    "sparsebev/adaptive_mixing": check_mixing,
    "sparsebev/sampling": check_sampling,
    "sparsebev/decoder_layer": check_decoder_layer,
    "sparsebev/head_forward": check_head_forward,
    "sparsebev/bbox_coder": check_bbox_coder,
    "sparsebev/assigner": check_assigner,
    "sparsebev/dn_prepare": check_denoising,
    "sparsebev/head_loss": check_head_loss,
    "sparsebev/geometry": check_geometry,
    "sparsebev/backbone_vovnet": check_vovnet,
    "sparsebev/backbone_eva02": check_eva02,
    "sparsebev/full_model": check_full_model,
}
