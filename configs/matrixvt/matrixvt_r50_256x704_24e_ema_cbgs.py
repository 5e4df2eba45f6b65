# MatrixVT as published: ResNet-50, 256 x 704 pixels of the key frame, 128 x 128 cells of 0.8 m, class-balanced frames,
# averaged weights.
_base_ = [
    "../_base_/datasets/nuscenes_camera_bev.py",
    "../_base_/schedules/matrixvt_nuscenes_24e.py",
    "../_base_/runtime.py",
]

image_size = [256, 704]
resize_factors = [0.386, 0.55]
pretrained = "pretrain/resnet50-0676ba61.pth"

train_dataset = dict(class_balanced=True)
train_dataloader = dict(batch_size=8)

model = dict(
    type="Detector3D",
    data_preprocessor=dict(type="Preprocessor", images=dict(size_divisor=16)),
    image_branch=dict(
        type="ImageBEVBranch",
        backbone=dict(type="ResNet", depth=50, frozen_stages=0),
        neck=dict(
            type="SECONDFPN",
            in_channels=[256, 512, 1024, 2048],
            up_strides=[0.25, 0.5, 1, 2],
            up_channels=[128, 128, 128, 128],
        ),
        view_transform=dict(
            type="MatrixVT",
            grid="$grid",
            depth_bins="$depth_bins",
            in_channels=512,
            mid_channels=512,
            channels=80,
            prime_channels=512,
        ),
        bev_backbone=dict(type="ResNetBEVBackbone", in_channels=80),
        depth_weight="$depth_weight",
        pretrained="$pretrained",
    ),
    head=dict(
        type="CenterHead",
        grid="$grid",
        class_names="$class_names",
        tasks=[
            ["car"],
            ["truck", "construction_vehicle"],
            ["bus", "trailer"],
            ["barrier"],
            ["motorcycle", "bicycle"],
            ["pedestrian", "traffic_cone"],
        ],
        in_channels=256,
        extra_branches=["vel"],
        norm=dict(eps=1e-5, momentum=0.1),
        loss_weights=dict(box=0.25),
        code_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5],
        decoder=dict(
            center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
            top_k=500,
            score_threshold=0.1,
            nms_scope="task",
            nms_measure="squared_distance",
            nms_threshold=[4.0, 12.0, 10.0, 1.0, 0.85, 0.175],
            nms_post=83,
        ),
    ),
)

custom_hooks = [
    dict(type="ProgressHook"),
    dict(type="NonFiniteHook"),
    dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=0.001, update_buffers=True),
]
