"""Networks: importing this package registers every model of sparse3d."""

from .bev.residual import ResidualBEVBackbone
from .bev.scatter import scatter_to_bev, stack_layers
from .bev.second import SECONDBEVBackbone
from .detector import Detector3D
from .features import Features
from .heads.center_head import CenterHead
from .heads.transfusion_head import TransFusionHead
from .points.branch import PointBranch
from .points.dsvt import DSVT
from .points.focal_conv import FocalConv
from .points.focal_encoder import FocalEncoder
from .points.mean_encoder import MeanVoxelEncoder
from .points.sparse_branch import SparseConvBranch
from .points.sparse_encoder import SparseEncoder
from .points.voxel_encoder import DynamicVoxelEncoder
from .preprocessor import Preprocessor
from .targets.center_targets import CenterTargetAssigner, CenterTargets
from .targets.ground_truth import GroundTruth
from .targets.transfusion_targets import TransFusionTargetAssigner, TransFusionTargets

__all__ = [
    "DSVT",
    "CenterHead",
    "CenterTargetAssigner",
    "CenterTargets",
    "Detector3D",
    "DynamicVoxelEncoder",
    "Features",
    "FocalConv",
    "FocalEncoder",
    "GroundTruth",
    "MeanVoxelEncoder",
    "PointBranch",
    "Preprocessor",
    "ResidualBEVBackbone",
    "SECONDBEVBackbone",
    "SparseConvBranch",
    "SparseEncoder",
    "TransFusionHead",
    "TransFusionTargetAssigner",
    "TransFusionTargets",
    "scatter_to_bev",
    "stack_layers",
]
