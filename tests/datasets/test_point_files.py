"""Every format gives back the points that were written, and says what is wrong with a file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import plyfile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.datasets.point_files import decompress_lzf, read_scan

POINTS = np.random.default_rng(0).normal(scale=20, size=(300, 4)).astype(np.float32)
POINTS[:, 3] = np.arange(300)
ROWS = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4"), ("ring", "<u2")]


def records() -> np.ndarray:
    table = np.empty(len(POINTS), ROWS)
    for column, (name, _) in enumerate(ROWS[:4]):
        table[name] = POINTS[:, column]
    table["ring"] = np.arange(len(POINTS)) % 32
    return table


def compress_lzf(data: bytes) -> bytes:
    """Literals, and matches of three bytes or more with any earlier place: every kind of token."""
    packed, literals, place = bytearray(), bytearray(), 0

    def flush() -> None:
        for start in range(0, len(literals), 32):
            packed.extend([len(literals[start : start + 32]) - 1, *literals[start : start + 32]])
        literals.clear()

    while place < len(data):
        start = data.rfind(data[place : place + 3], max(0, place - 8192), place + 2) if place + 3 <= len(data) else -1
        length = 0
        if start >= 0 and start < place:
            while place + length < len(data) and length < 264 and data[start + length] == data[place + length]:
                length += 1
        if length < 3:
            literals.append(data[place])
            place += 1
            continue
        flush()
        back, rest = place - start - 1, length - 2
        packed.append((min(rest, 7) << 5) | (back >> 8))
        packed += bytes([rest - 7]) if rest >= 7 else b""
        packed.append(back & 255)
        place += length
    flush()
    return bytes(packed)


def write_pcd(path: Path, kind: str, table: np.ndarray | None = None) -> Path:
    table = records() if table is None else table
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z intensity ring\nSIZE 4 4 4 4 2\n"
        f"TYPE F F F F U\nCOUNT 1 1 1 1 1\nWIDTH {len(table)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(table)}\n"
        f"DATA {kind}\n"
    ).encode()
    if kind == "ascii":
        data = "\n".join(" ".join(repr(value) for value in row.tolist()) for row in table).encode()
    elif kind == "binary":
        data = table.tobytes()
    else:
        plain = b"".join(table[name].tobytes() for name, _ in ROWS)
        packed = compress_lzf(plain)
        data = struct.pack("<II", len(packed), len(plain)) + packed
    path.write_bytes(header + data)
    return path


@pytest.mark.parametrize("kind", ["ascii", "binary", "binary_compressed"])
def test_pcd(tmp_path: Path, kind: str) -> None:
    found = read_scan(write_pcd(tmp_path / "scan.pcd", kind))
    np.testing.assert_array_equal(found[:, :4], POINTS)
    np.testing.assert_array_equal(found[:, 4], np.arange(300) % 32)


def test_rays_without_return_are_no_points(tmp_path: Path) -> None:
    table = records()
    table["x"][7] = np.nan
    np.testing.assert_array_equal(
        read_scan(write_pcd(tmp_path / "scan.pcd", "binary", table))[:, :4], np.delete(POINTS, 7, axis=0)
    )


def test_fields_with_several_numbers_and_padding_are_skipped(tmp_path: Path) -> None:
    layout = np.dtype([("a", "<f4", 3), ("x", "<f8"), ("pad", "u1", 4), ("y", "<f4"), ("z", "<f4")])
    table = np.zeros(5, layout)
    table["x"], table["z"] = np.arange(5), 7
    header = "FIELDS normal x _ y z\nSIZE 4 8 1 4 4\nTYPE F F U F F\nCOUNT 3 1 4 1 1\nPOINTS 5\nDATA binary\n"
    path = tmp_path / "scan.pcd"
    path.write_bytes(header.encode() + table.tobytes())
    np.testing.assert_array_equal(read_scan(path), np.stack([np.arange(5), np.zeros(5), np.full(5, 7)], axis=1))


@pytest.mark.parametrize("text", [False, True])
def test_ply(tmp_path: Path, text: bool) -> None:
    path = tmp_path / "scan.ply"
    plyfile.PlyData([plyfile.PlyElement.describe(records(), "vertex")], text=text).write(path)
    np.testing.assert_allclose(read_scan(path)[:, :4], POINTS, rtol=1e-6)


def test_arrays_and_raw_files(tmp_path: Path) -> None:
    POINTS.tofile(tmp_path / "scan.pcd.bin")
    np.save(tmp_path / "scan.npy", POINTS.astype(np.float64))
    np.testing.assert_array_equal(read_scan(tmp_path / "scan.pcd.bin"), POINTS)
    np.testing.assert_array_equal(read_scan(tmp_path / "scan.npy"), POINTS)
    with pytest.raises(ValueError, match="cut off"):
        read_scan(tmp_path / "scan.pcd.bin", num_features=7)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.las", b"", "known are .bin, .npy, .pcd, .ply"),
        ("a.pcd", b"VERSION 0.7\n", "no readable PCD"),
        ("a.pcd", b"FIELDS x y\nSIZE 4 4\nTYPE F F\nPOINTS 0\nDATA binary\n", "no field z"),
        ("a.pcd", b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 9\nDATA binary\nshort", "no readable PCD"),
        ("a.pcd", b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 1\nDATA zip\n", "no readable PCD"),
        ("a.pcd", b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 1\nDATA ascii\n1 2 inf", "NaN or infinity"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_scan(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_scan(tmp_path / "none.pcd")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([b"abc", b"a", b"\x00" * 40, b"xyzw", bytes(range(100))]), max_size=30))
def test_lzf(parts: list[bytes]) -> None:
    plain = b"".join(parts)
    packed = compress_lzf(plain)
    assert decompress_lzf(packed, len(plain)) == plain
    for cut in range(0, len(packed), 7):
        with pytest.raises(ValueError, match="damaged"):
            decompress_lzf(packed[:cut], len(plain))
