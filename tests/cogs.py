"""A checker of cloud-optimised GeoTIFFs, by OGC 21-026 and the rules of GDAL's `validate_cloud_optimized_geotiff`."""

from itertools import pairwise
from pathlib import Path

import tifffile

_HEADERS = {False: 8, True: 16}  # bytes of the header of a TIFF and of a BigTIFF


def cog_faults(path: Path) -> list[str]:
    """Return what is wrong with the layout of a file; empty for a COG."""
    faults = []
    with tifffile.TiffFile(path) as file:
        pages = list(file.pages)
        sizes = [(page.imagelength, page.imagewidth) for page in pages]
        places = [page.offset for page in pages]
        if places[0] != _HEADERS[file.is_bigtiff]:
            faults.append("the first directory is not behind the header")
        if places != sorted(places):
            faults.append("the directories are not in the order of the pages")
        for page in pages:
            if not page.is_tiled:
                faults.append("a page without tiles")
            if page.offset > min(page.dataoffsets):
                faults.append("tiles before their directory")
        if any(not page.subfiletype & 1 for page in pages[1:]) or pages[0].subfiletype & 1:
            faults.append("an overview is not marked as one, or the image is")
        if any(later[0] >= former[0] or later[1] >= former[1] for former, later in pairwise(sizes)):
            faults.append("overviews do not become smaller")
        if max(sizes[-1]) > 512:
            faults.append("the smallest overview has several tiles")
        if places[-1] > min(min(page.dataoffsets) for page in pages):
            faults.append("a directory behind tiles")
        for former, later in pairwise(pages):
            if min(former.dataoffsets) < max(later.dataoffsets):
                faults.append("tiles of an image before those of its overview")
        if any(list(page.dataoffsets) != sorted(page.dataoffsets) for page in pages):
            faults.append("tiles are not in order")
    return faults
