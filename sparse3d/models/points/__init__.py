"""The point branch: voxel encoders, sparse backbones."""
