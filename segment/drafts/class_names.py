"""Classes of a model by their number, as the usual data sets have them; names and colours for the others."""

import itertools

from segment.drafts.contract import Said, guess
from segment.models.card import load_card
from segment.models.classes import Classes, Colour

# Built-in cards whose classes are those of a data set.
_CARDS = {12: ("CamVid", "unet-camvid-onnx-0001"), 21: ("PASCAL VOC", "deeplabv3-mobilenetv2-int8")}
_CITYSCAPES: dict[str, Colour] = {
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156),
    "fence": (190, 153, 153), "pole": (153, 153, 153), "traffic light": (250, 170, 30), "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35), "terrain": (152, 251, 152), "sky": (70, 130, 180), "person": (220, 20, 60),
    "rider": (255, 0, 0), "car": (0, 0, 142), "truck": (0, 0, 70), "bus": (0, 60, 100), "train": (0, 80, 100),
    "motorcycle": (0, 0, 230), "bicycle": (119, 11, 32),
}  # fmt: skip


def classes_of(count: int, why: str, names: Said[tuple[str, ...]] | None = None) -> Said[Classes]:
    """Return the classes of a model.

    Args:
        why: where the number is from.
        names: from the model's files, if there are as many.
    """
    if names is not None and len(names.value) == count:
        unique = _unique(names.value)
        known = _known(count)
        if known and _alike(known[1].names, unique):
            return Said(known[1].model_copy(update={"names": unique}), names.why)
        return Said(_named(unique), names.why)
    if names is not None:
        why += f", though {names.why} has {len(names.value)}"
    if known := _known(count):
        return guess(known[1], f"{why}, as many as {known[0]} has", "your own names, in the order of training")
    if count == 2:
        pair = _named(("background", "foreground"))
        return guess(pair, f"{why}: usually the background comes first", "your own names, in the order of training")
    numbered = _named(tuple(f"class-{index}" for index in range(count)))
    return guess(numbered, f"{why}, and nothing names them", "your own names, in the order of training")


def _known(count: int) -> tuple[str, Classes] | None:
    if count == len(_CITYSCAPES):
        return "Cityscapes", Classes(names=tuple(_CITYSCAPES), palette=tuple(_CITYSCAPES.values()), ignore=(255,))
    if count not in _CARDS:
        return None
    data_set, card = _CARDS[count]
    return data_set, load_card(card).classes


def _alike(names: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Whether most names are the same, blanks and capitals aside: VOC's tvmonitor is also called tv."""
    pairs = zip(names, others, strict=True)
    same = sum(one.replace(" ", "").lower() == other.replace(" ", "").lower() for one, other in pairs)
    return 4 * same >= 3 * len(names)


def _named(names: tuple[str, ...]) -> Classes:
    return Classes(names=names, palette=palette(len(names)), ignore=(255,) if len(names) < 255 else ())


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    """Number names that occur twice, as ADE20K has some."""
    taken, unique = set(names), []
    for position, name in enumerate(names):
        if names.index(name) != position:
            numbered = (f"{name} ({number})" for number in itertools.count(position))
            name = next(one for one in numbered if one not in taken)
            taken.add(name)
        unique.append(name)
    return tuple(unique)


def palette(count: int) -> tuple[Colour, ...]:
    """Return distinct colours: PASCAL VOC's colour map, which spreads the bits of the index over the channels.

    >>> palette(3)
    ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    """
    return tuple((_channel(index, 0), _channel(index, 1), _channel(index, 2)) for index in range(count))


def _channel(index: int, first: int) -> int:
    return sum(((index >> (3 * step + first)) & 1) << (7 - step) for step in range(3))
