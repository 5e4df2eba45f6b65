# The pillar detector on 2 frames of Waymo: with the points of one earlier frame, moved to the present one, and
# their time lag. The object database is made with as many: `tools/create_data.py objects ... --sweeps 1`.
_base_ = ["./dsvt_pillar_waymo.py"]

num_point_features = 6  # and the time lag
sweeps = 1
