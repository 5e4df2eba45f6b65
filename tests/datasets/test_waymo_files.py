"""The formats below Waymo's: protobuf messages, TFRecord files, packed files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.datasets.packed_file import pack_points, packed_writer, read_block, read_packed_points
from sparse3d.datasets.protobuf_wire import (
    Message,
    write_data,
    write_double,
    write_float,
    write_integer,
    write_varint,
)
from sparse3d.datasets.tfrecord import RecordError, masked_crc, read_record, read_records, write_records

INTEGERS = st.integers(-(2**63), 2**63 - 1)


# -- messages ---------------------------------------------------------------------------------------------------------


@settings(derandomize=True)
@given(values=st.lists(INTEGERS, max_size=20))
def test_integers_come_back_one_by_one_and_packed(values: list[int]) -> None:
    loose = b"".join(write_integer(3, value) for value in values)
    packed = write_data(3, b"".join(write_varint(value % 2**64) for value in values))
    for data in (loose, packed):
        assert Message(data).integers(3).tolist() == values
    assert Message(loose).integer(3) == (values[-1] if values else 0)


def test_numbers_and_text_come_back() -> None:
    inner = write_double(1, -2.5) + write_data(2, "Grüße")
    message = Message(write_float(1, 0.5) + write_data(7, inner) + write_data(7, b"") + write_data(9, b"\0\1"))
    assert message.float(1) == 0.5
    first, second = message.messages(7)
    assert (first.double(1), first.text(2)) == (-2.5, "Grüße")
    assert (second.double(1), second.text(2)) == (0.0, "")
    assert bytes(message.data(9)) == b"\0\1"
    assert 7 in message and 8 not in message


def test_repeated_doubles_may_be_packed_or_not() -> None:
    packed = write_data(1, np.array([1.0, 2.0]).tobytes())
    assert Message(packed + write_double(1, 3.0)).doubles(1).tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (write_data(1, b"abc")[:-1], "field 1 has 2 of 3 bytes"),
        (write_varint(1 << 3 | 3), "field 1 is of unknown kind 3"),
        (b"\xff", "a number does not end"),
        (b"\x08" + b"\xff" * 11, "more than 10 bytes"),
    ],
)
def test_what_is_no_message_says_so(data: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Message(data)


def test_a_field_of_another_kind_says_so() -> None:
    with pytest.raises(ValueError, match="field 1 is of kind 0, expected 2"):
        Message(write_integer(1, 5)).text(1)
    with pytest.raises(ValueError, match="no whole number of values of 8 bytes"):
        Message(write_data(1, b"abc")).doubles(1)


# -- records ----------------------------------------------------------------------------------------------------------


def test_crc_of_the_standard() -> None:
    """RFC 3720, B.4: 32 bytes of zeros, of ones, and 0 to 31; masked as TFRecord does."""
    for data, crc in ((bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)):
        assert masked_crc(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@settings(derandomize=True, deadline=None)
@given(data=st.binary(max_size=40))
def test_crc_is_bit_by_bit_division(data: bytes) -> None:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    assert masked_crc(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "some.tfrecord"
    write_records(path, [b"first", b"", bytes(1000)])
    return path


def test_records_come_back_in_order_and_by_place(records: Path) -> None:
    found = list(read_records(records))
    assert [payload for _, payload in found] == [b"first", b"", bytes(1000)]
    for offset, payload in found:
        assert read_record(records, offset) == payload


@pytest.mark.parametrize(
    ("place", "text"),
    [(0, "checksum of its length is wrong"), (13, "checksum of its 5 bytes is wrong"), (18, "its 5 bytes is wrong")],
)
def test_a_flipped_bit_is_found(records: Path, place: int, text: str) -> None:
    data = bytearray(records.read_bytes())
    data[place] ^= 1
    records.write_bytes(data)
    with pytest.raises(RecordError, match=f"record at byte 0: .*{text}"):
        list(read_records(records))


def test_a_file_that_is_cut_off(records: Path) -> None:
    records.write_bytes(records.read_bytes()[:-3])
    with pytest.raises(RecordError, match="record at byte 37: cut off, 1 of 4 bytes"):
        list(read_records(records))


# -- packed files -----------------------------------------------------------------------------------------------------


def test_blocks_come_back(tmp_path: Path) -> None:
    path = tmp_path / "scans.f16"
    clouds = [np.random.default_rng(seed).normal(0, 30, (40 * seed, 6)).astype(np.float32) for seed in range(3)]
    with packed_writer(path) as writer:
        places = [writer.append(pack_points(cloud, ".f16")) for cloud in clouds]
    for cloud, place in zip(clouds, places, strict=True):
        found = read_packed_points(path, place, 6)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, cloud.astype(np.float16).astype(np.float32))


def test_half_precision_keeps_centimetres_and_bounds_intensities() -> None:
    points = np.zeros((2000, 6), dtype=np.float32)
    points[:, 0] = np.linspace(-80, 80, 2000)
    points[:, 3] = 1e6
    packed = pack_points(points, ".f16").astype(np.float64)
    assert np.abs(packed[:, 0] - points[:, 0])[np.abs(points[:, 0]) < 64].max() <= 0.016
    assert np.abs(packed[:, 0] - points[:, 0]).max() <= 0.032
    assert (packed[:, 3] == 65504).all()


def test_a_packed_file_is_whole_or_absent(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), packed_writer(tmp_path / "scans.f32") as writer:
        writer.append(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "scans.f32.123.tmp").write_bytes(b"half")
    with packed_writer(tmp_path / "scans.f32") as writer:
        writer.append(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["scans.f32"]


def test_blocks_that_are_cut_off_or_odd(tmp_path: Path) -> None:
    path = tmp_path / "scans.f32"
    with packed_writer(path) as writer:
        writer.append(bytes(25))
    with pytest.raises(ValueError, match="25 bytes are no whole number of points"):
        read_packed_points(path, 0, 6)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="block at byte 0: cut off"):
        read_block(path, 0)
    with pytest.raises(ValueError, match="block at byte 999: cut off"):
        read_block(path, 999)
    with pytest.raises(FileNotFoundError, match="pass the new data_root"):
        read_block(tmp_path / "none.f32", 0)
