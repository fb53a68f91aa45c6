"""The values and colours of labels that a remap names."""

from collections.abc import Callable, Mapping

from segment.models.classes import Colour


def unambiguous(remap: Mapping[str, str | int], parse: Callable[[str | int], int]) -> dict[str, str | int]:
    """Return a remap with keys of text, in order. Raises ValueError: two entries of one source contradict each other.

    Args:
        remap: of which a value or colour may be written in several ways: `7` and `"07"`, `"#400080"` and `"64,0,128"`.
    """
    entries = sorted(((str(key), target) for key, target in remap.items()), key=lambda entry: entry[0])
    first: dict[int | Colour | str, tuple[str, str | int]] = {}
    for key, target in entries:
        other, before = first.setdefault("*" if key == "*" else parse_source(key), (key, target))
        if parse(before) != parse(target):
            raise ValueError(f"remap from {other!r} to {before!r} and from {key!r} to {target!r} contradict each other")
    return dict(entries)


def parse_source(key: str) -> int | Colour:
    """Return the label value or colour that a remap's key names. Raises ValueError."""
    text = key.strip()
    try:
        if text.startswith("#") and len(text) == 7:
            red, green, blue = bytes.fromhex(text[1:])
            return red, green, blue
        numbers = [int(part) for part in text.replace(",", " ").split()]
        if all(0 <= number <= 255 for number in numbers):
            if len(numbers) == 1:
                return numbers[0]
            if len(numbers) == 3:
                return numbers[0], numbers[1], numbers[2]
    except ValueError:
        pass
    pairs = "; give each pair by itself" if "=" in key else ""
    raise ValueError(f"remap from {key!r}: not a label value (0-255) or a colour ('R,G,B' or '#rrggbb'){pairs}")
