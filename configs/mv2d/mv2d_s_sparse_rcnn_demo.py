# The small MV2D-S on Sparse R-CNN instead of Faster R-CNN: learned boxes, no anchors.
_base_ = ["./mv2d_s_demo.py"]

model = dict(
    image_branch=dict(
        detector=dict(
            _delete_=True,
            type="SparseRCNN",
            class_names="$class_names",
            num_proposals=40,
            num_stages=3,
            channels=64,
            stage=dict(num_heads=4, ffn_channels=128, dynamic_channels=16),
            detections=dict(max_boxes=20, min_side=4.0),
        ),
    ),
)
