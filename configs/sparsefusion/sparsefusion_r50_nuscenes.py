# SparseFusion as published with ResNet-50: 7.5 cm voxels, images of 448 x 800, 200 + 200 candidates.
_base_ = [
    "../_base_/datasets/nuscenes_fusion.py",
    "../_base_/schedules/sparsefusion_nuscenes_6e.py",
    "../_base_/runtime.py",
]

# Weights of a LiDAR detector and of an image detector in one file (tools/initialise_fusion.py).
load_from = "pretrain/sparsefusion_r50_initial.safetensors"
frozen = "batch"  # what is pretrained on LiDAR is not trained; its BatchNorms take statistics of the batch meanwhile
channels = 128
num_queries = 200  # of each detector

model = dict(
    type="Detector3D",
    data_preprocessor=dict(
        type="Preprocessor",
        grid="$grid",
        num_features="$num_point_features",
        images=dict(size_divisor=32, min_size="$image_size"),
    ),
    image_branch=dict(
        type="DepthAwareImageBranch",
        backbone=dict(type="ResNet", depth=50, frozen_stages=1, norm_eval=True),
        neck=dict(type="FPN", in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=4),
        depth=dict(in_channels=256, channels="$channels"),
    ),
    point_branch=dict(
        type="HeightAwareBranch",
        grid="$grid",
        voxel_encoder=dict(type="MeanVoxelEncoder", num_features="$num_point_features", max_points=10),
        backbone=dict(
            type="SparseEncoder",
            grid="$grid",
            in_channels="$num_point_features",
            channels=[16, 32, 64, 128],
            num_blocks=[2, 2, 2, 2],
            block="residual",
            out_channels=128,
            residual_bias=False,
        ),
        bev_backbone=dict(
            type="SECONDBEVBackbone",
            in_channels=256,
            num_blocks=[5, 5],
            strides=[1, 2],
            channels=[128, 256],
            up_strides=[1, 2],
            up_channels=[256, 256],
        ),
        max_points=10,
        frozen="$frozen",
    ),
    head=dict(
        type="SparseFusionHead",
        grid="$grid",
        class_names="$class_names",
        in_channels=512,
        channels="$channels",
        num_queries="$num_queries",
        num_camera_queries="$num_queries",
        every_cell=["pedestrian", "traffic_cone"],
        frozen="$frozen",
        decoder=dict(
            center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
            nms_thresholds=dict(
                car=0.35,
                truck=0.35,
                construction_vehicle=0.35,
                bus=0.35,
                trailer=0.35,
                barrier=0.175,
                motorcycle=0.1,
                pedestrian=0.1,
                traffic_cone=0.1,
            ),
        ),
    ),
)
