import base64
import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from aupipe import facs
from aupipe.annotation import ledger_entries, progress, schema
from aupipe.annotation.input_search import find_inputs
from aupipe.annotation.video_record import VideoRecord
from aupipe.commands import report as command
from aupipe.errors import ConfigError
from aupipe.media.probe import fingerprint
from aupipe.report import face_data, pages
from aupipe.storage import Storage
from harness.drawn_tables import annotation, face, write_video

pytestmark = pytest.mark.unit

HOSTILE = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(1)>.mp4"


def frames_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{"video_id": "a.mp4"} | row for row in rows], schema=schema.FRAMES)


def video_row(**columns: Any) -> dict[str, Any]:
    row = dict.fromkeys(schema.VIDEOS.names) | {"uri": "nowhere.mp4", "video_id": "a.mp4", "status": "ok"}
    return row | {"frame_width": 160, "frame_height": 120} | columns


def event(au: str, onset: int, apex: int, offset: int, peak: float, face_id: int = 0) -> dict[str, Any]:
    ends = zip(("onset", "apex", "offset"), (onset, apex, offset), strict=True)
    times = {f"{name}_{unit}": index / (25 if unit == "s" else 1) for name, index in ends for unit in ("s", "frame")}
    return {"video_id": "a.mp4", "face_id": face_id, "au": au, "peak": peak, "mean": peak} | times


def events_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schema.EVENTS)


def video_data(
    video: dict[str, Any], frames: pa.Table, events: pa.Table, thresholds: dict[str, float] | None, pictures: bool
) -> dict[str, Any]:
    axis = pages.timeline(frames)
    of_face = {face: events.filter(pc.equal(events["face_id"], face)) for face in axis.faces}
    of_aus = {number: face_data.summarize(rows, of_face[number]) for number, rows in axis.faces.items()}
    return pages.video_data(video, axis, of_face, of_aus, thresholds, pictures)


