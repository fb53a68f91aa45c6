"""Discover the images of an input, whatever its format, and cut them into parts; `reads` reads these."""

import hashlib
import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice

from segment.errors import NotAFile, StoreError, TooManyBytes, UsageError
from segment.inputs.changes import Known
from segment.inputs.detection import Kind, detect_kind, entries_of_kind
from segment.inputs.discovery import Discovery
from segment.inputs.findings import Findings, Reason
from segment.inputs.lists.list_file import listed_urls, plan_list
from segment.inputs.loose.files import plan_files
from segment.inputs.loose.pattern_labels import wanted_labels
from segment.inputs.own_scope import scope_of
from segment.inputs.parquet.footers import plan_parquet
from segment.inputs.parquet.table_formats import current_files
from segment.inputs.patterns import LIST_SUFFIXES, Found, find_objects, sign_input
from segment.inputs.shards import Planned, Remade, Shard, counted, cut, encoded_bytes, mark_repeated, shard_hash
from segment.inputs.tars.instalments import plan_first_tars, unindexed_of
from segment.inputs.tars.webdataset import plan_webdataset
from segment.job import InputOptions
from segment.store.bounds import MOST_JSON
from segment.store.client import Entry, Store
from segment.store.entries import Entries
from segment.store.names import is_image, shown, skip_reason, suffix_of
from segment.store.urls import parent_url, relative_url, to_url, without_query


def discover(
    input: str,  # noqa: A002
    options: InputOptions,
    store: Store,
    known: Known | None = None,
    without: str | None = None,
    alone: int | None = None,
    *,
    early: bool = False,
) -> Discovery:
    """Find the images of an input and cut them into parts. Only listings, headers and footers are read.

    Args:
        input: a folder or prefix of images, tars or Parquet files; one of these files; a glob or brace range
            of them; a list file. A local path or any fsspec URL.
        store: where to read it. It gets the signatures of the signed URLs that are found (`Store.add_signed_urls`),
            and what the input may name (`Store.limit_inputs`).
        known: the input that is already planned. Its images are left out, except those of changed parts; it collects
            the changes.
        without: URL of a folder to leave out, such as an output below the input.
        alone: encoded bytes from which on an image is a part by itself; see `cut`.
        early: index only the first tars of a large input, and return the others in `Discovery.unindexed`.

    Raises:
        UsageError: nothing is found, no image is found, or the options do not fit.
        StoreError: the store refused, or a tar has vanished since it was listed.
    """
    findings = Findings()
    store.limit_inputs(scope_of(input, options))
    store = store.inputs
    found = find_objects(input, store, findings)
    everything, whole = found.entries, found.whole  # a label pattern may name any of them
    found = _visible(found, _hidden_folders(found, without, store, findings), options, findings)
    kind = detect_kind(found, options, findings)
    entries = entries_of_kind(kind, found, store, findings)
    if kind == "parquet" and not found.single:
        by_url = {entry.url: entry for entry in everything}
        held = current_files(found.base, entries, by_url, store.within(None), findings)  # a log may be above
        entries = Entries(held)
    if known and kind in ("webdataset", "parquet"):
        entries = Entries(known.objects_to_plan(entries))
        if not entries:
            return Discovery([], 0, 0, findings.warnings, findings.notes, findings.left_out)
    is_selection = options.limit is not None or options.sample is not None
    by_instalments = options.limit is not None or (early and not is_selection)
    plans: dict[Kind, Callable[[], Planned]] = {
        "files": lambda: plan_files(found.base, entries, everything, options, store, findings, known, whole=whole),
        "webdataset": lambda: (
            plan_first_tars(entries, options, store, findings)
            if by_instalments and not known
            else plan_webdataset(entries, options, store, findings, known)
        ),
        "parquet": lambda: plan_parquet(entries, options, store, findings),
        "list": lambda: plan_list(entries[0], options, store, findings, known),
    }
    try:
        planned = plans[kind]()
    except FileNotFoundError as error:
        gone = error.filename or shown(found.base)
        raise StoreError(f"{gone} has vanished since it was listed: run the same command again") from None
    selected = select_images(planned.shards, options, found.base, findings, whole=not planned.not_indexed)
    if is_selection and findings.warnings:
        cover = "the indexed tars" if planned.not_indexed else "the whole input"
        findings.notes.append(f"warnings cover {cover}, from which --limit and --sample select")
    planned.warn(selected if is_selection else None)
    shards = selected if planned.ids_are_unique else mark_repeated(selected, findings.warnings)
    unindexed = None if is_selection else unindexed_of(planned, entries, options)
    if unindexed:
        options = options.model_copy(update={"part_size": unindexed.part_size})
    images, labels = planned.counts if planned.counts and not is_selection else counted(shards)
    labelled = labels if planned.labels_known else None
    parts = Remade(lambda: cut(shards, options, alone))
    return Discovery(parts, images, labelled, findings.warnings, findings.notes, findings.left_out, unindexed)


