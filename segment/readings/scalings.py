"""Value range and normalisation of a model's input, and the usual ones."""

from __future__ import annotations

from dataclasses import dataclass

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Scaling:
    """How bytes become the graph's input: `(pixel / 255 * maximum - mean) / std`; one value a channel."""

    maximum: int = 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @property
    def reversed(self) -> Scaling:
        """The same, the channels in the opposite order."""
        return Scaling(self.maximum, self.mean[::-1], self.std[::-1])

    def equals(self, other: Scaling) -> bool:
        """Whether both map every byte to the same number, up to one part in ten thousand."""
        ours, theirs = self._ends(), other._ends()
        spans = [abs(high - low) for low, high in theirs]
        return len(ours) == len(theirs) and all(
            max(abs(a - b) for a, b in zip(one, another, strict=True)) <= 1e-4 * span
            for one, another, span in zip(ours, theirs, spans, strict=True)
        )

    def _ends(self) -> list[tuple[float, float]]:
        """What black and white become, channel by channel."""
        return [(-mean / std, (self.maximum - mean) / std) for mean, std in zip(self.mean, self.std, strict=True)]


IMAGENET = Scaling(1, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SYMMETRIC = Scaling(255, (127.5,) * 3, (127.5,) * 3)
# Of the training images, as Open Model Zoo gives them for its networks of CamVid.
CAMVID = Scaling(1, (0.39068785, 0.40521392, 0.41434407), (0.29652068, 0.30514979, 0.30080369))

# By name, the channels in the order red, green, blue.
USUAL = {"0 to 255": Scaling(), "0 to 1": Scaling(1), "-1 to 1": SYMMETRIC, "ImageNet": IMAGENET, "CamVid": CAMVID}


def usual_scalings(channels: str) -> dict[str, Scaling]:
    """Return the usual normalisations by name, for `RGB`, `BGR` or `GREY`; of grey only those alike for all colours."""
    if channels == "GREY":
        grey = {name: scaling for name, scaling in USUAL.items() if len(set(scaling.mean)) == 1}
        return {name: Scaling(found.maximum, found.mean[:1], found.std[:1]) for name, found in grey.items()}
    return {name: found.reversed if channels == "BGR" else found for name, found in USUAL.items()}


def scaling_in_words(scaling: Scaling, channels: str) -> str:
    """Return a usual normalisation's name, or the numbers."""
    for name, usual in usual_scalings(channels).items():
        if scaling.equals(usual):
            return name
    return f"maximum {scaling.maximum}, mean {_numbers(scaling.mean)}, std {_numbers(scaling.std)}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
