"""Networks: importing this package registers every model of sparse3d."""

from .bev.matrixvt import MatrixVT
from .bev.residual import ResidualBEVBackbone
from .bev.resnet import ResNetBEVBackbone
from .bev.scatter import scatter_to_bev, stack_layers
from .bev.second import SECONDBEVBackbone
from .bev.second_fpn import SECONDFPN
from .detector import Detector3D
from .features import Features
from .heads.center_head import CenterHead
from .heads.keypoint_head import KeypointHead
from .heads.mv2d_head import MV2DHead
from .heads.sparsebev_head import SparseBEVHead
from .heads.sparsefusion_head import SparseFusionHead
from .heads.transfusion_head import TransFusionHead
from .images.bev_branch import ImageBEVBranch
from .images.branch import ImageBranch
from .images.detector_branch import DetectorBranch
from .images.eva02 import EVA02
from .images.faster_rcnn import FasterRCNN
from .images.fpn import FPN, SimpleFPN
from .images.geometric_transfer import DepthAwareImageBranch
from .images.reduction import ReduceMap
from .images.resnet import ResNet
from .images.sparse_rcnn import SparseRCNN
from .images.swin import SwinTransformer
from .images.timm_backbone import TimmBackbone
from .images.vovnet import VoVNet
from .points.branch import PointBranch
from .points.dsvt import DSVT
from .points.focal_conv import FocalConv
from .points.focal_encoder import FocalEncoder
from .points.focal_fusion_branch import FocalFusionBranch
from .points.fusion_branch import HeightAwareBranch
from .points.mean_encoder import MeanVoxelEncoder
from .points.sparse_branch import SparseConvBranch
from .points.sparse_encoder import SparseEncoder
from .points.sparse_map_branch import SparseMapBranch
from .points.voxel_encoder import DynamicVoxelEncoder
from .points.voxelkp import VoxelKPEncoder
from .preprocessor import Preprocessor
from .targets.center_targets import CenterTargetAssigner, CenterTargets
from .targets.ground_truth import GroundTruth
from .targets.transfusion_targets import TransFusionTargetAssigner, TransFusionTargets

__all__ = [
    "DSVT",
    "EVA02",
    "FPN",
    "SECONDFPN",
    "CenterHead",
    "CenterTargetAssigner",
    "CenterTargets",
    "DepthAwareImageBranch",
    "Detector3D",
    "DetectorBranch",
    "DynamicVoxelEncoder",
    "FasterRCNN",
    "Features",
    "FocalConv",
    "FocalEncoder",
    "FocalFusionBranch",
    "GroundTruth",
    "HeightAwareBranch",
    "ImageBEVBranch",
    "ImageBranch",
    "KeypointHead",
    "MV2DHead",
    "MatrixVT",
    "MeanVoxelEncoder",
    "PointBranch",
    "Preprocessor",
    "ReduceMap",
    "ResNet",
    "ResNetBEVBackbone",
    "ResidualBEVBackbone",
    "SECONDBEVBackbone",
    "SimpleFPN",
    "SparseBEVHead",
    "SparseConvBranch",
    "SparseEncoder",
    "SparseFusionHead",
    "SparseMapBranch",
    "SparseRCNN",
    "SwinTransformer",
    "TimmBackbone",
    "TransFusionHead",
    "TransFusionTargetAssigner",
    "TransFusionTargets",
    "VoVNet",
    "VoxelKPEncoder",
    "scatter_to_bev",
    "stack_layers",
]
