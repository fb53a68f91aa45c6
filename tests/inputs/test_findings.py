"""What an input holds and a run does not segment is counted by reason, shown, stored in the plan and reported."""

import json
import os
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.errors import SegmentError, UsageError
from segment.inputs.discover import discover
from segment.inputs.discovery import Discovery
from segment.inputs.findings import Findings, LeftOut, by_reason
from segment.job import InputOptions
from segment.output.plan import Plan
from segment.store.client import Entry, Store
from segment.store.names import skip_reason
from tests.runs import Place, png, scene

STORE = Store()


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def find(where: Path | str, **options: object) -> Discovery:
    return discover(str(where), InputOptions(**options), STORE)


def ids(found: Discovery) -> list[str]:
    return [member.id for part in found.parts for member in part.members]


def left(found: Discovery) -> dict[str, tuple[int, dict[str, int]]]:
    return {item.reason: (item.number, dict(item.kinds)) for item in by_reason(found.left_out)}


def sound_place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        place.add(name, seed)
    return place


# --- hidden and system files, by one rule for all inputs -------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a/b.png", None),
        ("a_b/c-d_.png", None),
        ("@home/a.png", None),
        ("recycled_paper.png", None),
        ("recycler.png", None),
        (".a.png", "hidden"),
        ("_a.png", "hidden"),
        ("x/_temporary/0/a.parquet", "hidden"),
        ("x/.ipynb_checkpoints/a.png", "hidden"),
        ("_delta_log/0.checkpoint.parquet", "hidden"),
        ("__MACOSX/a.png", "system"),
        ("x/._a.png", "system"),
        ("x/@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", "system"),
        ("#recycle/a.png", "system"),
        ("$Recycle.Bin/S-1-5/$R1.jpg", "system"),
        ("System Volume Information/a.png", "system"),
        ("a/Thumbs.db", "system"),
        ("a/DESKTOP.INI", "system"),
        (".@__thumb/default0.png", "system"),
        (".Trashes/501/a.png", "system"),
        ("~snapshot/hourly/a.png", "system"),
    ],
)
def test_hidden_and_system_names(path: str, reason: str | None) -> None:
    assert skip_reason(path) == reason


def test_hidden_files_are_read_on_demand_and_system_files_never() -> None:
    assert [skip_reason(name, include_hidden=True) for name in ("_a.png", ".b/a.png", "@eaDir/a.png")] == [
        None,
        None,
        "system",
    ]


HIDDEN = ("_temporary/0/x", ".cache/x", "_x", "a/.x")
SYSTEM = ("@eaDir/x", "$RECYCLE.BIN/x", "sub/#recycle/x", "__MACOSX/x")


@pytest.mark.parametrize(("suffix", "format_"), [(".png", "files"), (".tar", "webdataset"), (".parquet", "parquet")])
def test_the_same_rule_for_files_tars_and_parquet(tmp_path: Path, suffix: str, format_: str) -> None:
    import io
    import tarfile

    def content() -> bytes:
        if suffix == ".png":
            return b"x"
        buffer = io.BytesIO()
        if suffix == ".parquet":
            pq.write_table(pa.table({"image": [b"\xff\xd8\xff"]}), buffer)
        else:
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                tar.addfile(tarfile.TarInfo("0.png"))
        return buffer.getvalue()

    for name in ("a", "sub/b", *HIDDEN, *SYSTEM):
        path = tmp_path / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content())
    found = find(tmp_path)
    assert {part.format for part in found.parts} == {format_}
    assert found.images == 2
    assert left(found) == {"hidden": (4, {suffix: 4}), "system": (4, {suffix: 4})}
    assert [line[:20] for line in found.lines if "left out" in line] == ["left out: 4 files th", "warning: left out: 4"]
    assert find(tmp_path, include_hidden=True).images == 6
    braces = find(f"{tmp_path}/{{a{suffix},sub,_temporary,@eaDir}}")
    assert braces.images == 2  # and in folders that a pattern names
    assert left(braces) == {"hidden": (1, {suffix: 1}), "system": (2, {suffix: 2})}


