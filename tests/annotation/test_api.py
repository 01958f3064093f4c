"""The Python API: annotate, load_model and detect_faces on files and arrays, without Ray."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import aupipe
from aupipe import facs
from aupipe.annotation import annotated, api, model_stages
from aupipe.annotation.schema import EVENTS, FRAMES
from aupipe.annotation.settings import AnnotateConfig
from aupipe.errors import (
    AupipeError,
    CheckpointError,
    ConfigError,
    NoClockError,
    NoFramesError,
    NotAVideoError,
    NotFoundError,
)
from harness.clips import draw_face, scene, truncate, write_clip

pytestmark = pytest.mark.unit

FRAMES_IN_CLIP = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clip.mp4 (12 frames, one face, 25 frames/s), face.jpg and stills/ (3 numbered images)."""
    top = tmp_path_factory.mktemp("api")
    images = scene(FRAMES_IN_CLIP)
    write_clip(top / "clip.mp4", images, times=[40 * n for n in range(FRAMES_IN_CLIP)])
    (top / "stills").mkdir()
    for name, image in (("face.jpg", images[0]), *((f"stills/{n}.png", images[n]) for n in range(3))):
        cv2.imwrite(str(top / name), image[:, :, ::-1])
    return top


@pytest.fixture(scope="module")
def model() -> api.Model:
    return aupipe.load_model("starter")


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = (
        # CPU time, because other processes share the cores.
        "import sys, time; start = time.process_time(); import aupipe; took = time.process_time() - start\n"
        "heavy = {'torch', 'ray', 'cv2', 'av', 'pyarrow', 'numpy', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "print(sorted(heavy), took < 0.2, 'annotate' in dir(aupipe), aupipe.__version__ != '')\n"
        "aupipe.annotate; print('ray' in sys.modules, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True True True\nFalse False\n"


def test_public_names_are_those_of_the_plan() -> None:
    assert aupipe.__all__ == ["Annotation", "__version__", "annotate", "detect_faces", "load_model"]
    assert all(hasattr(aupipe, name) for name in aupipe.__all__)
    with pytest.raises(AttributeError, match="no attribute 'anotate'"):
        _ = aupipe.anotate  # type: ignore[attr-defined]


def test_examples_of_the_docstrings_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for module in (api, annotated):
        for example in finder.find(module, extraglobs={"aupipe": aupipe}):
            runner.run(example)
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries >= 9
    assert (folder / "clip.png").stat().st_size > 10_000


def test_a_video_gives_the_tables_of_annotate(folder: Path, model: api.Model) -> None:
    result = aupipe.annotate(folder / "clip.mp4", model=model)
    assert set(FRAMES.names) <= set(result.frames.column_names)
    assert result.events.schema.names == EVENTS.names
    assert result.frames["frame"].to_pylist() == list(range(FRAMES_IN_CLIP))
    assert result.frames["time_s"].to_pylist() == pytest.approx([n * 0.04 for n in range(FRAMES_IN_CLIP)])
    assert set(result.frames["status"].to_pylist()) == {"ok"}
    assert (result.video["video_id"], result.video["status"]) == ("clip.mp4", "ok")
    assert result.video["frames_decoded"] == FRAMES_IN_CLIP
    assert list(result.to_pandas().columns) == result.frames.column_names
    assert tuple(result.thresholds) == facs.AUS
    assert "<td>AU12</td>" in result._repr_html_()
    assert "clip.mp4: ok" in result._repr_html_()


def test_decisions_select_rows_in_pandas_where_a_frame_has_no_face(model: api.Model) -> None:
    frames = np.zeros((2, 240, 240, 3), np.uint8)
    frames[0] = draw_face(240)
    table = aupipe.annotate(frames, model=model, thresholds={"AU12": 0.0, "AU25": 1.0}).to_pandas()
    assert table.status.tolist() == ["ok", "no_face"]
    assert table[table.AU12].frame.tolist() == [0]
    assert table[~table.AU25].frame.tolist() == [0]
    assert table[~table.AU12].empty


def test_a_part_a_rate_and_thresholds_are_obeyed(folder: Path, model: api.Model) -> None:
    clip = str(folder / "clip.mp4")
    part = aupipe.annotate(clip, model=model, start_s=0.08, end_s=0.2)
    assert part.frames["frame"].to_pylist() == [2, 3, 4]
    exact = aupipe.annotate(clip, model=model, start_s=Fraction(2, 25), end_s=Decimal("0.2"))  # type: ignore[arg-type]
    assert exact.frames["frame"].to_pylist() == [2, 3, 4]
    sampled = aupipe.annotate(clip, model=model, sample_fps=5, thresholds=dict.fromkeys(facs.AUS, 0.0))
    assert sampled.frames["frame"].to_pylist() == [0, 5, 10]
    assert all(sampled.frames[au].to_pylist() == [True] * 3 for au in facs.AUS)
    assert sampled.thresholds == dict.fromkeys(facs.AUS, 0.0)
    assert len(sampled.events) == len(facs.AUS)
    for settings in ({"detector.min_face_px": 500}, {"detector": {"min_face_px": 500}}):
        small = aupipe.annotate(clip, model=model, end_s=0.04, settings=settings)
        assert small.frames["status"].to_pylist() == ["face_too_small"]
    config = AnnotateConfig(sample_fps=5)
    assert len(aupipe.annotate(clip, model=model, settings=config).frames) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "ray"}, "engine=ray: aupipe.annotate runs in this process; fix: run annotate.py"),
        ({"encoders": 4}, "encoders has no effect in aupipe.annotate"),
        ({"resources": {"workers": 2}}, "resources.workers has no effect"),
        ({"limits.stall_s": 5}, "limits.stall_s has no effect"),
        (AnnotateConfig.model_validate({"cost": {"cpu_hour": 2}}), "cost.cpu_hour has no effect"),
        ({"resources.device": "cuda:1"}, "resources.device has no effect in aupipe.annotate without resources.gpu"),
    ],
)
def test_settings_that_have_no_effect_are_refused(
    folder: Path, model: api.Model, settings: api.Settings, message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"settings: {message}")):
        aupipe.annotate(folder / "clip.mp4", model=model, settings=settings)


