"""Bird's-eye maps: from voxels to a map, and 2D backbones."""