def sign_again(
    input: str,  # noqa: A002
    options: InputOptions,
    store: Store,
    listed: bool,
) -> None:
    """Give a store the signed URLs of an input that is already planned. The plan does not store signatures.

    Args:
        input, options: as in `discover`.
        store: gets the signatures.
        listed: whether the input is a list that names signed URLs. The list is then read again.

    Raises:
        StoreError: the list cannot be read.
        UsageError: it is no list any more.
    """
    store = store.inputs
    url = sign_input(input, store)
    if listed and (options.format == "list" or suffix_of(url) in LIST_SUFFIXES):
        store.add_signed_urls(listed_urls(url, store))


def _visible(found: Found, folders: Sequence[str], options: InputOptions, findings: Findings) -> Found:
    """Leave out some folders, hidden, system and irregular objects, links to others, and a labels folder below."""
    hidden = tuple(folder + "/" for folder in folders)
    if found.single:
        return replace(found, entries=Entries(entry for entry in found.entries if not entry.url.startswith(hidden)))
    labels = to_url(options.labels) + "/" if options.labels is not None else ""
    if labels.startswith(found.base + "/") and labels != found.base + "/":
        hidden = (*hidden, labels)  # the label search counts unused files there
    left: list[tuple[Reason, Entry]] = []

    def reason_of(url: str) -> Reason | None:
        return skip_reason(relative_url(url, found.base), include_hidden=options.include_hidden)

    urls = found.entries.urls()
    if found.entries.are_plain and not any(url.startswith(hidden) or reason_of(url) for url in urls):
        return found

    def kept() -> Iterator[Entry]:
        for entry in found.entries:
            if entry.url.startswith(hidden):
                continue
            if reason := reason_of(entry.url):
                leave(reason, entry)
            elif entry.irregular:
                leave("irregular", entry)
            else:
                yield entry

    def leave(why: Reason, entry: Entry) -> None:
        if options.label_pattern is not None:
            left.append((why, entry))  # it may be the label of an image that is not known yet
        else:
            findings.leave_out(why, [relative_url(entry.url, found.base)])

    entries = Entries(kept())
    if linked := {entry.link_to for entry in entries if entry.link_to}:
        own_names = {entry.url for entry in entries if not entry.link_to and entry.url in linked}
        for entry in entries:
            if entry.link_to in own_names:
                leave("linked", entry)
        entries = Entries(entry for entry in entries if entry.link_to not in own_names)
    if left:
        images, hidden_urls = (entry for entry in entries if is_image(entry.url)), {entry.url for _, entry in left}
        used = {url for url in wanted_labels(found.base, images, options) if url in hidden_urls}
        left = [(why, entry) for why, entry in left if entry.irregular or entry.url not in used]
    for why, entry in left:
        findings.leave_out(why, [relative_url(entry.url, found.base)])
    return replace(found, entries=entries)


