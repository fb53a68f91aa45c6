"""Large TIFFs are left where they are, and read from there by ranges, of the object that was planned."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from segment.errors import InputChanged, StoreError
from segment.images import codec
from segment.images.mask_png import encode_mask
from segment.images.tiff_raster import TiffRaster
from segment.images.tiff_tags import TiffPage
from segment.inputs import large_files
from segment.inputs.discover import discover
from segment.inputs.large_files import open_image_file, open_label_file, open_span
from segment.inputs.parts import Sample, Span
from segment.inputs.reads import read_part
from segment.job import InputOptions
from segment.store.client import Store
from tests.s3 import S3Server
from tests.web import Web

PIXELS = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
CLASSES = PIXELS[:, :, 0] // 64


def tiff(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(
        file, pixels, tile=(64, 64), photometric="rgb" if pixels.ndim == 3 else "minisblack", metadata=None
    )
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a large TIFF and its label, a large PNG, and a small TIFF."""
    monkeypatch.setattr(large_files, "LARGE_BYTES", 200_000)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "images/a.tif").write_bytes(tiff(PIXELS))
    (tmp_path / "labels/a.tif").write_bytes(tiff(CLASSES))
    (tmp_path / "images/b.png").write_bytes(codec.encode_png(PIXELS))
    (tmp_path / "labels/b.png").write_bytes(encode_mask(CLASSES))
    (tmp_path / "images/c.tif").write_bytes(tiff(PIXELS[:64, :64]))
    (tmp_path / "labels/c.tif").write_bytes(tiff(CLASSES[:64, :64]))
    return tmp_path


def samples(folder: Path, *, windowed: bool = True, max_bytes: int = 1 << 28, packed: bool = False) -> list[Sample]:
    place = folder / "x.tar" if packed else folder / "images"
    labels = None if packed else str(folder / "labels")
    options = InputOptions(labels=labels, max_image_bytes=max_bytes)
    store = Store()
    (part,) = discover(str(place), options, store).parts
    return read_part(part, options, store, windowed=windowed)


def pack(folder: Path) -> None:
    with tarfile.open(folder / "x.tar", "w") as tar:
        for name in ("a.tif", "b.png", "c.tif"):
            tar.add(folder / "images" / name, name)


@pytest.mark.parametrize("packed", [False, True])
def test_large_tiffs_are_opened_where_they_are(folder: Path, packed: bool) -> None:
    if packed:
        pack(folder)
    large, png, small = samples(folder, packed=packed)
    assert (large.image, large.fault) == (b"", None)
    store = Store()
    with open_image_file(large, store) as file:
        found = TiffRaster(TiffPage(file), 1 << 30)
        opened = store.calls
        assert opened <= 4
        assert np.array_equal(found.read(100, 100, 30, 200), PIXELS[100:130, 100:300])
        assert store.calls == opened + 2  # two rows of tiles, of which some are between those that are wanted
    for other in (png, small):
        assert other.large_image is None
        assert other.image
    with open_image_file(png, store) as file:
        assert file.read() == png.image
    labels = [open_label_file(sample, store) for sample in (large, png, small)]
    assert [label is None for label in labels] == [packed] * 3


def test_a_large_label_is_opened_where_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_files, "LARGE_BYTES", 50_000)
    large = samples(folder)[0]
    assert large.label is None
    assert large.large_label is not None
    file = open_label_file(large, Store())
    assert file is not None
    assert np.array_equal(tifffile.imread(io.BytesIO(file.read(1 << 20))), CLASSES)


def test_only_what_is_read_as_a_whole_has_a_limit(folder: Path) -> None:
    large, png, small = samples(folder, max_bytes=150_000)
    assert large.fault is None
    assert large.large_image is not None
    assert png.fault == "too_many_bytes"
    assert small.fault is None
    assert [sample.fault for sample in samples(folder, max_bytes=150_000, windowed=False)] == ["too_many_bytes"] * 2 + [
        None
    ]
    assert all(sample.image for sample in samples(folder, windowed=False))


def test_a_replaced_tiff_is_noticed_by_every_range(folder: Path) -> None:
    large = samples(folder)[0]
    file = open_image_file(large, Store())
    found = TiffRaster(TiffPage(file), 1 << 30)
    found.read(0, 0, 10, 10)
    path = folder / "images/a.tif"
    os.utime(path, (1, 1))
    with pytest.raises(InputChanged, match="has changed"):
        found.read(200, 0, 10, 10)
    path.unlink()
    with pytest.raises(InputChanged, match="has vanished"):
        found.read(200, 0, 10, 10)


def test_a_tiff_in_a_bucket_is_read_by_few_ranges(
    folder: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in s3_server.env.items():
        monkeypatch.setenv(key, value)
    url = f"{s3_server.bucket_url('large-tiffs')}/a.tif"
    store, options = Store(s3_server.options), InputOptions()
    store.write(url, (folder / "images/a.tif").read_bytes())
    (part,) = discover(url, options, store).parts
    (sample,) = read_part(part, options, store, windowed=True)
    assert sample.large_image is not None
    before = store.calls
    found = TiffRaster(TiffPage(open_image_file(sample, store)), 1 << 30)
    for top in range(0, 300, 64):
        band = found.read(top, 0, min(64, 300 - top), 400)
        assert np.array_equal(band, PIXELS[top : top + 64])
    assert store.calls - before <= 3 + 5  # the directory, and a request for each row of tiles
    store.write(url, (folder / "images/c.tif").read_bytes())
    with pytest.raises(InputChanged, match="has changed"):
        found.read(0, 0, 10, 10)


def test_windows_survive_a_failing_server(folder: Path, web: Web, no_waiting: None) -> None:
    """503, broken connections, too few bytes: each window is right, or the failure is the store's."""
    web.etags = True
    data = (folder / "images/a.tif").read_bytes()
    url = web.put("/a.tif", data)
    page, store = web.pages["/a.tif"], Store()
    entry = store.info(url)
    assert entry is not None
    found = TiffRaster(TiffPage(open_span(Span.of(entry), store)), 1 << 30)
    for top, fault in enumerate(({"busy": 3}, {"drops": 2}, {"short": 2}, {"busy": 1, "drops": 1})):
        before = len(web.fetched("/a.tif"))
        vars(page).update(fault)
        assert np.array_equal(found.read(64 * top, 0, 64, 400), PIXELS[64 * top : 64 * top + 64])
        assert len(web.fetched("/a.tif")) - before == 1 + sum(fault.values())
    page.stop_after = 0
    with pytest.raises(StoreError, match="503"):
        found.read(256, 0, 44, 400)
    page.stop_after, page.body = -1, data[:-1] + b"?"
    with pytest.raises(InputChanged, match="has changed"):
        found.read(256, 0, 44, 400)
