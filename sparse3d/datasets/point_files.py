"""Scans in other people's files: one scan a file, whatever wrote it.

    .bin, .pcd.bin   float32 numbers, so many a point; the file does not say how many
    .npy             an array [P, F]
    .pcd             the Point Cloud Library's format (ascii, binary, binary_compressed)
    .ply             Stanford's polygon format, through plyfile (extra `files`)

Columns come as x, y, z, intensity, then whatever else a file has, in its order.

Sources: documentation of the PCD file format, version 0.7; the format of liblzf's compressed blocks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numba import njit

from .transforms.loading import read_points

COORDINATES = ("x", "y", "z")
INTENSITIES = ("intensity", "i", "reflectivity", "reflectance", "scalar_intensity")
PCD_TYPES = {
    **{("F", size): f"<f{size}" for size in (4, 8)},
    **{("I", size): f"<i{size}" for size in (1, 2, 4, 8)},
    **{("U", size): f"<u{size}" for size in (1, 2, 4, 8)},
}
LITERAL_RUN = 32  # control bytes below it begin a run of literals
LONG_MATCH = 9  # the length that says that another byte follows


def read_scan(path: str | os.PathLike, num_features: int = 4) -> np.ndarray:
    """Return the points ``[P, F]`` float32 of a file: ``x, y, z`` in metres, intensity if the file has one, the rest.

    Args:
        path: the ending says what it is, see the top of the file.
        num_features: numbers a point in a ``.bin`` file.

    Raises:
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: for a ``.ply`` without plyfile.
        ValueError: if the ending is unknown, the file is damaged or has no coordinates, or a value is not finite;
            in a ``.pcd`` a point whose coordinates are NaN is a ray without a return, and is left out.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise ValueError(f"{path}: no point file is called {path.suffix!r}; known are {', '.join(READERS)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such point file")
    if path.suffix == ".bin":
        return read_points(path, num_features)
    points = READERS[path.suffix](path)
    broken = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(broken):
        raise ValueError(f"{path}: {len(broken)} points hold NaN or infinity, the first is point {broken[0]}")
    return points


def _read_npy(path: Path) -> np.ndarray:
    points = np.load(path, allow_pickle=False)
    if points.ndim != 2 or points.shape[1] < 3 or not np.issubdtype(points.dtype, np.number):
        raise ValueError(f"{path}: expected an array [P, F >= 3] of numbers, got {list(points.shape)} {points.dtype}")
    return points.astype(np.float32)


def _read_ply(path: Path) -> np.ndarray:
    try:
        from plyfile import PlyData, PlyParseError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reading .ply files needs plyfile: pip install 'sparse3d[files]'") from error
    try:
        vertices = PlyData.read(path)["vertex"].data
    except (PlyParseError, KeyError) as error:
        raise ValueError(f"{path}: no readable PLY file with vertices: {error}") from error
    return _arrange(path, {name: vertices[name] for name in vertices.dtype.names if vertices[name].dtype != object})


