"""The report page in a real browser: player, curves and faces follow each other, and no request leaves the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from aupipe import facs
from aupipe.annotation import schema
from aupipe.commands import report as command
from harness.clips import write_clip
from harness.drawn_tables import annotation, face

pytestmark = pytest.mark.unit

NAME = "<script>alert(1)<" + "script>.webm"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip
FRAMES, ALL = 50, " ".join(facs.AUS)
ORANGE = [255, 176, 0, 255]  # the box of the face that is picked


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on this machine; fix: apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the index of a report on a clip of two faces; face 1 is there in its second half, with all AUs."""
    folder = tmp_path_factory.mktemp("browser")
    clip = write_clip(
        folder / NAME, [np.full((120, 160, 3), 90, np.uint8)] * FRAMES, codec="libvpx-vp9",
        options={"deadline": "realtime", "cpu-used": "8"},
    )  # fmt: skip
    rows = [face(0.2, False, frame=i, time_s=i / 25) for i in range(FRAMES)]
    rows += [face(0.9, True, frame=i, time_s=i / 25, face_id=1, box_x=100.0) for i in range(25, FRAMES)]
    out = Path(annotation(folder / "out", str(clip), [row | {"video_id": NAME} for row in rows], faces=2))
    video = pq.read_table(out / "videos.parquet").to_pylist()[0] | {"video_id": NAME}
    size = {"frame_width": 160, "frame_height": 120, "frames_decoded": FRAMES, "frames_expected": FRAMES}
    pq.write_table(pa.Table.from_pylist([video | size], schema=schema.VIDEOS), out / "videos.parquet")
    assert command.main([str(out)]) == 0
    return out / "report" / "index.html"


class Observed:
    """A page with what it logs and requests."""

    def __init__(self, page: Page) -> None:
        self.page, self.problems, self.requests = page, list[str](), list[str]()
        page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self.requests.append(request.url))

    def open_video(self, index: Path) -> None:
        self.page.goto(index.as_uri())
        self.page.click("table a")
        self.page.wait_for_selector("#curves")
        self.until("video === null || video.readyState >= 2")

    def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true; the page's policy forbids Playwright's own way to wait for it."""
        for _ in range(200):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(expression)

    def time_s(self) -> float:
        return float(self.page.evaluate("video.currentTime"))

    def pixel(self, x: float, y: float) -> list[int]:
        """Return the RGBA of the overlay at a position of the video's picture."""
        return list(
            self.page.evaluate(
                "([x, y]) => { const ratio = overlay.width / overlay.clientWidth;"
                "const scale = Math.min(overlay.clientWidth / data.width, overlay.clientHeight / data.height);"
                "const left = (overlay.clientWidth - data.width * scale) / 2;"
                "const top = (overlay.clientHeight - data.height * scale) / 2;"
                "const at = [left + x * scale, top + y * scale].map((v) => Math.round(v * ratio));"
                "return [...overlay.getContext('2d').getImageData(...at, 1, 1).data]; }",
                [x, y],
            )
        )


@pytest.fixture
def observed(browser: Browser) -> Iterator[Observed]:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    yield Observed(context.new_page())
    context.close()


def click_curve(page: Page, share: float) -> None:
    """Click the curves at a share of their time."""
    box: Any = page.locator("#curves").bounding_box()
    page.mouse.click(box["x"] + 56 + share * (box["width"] - 56 - 6), box["y"] + 100)


def test_player_curves_and_faces_follow_each_other(observed: Observed, report: Path) -> None:
    page = observed.page
    observed.open_video(report)
    click_curve(page, 0.5)
    observed.until("!video.seeking && Math.abs(video.currentTime - 0.98) < 0.05")
    observed.until("now.textContent.includes('face 0: no AU')")
    assert observed.pixel(20, 50) == ORANGE  # the left edge of face 0
    click_curve(page, 0.75)
    observed.until("!video.seeking && Math.abs(video.currentTime - 1.47) < 0.05")
    assert observed.pixel(100, 50) != ORANGE
    assert set(page.locator("#together td").all_inner_texts()) == {"–"}  # face 0 has no AU
    page.select_option("#face", "1")
    assert set(page.locator("#together td").all_inner_texts()) == {"100 %"}
    observed.until(f"now.textContent.includes('face 1: {ALL}')")
    assert observed.pixel(100, 50) == ORANGE
    click_curve(page, 0.1)  # of the video, although the face appears later
    observed.until("now.textContent.includes('face 1: not in the picture')")
    page.locator("#curves").focus()
    before = observed.time_s()
    page.keyboard.press("ArrowRight")
    observed.until("!video.seeking")
    assert observed.time_s() == pytest.approx(before + 0.04, abs=0.005)
    page.keyboard.press("f")
    observed.until("document.getElementById('face').value === '0'")
    page.keyboard.press(" ")
    observed.until(f"video.currentTime > {before + 0.3}")  # plays
    observed.until("Math.abs(cursor - video.currentTime) < 0.1")
    assert observed.problems == []
    assert {request.partition(":")[0] for request in observed.requests} <= {"file", "data"}


