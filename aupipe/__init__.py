"""aupipe: facial Action Units (AUs) from any archive of video, on Ray.

Bytes become frames with media time (`media`), faces and 112×112 crops (`faces`), frame embeddings and AU logits
(`models`), and tables (`annotation`). Training starts from the crops (`facestore`, `data`, `training`). Only
`pipelines` imports Ray.

The Python API is what `__all__` lists. Its modules are imported on first use, so that `import aupipe` and every
`--help` are fast.

Dimension letters used in every docstring: N frames or crops, B batch, S sequence length, E embedding dimension, T = 12
AUs, C expression classes, H and W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aupipe.annotation.annotated import Annotation
    from aupipe.annotation.api import annotate, detect_faces, load_model

__version__ = "0.1.0"
__all__ = ["Annotation", "__version__", "annotate", "detect_faces", "load_model"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from aupipe.annotation import api

    return globals().setdefault(name, getattr(api, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
