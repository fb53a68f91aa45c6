"""Labels matched by stem: rows sorted on disk, against a dictionary of all."""

import posixpath
from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from segment.inputs.loose.label_files import Matches, _by_stem
from segment.store.client import Entry
from segment.store.entries import Entries
from segment.store.sorted_rows import not_in

# Names that begin alike, with what sorts before and after a dot and a slash.
STEMS = st.text("a.-/0~é", min_size=1, max_size=5).map(posixpath.normpath).map(lambda name: name.strip("/.") or "a")
IMAGES = st.sets(st.tuples(STEMS, st.sampled_from([".jpg", ".png", ".JPG"])), max_size=12)
LABELS = st.sets(st.tuples(STEMS, st.sampled_from([".png", ".gif", ".tif"])), max_size=12)


def entries(base: str, names: set[tuple[str, str]]) -> Entries:
    urls = sorted(f"{base}/{stem}{suffix}" for stem, suffix in names)
    return Entries(Entry(url, 1, "") for url in urls)


@settings(max_examples=200, deadline=None)
@given(images=IMAGES, labels=LABELS)
@example(  # the last names
    images={("\U0010ffff" * 3, ".jpg")}, labels={("\U0010ffff" * 2 + "a", ".png"), ("\U0010ffff" * 3, ".png")}
)
def test_each_image_gets_the_label_of_its_stem(images: set[tuple[str, str]], labels: set[tuple[str, str]]) -> None:
    listed, there = entries("s3://b/i", images), entries("s3://b/l", labels)
    matches = Matches(_by_stem(listed, "s3://b/i", there, "s3://b/l"))
    found = list(matches.labels(range(len(listed))))
    best: dict[str, str] = {}
    for stem, suffix in sorted(labels, key=lambda name: (name[1] != ".png", name[1])):
        best.setdefault(stem, f"s3://b/l/{stem}{suffix}")
    stems = [entry.url.removeprefix("s3://b/i/").rpartition(".")[0] for entry in listed]
    assert [entry.url for entry in found] == [best.get(stem, "") for stem in stems]
    used = {best[stem] for stem in stems if stem in best}
    assert list(not_in(there.urls(), matches.urls())) == sorted(
        {f"s3://b/l/{stem}{suffix}" for stem, suffix in labels} - used
    )
    assert matches.shared == sum(bool(entry.url) for entry in found) - len(used)
    most = Counter(entry.url for entry in found if entry.url).most_common(1)
    assert matches.first_shared == (most[0][0] if most and most[0][1] > 1 else "")
