# MV2D-S on Sparse R-CNN instead of Faster R-CNN: 100 learned boxes an image, no anchors. Not a published experiment.
_base_ = ["./mv2d_s_r50_frcnn_1408x512.py"]

detector_2d = dict(_delete_=True, type="SparseRCNN", class_names="$class_names", num_proposals=100)