def test_a_single_named_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    write(tmp_path, "_a.png", ".b.png")
    assert ids(find(tmp_path / "_a.png")) == ["_a.png"]
    assert ids(find(tmp_path / ".b.png")) == [".b.png"]


# --- files of a folder that are left out -----------------------------------------------------------------------------


def test_where_nothing_is_left_out_nothing_is_said(tmp_path: Path) -> None:
    assert find(write(tmp_path, "a.png", "x/b.jpg")).lines == []


def test_all_suffixes_of_a_format_are_read(tmp_path: Path) -> None:
    names = ["a.jpg", "b.JPE", "c.jfif", "d.jif", "e.pjpeg", "f.apng", "g.dib", "h.TIFF"]
    found = find(write(tmp_path, *names))
    assert sorted(ids(found)) == sorted(names)
    assert found.lines == []


def test_images_in_other_formats_are_a_warning_and_other_files_a_note(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.gif", "x/c.GIF", "d.jp2", "e.heic", "f.zip", "README.md", "x/a.json", "LICENSE")
    found = find(tmp_path)
    assert found.lines == [
        "left out: 3 files of other kinds: .json x 1, .md x 1, no suffix x 1; e.g. LICENSE, README.md, x/a.json",
        "warning: left out: 5 files in formats that are not read: .gif x 2, .heic x 1, .jp2 x 1, .zip x 1; e.g. b.gif, "
        "d.jp2, e.heic (images in other formats have to be converted first)",
    ]


def test_a_folder_of_other_formats_is_refused_with_its_content(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"2 files, none of them an image \(\.gif x 1, \.jp2 x 1\)"):
        find(write(tmp_path, "a.gif", "b.jp2"))


def test_kinds_beyond_the_most_frequent_are_summed(tmp_path: Path) -> None:
    write(tmp_path, "a.png", *(f"{i}.x{i % 9}" for i in range(20)))
    (item,) = by_reason(find(tmp_path).left_out)
    assert (item.number, sum(item.kinds.values()), len(item.kinds)) == (20, 20, 7)
    assert "others x " in str(item)


def test_devices_pipes_and_dead_links_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    (tmp_path / "dead.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "run.json")  # nor is the folder the output of a run
    found = find(tmp_path)
    assert (ids(found), left(found)) == (["a.png"], {"irregular": (3, {".png": 2, ".json": 1})})


def test_a_link_to_a_file_of_the_input_is_no_second_image(tmp_path: Path) -> None:
    real = write(tmp_path / "real", "2024/a.png", "2024/b.png", ".blobs/c.png", "d.png")
    (real / "latest").symlink_to("2024")
    (real / "again.png").symlink_to("d.png")
    (real / "twice.png").symlink_to("again.png")
    (real / "e.png").symlink_to(".blobs/c.png")  # its target is hidden, so that this is its only name
    (real / "f.png").symlink_to(write(tmp_path / "elsewhere", "f.png") / "f.png")
    (tmp_path / "in").symlink_to(real)
    for folder in (real, tmp_path / "in"):
        found = find(folder)
        assert ids(found) == ["2024/a.png", "2024/b.png", "d.png", "e.png", "f.png"]
        assert left(found)["linked"] == (4, {".png": 4})
        assert [line for line in found.lines if line.startswith("left out: 4 links to files of the input")]


def test_the_outputs_of_other_runs_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "out/masks/m.png")
    (tmp_path / "out/run.json").write_text(json.dumps({"contract": {"x": 1}, "fingerprint": "f"}))
    found = find(tmp_path)
    assert (ids(found), left(found)) == (["a.png"], {"run_output": (2, {".json": 1, ".png": 1})})


def test_other_kinds_beside_tars_and_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"\xff\xd8\xff"]}), tmp_path / "a.parquet")
    write(tmp_path, "b.png", "c.csv")
    assert left(find(tmp_path, format="parquet")) == {"format": (1, {".png": 1}), "other_kind": (1, {".csv": 1})}


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["beside", "elsewhere"])
@pytest.mark.parametrize("suffix", [".gif", ".GIF", ".label", ""])
def test_a_pattern_finds_labels_whatever_their_suffix(tmp_path: Path, where: str, suffix: str) -> None:
    folder = "i" if where == "beside" else "l"
    write(
        tmp_path, "i/0.jpg", "i/1.jpg", f"{folder}/0_mask{suffix}", f"{folder}/1_mask{suffix}", f"{folder}/_2{suffix}"
    )
    options = {"label_pattern": f"{{dir}}/{{stem}}_mask{suffix}"} | (
        {"labels": str(tmp_path / "l")} if where == "elsewhere" else {}
    )
    found = find(tmp_path / "i", **options)
    assert (ids(found), found.labelled) == (["0.jpg", "1.jpg"], 2)


