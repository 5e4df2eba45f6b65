# The voxel detector on 3 frames of Waymo: with the points of two earlier frames, moved to the present one, and
# their time lag. The object database is made with as many: `tools/create_data.py objects ... --sweeps 2`.
_base_ = ["./dsvt_voxel_waymo.py"]

num_point_features = 6  # and the time lag
sweeps = 2
