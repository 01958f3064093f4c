"""The starter model on frames of real videos whose AUs one reader saw.

`reading.csv` has the labels: 1 present, 0 absent, −1 not to be seen. The reader, who is not a certified FACS coder, saw
the frames without any score of ours, and other frames of the same person beside them. The frames were chosen by the
signals of MediaPipe's FaceLandmarker, where they are highest and most different. The videos are no part of the
repository. With them (`harness.external_data`) this prints the scores:

    pytest -s -m slow tests/benchmarks/test_reading.py
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import av
import cv2
import pytest

from aupipe import facs
from aupipe.models import default_models
from harness import processes
from harness.external_data import external

LABELS = Path(__file__).with_name("reading.csv")
# AUs that at least three of the frames show, with the least area under the ROC curve.
LEAST = {
    "AU01": 0.97, "AU02": 0.97, "AU04": 0.75, "AU06": 0.9, "AU12": 0.98, "AU15": 0.7, "AU24": 0.75, "AU25": 0.98,
    "AU26": 0.98,
}  # fmt: skip


def read() -> dict[str, list[dict[str, str]]]:
    """Return the rows of each video."""
    videos = defaultdict(list)
    for row in csv.DictReader(LABELS.read_text().splitlines()):
        videos[row["video"]].append(row)
    return videos


@pytest.mark.unit
def test_labels_are_complete_and_several_people_show_most_aus() -> None:
    rows = [row for each in read().values() for row in each]
    assert len(rows) == 227
    assert len({(row["video"], row["time_s"]) for row in rows}) == len(rows)
    assert {row[au] for row in rows for au in facs.AUS} == {"0", "1", "-1"}
    for au in LEAST:
        assert sum(row[au] == "1" for row in rows) >= 3, au


@pytest.mark.ray
@pytest.mark.slow
def test_scores_on_real_frames(tmp_path: Path) -> None:
    folder = external("videos")
    with open(tmp_path / "manifest.csv", "w", newline="") as file:
        manifest = csv.writer(file)
        manifest.writerow(["path", "subject", *facs.AUS])
        for video, rows in read().items():
            (path,) = folder.glob(f"{video}.*")
            with av.open(str(path)) as container:
                frames = list(container.decode(video=0))
            for row in rows:
                frame = min(frames, key=lambda each: abs((each.time or 0) - float(row["time_s"])))
                picture = tmp_path / f"{video} {row['time_s']}.png"
                cv2.imwrite(str(picture), frame.to_ndarray(format="bgr24"))
                manifest.writerow([picture, video, *(row[au] for au in facs.AUS)])
    store, out = str(tmp_path / "store"), tmp_path / "scores"
    commands = [
        ["preprocess", "--data", str(tmp_path / "manifest.csv"), "--out", store],
        ["evaluate", "--checkpoint", *default_models.FOLDERS, "--data", store, "--split", "all", "--out", str(out)],
    ]
    for job in commands:
        assert processes.run(processes.command(*job), 300)[0] == 0
    scores = json.loads((out / "scores.json").read_text())["per_au"]
    for au, least in LEAST.items():
        assert scores[au]["auc"] >= least, au
