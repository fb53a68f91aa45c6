"""Messages of libpng, libjpeg and libtiff are captured and returned; those of other libraries are logged."""

import contextlib
import ctypes
import io
import logging
import os
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from segment.errors import SampleError
from segment.images import codec
from segment.images.decoder_stderr import capture_decoder_stderr
from segment.images.labels import LabelDecoder
from segment.models.classes import Classes

LIMIT = 10**7
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8))


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, kind)
    return buffer.getvalue()


def with_bad_profile() -> bytes:
    """Return a PNG with valid pixels and an invalid colour profile."""
    png = saved("PNG")
    chunk = b"iCCPx\0\0" + zlib.compress(b"junk")
    return png[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


def corrupt_jpeg() -> bytes:
    data = bytearray(saved("JPEG"))
    data[3000:3040] = bytes(0xFF if position % 7 == 0 else 0x13 for position in range(40))
    return bytes(data)


def corrupt_png() -> bytes:
    data = bytearray(saved("PNG"))
    data[5000] ^= 255
    return bytes(data)


def fault(data: bytes) -> str:
    with pytest.raises(SampleError) as caught:
        codec.decode(data, LIMIT)
    return caught.value.code


def test_nothing_of_the_decoders_reaches_stderr_and_damage_is_noticed(capfd: pytest.CaptureFixture[str]) -> None:
    assert codec.decode_picture(with_bad_profile(), LIMIT).remarks == ()  # changes no pixel
    assert codec.decode_picture(corrupt_jpeg(), LIMIT).remarks == ("image_damaged",)
    assert fault(corrupt_png()) == "undecodable"
    assert codec.decode_picture(saved("JPEG"), LIMIT).remarks == ()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "group4", "jpeg"])
def test_nothing_of_libtiff_reaches_stderr(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Labels are decoded by Pillow, whose libtiff prints; so are images with alpha."""
    mask = np.random.default_rng(0).integers(0, 2, (60, 80), np.uint8)
    kinds = [Image.fromarray(mask == 1)] if compression == "group4" else [Image.fromarray(mask)]
    if compression not in ("group4", "jpeg"):
        kinds.append(Image.fromarray(np.dstack([mask] * 4)))
    labels = LabelDecoder(Classes(names=("a", "b"), palette=((0, 0, 0), (1, 1, 1))), remap={"*": 0}, allow_lossy=True)
    for picture in kinds:
        buffer = io.BytesIO()
        picture.save(buffer, "TIFF", compression=compression)
        for at in range(8, len(buffer.getvalue()), 11):
            damaged = bytearray(buffer.getvalue())
            damaged[at] ^= 0x5A
            with contextlib.suppress(SampleError):
                labels.read(bytes(damaged), 60, 80)
            with contextlib.suppress(SampleError):
                codec.decode_picture(bytes(damaged), LIMIT)
    assert capfd.readouterr() == ("", "")


def test_warnings_of_pillow_on_a_damaged_header_do_not_reach_stderr() -> None:
    buffer = io.BytesIO()
    PICTURE.save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    at = data.index(struct.pack("<HHI", 277, 3, 1)) + 8  # samples per pixel
    data[at : at + 2] = struct.pack("<H", 999)
    code = (
        "import sys; from segment.images import headers\n"
        "try: headers.open_header(sys.stdin.buffer.read())\n"
        "except Exception as error: print(type(error).__name__)"
    )
    ended = subprocess.run([sys.executable, "-c", code], input=bytes(data), capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (b"UnidentifiedImageError\n", b"")


def test_threads_that_decode_at_once_print_nothing_and_notice_damage(capfd: pytest.CaptureFixture[str]) -> None:
    jpeg, png = corrupt_jpeg(), with_bad_profile()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda data: codec.decode_picture(data, LIMIT).remarks, [jpeg, png] * 100))
    assert capfd.readouterr() == ("", "")
    assert 1 <= sum(bool(remarks) for remarks in found) <= 100  # two at the same time may be returned as one


def print_to_stderr(text: bytes) -> None:
    libc = ctypes.CDLL(None)
    libc.fputs(text, ctypes.c_void_p(ctypes.c_void_p.in_dll(libc, "stderr").value))


def test_other_messages_are_logged(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with capture_decoder_stderr() as damage:
        print_to_stderr(b"ZIPDecode: Decoding error at scanline 0.\nTIFFReadDirectory: Warning, Unknown field.\n")
        print_to_stderr(b"terminate: out of memory.\nlibpng warning: iCCP: known incorrect sRGB profile\n")
        print_to_stderr(b"Corrupt JPEG data: bad Huffman code\ncuda: Warning, no driver.\n")
    assert damage == ["ZIPDecode: Decoding error at scanline 0.", "Corrupt JPEG data: bad Huffman code"]
    assert [record.getMessage() for record in caplog.records] == [
        "printed by a C library: terminate: out of memory.",
        "printed by a C library: cuda: Warning, no driver.",
    ]
    assert capfd.readouterr().err == ""
    print_to_stderr(b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"


class _Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise BrokenPipeError


def test_a_log_that_cannot_be_written_is_no_fault_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    logger, broken = logging.getLogger("segment.images.decoder_stderr"), _Broken()
    logger.addHandler(broken)

    def decode(*args: object) -> object:
        print_to_stderr(b"somebody else\n")
        return imdecode(*args)

    imdecode = cv2.imdecode
    monkeypatch.setattr("cv2.imdecode", decode)
    try:
        assert codec.decode_picture(saved("JPEG"), LIMIT).remarks == ()
        assert codec.decode_picture(saved("PNG"), LIMIT).remarks == ()
    finally:
        logger.removeHandler(broken)


def test_a_forked_child_listens_for_itself(capfd: pytest.CaptureFixture[str]) -> None:
    jpeg = corrupt_jpeg()
    with capture_decoder_stderr():
        child = os.fork()
        if not child:  # while the parent captures
            found = [codec.decode_picture(jpeg, LIMIT).remarks for _ in range(3)]
            os._exit(found != [("image_damaged",)] * 3)
    assert codec.decode_picture(jpeg, LIMIT).remarks == ("image_damaged",)
    assert os.waitpid(child, 0)[1] == 0
    assert capfd.readouterr() == ("", "")


def test_stderr_is_given_back_after_an_exception(capfd: pytest.CaptureFixture[str]) -> None:
    libc = ctypes.CDLL(None)
    before = ctypes.c_void_p.in_dll(libc, "stderr").value
    with pytest.raises(ZeroDivisionError), capture_decoder_stderr():
        _ = 1 // (ctypes.c_void_p.in_dll(libc, "stderr").value == before)
    assert ctypes.c_void_p.in_dll(libc, "stderr").value == before
