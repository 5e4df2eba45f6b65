"""Package sparse3d (the framework) and sparse3d_ops (its kernels) in one distribution."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

REQUIRED = [
    "torch>=2.6",
    "mmengine-lite>=0.10.7,<0.11",
    "numba>=0.60",
    "numpy>=1.26,<3",
    "scipy>=1.11",
    "opencv-python-headless>=4.9",
    "pyarrow>=14",
    "safetensors>=0.4.3",
    "matplotlib>=3.8",
    "rich>=13",
]

EXTRAS = {
    "cu120": ["spconv-cu120>=2.3.6"],
    "cu126": ["spconv-cu126>=2.3.8"],
    "triton": ["spconv-triton>=1.0"],
    "image": ["timm>=1.0"],
    "files": ["plyfile>=1.0"],
    "web": ["viser>=1.1"],
    "open3d": ["open3d>=0.19"],
    "deploy": ["onnx>=1.19", "onnxscript>=0.5", "onnxruntime>=1.22"],
    "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.26"],
}
# nuscenes-devkit is the oracle of our metric. Its wheel pins numpy < 2 although it runs on numpy 2, so `make install`
# installs it with --no-deps; what it needs at run time stands here.
DEVKIT_NEEDS = [
    "pyquaternion>=0.9.9",
    "shapely>=2.0.3",
    "cachetools>=5",
    "tqdm>=4.60",
    "scikit-learn>=1.3",
    "pillow>=10",
]
EXTRAS["dev"] = [
    *DEVKIT_NEEDS,
    *EXTRAS["files"],
    *EXTRAS["web"],
    "pytest>=8",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    "ruff>=0.6",
    "mypy>=1.10",
    "tensorboard>=2.15",
    "triton>=3.3; platform_system == 'Linux'",  # a CUDA build of torch brings its own
    "spconv>=2.3.8; platform_system == 'Linux' and platform_machine == 'x86_64'",  # its CPU build, an oracle
]

setup(
    name="sparse3d",
    version="0.1.0",
    description="Sparse 3D perception: LiDAR scans and surround cameras in, 3D boxes out",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    # The configs are data of the installed package, so that models are found by their names there too.
    packages=[*find_packages(include=["sparse3d", "sparse3d.*"]), "sparse3d.configs", *find_packages("ops")],
    package_data={"sparse3d.visualization": ["page/*"], "sparse3d.configs": ["*/*", "_base_/*/*"]},
    package_dir={"sparse3d": "sparse3d", "sparse3d.configs": "configs", "sparse3d_ops": "ops/sparse3d_ops"},
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
