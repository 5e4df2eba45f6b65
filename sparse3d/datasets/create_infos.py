"""From our index to mmdetection3d's info files and back; `tools/create_data.py` calls this."""

from __future__ import annotations

import os
from pathlib import Path

from ..progress import track
from .index import FrameIndex, write_index
from .infos import info_frames, load_mmdet3d_infos
from .infos_writing import write_mmdet3d_infos

NUSCENES = "nuscenes"


def index_to_infos(root: str | os.PathLike, index: str | os.PathLike, out: str | os.PathLike) -> Path:
    """Write the frames of an index of nuScenes to an info file of mmdetection3d.

    Args:
        root: folder that holds `samples/` and `sweeps/`.
        index: our Arrow index, relative to ``root``.
        out: the `.pkl` to write, relative to ``root``.

    Returns:
        The file.

    Raises:
        FileNotFoundError: if the folder or the index is missing.
        ValueError: if the index cannot be read, or is of another data set.
    """
    frames = FrameIndex(Path(root) / index, root)
    dataset = frames.metadata.get("dataset")
    if dataset != NUSCENES:
        raise ValueError(f"{frames.path}: info files are written of nuScenes alone, this is an index of {dataset}")
    path = Path(root) / out
    write_mmdet3d_infos(path, track(frames, f"writing {path.name}"), root, frames.metadata["version"])
    return path


def infos_to_index(root: str | os.PathLike, infos: str | os.PathLike, out: str | os.PathLike) -> Path:
    """Write the frames of an info file of mmdetection3d, of nuScenes or Waymo, to an index.

    Args:
        root: folder that holds `samples/` and `sweeps/`, or of Waymo `training/` and `testing/`.
        infos: the `.pkl`, relative to ``root``.
        out: the `.arrow` to write, relative to ``root``.

    Returns:
        The file.

    Raises:
        FileNotFoundError: if the info file is missing.
        ValueError: if it cannot be read, or its sensor files are not below ``root``.
    """
    source, path = Path(root) / infos, Path(root) / out
    contents = load_mmdet3d_infos(source)
    metainfo = contents["metainfo"]
    metadata = {
        "dataset": metainfo.get("dataset", NUSCENES),
        "version": metainfo.get("version", ""),
        "source": source.name,
    }
    frames = info_frames(source, contents, root)
    write_index(path, track(frames, f"writing {path.name}"), metadata, root)
    return path