def test_a_pattern_finds_hidden_labels(tmp_path: Path) -> None:
    found = find(write(tmp_path, "a.jpg", "_a.png", ".x/a.png"), label_pattern="{dir}/_{stem}.png")
    assert found.labelled == 1
    assert find(tmp_path, label_pattern=".x/{stem}.png").labelled == 1


def test_labels_by_stem_may_be_gif_and_others_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "i/0.jpg", "i/1.jpg", "l/0.gif", "l/1.png", "l/2.npy", "l/3.mat", "l/_4.png", "l/@eaDir/0.png")
    found = find(tmp_path / "i", labels=str(tmp_path / "l"))
    assert found.labelled == 2
    assert left(found) == {
        "label_format": (2, {".mat": 1, ".npy": 1}),
        "hidden": (1, {".png": 1}),
        "system": (1, {".png": 1}),
    }


def test_labels_in_formats_that_are_not_read_are_named_where_none_is_found(tmp_path: Path) -> None:
    write(tmp_path, "i/0.jpg", "l/0.npy")
    with pytest.raises(UsageError, match=r"no images there; left out: 1 file among the labels .*\.npy x 1"):
        find(tmp_path / "i", labels=str(tmp_path / "l"))


CITYSCAPES = "{dir}/{stem%_leftImg8bit}_gtFine_labelTrainIds.png"


def test_the_layout_of_cityscapes(tmp_path: Path) -> None:
    write(
        tmp_path,
        "leftImg8bit/val/bonn/bonn_000001_leftImg8bit.png",
        "gtFine/val/bonn/bonn_000001_gtFine_labelTrainIds.png",
        "gtFine/val/bonn/bonn_000001_gtFine_color.png",
        "gtFine/val/bonn/bonn_000001_gtFine_polygons.json",
    )
    found = find(tmp_path / "leftImg8bit", labels=str(tmp_path / "gtFine"), label_pattern=CITYSCAPES)
    (member,) = found.parts[0].members
    assert member.label is not None
    assert member.label.url.endswith("/gtFine/val/bonn/bonn_000001_gtFine_labelTrainIds.png")


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("{stem%_x}_y.png", "a_y.png"),
        ("{stem#a_}.png", "x.png"),
        ("{stem%_other}.png", "a_x.png"),
        ("{dir#images/}/{name%.jpg}.png", "train/a_x.png"),
        ("{{{stem}}}.png", "{a_x}.png"),
    ],
)
def test_beginnings_and_endings_are_removed_as_in_a_shell(tmp_path: Path, pattern: str, wanted: str) -> None:
    write(tmp_path, "d/images/train/a_x.jpg", f"l/{wanted}")
    found = find(tmp_path / "d", labels=str(tmp_path / "l"), label_pattern=pattern)
    assert found.parts[0].members[0].label.url == f"file://{tmp_path}/l/{wanted}"  # type: ignore[union-attr]