def test_arrows_go_from_row_to_row(observed: Observed, report: Path, tmp_path: Path) -> None:
    observed.open_video(report)
    page = observed.page
    page.locator("#curves").focus()
    for key, row in [*(("ArrowRight", row) for row in range(1, 6)), ("ArrowLeft", 4)]:
        page.keyboard.press(key)
        observed.until(f"!video.seeking && Math.abs(video.currentTime - {row / 25 + 1e-3}) < 1e-4")
        page.wait_for_timeout(40)
        assert page.evaluate("cursor") == pytest.approx(row / 25, abs=1e-6)  # it does not drift
    times_s = np.cumsum([0.5, *[0.033, 0.033, 0.034] * 10])  # of 30 frames/s in milliseconds
    rows = [face(0.9, True, frame=i, time_s=time_s) for i, time_s in enumerate(times_s)]
    assert command.main([annotation(tmp_path / "out", "nowhere.mp4", rows)]) == 0
    observed.open_video(tmp_path / "out/report/index.html")
    for row in range(1, len(times_s)):
        page.keyboard.press("ArrowRight")
        assert page.evaluate("rowAt(face, cursor)") == row


def test_an_image_is_shown_below_its_box(observed: Observed, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((120, 160, 3), 90, np.uint8))
    out = Path(annotation(tmp_path / "out", str(tmp_path / "a.jpg"), [face(0.9, True, time_s=None)]))
    video = pq.read_table(out / "videos.parquet").to_pylist()[0] | {"frame_width": 160, "frame_height": 120}
    pq.write_table(pa.Table.from_pylist([video], schema=schema.VIDEOS), out / "videos.parquet")
    assert command.main([str(out)]) == 0
    observed.open_video(out / "report" / "index.html")
    observed.until("still.complete && still.naturalWidth === 160")
    observed.until(f"now.textContent.includes('face 0: {ALL}')")
    observed.until("overlay.clientHeight === still.clientHeight")
    assert observed.pixel(20, 50) == ORANGE
    assert observed.problems == []
    (tmp_path / "a.jpg").write_bytes(b"no image")
    observed.page.reload()
    observed.until("!document.getElementById('unplayable').hidden")
    assert "cannot show the image" in observed.page.locator("#unplayable").inner_text()


def test_a_video_of_which_only_the_sound_plays_is_no_player(observed: Observed, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:  # as of HEVC, browsers without its codec report no error
        picture, voice = container.add_stream("mpeg4", rate=25), container.add_stream("aac", rate=48_000, layout="mono")
        picture.width, picture.height = 160, 120
        for _ in range(FRAMES):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.full((120, 160, 3), 90, np.uint8))))
        container.mux(picture.encode(None))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.int16), format="s16", layout="mono")
        sound.rate, sound.pts = 48_000, 48_000  # from 1 s to 2 s
        container.mux(voice.encode(sound))
        container.mux(voice.encode(None))
    rows = [face(0.9, True, frame=i, time_s=i / 25) for i in range(FRAMES)]
    out = annotation(tmp_path / "out", str(tmp_path / "a.mp4"), rows)
    assert command.main([out]) == 0
    page = observed.page
    page.goto((tmp_path / "out/report/index.html").as_uri())
    page.click("table a")
    observed.until("!document.getElementById('unplayable').hidden && document.getElementById('screen').hidden")
    assert "cannot play the video" in page.locator("#unplayable").inner_text()
    click_curve(page, 0.25)
    observed.until("Math.abs(cursor - 0.49) < 0.02")
    page.wait_for_timeout(300)
    observed.until("now.textContent.startsWith('0.49 s, face 0: AU01')")
    assert observed.problems == []


def test_a_name_is_no_markup(observed: Observed, report: Path) -> None:
    page = observed.page
    observed.open_video(report)
    assert page.title() == page.locator("h1").inner_text() == NAME
    assert page.locator("script").count() == 2  # the data and the page's own
    assert observed.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_a_phone(browser: Browser, report: Path, scheme: Any, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    observed = Observed(context.new_page())
    observed.page.goto(report.as_uri())
    grounds = [observed.page.evaluate("getComputedStyle(document.body).backgroundColor")]
    assert observed.page.evaluate("document.documentElement.scrollWidth") <= 390
    observed.open_video(report)
    grounds.append(observed.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert observed.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert len(set(grounds)) == 1
    assert (grounds[0] == "rgb(255, 255, 255)") == (scheme == "light")
    assert observed.problems == []
    context.close()


@pytest.mark.slow  # because its limit holds only while nothing else runs
def test_an_hour_is_zoomed_and_panned_without_a_wait(observed: Observed, tmp_path: Path) -> None:
    count = 108_000
    numbers = np.random.default_rng(0).random(count, np.float32)
    columns: dict[str, Any] = dict.fromkeys((*schema.RAW, *schema.PROB), pa.array(numbers))
    columns |= dict.fromkeys(schema.BOX, pa.array(np.full(count, 50, np.float32)))
    columns |= {
        "video_id": pa.array(["a.mp4"] * count), "frame": pa.array(np.arange(count, dtype=np.int32)),
        "time_s": pa.array(np.arange(count) / 30), "status": pa.array(["ok"] * count),
        "face_id": pa.array(np.zeros(count, np.int32)),
    }  # fmt: skip
    out = Path(annotation(tmp_path, "nowhere.mp4", []))
    full = [columns.get(field.name, pa.nulls(count, field.type)) for field in schema.FRAMES]
    pq.write_table(pa.table(full, schema=schema.FRAMES), out / "frames" / "a.parquet")
    assert command.main([str(out)]) == 0
    observed.open_video(out / "report" / "index.html")
    observed.until("sheetKey !== ''")
    times_ms = observed.page.evaluate(
        "[...Array(9).keys()].map((i) => { const start = performance.now();"
        "if (i % 2) pan(20); else zoom(0.6, 1800); draw(); return performance.now() - start; })"
    )
    assert np.median(times_ms) < 100
    assert observed.problems == []
