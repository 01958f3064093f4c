"""Inputs: what the arguments name, by path, folder, pattern, URI and manifest."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aupipe.annotation.inputs import find_inputs, shown
from aupipe.errors import ConfigError, ManifestError

pytestmark = pytest.mark.unit


def test_a_folder_is_searched_for_videos_and_other_files_are_counted(tmp_path: Path) -> None:
    for name in ("a.mp4", "deep/er/b.MOV", "notes.txt", ".hidden.mp4", "deep/c.mpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    inputs, passed_over = find_inputs([str(tmp_path)])
    assert [video.video_id for video in inputs] == ["a.mp4", "deep/c.mpg", "deep/er/b.MOV"]
    assert passed_over == 1
    assert [v.video_id for v in find_inputs([str(tmp_path)], limit=2)[0]] == ["a.mp4", "deep/c.mpg"]


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


def test_linked_folders_are_searched_once_and_odd_names_become_text(tmp_path: Path) -> None:
    (tmp_path / "in" / "real").mkdir(parents=True)
    (tmp_path / "in" / "real" / "a.mp4").touch()
    (tmp_path / "in" / "real" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "b.mp4").touch()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "far")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/caf\xe9.mp4")).touch()
    ids = [video.video_id for video in find_inputs([str(tmp_path / "in")])[0]]
    assert ids == ["caf\\xe9.mp4", "link/b.mp4", "real/a.mp4"]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(ConfigError, match="no video in this folder"):
        find_inputs([str(tmp_path)])


def test_folders_and_patterns_at_a_uri() -> None:
    memory, top = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    for name in ("a.mp4", "deep/b.mov", "deep/notes.txt"):
        memory.pipe_file(f"{top}/{name}", b"x")
    inputs, passed_over = find_inputs([f"memory:/{top}"])
    assert [(v.video_id, passed_over) for v in inputs] == [("a.mp4", 1), ("deep/b.mov", 1)]
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
    ("text", "said"),
    [
        ("name\na.mp4\n", "a column `uri` is needed"),
        ("uri\n", "names no video"),
        ("uri,start_s\na.mp4,early\n", "video 1 has start_s 'early'"),
        ("uri,status\na.mp4,done\n", "a column 'status' of its own"),
        ("uri,video_id\na.mp4,x\nb.mp4,x\n", "would both be video_id 'x'"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises((ManifestError, ConfigError), match=said):
        find_inputs([str(tmp_path / "m.csv")])


def test_an_id_that_leads_out_of_the_output_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,video_id,end_s\na.mp4,../../x,\nb.mp4,/etc/x,\nc.mp4,c,-1\nd.mp4,d,\n")
    refused = {video.video_id: video.refused.partition(":")[0] for video in find_inputs([str(tmp_path / "m.csv")])[0]}
    assert refused == {"../../x": "bad_video_id", "/etc/x": "bad_video_id", "c": "bad_range", "d": ""}


def test_secrets_of_a_uri_are_not_shown() -> None:
    assert shown("https://anna:secret@host/a.mp4: no such file") == "https://host/a.mp4: no such file"
    assert shown("https://b.s3.eu/a.mp4?X-Amz-Signature=ab12&x=1 failed") == "https://b.s3.eu/a.mp4?… failed"
    assert shown("s3://bucket/what?.mp4") == "s3://bucket/what?.mp4"
    assert shown("http://anna:p@ss@host/a.mp4?sig=a:b,c: gone") == "http://host/a.mp4?…: gone"
    assert shown("no 'https://h/a?k=1', nor (https://h/b?k=2).") == "no 'https://h/a?…', nor (https://h/b?…)."
    assert str(ConfigError("https://anna:secret@host/a?k=v: no")) == "https://host/a?…: no"


def test_the_id_of_a_web_address_holds_no_secret(tmp_path: Path) -> None:
    url = "https://anna:secret@host/deep/a.mp4?X-Signature=ab/12#t=3"
    (tmp_path / "m.csv").write_text(f"uri\n{url}\n")
    for named in (url, str(tmp_path / "m.csv")):
        (video,) = find_inputs([named])[0]
        assert (video.uri, video.video_id) == (url, "a.mp4")