@pytest.mark.parametrize("pattern", ["{stem%}.png", "{other%x}.png", "{stem/a/b}.png", "{0}.png"])
def test_patterns_that_mean_nothing(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"expected \{stem\}"):
        InputOptions(label_pattern=pattern)


@pytest.mark.parametrize(
    ("files", "input_", "advice"),
    [
        (["i/0.jpg", "labels/0.png"], "i", "--labels {}/labels"),
        (["i/x/0.jpg", "masks/x/0.png"], "i", "--labels {}/masks"),
        (["images/train/0.jpg", "annotations/train/0.png"], "images/train", "--labels {}/annotations/train"),
        (["train/0.jpg", "trainannot/0.png"], "train", "--labels {}/trainannot"),
        (["d/images/0.jpg", "d/labels/0.png"], "d", "--labels {}/d/labels"),
        (["d/JPEGImages/0.jpg", "d/SegmentationClass/0.png"], "d", "--labels {}/d/SegmentationClass"),
        (["d/0.jpg", "d/0_mask.png"], "d", "--label-pattern '{{dir}}/{{stem}}_mask.png'"),
        (["d/0.png", "d/0_L.png", "d/1.png", "d/1_L.png"], "d", "--label-pattern '{{dir}}/{{stem}}_L.png'"),
        (["d/0.jpg", "d/0_mask.gif"], "d", "--label-pattern '{{dir}}/{{stem}}_mask.gif'"),
        (["d/0.jpg", "d/0_mask.PNG"], "d", "--label-pattern '{{dir}}/{{stem}}_mask.PNG'"),
        (["d/0.jpg", "d/0.png", "d/1.jpg"], "d", "--label-pattern '{{dir}}/{{stem}}.png'"),
        (["d/0_sat.jpg", "d/0_mask.png", "d/1_sat.jpg"], "d", "--label-pattern '{{dir}}/{{stem%sat}}mask.png'"),
        (["d/img_0.jpg", "d/mask_0.png"], "d", "--label-pattern '{{dir}}/mask{{stem#img}}.png'"),
        (["t/0.png", "t_labels/0_L.png"], "t", "--labels {}/t_labels --label-pattern '{{dir}}/{{stem}}_L.png'"),
        (["t/images/0.jpg", "t/v2.0/labels/0.png"], "t/images", "--labels {}/t/v2.0/labels"),
        (
            ["d/images/a/0.jpg", "d/images/b/0.jpg", "d/annotations/a/0.png", "d/annotations/b/0.png"],
            "d",
            "name {}/d/images as input and use --labels {}/d/annotations",
        ),
        (
            ["leftImg8bit/val/x/0_leftImg8bit.png", "gtFine/val/x/0_gtFine_labelIds.png"],
            "leftImg8bit/val",
            "--labels {}/gtFine/val --label-pattern '{{dir}}/{{stem%_leftImg8bit}}_gtFine_labelIds.png'",
        ),
        (
            ["d/left/x/0_leftImg8bit.png", "d/fine/x/0_gtFine_labelIds.png", "d/fine/x/0_gtFine_color.png"],
            "d",
            "name {}/d/left as input and use --labels {}/d/fine --label-pattern "
            "'{{dir}}/{{stem%leftImg8bit}}gtFine_labelIds.png'",
        ),
    ],
)
def test_possible_labels_give_a_warning(tmp_path: Path, files: list[str], input_: str, advice: str) -> None:
    write(tmp_path, *files)
    (warning,) = find(tmp_path / input_).warnings
    assert warning.startswith("no labels are used, but ")
    assert advice.replace("{}", str(tmp_path)).replace("{{", "{").replace("}}", "}") in warning
    assert taken(warning, tmp_path / input_).labelled