def _hidden_folders(found: Found, without: str | None, store: Store, findings: Findings) -> list[str]:
    """Return the folders that are no input: `without`, and outputs of runs of this program, which are counted.

    Raises UsageError: the input itself is the output of a run.
    """
    hidden = [without] if without else []
    if found.single:
        return hidden
    outside = tuple(folder + "/" for folder in hidden)
    records = list(found.entries.urls_ending("/run.json"))
    runs = [parent_url(url) for url in records if not url.startswith(outside) and _is_run(url, store)]
    if found.base in runs:
        raise UsageError(f"{shown(found.base)} is the output of a run, and no input; its masks are in masks/")
    for folder in runs:
        inside = [e.url for e in found.entries if e.url.startswith(folder + "/") and not e.url.startswith(outside)]
        name = relative_url(folder, found.base)
        findings.leave_out("run_output", [name] * len(inside), [suffix_of(url) or "no suffix" for url in inside])
    return hidden + runs


def _is_run(url: str, store: Store) -> bool:
    """Whether there is a `run.json` of this program."""
    try:
        run = json.loads(store.read_if_exists(url, most=MOST_JSON) or b"")
        return isinstance(run, dict) and bool(run["contract"]) and bool(run["fingerprint"])
    except (ValueError, KeyError, RecursionError, TooManyBytes, NotAFile):
        return False


def select_images(
    shards: Iterable[Shard], options: InputOptions, base: str, findings: Findings, *, whole: bool = True
) -> Iterable[Shard]:
    """Return the shards with only the images that `limit` or `sample` selects; count the others as left out.

    A sample consists of the images whose names have the lowest SHA-256. It is evenly spread, it is the same in every
    run and wherever the input is stored, and it changes little when the input grows. The name of a loose image is its
    path below the input. For tars it is the path of the tar and the key; for Parquet the path of the file and the row
    number.

    Args:
        shards: the input, in order.
        options: `limit` and `sample`; with neither all images are selected.
        base: URL of the folder that names are relative to.
        findings: counts the images that are left out.
        whole: whether `shards` is the whole input.
    """
    if options.limit is None and options.sample is None:
        return shards
    places = ((number, position) for number, shard in enumerate(shards) for position in range(shard.images))
    if options.limit is not None:
        taken = list(islice(places, options.limit))
    else:
        ranked = zip(_ranks(shards, base), places, strict=True)
        taken = sorted(place for _, place in heapq.nsmallest(options.sample or 0, ranked))
    left = sum(shard.images for shard in shards) - len(taken)
    findings.omit("beyond_limit" if options.limit is not None else "not_sampled", left, exact=whole)
    chosen = {number: [at for _, at in group] for number, group in groupby(taken, key=lambda place: place[0])}
    return [_reduced(shard, chosen[number]) for number, shard in enumerate(shards) if number in chosen]


def _ranks(shards: Iterable[Shard], base: str) -> Iterator[bytes]:
    """Yield the digest of each image's name, in the input's order."""
    for shard in shards:
        place = "" if shard.format == "files" else relative_url(without_query(shard.url), base)
        names = (member.id for member in shard.members) if shard.members else map(str, range(shard.images))
        for name in names:
            yield hashlib.sha256(f"{place}\n{name}".encode()).digest()


def _reduced(shard: Shard, positions: Sequence[int]) -> Shard:
    """Return a shard with only the images at `positions`. Rows of a Parquet file keep their row numbers."""
    if len(positions) == shard.images:
        return shard
    if not shard.members:
        return replace(shard, runs=list(_rows(shard, positions)))
    members = [shard.members[position] for position in positions]
    size = sum(map(encoded_bytes, members)) if shard.format == "files" else shard.size
    # Positions are numbered anew, so part ids must differ from those of the whole shard.
    name = shard_hash(shard.hash, *positions)
    return replace(shard, hash=name, size=size, members=members, runs=[(-1, 0, len(members), 0)])


def _rows(shard: Shard, positions: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield runs of consecutive rows; none crosses a row group."""
    taken = iter(positions)
    position = next(taken, None)
    for row_group, start, images, image_bytes in shard.runs:
        first = position
        while position is not None and position < start + images:
            following = next(taken, None)
            if following != position + 1 or following == start + images:
                assert first is not None
                yield row_group, first, position + 1 - first, image_bytes
                first = following
            position = following
