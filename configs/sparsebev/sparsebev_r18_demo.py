# A small SparseBEV for the synthetic world, trained by the clock: thin ResNet-18, 128 x 352 pixels, the present frame.
# Two frames: --cfg-options past=[0.5] num_frames=2
_base_ = ["../_base_/datasets/nuscenes_camera.py", "../_base_/runtime_by_the_clock.py"]

data_root = "data/synthetic"
# What lies further away is a few pixels in images of this size.
grid = dict(point_range=[-32.0, -32.0, -5.0, 32.0, 32.0, 3.0])
image_size = [128, 352]
resize_factors = [0.84, 0.96]  # of images of 225 x 400 pixels, a quarter of nuScenes'
past = []
num_frames = 1
num_queries = 144
pretrained = None  # a checkpoint of matrixvt_r18_demo.py, whose backbone is the same

train_pipeline = [
    "$load_images",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1),
    dict(type="RangeFilter", grid="$grid"),
    # No mirroring: traffic keeps to the right, and that side tells fronts from backs.
    dict(type="ResizeImages", factors="$resize_factors", shared=True),
    dict(type="CropImages", size="$image_size", horizontal="random", shared=True),
    dict(type="RandomRotate", angles=[-0.3925, 0.3925]),
    dict(type="RandomScale", factors=[0.95, 1.05]),
]
train_dataloader = dict(num_workers=1)
test_dataloader = dict(num_workers=1)

model = dict(
    type="Detector3D",
    data_preprocessor=dict(type="Preprocessor", images=dict(size_divisor=32)),
    image_branch=dict(
        type="ImageBranch",
        pretrained="$pretrained",
        backbone=dict(type="ResNet", depth=18, base_channels=16),
        neck=dict(type="FPN", in_channels=[16, 32, 64, 128], out_channels=64, num_outs=4),
        num_frames="$num_frames",
    ),
    head=dict(
        type="SparseBEVHead",
        grid="$grid",
        class_names="$class_names",
        num_queries="$num_queries",
        num_frames="$num_frames",
        channels=64,
        num_layers=3,
        layer=dict(num_points=8, num_levels=4, ffn_channels=128, dropout=0.0, mixing=dict(out_points=32)),
        denoising=dict(num_groups=5, center_noise=1.0),
        decoder=dict(center_range=[-42.0, -42.0, -10.0, 42.0, 42.0, 10.0], top_k=300, score_threshold=0.02),
    ),
)

train_cfg = dict(max_seconds=1500)
val_cfg = None
val_dataloader = None
val_evaluator = None
peak_lr = 1e-3
warmup = 0.1
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, weight_decay=0.01))