def taken(warning: str, where: Path) -> Discovery:
    """Plan the input again with the options that the warning suggests."""
    words = shlex.split(warning.partition("If so, ")[2] or warning.partition("If these are labels, ")[2])
    options = {words[i][2:].replace("-", "_"): words[i + 1] for i, word in enumerate(words) if word.startswith("--")}
    return find(words[words.index("name") + 1] if "name" in words else where, **options)


@pytest.mark.parametrize(
    ("images", "labels", "pattern"),
    [
        (["0.jpg", "1.jpg"], ["0.jpg.png"], "{dir}/{name}.png"),
        (["a/0_rgb.jpg", "a/1_rgb.jpg"], ["a/0_mask.png", "a/1_mask.png"], "{dir}/{stem%rgb}mask.png"),
        (["a/0.jpg"], ["b/0_mask.png"], None),
        (["0_a!b.jpg"], ["0_mask.png"], None),  # no pattern can cut off such names
        (["0_1:00.jpg"], ["0_1:00_mask.png"], "{dir}/{stem}_mask.png"),
        (["[x_0.jpg"], ["mask_0.png"], None),
    ],
)
def test_labels_of_other_names_are_refused_with_the_pattern_that_finds_them(
    tmp_path: Path, images: list[str], labels: list[str], pattern: str | None
) -> None:
    write(tmp_path / "i", *images)
    write(tmp_path / "l", *labels)
    with pytest.raises(UsageError, match="has a label") as caught:
        find(tmp_path / "i", labels=str(tmp_path / "l"))
    assert str(caught.value).partition("add --label-pattern ")[2] == (f"'{pattern}'" if pattern else "")
    if pattern:
        assert find(tmp_path / "i", labels=str(tmp_path / "l"), label_pattern=pattern).labelled == len(labels)


@pytest.mark.parametrize("where", ["i/*.png", "i/{a,b}.png", "i/a.png"])
@pytest.mark.parametrize("pattern", ["{dir}/{stem}_m.gif", "_gt/{stem}.gif"])
def test_a_pattern_finds_labels_that_a_glob_does_not_match(tmp_path: Path, where: str, pattern: str) -> None:
    write(tmp_path, "i/a.png", "i/b.png", "i/a_m.gif", "i/b_m.gif", "i/_gt/a.gif", "i/_gt/b.gif")
    found = find(tmp_path / where, label_pattern=pattern)
    assert (found.labelled, found.lines) == (found.images, [])


def test_images_that_share_a_label_give_a_warning(tmp_path: Path) -> None:
    write(tmp_path, "i/0.jpg", "i/0.png", "i/1.png", "l/0.png", "l/1.png")
    (warning,) = find(tmp_path / "i", labels=str(tmp_path / "l")).warnings
    assert warning == f"1 image has the label file of another image, e.g. {tmp_path}/l/0.png"
    (warning,) = find(tmp_path / "i", labels=str(tmp_path / "l"), label_pattern="{dir}/0.png").warnings[:1]
    assert warning.startswith("2 images have the label file of another image")


def test_a_selection_notes_that_warnings_cover_the_whole_input(tmp_path: Path) -> None:
    write(tmp_path, "i/0.png", "i/1.png", "l/0.png")
    notes = find(tmp_path / "i", labels=str(tmp_path / "l"), limit=1).notes
    assert any(note.startswith("warnings cover the whole input") for note in notes)


@pytest.mark.parametrize("options", [{"labels": "_masks"}, {"label_pattern": "_masks/{stem}.png"}])
def test_hidden_files_that_are_used_as_labels_are_not_left_out(tmp_path: Path, options: dict[str, str]) -> None:
    write(tmp_path, "0.png", "_1.png", "_masks/0.png")
    given = {name: str(tmp_path / value) if name == "labels" else value for name, value in options.items()}
    found = find(tmp_path, **given)
    assert (found.labelled, left(found)) == (1, {"hidden": (1, {".png": 1})})


