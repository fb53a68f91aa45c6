"""The end of a run whose images or labels fail, early or not, and advice on labels."""

from collections.abc import Iterable

from segment.errors import TooManyErrors
from segment.progress import Tally
from segment.report.aggregate import RunReport
from segment.store.names import argument, shown

_MANY = 100  # a run ends early only with this many error rows, and this many images left to do
_MORE = 2  # an input whose images are estimated may hold so many times as many
_LABELS = 16  # a run ends early if this many labels fail for one reason and none was used
_LABEL = "label_"  # prefix of the codes in `SAMPLE_ERRORS` that are about labels


def refuse_hopeless(tally: Tally, max_error_rate: float, output: str) -> None:
    """End a run early if it cannot succeed.

    Args:
        max_error_rate: share of images that may fail, 0-1.

    Raises:
        TooManyErrors: too many images failed, or no label can be used; the message says what to change.
    """
    errors, left = tally.errors.total(), tally.images - tally.done
    most = max_error_rate * tally.images * (_MORE if tally.is_estimate else 1)
    if errors > most and errors >= _MANY and left >= _MANY:
        most_common = ", ".join(f"{number} {code}" for code, number in tally.errors.most_common(3))
        raise TooManyErrors(
            f"{errors} of {'about ' * tally.is_estimate}{tally.images} images failed before the end, more than "
            f"--max-error-rate allows ({most_common}). A rerun with a higher rate resumes."
        )
    # If all remaining images may fail, the end decides. So it does for a resumed run: earlier attempts may have used
    # labels, which are not counted.
    if tally.labelled or tally.resumed or not left or max_error_rate >= 1:
        return
    texts = [text for code, text in tally.error_texts.items() if code.startswith(_LABEL)]
    number = sum(tally.errors[text.partition(":")[0]] for text in texts)
    if number >= _LABELS and (advice := label_advice(texts, output)):
        raise TooManyErrors(
            f"none of the first {number} labels could be used, for the same reason: {texts[0]}.{advice}\n"
            "With --max-error-rate 1 the same command continues without them."
        )


def failed_by_errors(failure: str, report: RunReport) -> TooManyErrors:
    """Return the error of a run whose images are all done, too many of them as errors.

    Args:
        failure: what `too_many_errors` says.
    """
    first = f"; the first is {shown(report.errors[0].id)}, {report.errors[0].error}" if report.errors else ""
    advice = "" if report.is_scored else label_advice((e.error for e in report.errors), report.output)
    return TooManyErrors(
        f"{failure}{first}.\nAll others are done: "
        f"`segment report {argument(report.output)}` lists failed and left-out images.{advice}"
    )


def label_advice(errors: Iterable[str], output: str) -> str:
    """Return advice for a run that used no label, on lines of its own; `""` unless all labels fail for one reason.

    Args:
        errors: texts of error rows.
    """
    codes = {code for error in errors if (code := error.partition(":")[0]).startswith(_LABEL)}
    if len(codes) != 1:
        return ""
    return (
        "\nOther labels (--labels, --label-pattern, --label-key, --label-column) or another meaning (--label-remap) "
        f"are another run: choose another output, or delete {shown(output)} first.\nLabels mended in place: the same "
        "command with --update, or with --retry-errors where a Parquet file gives their paths."
    )
