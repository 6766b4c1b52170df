"""From stored pixels to HU: every depth, sign and compression, against pydicom; and headers that lie."""

from __future__ import annotations

import io
import resource
import struct

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    MPEG2MPML,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from refusals import refused
from small_dicom import COUNT, hu_by_pydicom, stored, write_series, write_slice, zipped

from SegMateCore.dicom import open_series
from SegMateCore.dicom.decoding import PADDING_HU
from SegMateCore.volume import Volume

# JPEG 2000's encoder wants 32 pixels at least.
SIDE = 40


def noise(k: int, low: int, high: int) -> np.ndarray:
    """Stored numbers (SIDE, SIDE) from low to high, both of them among them."""
    values = np.random.default_rng(k).integers(low, high, (SIDE, SIDE), endpoint=True)
    values[0, :2] = low, high
    return values


def write_pixels(folder, values_of, signed: bool, bits: int, allocated: int = 16, **changes):
    """A series of slices of values_of(k); a syntax that compresses is applied by pydicom's own encoders."""
    folder.mkdir(exist_ok=True)
    kind = f"{'i' if signed else 'u'}{allocated // 8}"
    syntax = changes.pop("syntax", ExplicitVRLittleEndian)
    for k in range(COUNT):
        order = "<" if syntax.is_little_endian else ">"
        path = write_slice(
            folder, k, Rows=SIDE, Columns=SIDE, BitsAllocated=allocated, BitsStored=bits, HighBit=bits - 1,
            PixelRepresentation=int(signed), PixelData=values_of(k).astype(order + kind).tobytes(),
            **{"syntax": ExplicitVRLittleEndian if syntax.is_encapsulated else syntax, **changes},
        )  # fmt: skip
        if syntax.is_encapsulated:
            data = pydicom.dcmread(path)
            data.compress(syntax, generate_instance_uid=False)
            data.save_as(path)
    return folder


def assert_equals_pydicom(folder) -> Volume:
    series = open_series(folder)
    volume = series.volume()
    for k, one in enumerate(series.instances):
        np.testing.assert_array_equal(volume.voxels[k], hu_by_pydicom(one.path))
    return volume


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_depths_signs_and_byte_orders(tmp_path, signed, bits, syntax):
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    folder = write_pixels(tmp_path / "a", lambda k: noise(k, low, high), signed, bits, syntax=syntax)
    volume = assert_equals_pydicom(folder)
    assert (volume.voxels.min(), volume.voxels.max()) == (low - 1024, high - 1024)
    # int16 wherever the HU fit.
    assert volume.voxels.dtype == (np.float32 if high > 33791 or low - 1024 < -32768 else np.int16)


@pytest.mark.parametrize("allocated, bits", [(8, 8), (32, 24)])
def test_other_words(tmp_path, allocated, bits):
    folder = write_pixels(tmp_path / "a", lambda k: noise(k, 0, 200), False, bits, allocated)
    assert_equals_pydicom(folder)


def test_unused_bits_are_no_part_of_the_value(tmp_path):
    """Old files keep overlays in the four bits above twelve."""
    clean = write_pixels(tmp_path / "a", lambda k: noise(k, 0, 4095), False, 12)
    dirty = write_pixels(tmp_path / "b", lambda k: noise(k, 0, 4095) | 0x5000, False, 12)
    np.testing.assert_array_equal(Volume.read(clean).voxels, Volume.read(dirty).voxels)
    refused(write_series(tmp_path / "c", HighBit=15), "12 of 16 bits up to bit 15")


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
def test_lossless_compressions(tmp_path, syntax, bits, signed):
    pytest.importorskip({JPEGLSLossless: "jpeg_ls", JPEG2000Lossless: "openjpeg"}.get(syntax, "numpy"))
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    plain = write_pixels(tmp_path / "plain", lambda k: noise(k, low, high), signed, bits)
    packed = write_pixels(tmp_path / "packed", lambda k: noise(k, low, high), signed, bits, syntax=syntax)
    assert pydicom.dcmread(next(packed.iterdir())).file_meta.TransferSyntaxUID == syntax
    expected = Volume.read(plain).voxels
    np.testing.assert_array_equal(Volume.read(packed).voxels, expected)
    np.testing.assert_array_equal(Volume.read(zipped(packed, tmp_path / "a.zip")).voxels, expected)


def test_jpeg_lossless(tmp_path):
    """By hand: pydicom has no encoder. A codestream of 12 bits with predictor 1 (T.81 H.1.2)."""
    pytest.importorskip("gdcm")
    series = write_series(tmp_path / "a")
    expected = Volume.read(series).voxels
    for k in range(COUNT):
        write_slice(series, k, syntax=JPEGLosslessSV1, PixelData=jpeg_lossless(stored(k), 12))
    np.testing.assert_array_equal(Volume.read(series).voxels, expected)