@pytest.mark.parametrize(
    "files",
    [
        ["d/0.jpg", "d/1.jpg"],
        ["d/0.png", "d/0.tif"],
        ["d/img_0.jpg", "d/img_1.jpg"],
        ["d/gt_cars.jpg", "d/label_maker.png"],
        ["d/masked_people/0.jpg", "d/others/1.jpg"],  # a label word in a name, but no matching image
        ["d/0.jpg", "d/0_2.jpg", "d/b_mask.jpg"],
        ["labels/0.jpg"],
    ],
)
def test_nothing_is_said_where_nothing_looks_like_a_label(tmp_path: Path, files: list[str]) -> None:
    write(tmp_path, *files)
    assert find(tmp_path / files[0].split("/")[0]).warnings == []


def test_the_advice_for_unused_labels_works(tmp_path: Path) -> None:
    write(tmp_path, "d/images/0.jpg", "d/labels/0.png")
    found = find(tmp_path / "d/images", labels=str(tmp_path / "d/labels"))
    assert (found.labelled, found.lines) == (1, [])


# --- stored and shown ------------------------------------------------------------------------------------------------


def test_the_plan_keeps_what_is_left_out(tmp_path: Path) -> None:
    found = find(write(tmp_path, "a.png", "b.gif", "_c.png"))
    plan = Plan.from_bytes(Plan.of(found.parts, found.left_out).to_bytes())
    assert list(plan.left_out) == found.left_out
    assert plan.without({"nothing"}).left_out == plan.left_out
    assert plan != Plan.of(found.parts)


def test_sums_over_places() -> None:
    findings = Findings()
    findings.leave_out("unused_member", ["a.depth.png", "b.depth.png"], ["depth.png"] * 2, "file:///1.tar")
    findings.leave_out("unused_member", ["c.depth.png"], ["depth.png"], "https://host/2.tar?X-Amz-Signature=secret")
    findings.lose(3, ["x"], "file:///1.tar", exact=True)
    findings.lose(1, ["y"], "file:///3.tar", exact=False)
    damaged, unused = by_reason(findings.left_out)
    assert (unused.number, unused.kinds, unused.place) == (3, {"depth.png": 3}, "")
    assert (damaged.number, damaged.exact, damaged.matters) == (4, False, True)
    assert str(damaged).startswith("left out: at least 4 images after the damage or the end mark of tars; e.g. x, y")
    assert "secret" not in json.dumps([item.to_json() for item in findings.left_out])
    assert [LeftOut.from_json(item.to_json()) for item in findings.left_out] == findings.left_out


