"""Evaluation of models, or of predictions of another program, against the labels of a face store.

OUT/predictions.parquet   one row per scored row of the store: label, probability, decision
OUT/scores.png            F1 of every AU beside the floor, and on Aff-Wild2 beside the published figures
OUT/curves.png            per AU: F1 by threshold, and the share of positives by probability
OUT/scores.json           written last
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from aupipe import facs, output_folders
from aupipe.affwild2 import submission
from aupipe.affwild2.job import is_official
from aupipe.config import check_unused
from aupipe.data import splits
from aupipe.errors import ConfigError, DatasetError, ManifestError
from aupipe.evaluation import calibration, report, table
from aupipe.evaluation import decision as ensemble
from aupipe.evaluation import fairness as groups
from aupipe.evaluation.decision import Decision
from aupipe.evaluation.plot import curves, picture
from aupipe.evaluation.predictions import align_predictions
from aupipe.evaluation.settings import EvaluateConfig
from aupipe.facestore.columns import labels
from aupipe.facestore.read import FaceStore
from aupipe.manifests import read_table
from aupipe.models import checkpoint
from aupipe.parquet import read_parquet
from aupipe.pipelines.path_visibility import check_visible_on_all_nodes
from aupipe.pipelines.predict import check_audio, check_models, member, predict
from aupipe.pipelines.session import session
from aupipe.run_lease import run_lease
from aupipe.storage import Storage, folder_and_name


@dataclass(frozen=True)
class EvaluateJob:
    checkpoints: tuple[str, ...]
    predictions: str | None  # a predictions.parquet or a submission, instead of checkpoints
    store: str
    split: str
    out: str
    groups: str | None  # a manifest; scores are computed for each of its columns
    against: str | None  # predictions of another model on the same rows, for the paired difference
    config: EvaluateConfig


@dataclass(frozen=True)
class EvaluatePlan:
    """The checked inputs of a job."""

    job: EvaluateJob
    index: FaceStore
    part: splits.SplitPart
    rows: int  # labeled rows
    cards: list[checkpoint.Card]
    seen: frozenset[str]  # scored videos that are training or tuning videos of a model
    manifest: dict[str, list[str]] | None
    done: bool  # whether there are scores, which will be written again


def text(plan: EvaluatePlan) -> str:
    """Return a plan for a terminal."""
    job = plan.job
    names = [f"{card.training.recipe or 'model'} {card.sha256[:12]}" for card in plan.cards] or [str(job.predictions)]
    what = f"{job.config.ensemble} of {', '.join(names)}" if len(names) > 1 else names[0]
    done = " (done before; will be written again)" if plan.done else ""
    return f"score {what} on {plan.rows:,} labeled crops of {job.split}{done}"


def evaluate(job: EvaluateJob) -> str:
    """Score the models or predictions, write the files listed above, and return the table to print.

    Raises:
        ConfigError: an input of the job is invalid, or a vote could tie, or a model was trained on scored videos.
    """
    plan, out = check(job), Storage(job.out)
    with run_lease(out):
        stages, extra = _decisions(job, plan)
        *_, final = stages.values()
        if plan.manifest is not None:
            extra["groups"] = groups.by_column(final, plan.manifest)
        if job.against is not None:
            difference = report.against(final, _given("--against", job.against, plan))
            extra["against"] = {"predictions": job.against, **difference}
        result = report.report(stages) | extra | _origin(job, plan)
        names = job.checkpoints or (str(job.predictions),)
        what = names[0] if len(names) == 1 else f"{job.config.ensemble} of {len(names)} models"
        comparable = is_official(plan.index.card) and job.split == "validation"
        note = "" if comparable else "; not measured on Aff-Wild2's validation set"
        title = f"{what}\n{job.split} of {job.store}, {result['n_videos']} videos{note}"
        out.write("predictions.parquet", final.predictions.to_parquet(final.decided))
        out.write("scores.png", picture(result, title, published=comparable))
        out.write("curves.png", curves(final.predictions, final.thresholds, title))
        out.write("scores.json", json.dumps(result, indent=1).encode())
    return table.text(result)


def check(job: EvaluateJob) -> EvaluatePlan:
    """Check what a job needs, and return its plan. Starts nothing.

    Raises:
        ConfigError: as `evaluate`.
    """
    if job.predictions is not None:
        where = "on --predictions, which are scored as they are; fix: leave it out"
        check_unused(job.config, ("ensemble", "inference"), "--set ", where)
    output_folders.check(Storage(job.out), "scores")
    index = FaceStore.open(job.store)
    if not job.checkpoints and job.config.evaluate.tune:
        raise ConfigError("evaluate.tune=true fits thresholds to a model's probabilities; fix: give --checkpoint")
    cards, with_audio = check_models(job.checkpoints, index, job.config.ensemble) if job.checkpoints else ([], [])
    drop = any(card.training.leak == "drop_val" for card in cards)
    part = splits.eval_part(index, job.split, "drop_val" if drop else "off")
    rows = index.labels(part.split, ("video_id", "au"))
    rows = rows.filter(part.mask(rows["video_id"]) & (labels(rows) != facs.UNKNOWN).any(axis=1))
    if not len(rows):
        raise DatasetError(f"{job.store}: split {job.split} has no labeled row to score; fix: give another --split")
    scored = set(rows["video_id"].unique().to_pylist())
    trained_on = {video for card in cards for video in (*card.training.videos, *card.training.held_out_videos)}
    seen = frozenset(scored & trained_on)
    if seen and not job.config.evaluate.allow_seen:
        raise ConfigError(
            f"{len(seen)} of the {len(scored)} videos of {job.split} are training or tuning videos, as {min(seen)}; "
            "fix: score another --split, or label the figure as seen with --set evaluate.allow_seen=true"
        )
    for path in with_audio:
        check_audio(path, [(index, scored)])
    done = Storage(job.out).exists("scores.json")
    manifest = _manifest(job.groups, scored) if job.groups else None
    return EvaluatePlan(job, index, part, len(rows), cards, seen, manifest, done)


def _manifest(path: str, scored: set[str]) -> dict[str, list[str]]:
    storage, name = folder_and_name(path)
    if not storage.exists(name):
        raise ManifestError(f"--groups {path}: no such file")
    found = read_table(storage, name, "video_id", ("person",))
    people = {"person": found.texts("person")} if "person" in found.columns else {}
    columns = found.columns | people
    groups.check(columns, path, found.numbers)
    if not scored & set(columns["video_id"]):
        raise ManifestError(f"{path} names none of the videos that are scored, as {min(scored)}")
    return columns


def _decisions(job: EvaluateJob, plan: EvaluatePlan) -> tuple[dict[str, Decision], dict[str, Any]]:
    """Return the decisions by stage, and additional entries of scores.json."""
    if job.predictions is not None:
        return {"as_given": _given("--predictions", job.predictions, plan)}, {}
    config = job.config
    with session(config.resources):
        check_visible_on_all_nodes(job.out, [job.store, *job.checkpoints])
        found = predict(job.checkpoints, plan.index, (plan.part,), config.inference, config.resources)[plan.part]
    members = [member(card, raw) for card, raw in zip(plan.cards, found, strict=True)]
    stages = ensemble.decide(members, job.config.ensemble)
    extra: dict[str, Any] = {"validation_tuned": _tuned(stages["raw_at_0.5"])} if job.config.evaluate.tune else {}
    for path, raw in zip(job.checkpoints, found, strict=True):
        if raw.classes and raw.expression_labels is None:
            extra["expression_note"] = (
                f"no score of expressions, because {path} predicts {', '.join(raw.classes)}, and the classes of "
                f"{job.store} are {', '.join(plan.index.card.expressions)}"
            )
    return stages, extra


def _given(option: str, path: str, plan: EvaluatePlan) -> Decision:
    """Return the decisions of a file of predictions on the labeled rows of the part."""
    if path.endswith(".parquet"):
        storage, name = folder_and_name(path)
        try:
            with storage.open(name) as file:
                given = read_parquet(file)
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise DatasetError(f"{option} {path} cannot be read: {error}".replace("\n", " ")) from None
        if missing := {"video_id", "person", "frame", *facs.AUS} - set(given.column_names):
            raise DatasetError(f"{path} is no predictions.parquet: it has no column {', '.join(sorted(missing))}")
    else:
        given = submission.read_files(path)
    rows = plan.index.labels(plan.part.split)
    predictions, decided = align_predictions(rows.filter(plan.part.mask(rows["video_id"])), given)
    return Decision(predictions, decided, has_probabilities=f"{facs.AUS[0]}_prob" in given.column_names)


def _tuned(raw: Decision) -> dict[str, Any]:
    """Return scores of the (mean) probability after tuning on it; optimistic by 0.02 to 0.03 on Aff-Wild2."""
    fitted = calibration.calibrate(raw.predictions)
    at = dict(zip(facs.AUS, fitted.thresholds.tolist(), strict=True))
    return {"macro_f1": fitted.macro_f1, "thresholds": at, "smoothing_radius": fitted.radius}


def _origin(job: EvaluateJob, plan: EvaluatePlan) -> dict[str, Any]:
    """Return the origin of the figures."""
    origins = dict.fromkeys(card.training.thresholds_from for card in plan.cards)
    recipes = dict.fromkeys(card.training.recipe or "model" for card in plan.cards)
    return {
        "recipe": "; ".join(recipes) or None,
        "aff_wild2": is_official(plan.index.card),
        "split": job.split,
        "thresholds_from": "; ".join(origins) or job.predictions,
        "models": [
            {
                "checkpoint": path,
                "sha256": card.sha256,
                "smoothing_radius": 0 if plan.index.card.separate_images else card.smoothing.radius,
            }
            for path, card in zip(job.checkpoints, plan.cards, strict=True)
        ],
        "ensemble": job.config.ensemble if len(plan.cards) > 1 else None,
        "predictions": job.predictions,
        "seen_videos": len(plan.seen),
        "store": job.store,
        "command": " ".join(sys.argv),
    }