def _arrange(path: Path, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the columns as one array: coordinates, intensity, the others."""
    lower = {name.lower(): name for name in columns}
    missing = [name for name in COORDINATES if name not in lower]
    if missing:
        raise ValueError(f"{path}: no field {', '.join(missing)}; it has {', '.join(columns) or 'none'}")
    first = [lower[name] for name in (*COORDINATES, *INTENSITIES) if name in lower][:4]
    order = [*first, *(name for name in columns if name not in first)]
    return np.stack([columns[name].astype(np.float32) for name in order], axis=1)


# -- PCD --------------------------------------------------------------------------------------------------------------


def _read_pcd(path: Path) -> np.ndarray:
    content = path.read_bytes()
    try:
        header, start = _pcd_header(content)
        layout = _pcd_layout(header)
        data = _PCD_DATA[header["DATA"][0]](content[start:], layout, int(header["POINTS"][0]))
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: no readable PCD file: {error!r}") from error
    points = _arrange(path, {name: data[name] for name in layout.names if name[0] != "_" and data[name].ndim == 1})
    return points[~np.isnan(points[:, :3]).any(axis=1)]


def _pcd_header(content: bytes) -> tuple[dict[str, list[str]], int]:
    """Return the entries of the header, and where the data begin."""
    header: dict[str, list[str]] = {}
    start = 0
    while "DATA" not in header:
        end = content.index(b"\n", start)
        words = content[start:end].decode("ascii").split()
        if words and not words[0].startswith("#"):
            header[words[0]] = words[1:]
        start = end + 1
    return header, start


def _pcd_layout(header: Mapping[str, Sequence[str]]) -> np.dtype:
    """Return a point's fields; one called ``_`` is padding, and gets a name of its own."""
    counts = map(int, header.get("COUNT", ["1"] * len(header["FIELDS"])))
    fields = zip(header["FIELDS"], header["TYPE"], map(int, header["SIZE"]), counts, strict=True)
    return np.dtype(
        [
            (f"_{place}" if name == "_" else name, PCD_TYPES[kind, size], (count,) if count != 1 else ())
            for place, (name, kind, size, count) in enumerate(fields)
        ]
    )


def _pcd_ascii(data: bytes, layout: np.dtype, count: int) -> np.ndarray:
    widths = [int(np.prod(layout[name].shape, dtype=int)) for name in layout.names]
    numbers = np.array(data.split()[: count * sum(widths)], dtype=np.float64).reshape(count, sum(widths))
    points = np.empty(count, layout)
    for name, first, width in zip(layout.names, np.cumsum([0, *widths[:-1]]), widths, strict=True):
        points[name] = numbers[:, first : first + width].reshape(points[name].shape)
    return points


def _pcd_binary(data: bytes, layout: np.dtype, count: int) -> np.ndarray:
    return np.frombuffer(data, layout, count)


def _pcd_compressed(data: bytes, layout: np.dtype, count: int) -> np.ndarray:
    """Fields lie one after the other, each of all points, compressed together."""
    packed, size = np.frombuffer(data, "<u4", 2).tolist()
    if len(data) < 8 + packed:
        raise ValueError(f"{packed} compressed bytes are announced, {len(data) - 8} are there")
    plain = decompress_lzf(data[8 : 8 + packed], size)
    points = np.empty(count, layout)
    start = 0
    for name in layout.names:
        column = np.frombuffer(plain, layout[name].base, points[name].size, start)
        points[name] = column.reshape(points[name].shape)
        start += column.nbytes
    return points


def decompress_lzf(data: bytes, size: int) -> bytes:
    """Return the ``size`` bytes that liblzf compressed into ``data``.

    Raises:
        ValueError: if they are another number of bytes, or a match reaches back before the beginning.
    """
    plain = np.empty(size, np.uint8)
    if _decompress(np.frombuffer(data, np.uint8), plain) != size:
        raise ValueError(f"damaged LZF data: they do not make {size} bytes")
    return plain.tobytes()


@njit(cache=True)
def _decompress(data: np.ndarray, plain: np.ndarray) -> int:
    """Write what ``data`` stand for into ``plain``, and return how many bytes that are; -1 where the data are damaged.

    A control byte below 32 announces one literal more than it says. Any other holds a length (3 bits, two more are
    copied; 7 says that a byte with the rest follows) and a distance back (5 bits, the high ones; a byte with the low
    ones follows). A match may run into what it writes.
    """
    place = filled = 0
    while place < len(data):
        control = int(data[place])
        place += 1
        length = control + 1 if control < LITERAL_RUN else (control >> 5) + 2
        if control >= LITERAL_RUN:
            if length == LONG_MATCH and place < len(data):
                length += int(data[place])
                place += 1
            if place == len(data):
                return -1
            start = filled - ((control & 31) << 8) - int(data[place]) - 1
            place += 1
            if start < 0 or filled + length > len(plain):
                return -1
            for step in range(length):
                plain[filled + step] = plain[start + step]
        else:
            if place + length > len(data) or filled + length > len(plain):
                return -1
            plain[filled : filled + length] = data[place : place + length]
            place += length
        filled += length
    return filled


_PCD_DATA: Mapping[str, Callable[[bytes, np.dtype, int], np.ndarray]] = {
    "ascii": _pcd_ascii,
    "binary": _pcd_binary,
    "binary_compressed": _pcd_compressed,
}
READERS: Mapping[str, Callable[[Path], np.ndarray]] = {
    ".bin": read_points,
    ".npy": _read_npy,
    ".pcd": _read_pcd,
    ".ply": _read_ply,
}
