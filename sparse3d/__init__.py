"""sparse3d: sparse 3D perception from LiDAR scans and surround cameras."""

__version__ = "0.1.0"