def test_settings_of_one_process_and_defaults_are_accepted(folder: Path, model: api.Model) -> None:
    every = AnnotateConfig().model_dump() | {"engine": "local"}
    assert aupipe.annotate(folder / "face.jpg", model=model, settings=every).video["status"] == "ok"
    with pytest.raises(ConfigError, match=r"settings: thresholds has no effect in aupipe\.detect_faces"):
        aupipe.detect_faces(folder / "face.jpg", settings={"thresholds.AU12": 0.1})


def test_arrays_of_frames_give_what_their_video_gives(folder: Path, model: api.Model) -> None:
    images = [frame.image for frame in api.frames(str(folder / "clip.mp4")) if frame.image is not None]
    expected = aupipe.annotate(folder / "clip.mp4", model=model)
    for source in (np.stack(images), images):
        got = aupipe.annotate(source, model=model, fps=25)
        assert (got.video["video_id"], got.video["uri"], got.video["status"]) == ("array", "array", "ok")
        assert got.frames.drop_columns(["video_id", "time_s"]) == expected.frames.drop_columns(["video_id", "time_s"])
        assert got.frames["time_s"].to_pylist() == pytest.approx(expected.frames["time_s"].to_pylist())
    without = aupipe.annotate(images[0], model=model)
    assert without.frames["time_s"].to_pylist() == [None]
    assert without.frames["status"].to_pylist() == ["ok"]
    assert aupipe.annotate(np.stack(images[:3]), model=model, fps=25, start_s=0.04).frames["frame"].to_pylist() == [
        1,
        2,
    ]


