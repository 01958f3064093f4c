"""Inputs: the videos that the arguments name, by path, folder, pattern, URI and manifest."""

from __future__ import annotations

import json
import os
import re
import uuid
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aupipe.annotation.input_search import ImageRule, find_inputs
from aupipe.annotation.inputs import Input
from aupipe.annotation.missing import all_missing
from aupipe.annotation.skipped_files import SkippedFiles
from aupipe.errors import ConfigError, ManifestError, redact
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


def test_a_folder_is_searched_for_videos_and_other_files_are_counted(tmp_path: Path) -> None:
    for name in ("a.mp4", "deep/er/b.MOV", "notes.txt", ".hidden.mp4", "deep/c.mpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    inputs, skipped = find_inputs([str(tmp_path)])
    assert [video.video_id for video in inputs] == ["a.mp4", "deep/c.mpg", "deep/er/b.MOV"]
    assert (skipped.files, skipped.hidden) == (1, 1)
    assert [v.video_id for v in find_inputs([str(tmp_path)], limit=2)[0]] == ["a.mp4", "deep/c.mpg"]


HIDDEN = (".Trash-1000/x/a.mp4", "@eaDir/b.mp4", "deep/#RECYCLE/c.mp4", "deep/._d.mp4", "$Recycle.Bin/e.mp4")
OTHERS = ("notes.TXT", "deep/a.srt", "deep/b.srt", "frames/1.png", "README", "raw.dat")


def check_passed_over(passed: SkippedFiles, top: str) -> None:
    assert (passed.files, passed.suffixes) == (6, {".srt": 2, ".txt": 1, ".png": 1, ".dat": 1, "": 1})
    assert passed.hidden == 5
    assert sorted(passed.record()) == ["files", "first", "hidden", "hidden_first", "images", "suffixes"]
    assert passed.images == 1
    text = passed.text()
    assert text.startswith("6 other files skipped: 2 .srt, 1 without suffix, 1 .dat, 1 .png, 1 .txt (first: ")
    assert "; 1 of them are images; take them with --set images=each " in text
    assert "; 5 hidden or system files and folders skipped (first: " in text
    assert {*passed.examples} <= {f"{top}/{name}" for name in OTHERS}
    folders = (".Trash-1000", "@eaDir", "deep/#RECYCLE", "deep/._d.mp4", "$Recycle.Bin")
    assert {*passed.hidden_examples} <= {f"{top}/{name}" for name in folders}
    assert len(passed.examples) == len(passed.hidden_examples) == 3


def test_hidden_and_system_folders_are_not_searched_and_all_is_counted_by_suffix(tmp_path: Path) -> None:
    memory, top = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    for name in ("a.mp4", "deep/b.mov", *HIDDEN, *OTHERS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        memory.pipe_file(f"{top}/{name}", b"x")
    for place in (str(tmp_path), f"memory:/{top}"):
        inputs, passed = find_inputs([place])
        assert [video.video_id for video in inputs] == ["a.mp4", "deep/b.mov"]
        check_passed_over(passed, place.replace("memory:/", "memory://"))
        assert find_inputs([place, place])[1].files == 12
        inputs, passed = find_inputs([f"{place}/**/*.mp4"])
        assert [video.video_id for video in inputs] == ["a.mp4"]
        assert passed.files == 0
        assert passed.hidden >= 3
        assert [video.video_id for video in find_inputs([f"{place}/@eaDir/*"])[0]] == ["b.mp4"]
        assert [video.video_id for video in find_inputs([f"{place}/.Trash-1000/x"])[0]] == ["a.mp4"]
        with pytest.raises(ConfigError, match=r"nothing matches this pattern; 1 hidden or system .*@eaDir"):
            find_inputs([f"{place}/@*"])
        with pytest.raises(ConfigError, match=r"no video or image in this folder \(1 other files skipped: 1 .png"):
            find_inputs([f"{place}/frames"], images="skip")
    assert [video.video_id for video in find_inputs([f"{tmp_path}/deep/.*.mp4"])[0]] == ["._d.mp4"]


def test_a_report_of_an_output_below_the_folder_is_not_an_input(tmp_path: Path) -> None:
    memory, top = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    reports = [f"{output}report/overlays/1.mp4" for output in ("", "deep/out/")]
    ledgers = ["_work/ledger/1.json", "deep/out/_work/ledger/1.json"]
    for name in ("a.mp4", "deep/b.mov", "other/report/c.mp4", "deep/out/d.mp4", *ledgers, *reports):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        memory.pipe_file(f"{top}/{name}", b"x")
    for place in (str(tmp_path), f"memory:/{top}"):
        inputs, passed = find_inputs([place])
        found = [video.video_id for video in inputs]
        assert found == ["a.mp4", "deep/b.mov", "deep/out/d.mp4", "other/report/c.mp4"]
        shown = place.replace("memory:/", "memory://")
        assert {*passed.hidden_examples} == {f"{shown}/report", f"{shown}/deep/out/report"}


def test_the_videos_of_a_report_in_any_folder_are_no_inputs(tmp_path: Path) -> None:
    memory, top = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    report = ["faces.csv", "index.html", "overlays/00000.mp4", "previews/00001.mp4", "videos/00000.html"]
    mine = ["deep/overlays/00007.mp4", "pages/overlays/mine.mp4", "pages/videos/00008.mp4"]
    for name in ("a.mp4", *mine, *report, *(f"pages/{each}" for each in report)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        memory.pipe_file(f"{top}/{name}", b"x")
    for place in (str(tmp_path), f"memory:/{top}"):
        for named in (place, f"{place}/**/*.mp4"):
            inputs, passed = find_inputs([named])
            assert {video.uri.removeprefix(place.replace(":/", "://"))[1:] for video in inputs} == {"a.mp4", *mine}
            assert passed.hidden == 4
        assert [video.video_id for video in find_inputs([f"{place}/pages"])[0]] == [
            "overlays/mine.mp4",
            "videos/00008.mp4",
        ]
        for named in (f"{place}/overlays", f"{place}/overlays/*", f"{place}/overlays/00000.mp4"):
            assert [video.video_id for video in find_inputs([named])[0]] == ["00000.mp4"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(PermissionError(13, "Permission denied"), "permission_denied"), (OSError(5, "EIO"), "unreadable")],
)
def test_a_folder_that_cannot_be_listed_is_an_input_with_that_reason(
    error: OSError, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/a.mp4").touch()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path) == str(tmp_path / "in/deep"):
            error.filename = str(path)
            raise error
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (video, folder), skipped = find_inputs([str(tmp_path / "in")])
    assert (video.video_id, folder.video_id, folder.uri) == ("a.mp4", "deep", str(tmp_path / "in/deep"))
    assert folder.refused == f"{code}: {tmp_path}/in/deep: this folder cannot be listed ({error.strerror})"
    assert skipped.unsearched == [f"{tmp_path}/in/deep"]
    (folder,), _ = find_inputs([str(tmp_path / "in/deep")])
    assert (folder.video_id, folder.refused.partition(":")[0]) == ("deep", code)


def test_what_is_not_there_is_not_searched(tmp_path: Path) -> None:
    memory, top = fsspec.filesystem("memory"), f"memory://{uuid.uuid4().hex}"
    memory.pipe_file(f"{top}/clip", b"x")
    (tmp_path / "clip").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for place in (str(tmp_path), top):
        for name in ("gone", "gone/", "link"):
            assert find_inputs([f"{place}/{name}"])[1].unsearched == [f"{place}/{name}"]
        for name in ("clip", "c*p"):
            assert find_inputs([f"{place}/{name}"])[1].unsearched == []


def test_parts_that_differ_have_different_names() -> None:
    starts = (10800.06, 10800.13, 100000.25, 0.1, 0.1 + 1e-9, 5.0)
    named = [Input("a.mp4", "a", start_s, start_s + 1).asked(None) for start_s in starts]
    assert len({*named}) == len(starts)
    assert named[-1] == "[5 s, 6 s)"
    assert Input("a.mp4", "a", 5.0).asked(29.97) == "[5 s, ) at 29.97/s"
    assert Input("a.mp4", "a", 0.0).asked(None) == "[0 s, )"  # clocks may begin before 0
    rates = [Input("a.mp4", "a").asked(rate) for rate in (30000 / 1001, 29.97003)]
    assert rates[0] != rates[1] == "at 29.97003/s"


SUFFIXES = """.dv .MOD .tod .h264 .264 .avc .H265 .265 .hevc .y4m .apng .f4v .m1v .mpv .mp2v .m2p .divx .xvid .rm .rmvb
    .mjpg .dvr-ms .wtv .trp .tp .M2T .mk3d .qt .ivf .obu .nut .amv .dif .dav .vro .266 .vc1 .3gpp .mp4v .MPEGTS .ogm
    .insv
"""


def test_suffixes_of_archives_are_searched_for_in_any_case(tmp_path: Path) -> None:
    suffixes = SUFFIXES.split()
    for suffix in suffixes:
        (tmp_path / f"a{suffix}").write_bytes(b"\0")
    for suffix in (".dat", ".bin", ".vid", ".png", ".jpg", ".wav", ".ogg", ".m4s", ".swf", ".ps"):
        (tmp_path / f"b{suffix}").touch()
    for name in ("mp4", "mkv"):  # names without a suffix
        (tmp_path / name).touch()
    inputs, passed = find_inputs([str(tmp_path)])
    assert {video.video_id for video in inputs} == {f"a{suffix}" for suffix in suffixes}
    assert (passed.files, passed.suffixes[""]) == (12, 2)


def ids(named: str, images: ImageRule = "auto") -> list[str]:
    return [video.video_id for video in find_inputs([named], images=images)[0]]


def test_images_are_inputs_where_they_are_all_there_is_or_by_the_rule(tmp_path: Path) -> None:
    memory, top = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    for name in ("mixed/a.mp4", "mixed/s/1.png", "mixed/s/2.PNG", "mixed/cover.jpg", "stills/b.jpeg", "stills/x/1.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        memory.pipe_file(f"{top}/{name}", b"x")
    for place in (str(tmp_path), f"memory:/{top}"):
        assert ids(f"{place}/mixed") == ids(f"{place}/mixed", "skip") == ["a.mp4"]
        assert find_inputs([f"{place}/mixed"])[1].images == 3
        assert ids(f"{place}/mixed", "each") == ["a.mp4", "cover.jpg", "s/1.png", "s/2.PNG"]
        assert ids(f"{place}/stills") == ids(f"{place}/stills", "each") == ["b.jpeg", "x/1.tif"]
        assert ids(f"{place}/mixed/s/*.png") == ids(f"{place}/mixed/s/1.png", "skip") == ["1.png"]
        here = place.replace(":///", "://")
        sequences, passed = find_inputs([f"{place}/mixed"], images="sequence")
        assert [video.video_id for video in sequences] == ["a.mp4", "mixed", "s"]
        assert [video.uri.replace(":///", "://") for video in sequences[1:]] == [f"{here}/mixed/", f"{here}/mixed/s/"]
        assert passed.files == 0
        with pytest.raises(ConfigError, match=r"no video or image .*--set images=each"):
            ids(f"{place}/stills", "skip")
        with pytest.raises(ConfigError, match=r"1\.png: images=sequence reads folders of images; name the folder"):
            ids(f"{place}/mixed/s/1.png", "sequence")


def test_brackets_in_the_name_of_a_folder_that_exists_are_no_pattern(tmp_path: Path) -> None:
    top = tmp_path / "study [a-z] *"
    (top / "day[1]").mkdir(parents=True)
    for name in ("a.mp4", "day[1]/b.mp4", "day[1]/1.png"):
        (top / name).touch()
    assert ids(f"{top}/*.mp4") == ["a.mp4"]
    assert ids(f"{top}/**/*.mp4") == ["a.mp4", "b.mp4"]
    assert ids(f"{top}/day[1]/*.mp4") == ["b.mp4"]
    assert ids(f"{top}/absent.mp4") == ["absent.mp4"]  # a row `not_found`
    assert all_missing([f"{top}/absent.mp4"], str(tmp_path / "out"))
    assert not all_missing([f"{top}/*.mp4"], str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="nothing matches this pattern"):
        ids(f"{top}/*.mov")
    with pytest.raises(ConfigError, match=r"1\.png: images=sequence reads folders"):
        ids(f"{top}/day[1]/1.png", "sequence")


def test_source_code_with_a_suffix_of_video_is_passed_over(tmp_path: Path) -> None:
    packet = b"\x47\x40\x11\x10" + b"\xff" * 184
    (tmp_path / "film.ts").write_bytes(packet * 8)
    (tmp_path / "cut.MTS").write_bytes(b"\0" * 4 + packet * 8)
    (tmp_path / "empty.ts").touch()
    (tmp_path / "app.ts").write_text("export const x = 'é'\n" * 100)
    (tmp_path / "de.ts").write_text('<?xml version="1.0"?><!DOCTYPE TS>')
    (tmp_path / "umlaut.ts").write_bytes(b"a" * 1023 + "é".encode())  # the check cuts the é
    (tmp_path / "Main.mod").write_text("MODULE Main;")
    inputs, passed = find_inputs([str(tmp_path)])
    assert [video.video_id for video in inputs] == ["cut.MTS", "empty.ts", "film.ts"]
    assert passed.suffixes == {".ts": 3, ".mod": 1}


def test_a_file_uri_names_a_file_a_folder_a_pattern_or_a_manifest(tmp_path: Path) -> None:
    top = tmp_path / "my films"
    top.mkdir()
    (top / "a#1.mp4").touch()
    (top / "m.csv").write_text(f"uri,video_id\nfile://{tmp_path}/my%20films/a%231.mp4,x\nfile://a%231.mp4,\n")
    base = f"file://{tmp_path}/my%20films"
    for named in (f"{base}/a%231.mp4", base, f"{base}/*.mp4"):
        (video,) = find_inputs([named])[0]
        assert (video.uri, video.video_id) == (str(top / "a#1.mp4"), "a#1.mp4")
    first, second = find_inputs([f"{base}/m.csv"])[0]
    assert (first.uri, first.video_id) == (second.uri, "a#1.mp4") == (str(top / "a#1.mp4"), "a#1.mp4")
    assert second.video_id == "x"


def test_what_is_named_is_tried_whatever_it_is_called(tmp_path: Path) -> None:
    inputs, _ = find_inputs([str(tmp_path / "film.bin"), "s3://bucket/films/x.mp4"])
    assert [video.video_id for video in inputs] == ["film.bin", "x.mp4"]


def test_one_id_for_two_files_is_refused_naming_both(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"one/a\.mp4 and .*two/a\.mp4"):
        find_inputs([str(tmp_path / "one/a.mp4"), str(tmp_path / "two/a.mp4")])
    assert len(find_inputs([str(tmp_path / "a.mp4")] * 2)[0]) == 1


def test_a_pattern_names_what_it_matches(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mov", "odd[1].mp4"):
        (tmp_path / name).touch()
    assert [v.video_id for v in find_inputs([str(tmp_path / "*.mp4")])[0]] == ["a.mp4", "b.mp4", "odd[1].mp4"]
    assert [v.video_id for v in find_inputs([str(tmp_path / "odd[1].mp4")])[0]] == ["odd[1].mp4"]
    with pytest.raises(ConfigError, match="nothing matches"):
        find_inputs([str(tmp_path / "*.avi")])
    with pytest.raises(ConfigError, match="empty name"):
        find_inputs([""])


def test_a_folder_without_videos_that_a_pattern_matches_is_passed_over(tmp_path: Path) -> None:
    for name in ("a/x.mp4", "b/notes.txt", "c/y.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    inputs, skipped = find_inputs([str(tmp_path / "*")])
    assert ([video.video_id for video in inputs], skipped.files) == (["x.mp4", "y.mp4"], 1)
    with pytest.raises(ConfigError, match=r"\[b\]: no video or image in this folder \(1 other files skipped"):
        find_inputs([str(tmp_path / "[b]")])
    remote = Storage(f"memory://{uuid.uuid4().hex}")
    for name in ("a/x.mp4", "b/notes.txt", "c/y.mp4"):
        remote.write(name, b"1")
    inputs, skipped = find_inputs([f"{remote.root}/*"])
    assert ([video.video_id for video in inputs], skipped.files) == (["x.mp4", "y.mp4"], 1)
    with pytest.raises(ConfigError, match="no video or image in this folder"):
        find_inputs([f"{remote.root}/[b]"])


def test_linked_folders_are_searched_once_and_odd_names_become_text(tmp_path: Path) -> None:
    (tmp_path / "in" / "real").mkdir(parents=True)
    (tmp_path / "in" / "real" / "a.mp4").touch()
    (tmp_path / "in" / "real" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "b.mp4").touch()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "far")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/caf\xe9.mp4")).touch()
    found = find_inputs([str(tmp_path / "in")])[0]
    assert [video.video_id for video in found] == ["caf\\xe9.mp4", "link/b.mp4", "real/a.mp4"]
    place = str(tmp_path / "in/caf\\xe9.mp4")
    refused = f"not_found: {place}: its name is not UTF-8; fix: rename it"
    assert [video.refused for video in found] == [refused, "", ""]


def test_a_manifest_in_a_folder_with_an_odd_name_is_read(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "m.csv").write_text(f"uri\na.mp4\n{tmp_path}/b.mp4\n")
    first, second = find_inputs([str(folder / "m.csv")])[0]
    assert first.refused == f"not_found: {tmp_path}/caf\\xe9/a.mp4: its name is not UTF-8; fix: rename it"
    assert (second.uri, second.refused) == (f"{tmp_path}/b.mp4", "")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(ConfigError, match="no video or image in this folder"):
        find_inputs([str(tmp_path)])


def test_folders_and_patterns_at_a_uri() -> None:
    memory, top = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    for name in ("a.mp4", "deep/b.mov", "deep/notes.txt"):
        memory.pipe_file(f"{top}/{name}", b"x")
    inputs, skipped = find_inputs([f"memory:/{top}"])
    assert [(v.video_id, skipped.files) for v in inputs] == [("a.mp4", 1), ("deep/b.mov", 1)]
    assert fsspec.open(inputs[1].uri).open().read() == b"x"
    assert [v.video_id for v in find_inputs([f"memory:/{top}/*.mp4"])[0]] == ["a.mp4"]
    assert [v.video_id for v in find_inputs([f"memory:/{top}/gone.mp4"])[0]] == ["gone.mp4"]
    with pytest.raises(ConfigError, match="nothing matches"):
        find_inputs([f"memory:/{top}/*.avi"])


def test_a_manifest_names_videos_parts_and_further_columns(tmp_path: Path) -> None:
    rows = [
        {"uri": "sub/a.mp4", "start_s": 1.5, "end_s": 4, "speaker": "anna"},
        {"uri": "s3://bucket/b.mp4", "video_id": "second", "speaker": "bert"},
        {"uri": "sub/a.mp4", "video_id": "a, later", "start_s": 4},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "m.csv").write_text(
        "uri,video_id,start_s,end_s,speaker\nsub/a.mp4,,1.5,4,anna\ns3://bucket/b.mp4,second,,,bert\n"
        'sub/a.mp4,"a, later",4,,\n'
    )
    keys = ("uri", "video_id", "start_s", "end_s", "speaker")
    pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in keys}), tmp_path / "m.parquet")
    for name in ("m.csv", "m.jsonl"):
        later, second, first = find_inputs([str(tmp_path / name)])[0]
        assert (first.video_id, first.uri) == ("sub/a.mp4", str(tmp_path / "sub/a.mp4"))
        assert (first.start_s, first.end_s, first.further) == (1.5, 4.0, {"speaker": "anna"})
        assert (second.uri, second.video_id, second.asked(None)) == ("s3://bucket/b.mp4", "second", "")
        assert later.asked(2.0) == "[4 s, ) at 2/s"
    by_parquet = find_inputs([str(tmp_path / "m.parquet")])[0]
    assert [v.video_id for v in by_parquet] == ["a, later", "second", "sub/a.mp4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\na.mp4\n", "a column `uri` is needed"),
        ("uri\n", "names no video"),
        ("uri,start_s\na.mp4,early\n", "m.csv:2 has start_s 'early'; allowed are seconds"),
        ("uri,status\na.mp4,done\n", "a column 'status' of its own"),
        ("uri,video_id\na.mp4,x\nb.mp4,x\n", "would both be video_id 'x'"),
    ],
)
def test_an_invalid_manifest_is_rejected(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises((ManifestError, ConfigError), match=message):
        find_inputs([str(tmp_path / "m.csv")])


@pytest.mark.parametrize("empty", ["", "nan", "NaN", "NULL", "None", "NA", "null", " "])
def test_no_value_is_no_limit_and_the_usual_id(empty: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"uri,video_id,start_s,end_s,note\nsub/a.mp4,{empty},{empty},{empty},{empty}\n")
    (video,) = find_inputs([str(tmp_path / "m.csv")])[0]
    assert (video.video_id, video.start_s, video.end_s, video.refused) == ("sub/a.mp4", None, None, "")
    assert video.further == {"note": empty.strip()}


def test_limits_are_seconds_also_with_a_decimal_comma(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("\ufeffuri;start_s;end_s\r\na.mp4;0,2;0,5\r\nb.mp4;-1;inf\r\nc.mp4;-inf;1e1\r\n")
    inputs = find_inputs([str(tmp_path / "m.csv")])[0]
    assert [(v.start_s, v.end_s) for v in inputs] == [(0.2, 0.5), (-1.0, None), (None, 10.0)]
    for cell in ("1:02:03", "inf", "0,2", "1e999", "12s", "1_0", "[0]"):
        (tmp_path / "m.csv").write_text(f'uri,start_s\nb.mp4,\n\na.mp4,"{cell}"\n')
        with pytest.raises(ManifestError, match=rf"m\.csv:4 has start_s '{re.escape(cell)}'; allowed are seconds, as"):
            find_inputs([str(tmp_path / "m.csv")])
    (tmp_path / "m.csv").write_text("uri,end_s\na.mp4,-inf\n")
    with pytest.raises(ManifestError, match=r"m\.csv:2 has end_s '-inf'"):
        find_inputs([str(tmp_path / "m.csv")])


def test_an_id_that_leads_out_of_the_output_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,video_id,end_s\na.mp4,../../x,\nb.mp4,/etc/x,\nc.mp4,c,-1\nd.mp4,d,\n")
    refused = {video.video_id: video.refused.partition(":")[0] for video in find_inputs([str(tmp_path / "m.csv")])[0]}
    assert refused == {"../../x": "bad_video_id", "/etc/x": "bad_video_id", "c": "bad_range", "d": ""}


@pytest.mark.parametrize("video_id", ["./", "./.", ".//"])
def test_an_id_without_a_name_is_set_aside(video_id: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"uri,video_id\na.mp4,{video_id}\nb.mp4,./b\n")
    first, second = find_inputs([str(tmp_path / "m.csv")])[0]
    assert first.refused == f"bad_video_id: {video_id!r} names the output folder itself; give a name or a path below it"
    assert not second.refused


def test_ids_in_manifests_may_have_all_but_control_characters(tmp_path: Path) -> None:
    names = [f"a{character}b.mp4" for character in "\u202f\u3000\u00a0\u200d\u200f\u2028\ue000"]
    bad = [f"a{character}b.mp4" for character in "\t\x1b\x7f\x85"]
    for name in names:
        (tmp_path / name).touch()
    rows = [{"uri": name} for name in names] + [{"uri": "a.mp4", "video_id": name} for name in bad]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    listed = {video.video_id: video.refused for video in find_inputs([str(tmp_path / "m.jsonl")])[0]}
    assert {name for name, refused in listed.items() if not refused} == set(names)
    assert {video.video_id for video in find_inputs([str(tmp_path)])[0]} == set(names)
    assert listed["a\x1bb.mp4"] == (r"bad_video_id: 'a\x1bb.mp4' contains a control character; give a name without it")
    assert all(listed[name].startswith("bad_video_id: ") for name in bad)


def test_secrets_of_a_uri_are_not_shown() -> None:
    assert redact("https://anna:secret@host/a.mp4: no such file") == "https://host/a.mp4: no such file"
    assert redact("https://b.s3.eu/a.mp4?X-Amz-Signature=ab12&x=1 failed") == "https://b.s3.eu/a.mp4?… failed"
    assert redact("s3://bucket/what?.mp4") == "s3://bucket/what?.mp4"
    assert redact("http://anna:p@ss@host/a.mp4?sig=a:b,c: gone") == "http://host/a.mp4?…: gone"
    assert redact("no 'https://h/a?k=1', nor (https://h/b?k=2).") == "no 'https://h/a?…', nor (https://h/b?…)."
    assert str(ConfigError("https://anna:secret@host/a?k=v: no")) == "https://host/a?…: no"


def test_the_id_of_a_web_address_holds_no_secret(tmp_path: Path) -> None:
    url = "https://anna:secret@host/deep/a.mp4?X-Signature=ab/12#t=3"
    (tmp_path / "m.csv").write_text(f"uri\n{url}\n")
    for named in (url, str(tmp_path / "m.csv")):
        (video,) = find_inputs([named])[0]
        assert (video.uri, video.video_id) == (url, "a.mp4")