def test_jpeg_baseline(tmp_path):
    pytest.importorskip("gdcm")
    image = pytest.importorskip("PIL.Image")
    folder, expected = tmp_path / "a", []
    folder.mkdir()
    for k in range(COUNT):
        content = io.BytesIO()
        image.fromarray(noise(k, 40, 90).astype(np.uint8)).save(content, "JPEG", quality=95)
        expected.append(np.asarray(image.open(content)).astype(int) - 1024)
        write_slice(
            folder, k, syntax=JPEGBaseline8Bit, Rows=SIDE, Columns=SIDE, BitsAllocated=8, BitsStored=8,
            HighBit=7, PixelData=content.getvalue(), LossyImageCompression="01",
        )  # fmt: skip
    volume = Volume.read(folder)
    # Decoders round the cosine transform each in its own way.
    assert np.abs(volume.voxels - np.array(expected)).max() <= 1
    assert volume.warnings == ("the CT was compressed with loss",)


def jpeg_lossless(values: np.ndarray, bits: int) -> bytes:
    """T.81 annex H: process 14, first-order prediction, one Huffman table with a code of 5 bits each."""
    rows, columns = values.shape
    table = bytes([0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    segments = (
        b"\xff\xc3" + struct.pack(">HBHHB", 11, bits, rows, columns, 1) + bytes([1, 0x11, 0])
        + b"\xff\xc4" + struct.pack(">HB", 3 + len(table), 0) + table
        + b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([1, 0, 1, 0, 0])
    )  # fmt: skip
    text = ""
    values = values.astype(int)
    for j in range(rows):
        for i in range(columns):
            if i:
                before = values[j, i - 1]
            else:
                before = values[j - 1, 0] if j else 1 << bits - 1
            step = int(values[j, i] - before)
            size = abs(step).bit_length()
            text += f"{size:05b}"
            if size:
                text += f"{step if step > 0 else step + (1 << size) - 1:0{size}b}"
    text += "1" * (-len(text) % 8)
    packed = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    return b"\xff\xd8" + segments + packed + b"\xff\xd9"


def test_rescaling_may_differ_between_slices_and_be_fractional(tmp_path):
    folder = write_series(tmp_path / "a")
    write_slice(folder, 2, RescaleSlope=2, RescaleIntercept=-1000)
    volume = assert_equals_pydicom(folder)
    np.testing.assert_array_equal(volume.voxels[2], stored(2).astype(int) * 2 - 1000)
    assert volume.voxels.dtype == np.int16
    write_slice(folder, 2, RescaleSlope="0.5")
    volume = Volume.read(folder)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels[2], stored(2) * 0.5 - 1024)


class TestPadding:
    def padded(self, k: int) -> np.ndarray:
        return np.where(np.arange(SIDE) < 3, -2000, noise(k, 0, 2000))

    def test_below_air_stays_as_the_file_says(self, tmp_path):
        folder = write_pixels(tmp_path / "a", self.padded, True, 16, PixelPaddingValue=-2000)
        volume = assert_equals_pydicom(folder)
        assert volume.voxels.min() == -3024 and volume.warnings == ()

    @pytest.mark.parametrize("value", [-2000, 63536])
    def test_brighter_than_tissue_becomes_air_and_is_said(self, tmp_path, value):
        """Padding of -2000 in a file of unsigned numbers is 63536."""
        folder = write_pixels(
            tmp_path / "a", lambda k: self.padded(k) & 0xFFFF, False, 16, PixelPaddingValue=63536
        )
        if value < 0:
            for path in folder.iterdir():
                data = pydicom.dcmread(path)
                data["PixelPaddingValue"] = pydicom.DataElement(0x00280120, "SS", value)
                data.save_as(path)
        volume = Volume.read(folder)
        assert (volume.voxels[:, :, :3] == PADDING_HU).all()
        np.testing.assert_array_equal(volume.voxels[2, :, 3:], noise(2, 0, 2000)[:, 3:] - 1024)
        assert volume.voxels.dtype == np.int16
        assert volume.warnings == ("padding that would be brighter than 3071 HU was set to -1024 HU",)

    def test_a_range(self, tmp_path):
        folder = write_pixels(
            tmp_path / "a", lambda k: np.where(np.arange(SIDE) < 3, 60000 + k, noise(k, 0, 2000)), False, 16,
            PixelPaddingValue=60000, PixelPaddingRangeLimit=60005,
        )  # fmt: skip
        assert (Volume.read(folder).voxels[:, :, :3] == PADDING_HU).all()

    def test_bright_metal_that_is_no_padding_stays(self, tmp_path):
        folder = write_pixels(
            tmp_path / "a", lambda k: noise(k, 0, 9000), False, 16, PixelPaddingValue=0,
        )  # fmt: skip
        assert assert_equals_pydicom(folder).voxels.max() == 9000 - 1024


def test_compression_with_loss_is_said(tmp_path):
    assert open_series(write_series(tmp_path / "a", LossyImageCompression="01")).warnings == (
        "the CT was compressed with loss",
    )


@pytest.mark.parametrize(
    "syntax, words",
    [
        (JPEG2000Lossless, ("JPEG 2000", 'pip install "segmate-core[dicom]"')),
        (JPEGLSLossless, ("JPEG-LS", 'pip install "segmate-core[dicom]"')),
        (JPEGLosslessSV1, ("JPEG Lossless", "pip install python-gdcm")),
        (MPEG2MPML, ("MPEG2", "export the series uncompressed")),
    ],
)
def test_a_missing_decoder_says_what_helps(tmp_path, monkeypatch, syntax, words):
    if syntax != MPEG2MPML:
        monkeypatch.setattr(type(pydicom.pixels.get_decoder(syntax)), "available_plugins", ())
    refused(write_series(tmp_path / "a", syntax=syntax), "is compressed", *words)


class TestLies:
    """A header that announces more than the file holds is refused before anything is allocated by it."""

    @pytest.fixture(autouse=True)
    def little_memory(self):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        yield
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB

    @pytest.mark.parametrize(
        "changes, words",
        [
            ({"Rows": 8000, "Columns": 8000}, "announces 8000 x 8000 pixels in 1 frames, 128000000 bytes"),
            ({"Rows": 65535, "Columns": 65535}, "65535 as Rows, expected 1 to 8192"),
            ({"Rows": 0}, "0 as Rows"),
            ({"BitsAllocated": 12}, "12 of 12 bits"),
            ({"BitsAllocated": 65528, "BitsStored": 65528}, "65528 as BitsAllocated"),
            ({"PixelData": bytes(10)}, "the pixels cannot be read"),
        ],
    )
    def test_uncompressed(self, tmp_path, changes, words):
        refused(write_series(tmp_path / "a", **changes), words)

    @pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
    def test_a_codestream_of_another_size(self, tmp_path, syntax):
        pytest.importorskip({JPEGLSLossless: "jpeg_ls", JPEG2000Lossless: "openjpeg"}[syntax])
        folder = write_pixels(tmp_path / "a", lambda k: noise(k, 0, 4095), False, 12, syntax=syntax)
        for path in folder.iterdir():
            data = pydicom.dcmread(path)
            content = bytearray(data.PixelData)
            if syntax == JPEG2000Lossless:
                at = content.index(b"\xff\x51") + 6
                content[at : at + 8] = struct.pack(">LL", 60_000, 60_000)
            else:
                at = content.index(b"\xff\xf7") + 5
                content[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
            data.PixelData = bytes(content)
            data.save_as(path)
        refused(folder, "announces 40 x 40 pixels, its compressed image is 60000 x 60000")

    @pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
    def test_a_codestream_that_was_cut_off(self, tmp_path, syntax):
        pytest.importorskip({JPEGLSLossless: "jpeg_ls", JPEG2000Lossless: "openjpeg"}.get(syntax, "numpy"))
        folder = write_pixels(tmp_path / "a", lambda k: noise(k, 0, 4095), False, 12, syntax=syntax)
        data = pydicom.dcmread(folder / "02.dcm")
        (frame,) = generate_frames(data.PixelData, number_of_frames=1)
        data.PixelData = encapsulate([frame[: len(frame) * 2 // 3]])
        data.save_as(folder / "02.dcm")
        refused(folder, "02.dcm", "damaged")

    def test_a_tiny_compressed_file(self, tmp_path):
        lie = {"Rows": 8192, "Columns": 8192, "PixelData": bytes(80)}
        refused(write_series(tmp_path / "a", syntax=RLELossless, **lie), "announces 8192 x 8192 pixels")

    def test_a_codestream_that_is_none(self, tmp_path):
        pytest.importorskip("openjpeg")
        for number, pixels in enumerate((stored(0).tobytes(), bytes(10) + b"\xff\xd9")):
            folder = write_series(tmp_path / str(number), syntax=JPEG2000Lossless, PixelData=pixels)
            refused(folder, ("cut off", "no readable JPEG 2000")[number])
