"""One clip: a plan performed by a person who never existed, rendered and voiced, encoded, and cut into aligned crops.

The crops come from the video as it decodes, through the detector and the aligner that every video goes through.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

from aupipe import facs
from aupipe.arrays import AnyFloats as Floats
from aupipe.faces.align import ARCFACE_TEMPLATE, AlignmentConfig, crop
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.faces.face_stream import detect_stream
from aupipe.facestore import jpeg
from aupipe.media.frames import frames
from aupipe.synthesis import au_blendshapes
from aupipe.synthesis.appearance import draw_person
from aupipe.synthesis.au_schedule import VideoPlan, present
from aupipe.synthesis.render import Renderer
from aupipe.synthesis.render_job import RenderConfig
from aupipe.synthesis.rig import Rig
from aupipe.synthesis.scene import draw_movements, draw_pose, draw_scene
from aupipe.synthesis.voice import RATE_HZ, synthesize_voice

FPS = 25


def encode(pictures: npt.NDArray[np.uint8], sound: npt.NDArray[np.int16], crf: int) -> bytes:
    """(N, H, W, 3) uint8 RGB and (n,) mono sound as an mp4 with a key frame every second; the same bytes every time.

    H.264 in one thread, and x264 without its assembly: that reads past the picture's end, so its output hung on what
    lay there in memory (libx264 of PyAV 18.1, 160 pixels wide). It costs 5 ms a frame. The sound is FLAC with fixed
    predictors: whole numbers only, so no processor rounds otherwise, and no samples before the start as AAC has.
    """
    options = {"crf": str(crf), "preset": "veryfast", "x264-params": "no-asm=1"}
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = FPS
        stream.time_base = Fraction(1, FPS)
        stream.thread_count = 1
        speaker = container.add_stream("flac", rate=RATE_HZ, options={"lpc_type": "fixed"})
        speaker.layout = "mono"
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
            start, stop = number * RATE_HZ // FPS, (number + 1) * RATE_HZ // FPS
            heard = av.AudioFrame.from_ndarray(sound[None, start:stop], format="s16", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
            container.mux(speaker.encode(heard))
        container.mux(stream.encode())
        container.mux(speaker.encode())
    return file.getvalue()


@dataclass(frozen=True)
class Performance:
    """What one person shows and says.

    pictures: (N, H, W, 3);  au: (N, 12) labels;  sound: (n,) of N frames' time, 1 = full scale.
    """

    pictures: npt.NDArray[np.uint8]
    au: npt.NDArray[np.bool_]
    sound: Floats


def perform(video: VideoPlan, config: RenderConfig, the_rig: Rig) -> Performance:
    """Render and voice the plan of one person."""
    rng = np.random.default_rng(video.seed)
    count = len(video.intensity)
    person, scene = draw_person(rng, the_rig), draw_scene(rng, config.size_px)
    pose, movements = draw_pose(rng, count, FPS), draw_movements(rng, count, FPS)
    asymmetry = {
        name: float(lean) for name, lean in zip(the_rig.actions, rng.normal(0, 0.08, len(the_rig.actions)), strict=True)
    }
    renderer = Renderer(the_rig, person, scene, size_px=config.size_px)
    lips = au_blendshapes.lip_columns(the_rig)
    pictures = np.empty((count, config.size_px, config.size_px, 3), np.uint8)
    opening_dm = np.empty(count)
    for frame in range(count):
        intensity = dict(zip(facs.AUS, video.intensity[frame].tolist(), strict=True))
        intensity |= {name: float(curve[frame]) for name, curve in movements.items()}
        face = the_rig.shape(au_blendshapes.offset_weights(the_rig.actions, intensity, asymmetry), person.vertices)
        opening_dm[frame] = lips.gap(face)
        pictures[frame] = renderer.frame(face, intensity, (video.seed + frame) % 2**31, pose[frame])
    jaw = video.intensity[:, facs.AUS.index("AU26")]
    return Performance(
        pictures,
        present(video.intensity, opening_dm > au_blendshapes.LIPS_PARTED_DM),
        synthesize_voice(video.seed, opening_dm, jaw, FPS),
    )


def crops(
    uri: str, places: int, detection: DetectorConfig, alignment: AlignmentConfig
) -> Iterator[tuple[int, int, bytes]]:
    """(place, 0-based frame, JPEG) of the best face at each place of each frame as decoded, aligned as all video is.

    Args:
        places: into how many equal parts, from left to right, the picture is divided; each shows one person.
    """
    for seen, points in detect_stream(frames(uri), Detector(detection), alignment.smoothing_radius):
        image, faces = seen.frame.image, seen.faces
        if image is None:
            continue
        center = (faces.boxes[:, 0] + faces.boxes[:, 2] / 2) / image.shape[1]
        large_enough = faces.boxes[:, 2:].min(axis=1) >= detection.min_face_px
        for place in range(places):
            here = np.flatnonzero(large_enough & ((np.clip(center, 0, 1 - 1e-6) * places).astype(int) == place))
            if len(here):  # the best comes first
                yield place, seen.frame.index, jpeg.encode(crop(image, points[here[0]], ARCFACE_TEMPLATE))
