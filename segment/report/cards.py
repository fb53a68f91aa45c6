"""What the terminal shows of model cards."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from segment.models.buckets import scaled_size
from segment.models.card import ModelCard, WeightsFile, built_in_cards, load_card
from segment.models.card_output import Output
from segment.models.quantisation import Quantisation
from segment.progress.safe_console import SafeConsole
from segment.report.fitting import print_rows
from segment.report.percents import percent
from segment.report.published import published_in_words
from segment.store.names import count, shown

_SOME = 7  # class names that tell what a model is for


def print_cards() -> None:
    """Print a table of the built-in cards."""
    rows = [["model", "input", "classes", "mIoU %", "weights"]]
    cards = [load_card(name) for name in built_in_cards()]
    for card in cards:
        height, width = card.input.sides
        size = f"{width}x{height}"
        rows.append([card.name, size, str(len(card.classes)), _published(card), _weights(card)])
    console = SafeConsole(highlight=False)
    print_rows(console, rows)
    console.print()
    for names in dict.fromkeys(card.classes.names for card in cards):
        console.print(f"{len(names)} classes: {_some(names)}", style="dim")
    console.print("input: width x height; mIoU as published", style="dim")
    console.print("`segment models show NAME` prints a card, and where its weights are from", style="dim")


def _some(names: Sequence[str]) -> str:
    """Return the classes if they are few, else some; 'background' tells nothing."""
    if len(names) <= _SOME:
        return ", ".join(names)
    return f"{', '.join([name for name in names if name != 'background'][:_SOME])} and others"


def _published(card: ModelCard) -> str:
    return percent(card.metric.published.miou if card.metric.published else None)


def _weights(card: ModelCard) -> str:
    if not card.files:
        return "give --weights"
    if all(file.url.startswith("file://") for file in card.files):
        return "in this package"
    return f"fetched once, {sum(file.size for file in card.files) / 1e6:.0f} MB"


def print_card(card: ModelCard) -> None:
    """Print a card: its input, output, score, weights and classes."""
    console = SafeConsole(highlight=False)
    console.print(Text.assemble((card.name, "bold"), f"  {card.description}"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _card_rows(card):
        grid.add_row(name, Text(value) if isinstance(value, str) else value)
    console.print(grid)


def _card_rows(card: ModelCard) -> list[tuple[str, str | Text]]:
    spec, output, metric = card.input, card.output, card.metric
    pixels = "x".join(spec.sides)
    shape = f"{spec.depth}x{pixels}" if spec.layout == "NCHW" else f"{pixels}x{spec.depth}"
    size = pixels if spec.is_dynamic else f"{card.output_height}x{card.output_width}"
    rows: list[tuple[str, str | Text]] = [
        (
            "input",
            f"{spec.name or '(the only one)'}: Nx{shape} {spec.layout}, {spec.channels_in_words}, 0-{spec.maximum}",
        ),
        ("normalise", f"- {spec.mean} / {spec.std}" if any(spec.mean) or set(spec.std) != {1.0} else "nothing"),
        ("resize", _resize(card)),
        *([("views", views_in_words(card))] if spec.tta else []),
        (
            "output",
            f"{output.name or '(the only one)'}: {_kind(output)} {output.layout}, {size}; a smaller one is enlarged "
            f"({output.enlarging})",
        ),
        ("score", f"{metric.convention}, at {metric.resolution} size, labels by {metric.label_resampler}'s nearest"),
        ("published mIoU", "; ".join(filter(None, (published_in_words(card), card.metric.note))) or "-"),
        *([("cost", cost)] if (cost := _cost(card)) else []),
        ("licence", card.licence or "-"),
        ("source", card.source or "-"),
    ]
    rows += [("weights", _file(file)) for file in card.weights]
    rows += [
        (f"member {number}", ", ".join(map(_file, member.weights))) for number, member in enumerate(card.ensemble, 1)
    ]
    if card.quantisation:
        rows.append(("quantised", quantisation_in_words(card.quantisation)))
    return [*rows, ("classes", _classes(card))]


def _cost(card: ModelCard) -> str:
    figures = ((card.gflops, "GFLOPs"), (card.mparams, "M parameters"))
    return ", ".join(f"{number:g} {unit}" for number, unit in figures if number is not None)


def quantisation_in_words(made: Quantisation) -> str:
    """Return what weights were made from, by what, and what they cost."""
    prices = (f"{percent(price.agreement)} % of the pixels as before ({price.runtime})" for price in made.price)
    return "; ".join([f"from {made.source} by {made.method}, {count(made.images, 'image')}", *prices])


def _kind(output: Output) -> str:
    if output.kind != "sigmoid":
        return output.kind
    return f"sigmoid{' (a logit)' if output.logit else ''} > {output.threshold:g}"


def views_in_words(card: ModelCard) -> str:
    """Return the sizes of the views (height x width), and how many are averaged."""
    spec = card.input
    scaled = (scaled_size(spec.height, spec.width, scale) for scale in spec.scales)
    sizes = ["x".join(spec.sides), *(f"{height}x{width}" for height, width in scaled)]
    mirrored = ", each plain and mirrored" if spec.flips else ""
    return f"{', '.join(sizes)}{mirrored}: {len(sizes) * (1 + spec.flips)} averaged"


def _file(file: WeightsFile) -> str:
    return f"{shown(file.url)} ({file.size:,} bytes)"


def _resize(card: ModelCard) -> str:
    resize, tiles = card.input.resize, card.input.tiles
    if tiles:
        overlap = f"{100 * tiles.overlap:g} %" if tiles.overlap < 1 else f"{tiles.overlap:g} pixels"
        padding = "mirrored" if tiles.pad == "reflect" else f"border {resize.pad}"
        return f"none: tiles that overlap by {overlap} or more, blended by {tiles.blend}, {padding} at small images"
    text = f"{resize.method}, {resize.resampler} {resize.interpolation}"
    if resize.method in ("none", "short_side"):
        text = f"shorter side {resize.short_side}, {text}" if resize.short_side else "none"
    if card.input.is_dynamic:
        return f"{text}, border to multiples of {card.input.multiple_of} right and below, {resize.pad}"
    return text if resize.method == "stretch" else f"{text}, {resize.anchor}, border {resize.pad}"


def _classes(card: ModelCard) -> Text:
    text = Text()
    for index, name in enumerate(card.classes.names):
        text.append("■ ", style="rgb({},{},{})".format(*card.classes.palette[index]))
        text.append(f"{index} {name}{' (ignored)' if index in card.classes.ignored_classes else ''}  ")
    if card.classes.void_values:
        text.append(f"void: {', '.join(map(str, card.classes.void_values))}")
    return text