def test_a_run_shows_stores_and_reports_it(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    (place.images / "d.gif").write_bytes(b"GIF89a")
    (place.images / "_e.png").write_bytes(png(scene(7)[0]))
    outcome = place.run()
    assert sorted(outcome.rows) == ["a.png", "b.png", "c.png"]
    assert [line.partition(":")[0] for line in outcome.warnings] == ["left out", "left out"]
    recorded = json.loads((place.output / "run.json").read_text())["input"]
    assert (recorded["images"], recorded["shards"]) == (3, 1)
    assert {item["reason"]: item["number"] for item in recorded["left_out"]} == {"hidden": 1, "format": 1}
    summary = json.loads((place.output / "report/summary.json").read_text())
    assert summary["left_out"] == recorded["left_out"]
    assert place.run().warnings == []  # resumed: warnings are shown when the run is planned
    assert json.loads((place.output / "run.json").read_text())["input"] == recorded


def test_an_update_counts_anew(tmp_path: Path) -> None:
    from segment.runs.driver import run

    place = sound_place(tmp_path)
    (place.images / "d.gif").write_bytes(b"GIF89a")
    place.run()
    (place.images / "d.gif").unlink()
    (place.images / "notes.txt").write_text("x")
    report = run(place.job(), update=True)
    assert [(item.reason, item.number) for item in report.left_out] == [("other_kind", 1)]
    recorded = json.loads((place.output / "run.json").read_text())["input"]
    assert [item["reason"] for item in recorded["left_out"]] == ["other_kind"]
    assert (place.output / "_SUCCESS").exists()


# --- sums ------------------------------------------------------------------------------------------------------------


def test_data_among_many_other_kinds_is_a_warning_whatever_the_order(tmp_path: Path) -> None:
    rare = [f".cache/{number}.kind{number % 9}" for number in range(90)]
    write(tmp_path, "a.png", *rare, *(f"_extra/{number}.png" for number in range(20)), ".cache/z.tif")
    (item,) = by_reason(find(tmp_path).left_out)
    assert (item.number, item.data, item.matters) == (111, 21, True)
    assert item.kinds[".png"] == 20
    assert sum(item.kinds.values()) == 111


def test_rare_data_is_a_warning_though_its_kind_is_not_named() -> None:
    findings = Findings()
    findings.leave_out("other_kind", [f"{n}.kind{n % 9}" for n in range(90)])
    findings.leave_out("other_kind", ["x.zip"], place="file:///1.tar")
    (item,) = by_reason(findings.left_out)
    assert (".zip" in item.kinds, item.data, item.matters) == (False, 1, True)


def test_names_that_are_not_utf8_are_counted_like_others(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    for name in (b"notes-\xff.txt", b"n.\xfe", b"_\xff.png", b"x.gif\n"):
        (place.images / os.fsdecode(name)).write_bytes(b"x")
    outcome = place.run()
    assert len(outcome.rows) == 3
    kept = json.loads((place.output / "run.json").read_text())["input"]["left_out"]
    assert sorted(name for item in kept for name in item["examples"]) == [
        "_\\xff.png",
        "n.\\xfe",
        "notes-\\xff.txt",
        "x.gif\n",
    ]
    assert not any("\n" in line for line in outcome.report.warnings)


def test_an_update_of_tars_with_nothing_new_changes_nothing(tmp_path: Path) -> None:
    import io
    import tarfile

    from segment.runs.driver import run

    place = Place(tmp_path)
    folder = tmp_path / "tars"
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name, data in (("0.png", png(scene(0)[0])), ("0.depth.png", png(scene(1)[0])), ("readme", b"x")):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    (folder / "notes.md").write_text("x")
    job = place.job(input=str(folder), labels=None)
    run(job)
    before = {
        path: path.read_bytes() for path in place.output.rglob("*") if path.is_file() and "runs" not in path.parts
    }
    run(job, update=True)
    assert before == {path: path.read_bytes() for path in before}
    (folder / "more.md").write_text("x")  # something else is left out now: the plan shows it, the run stays complete
    report = run(job, update=True)
    assert {item.reason: item.number for item in report.left_out}["other_kind"] == 2
    assert (place.output / "_SUCCESS").exists()


def test_a_folder_that_goes_while_a_file_is_written_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Path.mkdir
    calls = []

    def mkdir(path: Path, *arguments: object, **options: object) -> None:
        made(path, *arguments, **options)  # type: ignore[arg-type]
        calls.append(path)
        if len(calls) == 1:
            path.rmdir()  # as another driver's probe does

    monkeypatch.setattr(Path, "mkdir", mkdir)
    STORE.write(f"file://{tmp_path}/out/run.json", b"x")
    assert (tmp_path / "out/run.json").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.tar", r"a\.tar has vanished since it was listed: run the same"), ("a.csv", r"no list at .*a\.csv any")],
)
def test_what_goes_between_listing_and_reading_is_told(name: str, words: str, tmp_path: Path) -> None:
    class Deleting(Store):
        def info(self, url: str) -> Entry | None:
            entry = super().info(url)
            (tmp_path / name).unlink(missing_ok=True)
            return entry

    (tmp_path / name).write_bytes(bytes(1024) if name == "a.tar" else b"image\na.png\n")
    with pytest.raises(SegmentError, match=words):
        discover(str(tmp_path / name), InputOptions(), Deleting())
