"""Which names indicate images, labels or ids: one table for columns, fields, folders and tar members of all formats."""

import re
from typing import Literal

from segment.store.names import LABEL_SUFFIXES

Role = Literal["image", "label", "id"]

# Column names as one lower-case word, without the words that only indicate a path (`_FILLERS`).
_NAMES: dict[Role, frozenset[str]] = {
    "image": frozenset(
        """
        image images img imgs im picture pic photo frame rgb rgbimage inputimage sourceimage leftimage leftimg8bit jpg
        jpeg input
        """.split()  # noqa: SIM905
    ),
    "label": frozenset(
        """
        label labels mask masks annotation annotations annot annots ann anno segmentation segmentations seg segs segm
        segmap segmaps segmask segimage segmentationmask segmentationmap segmentationimage segmentationclass semantic
        semanticmask semanticmap semanticseg semanticsegmentation semanticlabel gt gts groundtruth groundtruthmask
        gtmask gtlabel gtimage gtimg gtseg gtsegmap gtfine target targetmask labelmap labelmask labelimage labelimg
        labelpng labelid labelids labeltrainids maskimage maskimg maskpng segpng annotationimage annotationmask
        annotationpng truth truthmask lbl lbls msk msks annos semseg semsegmask seglabel segmentationlabel gtsemanticseg
        gtsegmentation gtsemseg masklabel rle rles rlemask maskrle segmentationrle encodedpixels encodedmask polygon
        polygons
        """.split()  # noqa: SIM905
    ),
    "id": frozenset({"id", "imageid", "imgid", "sampleid", "key", "samplekey", "uid", "uuid"}),
}
_PLACES = frozenset(
    """
    path paths pathname file files filename filenames filepath fullpath url urls uri uris href link location
    """.split()  # noqa: SIM905
)
_FILLERS = _PLACES | frozenset(
    "name names loc to of the full rel relative abs absolute local remote s3 gcs http".split()  # noqa: SIM905
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\dA-Za-z_]+")
# Label names of which text may also be a class name, polygons or run lengths instead of a path.
_NO_PATHS = frozenset(
    """
    label labels lbl lbls annotation annotations annot annots ann anno annos target
    rle rles rlemask maskrle segmentationrle encodedpixels encodedmask polygon polygons
    """.split()  # noqa: SIM905
)
# Words in the suffix of a tar member, `a.gt.png`, that indicate a label: column names and kinds of label images.
LABEL_WORDS = _NAMES["label"] | frozenset(
    "labeltrainids trainids panoptic instance instances instanceids parsing classes classmap".split()  # noqa: SIM905
)
# Parts of the name of a folder or column that may hold labels: likely enough for a hint.
LABEL_PARTS = ("label", "mask", "annot", "segmentation", "segmap", "groundtruth", "ground_truth", "gtfine")
LABEL_FOLDERS = ("labels", "masks", "annotations", "label", "mask", "annotation", "gt", "SegmentationClass",
                 "ground_truth")  # fmt: skip
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "photos", "leftimg8bit")
LABEL_ENDS = ("_mask", "_label", "_labels", "_gt", "_seg", "_segmentation", "_annotation", "_L", "_P", "_labelIds",
              "_labelTrainIds", "-mask", "-label", ".mask", ".label", ".seg")  # fmt: skip


def role_of(name: str) -> Role | None:
    """Return the role that the name of a column, field, folder or member indicates; None if it indicates none.

    >>> role_of("image_path"), role_of("segMap URL"), role_of("file_name"), role_of("sample-id"), role_of("split")
    ('image', 'label', 'image', 'id', None)
    >>> role_of("seg.png"), role_of("sample.mask"), role_of("gt_bytes")  # a tar member, a field, encoded bytes
    ('label', 'label', 'label')
    """
    stem, dot, suffix = name.rpartition(".")
    if dot and f".{suffix.lower()}" in LABEL_SUFFIXES and role_of(stem) == "label":
        return "label"
    word = word_of(name)
    if word == "":  # `path`, `file_name`, `url`
        return "image"
    return next((role for role, names in _NAMES.items() if word in names), None)


def word_of(name: str) -> str | None:
    """Return a name as one word without fillers; for a nested field its last name. None if the name has no letters."""
    words = _words(name)
    kept = [word for word in words if word not in _FILLERS]
    if len(kept) > 1 and kept[-1] == "bytes":
        kept.pop()
    return "".join(kept) if words else None


def names_label_path(name: str) -> bool:
    """Return whether text in a column of this name is the path of a label rather than the name of a class.

    >>> [names_label_path(name) for name in ("label", "label_path", "masks", "label_name")]
    [False, True, True, False]
    """
    says_path = not _PLACES.isdisjoint(_words(name))
    return role_of(name) == "label" and (says_path or word_of(name) not in _NO_PATHS)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(name.rpartition(".")[2])]
