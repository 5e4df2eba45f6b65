"""VoxelKP's head: values, decoding, targets and losses; and the keypoint metrics on given matches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparse3d.checkpoints import voxelkp as names
from sparse3d.decoding.keypoints import CellValues, find_candidates
from sparse3d.evaluation import KeypointTable, evaluate_keypoints
from sparse3d.evaluation.keypoints import PENALTY
from sparse3d.evaluation.keypoints_boxes import to_levels
from sparse3d.models import Features, KeypointHead
from sparse3d.models.heads.keypoint_head import LOSS_WEIGHTS, name_values
from sparse3d.models.targets.keypoint_targets import PeopleTruth
from sparse3d.structures import Boxes3D, Grid
from sparse3d.structures.skeleton import KEYPOINTS
from sparse3d_ops.sparse import SparseTensor

from ..cases import Case
from ..compare import Comparison, match_rows
from .dsvt import _inputs, _prepare

PUBLISHED_WEIGHTS = {  # of the settings that a case must have: our weights contain them
    "cls_weight": 1.0,
    "loc_weight": 2.0,
    "code_weights": [1.0] * 8,
    "kp_visibility_weights": 1,
    "kp_visibility_code_weights": [1.0] * 14,
    **{f"kp_{axis}_loc_weight": 2 for axis in "xyz"},
    **{f"kp_{axis}_code_weights": [3.0 if row in (5, 6, 11, 12) else 1.0 for row in range(14)] for axis in "xyz"},
}


def _head(config: dict[str, Any]) -> KeypointHead:
    model = config["model_cfg"]
    assigner, after = model["TARGET_ASSIGNER_CONFIG"], model["POST_PROCESSING"]
    return KeypointHead(
        Grid(config["point_cloud_range"], config["voxel_size"], stride=assigner["FEATURE_MAP_STRIDE"]),
        model["SHARED_CONV_CHANNEL"],
        decoder=dict(
            center_range=after["POST_CENTER_LIMIT_RANGE"],
            top_k=after["MAX_OBJ_PER_SAMPLE"],
            score_threshold=after["SCORE_THRESH"],
            iou_exponents=model["RECTIFIER"][:1],
            nms_threshold=after["NMS_CONFIG"]["NMS_THRESH"][0],
            nms_pre=after["NMS_CONFIG"]["NMS_PRE_MAXSIZE"][0],
            nms_post=after["NMS_CONFIG"]["NMS_POST_MAXSIZE"][0],
            nms_quarter_turn=False,
        ),
        separate_branches="center" in model["SEPARATE_HEAD_CFG"]["HEAD_DICT"],
        targets=dict(
            overlap=assigner["GAUSSIAN_OVERLAP"],
            min_radius=assigner["MIN_RADIUS"],
            max_objects=assigner["NUM_MAX_OBJS"],
        ),
    )


def _run(case: Case) -> tuple[Comparison, KeypointHead, CellValues, np.ndarray]:
    """Compare what the branches regress; return the values too, and our row of each row of theirs."""
    config, inputs = case.config["config"], _inputs(case)
    head = _head(config)
    comparison = _prepare(case, head, names.HEAD)
    batch_size = int(inputs["indices"][:, 0].max()) + 1
    x = SparseTensor.coalesce(inputs["features"], inputs["indices"], config["spatial_shape_yx"], batch_size)
    rows = match_rows(x.indices.numpy(), case.arrays["in/indices"])
    raw = head.run_branches(x)
    for name, value in raw.items():
        comparison.output(f"head/{name}", value[rows])
    found = head(Features(sparse_bev=x))
    for name, value in name_values(raw).items():
        assert torch.equal(found.values[name], value)
    return comparison, head, found, rows


# -- decoding --------------------------------------------------------------------------------------------------------


def check_decoding(case: Case) -> None:
    comparison, head, found, _ = _run(case)
    candidates, _ = find_candidates(found, head.grid, head.decoder)
    for sample, pred in enumerate(head.predict_from_values(found)):
        own = candidates[candidates.batch_index == sample]
        comparison.output(f"pre_nms/{sample}/box_preds", own.boxes)
        comparison.output(f"pre_nms/{sample}/box_scores", own.scores)
        comparison.output(f"det{sample}/pred_boxes", pred.boxes.tensor)
        comparison.output(f"det{sample}/pred_kps", pred.keypoints)
        comparison.output(f"det{sample}/pred_kps_vis", pred.keypoint_visibility)
        comparison.output(f"det{sample}/pred_scores", pred.scores)
        comparison.output(f"det{sample}/pred_labels", pred.labels + 1)
    comparison.finish()


# -- targets and losses ----------------------------------------------------------------------------------------------


def check_losses(case: Case) -> None:
    assert case.config["config"]["model_cfg"]["LOSS_CONFIG"]["LOSS_WEIGHTS"] == PUBLISHED_WEIGHTS
    comparison, head, found, rows = _run(case)
    truth = _people(_inputs(case))
    targets = head.assigner(truth, found.cells, found.batch_size)
    used = comparison.take("out/target/masks").astype(bool)
    comparison.close("heatmaps", targets.heatmap[rows], comparison.take("out/target/heatmaps"))
    comparison.close("boxes", targets.box_codes, comparison.take("out/target/target_boxes")[used])
    comparison.close("keypoints", targets.keypoints, comparison.take("out/target/target_kps")[used])
    comparison.close("visibility", targets.visibility, comparison.take("out/target/target_kps_vis")[used])
    first = np.searchsorted(case.arrays["in/indices"][:, 0], np.arange(found.batch_size))
    theirs = (comparison.take("out/target/inds") + first[:, None])[used]
    np.testing.assert_array_equal(targets.rows.numpy(), rows[theirs])

    losses = head.losses(found, targets)
    for name, value in {
        "hm_loss": losses["heatmap"],
        "loc_loss": 2 * losses["box"],
        "loc_kp_all_loss": 2 * losses["keypoints"],
        "kp_vis_loss": losses["visibility"],
        "kp_bone_loss": losses["bones"],
        "iou_loss": losses["iou"],
        "iou_reg_loss": 2 * losses["diou"],
    }.items():
        comparison.output(f"loss/{name}_head_0", value)
    assert head.loss_weights == LOSS_WEIGHTS
    _compare_axes(comparison, found.take(targets.rows)["keypoints"], targets.keypoints)
    total = sum(head.loss_from_values(found, truth).values())
    comparison.output("loss/rpn_loss", total)
    total.backward()
    comparison.gradients(head)
    comparison.finish()


def _compare_axes(comparison: Comparison, values: Tensor, wanted: Tensor) -> None:
    weights = torch.tensor(PUBLISHED_WEIGHTS["kp_x_code_weights"])
    for axis, name in enumerate("xyz"):
        errors = (values[..., axis] - wanted[..., axis]).abs() * weights
        comparison.output(f"loss/loc_kp_{name}_loss_head_0", 2 * errors.sum() / len(wanted))


def _people(inputs: dict[str, Tensor]) -> PeopleTruth:
    """Their padded rows as people; rows of zeros are padding."""
    batch_index, row = (inputs["gt_boxes"][..., :7] != 0).any(dim=-1).nonzero(as_tuple=True)
    keypoints = inputs["gt_keypoints"][batch_index, row]
    boxes = Boxes3D(inputs["gt_boxes"][batch_index, row, :7])
    return PeopleTruth(boxes, batch_index, keypoints[..., :3], keypoints[..., 3].long())


# -- metrics ---------------------------------------------------------------------------------------------------------


def check_metrics(case: Case) -> None:
    """The metrics on matches that the case gives."""
    assert tuple(case.config["config"]["keypoint_order"]) == KEYPOINTS
    assert case.config["config"]["mismatch_penalty"] == PENALTY
    inputs = {name[3:]: value for name, value in case.arrays.items() if name.startswith("in/")}
    pairs = np.stack([inputs["match_gt"], inputs["match_pr"]], axis=1)
    result = evaluate_keypoints(_table(inputs, "gt"), _table(inputs, "pr"), lambda *_: pairs)
    comparison = Comparison(case)
    for name in sorted(comparison.left):
        comparison.output(name[4:], np.float32(result.to_dict()[name[4:].replace("|", "/")]))
    comparison.finish()


def _table(inputs: dict[str, np.ndarray], side: str) -> KeypointTable:
    return KeypointTable(
        sample=np.zeros(len(inputs[f"{side}_boxes"]), np.int64),
        box=inputs[f"{side}_boxes"],
        location=inputs[f"{side}_keypoints"],
        visibility=to_levels(inputs[f"{side}_visibility"]),
    )


KINDS = {
    "voxelkp/head_decode": check_decoding,
    "voxelkp/head_loss": check_losses,
    "voxelkp/keypoint_metrics": check_metrics,
}
