"""When a run fails for its images: before its end, or at its end, because too many fail or no label can be used."""

from __future__ import annotations

from collections.abc import Iterable

from segment.errors import TooManyErrors
from segment.progress import Tally
from segment.store.names import shown

_MANY = 100  # error rows before a run is given up, and images that must be left: else its end decides and reports
_LABELS = 16  # labels that fail, every one so far and all for one reason, before a run is given up
_LABEL = "label_"  # how the codes of `SAMPLE_ERRORS` begin that are a label's


def refuse_hopeless(tally: Tally, error_limit: float, output: str) -> None:
    """Stop a run that is lost.

    Args:
        tally: how it stands.
        error_limit: error rows that this attempt may make.
        output: URL of the run.

    Raises:
        TooManyErrors: it is lost; what to change is said.
    """
    errors, left = tally.errors.total(), tally.images - tally.done
    if errors > error_limit and errors >= _MANY and left >= _MANY:
        most_common = ", ".join(f"{number} {code}" for code, number in tally.errors.most_common(3))
        raise TooManyErrors(
            f"{errors} of {tally.images} images failed before the end, more than --max-error-rate allows "
            f"({most_common}). A rerun with a higher rate resumes."
        )
    # Where all that is left may fail, the end decides; and so it does of a run that goes on: labels of earlier attempts
    # may have been used, and nobody has counted them.
    if tally.labelled or tally.resumed or not left or tally.images <= error_limit:
        return
    texts = [text for code, text in tally.error_texts.items() if code.startswith(_LABEL)]
    number = sum(tally.errors[text.partition(":")[0]] for text in texts)
    if number >= _LABELS and (advice := label_advice(texts, output)):
        raise TooManyErrors(
            f"none of the first {number} labels could be used, all for one reason: {texts[0]}.{advice} "
            "With --max-error-rate 1 the same command goes on as it is."
        )


def label_advice(errors: Iterable[str], output: str) -> str:
    """Say, in sentences that begin with a blank, how a run goes on that has used no label; `""` unless all fail alike.

    Args:
        errors: texts of error rows.
        output: URL of the run.
    """
    codes = {code for error in errors if (code := error.partition(":")[0]).startswith(_LABEL)}
    if len(codes) != 1:
        return ""
    return (
        " To use other labels, give --labels, --label-pattern, --label-key or --label-column. A run with another label "
        f"option is another run: choose another output, or delete {shown(output)} first. After labels were mended "
        "where they are, run the same command with --update, or with --retry-errors where a Parquet file gives their "
        "paths."
    )
