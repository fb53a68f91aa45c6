"""Read the samples of a part, whatever its format. Workers import this alone of what finds and reads inputs."""

from segment.inputs.loose.file_reads import read_files
from segment.inputs.own_scope import scope_of
from segment.inputs.parquet.row_groups import read_parquet, read_row_ids
from segment.inputs.parts import Part, Sample
from segment.inputs.tars.member_reads import read_webdataset
from segment.job import InputOptions
from segment.store.client import Store


def read_part(part: Part, options: InputOptions, store: Store, *, windowed: bool = False) -> list[Sample]:
    """Read the samples of a part: exactly `len(part)` of them, in order.

    Args:
        windowed: do not read TIFFs of `segment.inputs.large_files.LARGE_BYTES` or more, which have no limit then, but
            say where they are (`Sample.large_image`); `open_image_file` opens them. Not in Parquet files, whose cells
            are read as a whole.

    Raises:
        InputChanged: an object is not the planned one any more.
        NotAllowed: the tar or Parquet file of the part is outside of the scope of the run.
        StoreError: the store refused, or failed too often.
    """
    store = _limited(part, options, store)
    if part.format == "files":
        return read_files(part, options, store, windowed=windowed)
    if part.format == "parquet":
        return read_parquet(part, options, store)
    return read_webdataset(part, options, store, windowed=windowed)


def read_ids(part: Part, options: InputOptions, store: Store) -> list[str]:
    """Read the ids of the rows of a part of a Parquet file, equal to those of `read_part`.

    Raises InputChanged: the file is not the planned one; SegmentError: the ids cannot be read.
    """
    return read_row_ids(part, options, _limited(part, options, store))


def _limited(part: Part, options: InputOptions, store: Store) -> Store:
    """Return a store that reads what the run may read; where no run is known, what the part's own shard may name.

    Raises NotAllowed: the tar or Parquet file of the part is outside of that.
    """
    scope = store.scope or scope_of(part.url, options)
    if part.format != "files":
        scope.check(part.url)
    return store.within(scope)