def test_paths_mean_the_folder_and_the_home_of_their_call(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: api.Model
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    for source in ("clip.mp4", "~/clip.mp4", Path("~/clip.mp4"), f"../{folder.name}/clip.mp4"):
        result = aupipe.annotate(source, model=model, end_s=0.04)
        assert (result.video["uri"], result.video["video_id"]) == (str(folder / "clip.mp4"), "clip.mp4")
    assert len(aupipe.detect_faces("face.jpg")) == len(aupipe.detect_faces("~/face.jpg")) == 1
    monkeypatch.chdir(tmp_path)
    assert result.draw(0).shape == (240, 320, 3)


def test_images_and_lists_are_inputs(folder: Path, model: api.Model) -> None:
    image = aupipe.annotate(folder / "face.jpg", model=model, sample_fps=5)
    assert image.frames["time_s"].to_pylist() == [None]
    assert image.video["status"] == "ok"
    several = aupipe.annotate([folder / "face.jpg", str(folder / "stills"), folder / "gone.mp4"], model=model)
    status = dict(zip(several.videos["video_id"].to_pylist(), several.videos["status"].to_pylist(), strict=True))
    assert status == {"0.png": "ok", "1.png": "ok", "2.png": "ok", "face.jpg": "ok", "gone.mp4": "quarantined"}
    assert len(several.frames) == 4
    with pytest.raises(ConfigError, match=r"5 inputs \(1\)"):
        _ = several.video
    sequence = aupipe.annotate(folder / "stills", model=model, fps=10, settings={"images": "sequence"})
    assert (sequence.video["video_id"], sequence.video["duration_s"]) == ("stills", pytest.approx(0.3))
    assert sequence.frames["time_s"].to_pylist() == pytest.approx([0.0, 0.1, 0.2])


def test_one_input_that_cannot_be_annotated_raises_its_reason(folder: Path, tmp_path: Path, model: api.Model) -> None:
    with pytest.raises(NotFoundError, match=r"gone\.mp4: no such file"):
        aupipe.annotate(tmp_path / "gone.mp4", model=model)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(NotAVideoError) as caught:
        aupipe.annotate(tmp_path / "text.mp4", model=model)
    assert caught.value.reason == "not_a_video"
    with pytest.raises(NoFramesError):
        aupipe.annotate(folder / "clip.mp4", model=model, start_s=100)
    with pytest.raises(NoClockError):
        aupipe.annotate(folder / "face.jpg", model=model, start_s=0)


def test_the_traceback_of_an_internal_error_is_logged(
    folder: Path, model: api.Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object) -> None:
        raise KeyError("a bug of aupipe")

    monkeypatch.setattr(model_stages, "find_events", failing)
    with pytest.raises(AupipeError, match=r"internal_error: KeyError: .*see (_logs/.*\.txt)") as caught:
        aupipe.annotate(folder / "clip.mp4", model=model)
    (text,) = caplog.messages
    assert text.partition(":")[0] in str(caught.value)
    assert "Traceback" in text
    assert "in failing" in text


def test_a_truncated_video_is_partial_and_raises_nothing(folder: Path, tmp_path: Path, model: api.Model) -> None:
    clip = write_clip(tmp_path / "a.mp4", scene(20), muxer={"movflags": "faststart"})
    truncate(clip, 0.6)
    result = aupipe.annotate(clip, model=model)
    assert result.video["status"] == "partial"
    assert len(set(result.frames["frame"].to_pylist())) == 20


def test_sampled_faces_and_events_end_where_streams_are_joined(tmp_path: Path, model: api.Model) -> None:
    for number in range(2):
        write_clip(tmp_path / f"{number}.ts", scene(12), options={"bf": "0"})
    clip = tmp_path / "joined.ts"
    clip.write_bytes(b"".join((tmp_path / f"{number}.ts").read_bytes() for number in range(2)))
    first_s = aupipe.annotate(clip, model=model).frames["time_s"][0].as_py()
    parts = [({"sample_fps": 1.0}, [0, 12]), ({"start_s": first_s + 0.07, "end_s": first_s + 0.13}, [2, 3, 14, 15])]
    for part, expected in parts:
        found = aupipe.annotate(clip, model=model, thresholds=dict.fromkeys(facs.AUS, 0.0), **part)
        assert found.frames["frame"].to_pylist() == expected
        assert found.frames["face_id"].to_pylist() == sorted([0, 1] * (len(expected) // 2))
        assert len(found.events) == 2 * len(facs.AUS)


def test_frames_missing_at_the_end_count_in_a_part_and_at_a_rate(tmp_path: Path, model: api.Model) -> None:
    clip = write_clip(tmp_path / "a.mp4", scene(20), muxer={"movflags": "faststart"}, options={"g": "5", "bf": "0"})
    with av.open(str(clip)) as container:
        last = [packet for packet in container.demux(video=0) if packet.size][9]
    assert last.pos is not None
    clip.write_bytes(clip.read_bytes()[: last.pos + last.size])

    def result(**part: float) -> tuple[str, str, list[int]]:
        found = aupipe.annotate(clip, model=model, settings={"segment_s": 0.1}, **part)
        return found.video["status"], found.video["reason"], found.frames["frame"].to_pylist()

    truncated = "truncated: it ends before {} frames that its container counts".format
    assert result() == ("partial", "frames_lost: 10 of 20 (10-19)", list(range(20)))
    assert result(sample_fps=5) == ("partial", f"frames_lost: 2 of 4 (10, 15); {truncated(10)}", [0, 5, 10, 15])
    assert result(sample_fps=1) == ("partial", truncated(10), [0])
    assert result(end_s=0.6) == ("partial", f"frames_lost: 5 of 15 (10-14); {truncated(5)}", list(range(15)))
    assert result(start_s=0.2, sample_fps=25)[1:] == (
        f"frames_lost: 10 of 15 (10-19); {truncated(10)}",
        [*range(5, 20)],
    )
    assert result(end_s=0.4) == ("ok", "", list(range(10)))


def test_an_image_that_is_cut_short_is_partial_and_is_annotated(folder: Path, tmp_path: Path, model: api.Model) -> None:
    whole = (folder / "face.jpg").read_bytes()
    (tmp_path / "0.jpg").write_bytes(whole)
    (tmp_path / "1.jpg").write_bytes(whole[: int(len(whole) * 0.9)])
    for source, images, reason in ((tmp_path / "1.jpg", "each", "1 of 1 (0)"), (tmp_path, "sequence", "1 of 2 (1)")):
        result = aupipe.annotate(source, model=model, settings={"images": images})
        expected = f"frames_corrupt: {reason}; truncated: an image ends before its end marker"
        assert (result.video["status"], result.video["reason"]) == ("partial", expected)
        assert set(result.frames["status"].to_pylist()) == {"ok"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": []}, "source: empty"),
        ({"source": np.zeros((2, 8, 8), np.uint8)}, r"image: uint8 \(2, 8, 8\)"),
        ({"source": np.zeros((2, 8, 8, 3))}, r"image: float64 \(8, 8, 3\).*fix: .*astype.numpy.uint8"),
        ({"source": np.zeros((8, 9), np.uint8)}, r"image: uint8 \(8, 9\).*fix: numpy.dstack.*of gray"),
        ({"source": np.asarray(iter(["a.mp4"]))}, r"source: ndarray \(a path"),
        ({"source": ["a.mp4", np.zeros((8, 8, 3), np.uint8)]}, "paths and arrays in one list"),
        ({"source": np.zeros((2, 8, 8, 3), np.uint8), "sample_fps": 5}, "fps: None"),
        ({"source": "a.mp4", "start_s": 2, "end_s": 1}, r"end_s: 1 \(after start_s=2\)"),
        ({"source": "a.mp4", "start_s": "2"}, r"start_s: '2' \(seconds"),
        ({"source": "a.mp4", "end_s": float("nan")}, r"end_s: nan \(seconds"),
        ({"source": None}, r"source: NoneType \(a path.* numpy.asarray"),
        ({"source": (image for image in ())}, r"source: generator \(a path.*fix: .* list\(paths\)"),
        ({"source": "a.mp4", "thresholds": {"AU99": 0.5}}, "unknown AU 'AU99'"),
        ({"source": "a.mp4", "thresholds": {"AU09": 0.5}}, r"unknown AU 'AU09' \(allowed: AU01, .*, AU25, AU26\)"),
        ({"source": "a.mp4", "settings": {"detector.min_scor": 0.5}}, "nearest known one is 'detector.min_score'"),
        ({"source": "a.mp4", "sample_fps": -1}, "sample_fps"),
        ({"source": "a.mp4", "sample_fps": 5, "settings": {"sample_fps": 2}}, "5 and settings sample_fps=2.*give one"),
        ({"source": "a.mp4", "settings": {"precision": "bfloat16"}}, "bfloat16 .of the loaded model: float32"),
        ({"source": "a.mp4", "settings": {1: 2}}, r"settings: \{1: 2\} \(a mapping"),
        ({"source": "a.mp4", "settings": "a=b"}, "settings: 'a=b'"),
        ({"source": "a.mp4", "thresholds": [0.5]}, r"thresholds: \[0.5\] \(a mapping"),
        ({"source": np.zeros((2, 8, 8, 3), np.uint8), "fps": 1e-7}, "assume_fps"),
        ({"source": "a.mp4", "model": None}, "model: None .'starter', a checkpoint"),
        ({"source": "a.mp4", "model": 3}, "model: 3 .'starter', a checkpoint"),
        ({"source": "a.mp4", "model": []}, "model: .. .'starter', a checkpoint"),
        ({"source": "a.mp4", "model": ["starter", 3]}, r"model: \['starter', 3\] \('starter', a checkpoint"),
    ],
)
def test_wrong_arguments_are_named(model: api.Model, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        aupipe.annotate(**({"model": model} | arguments))  # type: ignore[arg-type]


def test_a_model_is_shown_in_one_line(model: api.Model) -> None:
    assert re.fullmatch(r"Model\((\w+ [0-9a-f]{12}(, )?)+; 12 AUs\)", repr(model))
    assert len(repr(model.models)) < 1000


def test_predictions_of_crops_are_those_of_the_tables(folder: Path, model: api.Model, tmp_path: Path) -> None:
    decoded = cv2.imread(str(folder / "face.jpg"))
    cv2.imwrite(str(tmp_path / "face.png"), decoded)  # FFmpeg and OpenCV decode JPEG apart
    image = decoded[:, :, ::-1]
    (face,) = aupipe.detect_faces(image)
    crops = np.stack([model.crop(image, face), model.crop(image[:, ::-1], face)])
    probabilities = model.predict(crops)
    assert tuple(probabilities) == model.aus == facs.AUS
    row = aupipe.annotate(tmp_path / "face.png", model=model).frames.to_pylist()[0]
    alone, track = model.predict(crops[:1]), model.predict(crops, time_s=[0.0, 0.04])
    for au in facs.AUS:
        assert probabilities[au].dtype == np.float32
        assert probabilities[au][0] == pytest.approx(row[f"{au}_raw"], abs=1e-4)
        assert alone[au][0] == probabilities[au][0]
        assert track[au] == pytest.approx(probabilities[au])
    assert all(len(values) == 0 for none in (crops[:0], []) for values in model.predict(none).values())
    assert model.predict(list(crops))["AU12"].tolist() == probabilities["AU12"].tolist()
    with pytest.raises(ConfigError, match=r"crops: uint8 \(112, 112, 3\)"):
        model.predict(crops[0])
    with pytest.raises(ConfigError, match="2 ascending seconds"):
        model.predict(crops, time_s=[1.0, 0.0])


def test_models_are_loaded_by_name_and_path(model: api.Model) -> None:
    folders = api.default_models.OWN
    both = aupipe.load_model(folders)
    names = {card.sha256 for card in both.cards}
    assert len(names) == len(folders) == 2
    assert {card.sha256 for card in model.cards} < names
    one = aupipe.load_model(folders[0])
    assert len(one.cards) == 1
    assert one.card.au_order == facs.AUS
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        aupipe.load_model("nowhere")
    with pytest.raises(ConfigError, match=r"model: \[Model.* \('starter', a checkpoint"):
        aupipe.load_model([model])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"precision: 'float16' .float32 or bfloat16"):
        aupipe.load_model(precision="float16")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"ensemble: 'median' .mean or vote"):
        aupipe.load_model(ensemble="median")  # type: ignore[arg-type]


def test_loaded_models_decide_by_the_rule_with_which_they_were_loaded(
    folder: Path, make_checkpoint: Callable[..., str]
) -> None:
    paths = [make_checkpoint(seed=seed) for seed in range(3)]
    loaded = aupipe.annotate(folder / "clip.mp4", model=aupipe.load_model(paths, ensemble="vote"))
    named = aupipe.annotate(folder / "clip.mp4", model=paths, settings={"ensemble": "vote"})
    assert loaded.frames == named.frames
    assert loaded.thresholds == named.thresholds == {}  # no probability decides
    mean = aupipe.annotate(folder / "clip.mp4", model=paths)
    voting = aupipe.load_model(paths, ensemble="vote")
    for settings in ({"ensemble": "mean"}, AnnotateConfig(ensemble="mean")):  # named settings come first
        assert aupipe.annotate(folder / "clip.mp4", model=voting, settings=settings).frames == mean.frames
    assert aupipe.annotate(folder / "clip.mp4", model=voting, settings=AnnotateConfig()).frames == named.frames
    assert [len(axes.lines) for axes in loaded.plot(aus=["AU12"]).axes] == [2]
    both = aupipe.load_model(paths[:2])
    assert tuple(aupipe.annotate(folder / "clip.mp4", model=both).thresholds) == facs.AUS
    with pytest.raises(ConfigError, match="2 checkpoints can end in a tie"):
        aupipe.annotate(folder / "clip.mp4", model=both, settings={"ensemble": "vote"})


def test_a_precision_that_is_not_the_loaded_models_is_refused(
    folder: Path, make_checkpoint: Callable[..., str]
) -> None:
    model = aupipe.load_model(make_checkpoint(), precision="bfloat16")
    with pytest.raises(ConfigError, match=r"precision: float32 \(of the loaded model: bfloat16\)"):
        aupipe.annotate(folder / "clip.mp4", model=model, settings={"precision": "float32"})


def test_faces_are_detected_in_files_and_arrays(folder: Path, tmp_path: Path) -> None:
    (face,) = aupipe.detect_faces(folder / "face.jpg")
    x, y, width, height = face.box
    assert 0 < x < x + width < 320
    assert 0 < y < y + height < 240
    assert ((face.landmarks > [x, y]) & (face.landmarks < [x + width, y + height])).all()
    assert 0.6 <= face.score <= 1
    assert aupipe.detect_faces(np.zeros((64, 64, 3), np.uint8)) == []
    assert len(aupipe.detect_faces(draw_face(200), settings={"detector.min_score": 0.5})) == 1
    with pytest.raises(NotFoundError):
        aupipe.detect_faces(tmp_path / "gone.jpg")
    with pytest.raises(ConfigError, match=r"image: uint8 \(64, 64\)"):
        aupipe.detect_faces(np.zeros((64, 64), np.uint8))


def test_the_plot_has_an_axis_per_au_and_a_bar_per_event(folder: Path, model: api.Model) -> None:
    result = aupipe.annotate(folder / "clip.mp4", model=model, thresholds=dict.fromkeys(facs.AUS, 0.0))
    figure = result.plot()
    assert [axes.get_ylabel() for axes in figure.axes] == list(facs.AUS)
    assert figure.axes[-1].get_xlabel() == "time (s)"
    assert figure._repr_png_().startswith(b"\x89PNG")  # what notebooks show
    first = figure.axes[0]
    raw, smoothed, _ = first.lines
    assert raw.get_linewidth() < smoothed.get_linewidth()
    assert smoothed.get_ydata().tolist() == result.frames["AU01_prob"].to_pylist()
    assert len(first.collections[0].get_segments()) == 1
    image = aupipe.annotate(folder / "face.jpg", model=model)
    assert image.plot(aus=["AU12"]).axes[0].get_xlabel() == "frame"
    with pytest.raises(ConfigError, match="aus: AU99"):
        result.plot(aus=["AU99"])
    with pytest.raises(ConfigError, match=r"video_id, face_id: clip\.mp4, 7 "):
        result.plot(face_id=7)
    blank = aupipe.annotate(np.zeros((1, 64, 64, 3), np.uint8), model=model)
    with pytest.raises(ConfigError, match="video_id, face_id: None, None"):
        blank.plot()