def page_data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def unpack(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 12])
def test_reduction_keeps_every_peak(count: int) -> None:
    values = np.random.default_rng(count).random((count, 2))
    reduced = face_data.reduce_rows(values, 3)
    assert len(reduced) == len(face_data.first_rows(values, 3)) == 2 * -(-count // 6)
    for start in range(0, count, 6):
        block, kept = values[start : start + 6], reduced[start // 3 : start // 3 + 2]
        assert (kept == [block.min(axis=0), block.max(axis=0)]).all()


def test_reduction_ignores_nulls_beside_numbers_and_keeps_those_of_a_whole_block() -> None:
    values = np.array([[np.nan], [0.3], [np.nan], [0.9], [np.nan], [np.nan], [np.nan], [np.nan]])
    assert np.array_equal(face_data.reduce_rows(values, 2), [[0.3], [0.9], [np.nan], [np.nan]], equal_nan=True)


def test_page_has_the_rows_decisions_and_events_of_each_face(tmp_path: Path) -> None:
    rows = [face(0.25 * (i % 4), i % 2 == 0, frame=i, time_s=i / 25) for i in range(8)]
    rows += [face(0.9, True, frame=i, time_s=i / 25, face_id=1) for i in range(3)]
    rows.append({"frame": 8, "time_s": 8 / 25, "status": "no_face"})
    happened = events_table([event("AU12", 2, 3, 5, 0.8), event("AU25", 0, 1, 2, 0.9, face_id=1)])
    data = video_data(video_row(), frames_table(rows), happened, dict.fromkeys(facs.AUS, 0.4), False)
    first, second = data["faces"]
    assert (data["axis"], first["id"], first["rows"], second["id"], second["rows"]) == ("time_s", 0, 8, 1, 3)
    assert np.allclose(unpack(first["x"], "<f4"), np.arange(8) / 25)
    assert unpack(first["prob"], "u1").reshape(12, 8)[6].tolist() == [0, 64, 127, 190] * 2
    assert (unpack(first["raw"], "u1") == face_data.MISSING).all()  # the rows have no raw probability
    assert unpack(first["present"], "<u2").tolist() == [4095, 0] * 4
    assert unpack(second["box"], "<i2").reshape(3, 4)[0].tolist() == [20, 30, 40, 50]
    assert first["events"] == [[6, 2 / 25, 3 / 25, 5 / 25, pytest.approx(0.8)]]
    summary = first["summary"][6]
    assert summary == {"rate": 0.5, "mean": pytest.approx(0.375), "events": 1, "events_s": pytest.approx(3 / 25)}
    assert first["summary"][0]["events"] == 0
    assert data["statuses"] == [(0.0, 8 / 25, "ok"), (8 / 25, 8 / 25, "no_face")]


def test_a_page_shows_the_faces_in_most_frames_and_names_the_number_of_others() -> None:
    count = pages.MAX_FACES + 2
    rows = [face(0.5, True, frame=i, time_s=i / 25, face_id=n) for n in range(count) for i in range(n + 1)]
    data = video_data(video_row(), frames_table(rows), events_table([]), None, False)
    assert [each["id"] for each in data["faces"]] == list(range(count - 1, 1, -1))
    assert data["hidden_faces"] == 2


def test_a_box_beyond_16_bits_ends_at_their_limit() -> None:
    """As in a panorama; otherwise it would be drawn at the other side."""
    packed = face_data.pack(frames_table([face(0.5, True, box_x=40_000.0, box_y=-40_000.0)]), np.zeros(1))
    assert unpack(packed["box"], "<i2").tolist() == [32767, -32768, 40, 50]


def test_every_rate_of_the_index_has_a_color() -> None:
    shares = [None, 0.0, 0.1, 0.5, 0.99, 1.0]
    index = pages.index_page([video_row()], {}, {}, {"a.mp4": shares})
    cells = re.findall(r"<td(?: class=\"(heat\d)\")?>(–|\d+%)</td>", index)
    assert [text for _, text in cells] == ["–", "0%", "10%", "50%", "99%", "100%"]
    assert [name for name, _ in cells] == ["", "heat0", "heat0", "heat3", "heat5", "heat5"]


def test_events_of_all_aus_are_in_the_order_of_their_onset() -> None:
    rows = frames_table([face(0.5, True, frame=i, time_s=i / 25) for i in range(9)])
    happened = events_table([event("AU01", 4, 5, 6, 0.5), event("AU12", 1, 2, 3, 0.5), event("AU25", 3, 4, 5, 0.5)])
    data = video_data(video_row(), rows, happened, None, False)
    assert [onset for _, onset, *_ in data["faces"][0]["events"]] == [1 / 25, 3 / 25, 4 / 25]


def test_a_clock_that_begins_late_keeps_the_distances_of_frames() -> None:
    start_s = 1_700_000_000.0  # a recording on the clock of its computer
    rows = [{"frame": 0, "time_s": start_s, "status": "no_face"}]
    rows += [face(0.5, True, frame=i, time_s=start_s + i / 25) for i in range(1, 4)]
    data = video_data(video_row(), frames_table(rows), events_table([]), None, False)
    assert data["statuses"][0][0] == start_s
    assert unpack(data["faces"][0]["x"], "<f4") == pytest.approx([0.04, 0.08, 0.12], abs=1e-6)


@pytest.mark.parametrize("times_s", [[0.0, None, 0.2], [0.0, 0.5, 0.2]])
def test_frames_without_a_time_or_with_a_restarting_clock_are_drawn_by_number(times_s: list[float | None]) -> None:
    rows = [face(0.5, True, frame=i, time_s=time_s) for i, time_s in enumerate(times_s)]
    data = video_data(video_row(), frames_table(rows), events_table([event("AU12", 0, 1, 2, 0.5)]), None, False)
    assert data["axis"] == "frame"
    assert unpack(data["faces"][0]["x"], "<f4").tolist() == [0, 1, 2]
    assert data["faces"][0]["events"][0][1:4] == [0, 1, 2]


def test_an_hour_is_a_page_below_20_mb_that_keeps_a_peak_of_one_frame() -> None:
    count, faces = 108_000, 4
    numbers = {name: pa.array(np.full(count * faces, 0.2, np.float32)) for name in (*schema.RAW, *schema.PROB)}
    peak = np.full(count * faces, 0.2, np.float32)
    peak[70_001] = 1.0
    numbers["AU12_prob"] = pa.array(peak)
    numbers |= {name: pa.array(np.full(count * faces, 50, np.float32)) for name in schema.BOX}
    index = np.tile(np.arange(count, dtype=np.int32), faces)
    columns = numbers | {
        "frame": pa.array(index), "time_s": pa.array(index / 30), "status": pa.array(["ok"] * len(index)),
        "face_id": pa.array(np.repeat(np.arange(faces, dtype=np.int32), count)),
    }  # fmt: skip
    full = [columns.get(field.name, pa.nulls(len(index), field.type)) for field in schema.FRAMES]
    data = video_data(video_row(), pa.table(full, schema=schema.FRAMES), events_table([]), None, False)
    page = pages.video_page(video_row(), data, None)
    assert 5e6 < len(page) < 20e6
    prob = unpack(data["faces"][0]["prob"], "u1").reshape(12, -1)
    x = unpack(data["faces"][0]["x"], "<f4")
    assert prob.shape[1] < count
    assert np.flatnonzero(prob[6] == 254).size == 1
    assert abs(x[prob[6].argmax()] - 70_001 / 30) < 0.5


def test_co_occurrence_counts_the_rows_that_a_reduced_page_leaves_out() -> None:
    rows = [face(0.9, False, frame=index, AU01=index == 1, AU12=index in (1, 2, 7)) for index in range(8)]
    data = face_data.pack(frames_table(rows), np.arange(8.0), factor=4)
    assert data["rows"] == 2
    counts = np.array(data["together"])
    first, twelfth = facs.AUS.index("AU01"), facs.AUS.index("AU12")
    assert counts[[first, first, twelfth, twelfth], [first, twelfth, first, twelfth]].tolist() == [1, 1, 1, 3]
    assert counts.sum() == 6


def test_names_are_escaped_and_the_policy_allows_this_script_only() -> None:
    row = video_row(video_id=HOSTILE, reason="frames_lost: <b>3</b>", status="partial")
    rows = [face(0.5, True, status="<script>")]
    data = video_data(row, frames_table(rows), events_table([]), None, False)
    data["problem"] = HOSTILE
    page, index = (
        pages.video_page(row, data, "a%22b.mp4"),
        pages.index_page([row], {}, {HOSTILE: "videos/00000.html"}, {}),
    )
    for text in (page, index):
        assert not re.search(r"<script>alert|<img src=x|<b>3</b>", text)
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
        assert policy
        assert policy[1].startswith("default-src 'none'; ")
        assert "unsafe" not in policy[1]
        assert "://" not in re.sub(r"<script[\s\S]*?</script>|<style>.*?</style>", "", text, flags=re.DOTALL)
    script = re.search(r"<script>([\s\S]*?)</script>", page)
    assert script
    assert pages._hash(script[1]) in page
    assert page.count("<script") == 2
    assert page_data(page)["problem"] == HOSTILE
    assert "<script" not in index


def test_command_writes_an_index_and_a_page_per_video_with_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a b#.mp4", frames=6)
    rows = [face(0.9, True, frame=index, time_s=index / 25) for index in range(6)]
    out = Path(annotation(tmp_path / "out", str(tmp_path / "a b#.mp4"), rows))
    (out / "events").mkdir()
    (out / "events" / "a.parquet").write_bytes(
        schema.to_parquet(events_table([event("AU12", 0, 1, 2, 0.5), event("AU12", 3, 4, 5, 0.9)]), schema.EVENTS)
    )
    assert command.main([str(out), "--dry-run"]) == 0
    assert not (out / "report").exists()
    assert command.main([str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {out}/report/index.html"
    assert 'href="videos/00000.html"' in (out / "report" / "index.html").read_text()
    page = (out / "report" / "videos" / "00000.html").read_text()
    source = re.search(r'src="([^"]*)" *></video>', page)
    assert source
    assert source[1] == "../../../a%20b%23.mp4"
    with (out / "report" / "faces.csv").open() as file:
        summary = [row for row in csv.DictReader(file) if row["au"] == "AU12"]
    expected = {"video_id": "a.mp4", "face_id": "0", "frames": "6", "au": "AU12", "rate": "1", "events": "2"}
    assert len(summary) == 1
    assert expected.items() <= summary[0].items()
    assert float(summary[0]["events_s"]) == pytest.approx(4 / 25)
    (picture,) = page_data(page)["faces"][0]["pictures"]
    assert (picture["au"], picture["x"]) == ("AU12", 4 / 25)  # the stronger of the two events
    assert picture["src"].startswith("data:image/jpeg;base64,/9j/")


def test_a_video_that_is_gone_costs_its_pictures_only(tmp_path: Path) -> None:
    rows = [face(0.9, True, frame=index, time_s=index / 25) for index in range(3)]
    happened = events_table([event("AU12", 0, 1, 2, 0.5)])
    data = video_data(video_row(uri=str(tmp_path / "gone.mp4")), frames_table(rows), happened, None, True)
    assert data["problem"].startswith("No pictures of the apexes: ")
    assert data["faces"][0]["pictures"] == []
    assert "no player" in pages.video_page(video_row(), data, None)


def test_a_long_report_shows_its_progress_and_few_of_many_like_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out = Path(annotation(tmp_path / "out", "a.mp4", []))
    ids = [f"{number:02d}.mp4" for number in range(30)]
    videos = [video_row(uri=f"{tmp_path}/gone/{name}", video_id=name, frames_decoded=3) for name in ids]
    rows = [{"video_id": name} | face(0.9, True, frame=index, time_s=index / 25) for name in ids for index in range(3)]
    happened = [event("AU12", 0, 1, 2, 0.9) | {"video_id": name} for name in ids[1:]]  # 00.mp4 has none
    (out / "events").mkdir()
    pq.write_table(pa.Table.from_pylist(videos, schema=schema.VIDEOS), out / "videos.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.FRAMES), out / "frames" / "a.parquet")
    pq.write_table(events_table(happened), out / "events" / "a.parquet")
    monkeypatch.setattr(progress, "_LOG_S", 0.0)
    with caplog.at_level("INFO"):
        pages.write(pages.ReportJob(str(out), str(tmp_path / "report")))
    lines = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert any(line.startswith("12 of 30 videos, 36 of 90 frames, ") for line in lines)
    problems = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [problem.partition(":")[0] for problem in problems[:-1]] == ids[1:21]
    assert problems[-1] == "9 further videos have such problems, which their pages name"
    data = [page_data((tmp_path / f"report/videos/{n:05d}.html").read_text()) for n in range(30)]
    assert [each["problem"].startswith("No pictures of the apexes: ") for each in data] == [False, *[True] * 29]


def player(page: str) -> str:
    return page.partition('<section aria-label="player">')[2].partition('<p id="now"')[0]


@pytest.mark.parametrize(("name", "is_shown"), [("face#.jpg", True), ("face#.png", True), ("face#.tif", False)])
def test_an_image_is_shown_as_an_image(name: str, is_shown: bool, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / name), np.full((120, 160, 3), 90, np.uint8))
    out = annotation(tmp_path / "out", str(tmp_path / name), [face(0.9, True, time_s=None)])
    page = tmp_path / "out/report/videos/00000.html"
    assert command.main([out]) == 0
    assert f'<img id="still" alt="the image" src="../../../{name.replace("#", "%23")}">' in player(page.read_text())
    assert "<video" not in page.read_text()
    assert "img-src data: 'self' file:;" in page.read_text()
    assert command.main([out, "--preview"]) == 0  # which is for formats that browsers do not show
    assert ("<img" in player(page.read_text()), 'src="../previews/' in page.read_text()) == (is_shown, not is_shown)


def test_a_folder_of_images_is_named_and_has_a_preview(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"in/{number}.png"), np.full((120, 160, 3), 90, np.uint8))
    out = annotation(tmp_path / "out", f"{tmp_path}/in/", [face(0.9, True, time_s=None)])
    page = tmp_path / "out/report/videos/00000.html"
    assert command.main([out]) == 0
    assert "A folder of images has no player here; report.py --preview writes a video" in player(page.read_text())
    assert command.main([out, "--preview"]) == 0
    assert '<video id="video" controls preload="metadata" src="../previews/00000.mp4">' in player(page.read_text())


@pytest.mark.parametrize("is_temporary", [True, False])
def test_a_full_disk_ends_the_report(
    is_temporary: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a.mp4", frames=3)
    out = annotation(tmp_path / "out", str(tmp_path / "a.mp4"), [face(0.9, True, frame=0, time_s=0.0)])
    draw = pages.overlay.write_overlay
    if is_temporary:
        monkeypatch.setattr(pages.overlay, "write_overlay", lambda _, *rest: draw("/dev/full", *rest))
    else:
        Path(out, "report").mkdir()
        Path(out, "report/overlays").touch()  # no folder, so that no file can be written there
    assert command.main([out, "--overlay"]) == (1 if is_temporary else 2)
    assert ("No space left on device; fix: " if is_temporary else "Not a directory; fix: ") in capsys.readouterr().err


def test_nothing_of_a_video_that_has_changed_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_video(tmp_path / "a.mp4", frames=6)
    out = Path(annotation(tmp_path / "out", str(tmp_path / "a.mp4"), [face(0.9, True, frame=0, time_s=0.0)]))
    table = pq.read_table(out / "videos.parquet")
    place = table.schema.get_field_index("fingerprint")
    of_bytes = pa.array([fingerprint(str(tmp_path / "a.mp4"))])
    pq.write_table(table.set_column(place, table.schema.field(place), of_bytes), out / "videos.parquet")
    options = [str(out), "--overlay", "--preview"]
    assert command.main(options) == 0
    assert (out / "report/overlays/00000.mp4").exists()
    assert not caplog.records
    write_video(tmp_path / "a.mp4", frames=4)
    assert command.main(options) == 0
    page = (out / "report/videos/00000.html").read_text()
    assert "has changed since it was annotated" in page_data(page)["problem"]
    assert "has changed since it was annotated" in caplog.text
    assert "<video" not in page
    assert not (out / "report/overlays/00000.mp4").exists()


def test_a_report_has_no_rows_that_a_killed_run_has_replaced(tmp_path: Path) -> None:
    rows = [face(0.9, True, frame=index, time_s=index / 25) for index in range(3)]
    out = annotation(tmp_path / "out", "a.mp4", rows)
    Storage(out).delete("frames/a.parquet")
    record = VideoRecord("a.mp4", "a.mp4", fingerprint="f", status="ok")
    happened = events_table([event("AU12", 0, 1, 2, 0.9)])
    for generation, key in enumerate("de", 1):
        videos = [replace(record, decide_key=key), replace(record, video_id="b.mp4", decide_key=key)]
        both = pa.concat_tables([frames_table(rows), frames_table([row | {"video_id": "b.mp4"} for row in rows])])
        ledger_entries.commit(Storage(out), both, happened, videos, generation, rows_per_file=2)
    pages.write(pages.ReportJob(out, str(tmp_path / "report"), thumbnails=False))
    (shown,) = page_data((tmp_path / "report/videos/00000.html").read_text())["faces"]
    assert (shown["rows"], len(shown["events"])) == (3, 1)
    with (tmp_path / "report/faces.csv").open() as file:
        assert [row["frames"] for row in csv.DictReader(file)] == ["3"] * len(facs.AUS)


def test_the_overlays_of_a_report_that_is_killed_are_no_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", frames=3)
    out = annotation(tmp_path / "out", str(tmp_path / "a.mp4"), [face(0.9, True, frame=0, time_s=0.0)])
    monkeypatch.setattr(pages, "video_page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pages.write(pages.ReportJob(out, str(tmp_path / "pages"), thumbnails=False, overlay=True))
    assert (tmp_path / "pages/overlays/00000.mp4").exists()
    assert [video.video_id for video in find_inputs([str(tmp_path)])[0]] == ["a.mp4"]


def test_a_folder_without_an_annotation_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no annotation"):
        pages.write(pages.ReportJob(str(tmp_path), str(tmp_path / "report")))


@pytest.mark.parametrize("name", ["videos.parquet", "frames/a.parquet", "events/a.parquet", "run.json"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"half", None])
def test_a_damaged_or_incomplete_annotation_is_one_sentence(name: str, content: bytes | None, tmp_path: Path) -> None:
    out = Path(annotation(tmp_path / "out", "a.mp4", [face(0.9, True, frame=0, time_s=0.0)]))
    (out / "events").mkdir(exist_ok=True)
    (out / "events" / "a.parquet").write_bytes(schema.to_parquet(schema.EVENTS.empty_table(), schema.EVENTS))
    (out / "run.json").write_text("{}")
    job = pages.ReportJob(str(out), str(tmp_path / "report"), thumbnails=False)
    pages.write(job)
    damaged = next(out.glob(name.replace("/a.", "/*.")))
    if content is None:
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:-9] if content == b"half" else content)
    if content is None and name in ("events/a.parquet", "run.json"):  # An annotation may have none.
        pages.write(job)
        return
    if name == "run.json" and content == b"half":
        damaged.write_text('{"version": ')
    with pytest.raises(ConfigError, match=r"is damaged|no rows of|no annotation") as error:
        pages.write(job)
    assert str(out) in str(error.value)
    assert "; fix: " in str(error.value)


def test_an_annotation_on_remote_storage_has_pages_beside_it(tmp_path: Path) -> None:
    rows = [face(0.9, True, frame=index, time_s=index / 25) for index in range(3)]
    local = Path(annotation(tmp_path / "out", "s3://bucket/a.mp4", rows))
    remote = Storage("memory://pages/annotation")
    for path in local.rglob("*.parquet"):
        remote.write(str(path.relative_to(local)), path.read_bytes())
    written = pages.write(pages.ReportJob(remote.root, f"{remote.root}/report", thumbnails=False))
    assert written == "memory://pages/annotation/report/index.html"
    page = remote.read("report/videos/00000.html").decode()
    assert page_data(page)["faces"][0]["rows"] == 3
    assert "<video" not in page


def test_a_slash_at_the_end_of_the_annotation_is_no_folder(tmp_path: Path) -> None:
    local = Path(annotation(tmp_path / "out", "s3://bucket/a.mp4", [face(0.9, True, frame=0, time_s=0.0)]))
    remote = Storage("memory://slash/annotation")
    for path in local.rglob("*.parquet"):
        remote.write(str(path.relative_to(local)), path.read_bytes())
    assert command.main([f"{remote.root}/", "--no-thumbnails"]) == 0
    assert remote.names("report") == ["report/faces.csv", "report/index.html", "report/videos/00000.html"]


@pytest.mark.parametrize("place", ["{tmp}/report", "memory://aupipe-pages/report"])
def test_a_report_replaces_the_files_of_an_earlier_one(place: str, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=3)
    rows = [face(0.9, True, frame=index, time_s=index / 25) for index in range(3)]
    out = annotation(tmp_path / "out", str(tmp_path / "a.mp4"), rows)
    target = Storage(place.format(tmp=tmp_path))
    earlier = ["videos/00001.html", "videos/123456.html", "overlays/00001.mp4", "previews/00001.mp4"]
    of_the_user = ["notes.txt", "videos/mine.html", "videos/00001.mp4", "overlays/kept/00001.mp4"]
    for name in [*earlier, *of_the_user]:
        target.write(name, b"1")
    job = pages.ReportJob(out, target.root, thumbnails=False, overlay=True)
    new = ["faces.csv", "index.html", "overlays/00000.mp4", "videos/00000.html"]
    pages.write(job)
    assert target.names() == sorted([*new, *of_the_user])
    pages.write(replace(job, overlay=False))
    assert target.names() == sorted({*new, *of_the_user} - {"overlays/00000.mp4"})
