"""`bench.py encode_once`: figures of a small run, and errors."""

import json
from dataclasses import replace

import pytest
import torch

from aupipe.benchmarks import encode_once
from aupipe.commands import bench
from aupipe.data.embedding_store import to_parquet

pytestmark = pytest.mark.unit


def test_figures_of_a_small_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    case = replace(encode_once.CASES["temporal_prompts_quick"], videos=4, batch=4)
    monkeypatch.setitem(encode_once.CASES, "temporal_prompts_quick", case)
    assert bench.main(["encode_once", "--case", "temporal_prompts_quick", "--repeats", "1"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["bench"], figures["case"], figures["clips"]) == ("encode_once", "temporal_prompts_quick", 8)
    assert figures["on_the_fly_s"] > figures["encode_once_s"] > 0
    assert figures["cpu_ratio"] > 2
    assert figures["loss"] > 0


def test_wrong_embeddings_are_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    case = replace(encode_once.CASES["temporal_prompts_quick"], videos=4, batch=4)
    monkeypatch.setitem(encode_once.CASES, "temporal_prompts_quick", case)
    monkeypatch.setattr(
        encode_once.embedding_store,
        "encode_part",
        lambda encoder, *_: to_parquet(torch.zeros(case.videos * case.frames, encoder.embed_dim)),
    )
    assert bench.main(["encode_once", "--case", "temporal_prompts_quick", "--repeats", "1"]) == 1
    assert "epoch 0: the loss is" in capsys.readouterr().err


def test_no_such_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["encode_once", "--case", "nothing"]) == 2
    assert "no such case (temporal_prompts_quick" in capsys.readouterr().err
