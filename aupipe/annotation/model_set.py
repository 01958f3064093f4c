"""The models of a job. All get the same faces, each as crops on its own template, and decide as an ensemble."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from aupipe import facs
from aupipe.annotation.audio_features import LogMelReader
from aupipe.annotation.features import Embeddings
from aupipe.annotation.settings import content_hash
from aupipe.config import Inference, Precision
from aupipe.errors import CheckpointError
from aupipe.evaluation import decision
from aupipe.evaluation.decision import EnsembleRule
from aupipe.faces import template
from aupipe.models import inference as models_inference
from aupipe.models.checkpoint import Card, check_distinct
from aupipe.models.inference import InferenceModel


@dataclass(frozen=True)
class SetMember:
    """One model.

    Attributes:
        encoder_sha256: hash of everything that embeddings depend on; models that share an encoder have the same.
        template: index of the template of its crops.
        outputs: name → size of the outputs of its head.
    """

    checkpoint: str
    card: Card = field(repr=False)  # It names all videos of the training.
    model: InferenceModel = field(repr=False)
    encoder_sha256: str
    template: int
    outputs: dict[str, int]


@dataclass(frozen=True)
class ModelSet:
    """K models.

    Attributes:
        members: ordered by sha256, so that the order on the command line has no effect.
        templates: (T, 5, 2); models whose templates agree within `template.SAME_PX` share one.
        precision: of the encoders.
    """

    members: tuple[SetMember, ...]
    templates: np.ndarray
    precision: Precision = "float32"

    @property
    def sha256(self) -> str:
        """The identifier of the models in every output: the hash of the model, or a hash of those of all."""
        names = [member.card.sha256 for member in self.members]
        return names[0] if len(names) == 1 else hashlib.sha256("".join(names).encode()).hexdigest()

    @property
    def encoders_key(self) -> str:
        """The key of everything that embeddings depend on."""
        return content_hash(
            [m.encoder_sha256 for m in self.members], [m.template for m in self.members], self.templates.tolist()
        )

    @property
    def n_expressions(self) -> int:
        """The number of expressions that are predicted; 0 if no model predicts them."""
        return max(member.outputs.get("expr", 0) for member in self.members)

    @property
    def embed_dim(self) -> int:
        """The size of the embeddings of a crop by all models together."""
        return sum(member.model.embed_dim for member in self.members)

    @property
    def uses_audio(self) -> bool:
        """True if a model uses audio."""
        return any(member.model.uses_audio for member in self.members)

    @property
    def heads(self) -> ModelSet:
        """The same models without their encoders' networks, which `predict_track` does not need."""
        return replace(self, members=tuple(replace(m, model=m.model.without_encoder()) for m in self.members))

    @property
    def window_length(self) -> int:
        """The longest window of a model in frames; 1: all models predict each frame separately."""
        return max(member.model.window_length for member in self.members)


def load(checkpoints: Sequence[str], rule: EnsembleRule, precision: Precision = "float32") -> ModelSet:
    """Load the models from these checkpoints.

    Raises:
        ConfigError: a checkpoint cannot be read, is given twice or predicts no AUs, or a vote could end in a tie.
    """
    decision.check(len(checkpoints), rule)
    opened = [(path, *models_inference.load(path, precision)) for path in checkpoints]
    check_distinct(checkpoints, [card for _, _, card in opened])
    loaded = sorted(opened, key=lambda each: each[2].sha256)
    members: list[SetMember] = []
    templates: list[np.ndarray] = []
    for path, model, card in loaded:
        points = np.array(card.template, np.float32)
        near = [n for n, other in enumerate(templates) if template.distance(other, points) < template.SAME_PX]
        templates += [] if near else [points]
        template_index = near[0] if near else len(templates) - 1
        encoder_key = content_hash(*model.encoder_parts)
        members.append(SetMember(path, card, model, encoder_key, template_index, model.outputs))
    _check_outputs(members)
    return ModelSet(tuple(members), np.stack(templates), precision)


def predict_track(
    models: ModelSet, embeddings: Embeddings, mel: LogMelReader | None, rows: np.ndarray, time_s: np.ndarray,
    inference: Inference,
) -> Iterator[tuple[slice, np.ndarray]]:  # fmt: skip
    """Yield (columns, probabilities (S, …) float32 of these columns) of one track until all K·12 + C are predicted.

    The AUs of each model come first, then the mean expression. A long track is never in memory as a whole.

    Args:
        rows: (S,) the track's rows that have embeddings, in order of time.
        time_s: (S,).
    """
    column = None if mel is None else mel.columns(embeddings.audio_time_s[rows])
    expressions: list[np.ndarray] = []
    first = 0
    for number, member in enumerate(models.members):
        width = member.model.embed_dim
        features = embeddings.of(rows, first, width)
        overlap = member.card.overlap_under(inference)
        probabilities = member.model.predict(features, time_s, overlap=overlap, mel=mel, column=column)
        yield slice(number * len(facs.AUS), (number + 1) * len(facs.AUS)), probabilities["au"]
        expressions += [probabilities["expr"]] if "expr" in probabilities else []
        first += width
    if expressions:
        # The probabilities of one model are used directly, because the mean makes three copies.
        mean = expressions[0]
        if len(expressions) > 1:
            mean = np.asarray(np.mean(expressions, axis=0, dtype=np.float64), np.float32)
        yield slice(len(models.members) * len(facs.AUS), None), mean


def _check_outputs(members: Sequence[SetMember]) -> None:
    for member in members:
        if member.outputs.get("au") != len(facs.AUS):
            names = ", ".join(sorted(member.outputs))
            raise CheckpointError(
                f"{member.checkpoint} predicts no Action Units (its outputs: {names}); give the checkpoint of a "
                "stage that trains them"
            )
    classes = {member.outputs["expr"]: member for member in members if "expr" in member.outputs}
    if len(classes) > 1:
        counts = " and ".join(f"{member.checkpoint} predicts {count}" for count, member in sorted(classes.items()))
        raise CheckpointError(
            f"the models predict different numbers of expressions: {counts}; run them in separate jobs"
        )
    if max(classes, default=0) > len(facs.EXPRESSIONS):
        raise CheckpointError(f"{max(classes)} expressions have no names; aupipe names {len(facs.EXPRESSIONS)}")
