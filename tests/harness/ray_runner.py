"""A runner on Ray with another stage in place of one of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import ray

from aupipe.annotation import model_set
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.settings import AnnotateConfig
from aupipe.pipelines import annotate
from aupipe.pipelines.annotate import RayRunner
from aupipe.storage import Storage


def runner_with(
    stage: type, name: str, checkpoint: str, folder: Path, config: AnnotateConfig, monkeypatch: pytest.MonkeyPatch
) -> RayRunner:
    """Return a runner with two workers, on a Ray that runs, whose stage `name` is replaced by `stage` of a test."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[stage.__module__])  # Workers cannot import tests.
    monkeypatch.setattr(annotate, name, stage)
    models = model_set.load([checkpoint], "mean")
    return RayRunner(CacheKeys(models, config), Storage(folder), ray.put(models), ray.put(models.heads), workers=2)
