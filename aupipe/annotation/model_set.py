"""The models of a job. They see the same faces, each on crops of its own template, and decide together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from aupipe import facs
from aupipe.annotation.audio_features import LogMelReader
from aupipe.annotation.features import Embeddings
from aupipe.annotation.settings import content_hash
from aupipe.config import Inference
from aupipe.errors import CheckpointError
from aupipe.evaluation import decision
from aupipe.evaluation.decision import EnsembleRule
from aupipe.faces import template
from aupipe.models import checkpoint
from aupipe.models.checkpoint import Card
from aupipe.models.embedding import encoder_sha256
from aupipe.models.interfaces import FrameEncoder, System
from aupipe.models.sliding_window import outputs, run_head


@dataclass(frozen=True)
class SetMember:
    """One model.

    Attributes:
        encoder_sha256: names encoder and input; another head on the same encoder has the same.
        template: which of the job's templates its crops lie on.
        outputs: name → size of what its head says.
    """

    checkpoint: str
    card: Card
    system: System
    encoder_sha256: str
    template: int
    outputs: dict[str, int]


@dataclass(frozen=True)
class ModelSet:
    """K models.

    Attributes:
        members: by sha256, so that the order on the command line makes no difference.
        templates: (T, 5, 2) of the crops; models whose templates agree within `template.SAME_PX` share one.
    """

    members: tuple[SetMember, ...]
    templates: np.ndarray

    @property
    def sha256(self) -> str:
        """Names the models in every output: the model's own hash, or one over those of all."""
        names = [member.card.sha256 for member in self.members]
        return names[0] if len(names) == 1 else hashlib.sha256("".join(names).encode()).hexdigest()

    @property
    def encoders_key(self) -> str:
        """Of all that embeddings depend on."""
        return content_hash(
            [m.encoder_sha256 for m in self.members], [m.template for m in self.members], self.templates.tolist()
        )

    @property
    def n_expressions(self) -> int:
        """How many expressions are told; 0 where no model tells any."""
        return max(member.outputs.get("expr", 0) for member in self.members)

    @property
    def embed_dim(self) -> int:
        """Numbers in the embeddings of a crop by all models."""
        return sum(member.system.encoder.embed_dim for member in self.members)

    @property
    def uses_audio(self) -> bool:
        """Whether a model wants sound."""
        return any(member.system.head.uses_audio for member in self.members)

    @property
    def heads(self) -> ModelSet:
        """The same models without their encoders' networks: all that `predict_track` needs."""
        return replace(self, members=tuple(replace(m, system=_without_network(m.system)) for m in self.members))

    @property
    def window_length(self) -> int:
        """Of the longest sequence that a model looks at; 1: they all judge frames one by one."""
        return max(member.system.head.window_length for member in self.members)


def load(checkpoints: Sequence[str], how: EnsembleRule) -> ModelSet:
    """The models at these places.

    Raises:
        ConfigError: a checkpoint cannot be read, is there twice or tells no AUs; or a vote could end in a tie.
    """
    decision.check(len(checkpoints), how)
    loaded = sorted(((path, *checkpoint.load(path)) for path in checkpoints), key=lambda each: each[2].sha256)
    for (first, _, card), (second, _, other) in pairwise(loaded):
        if card.sha256 == other.sha256:
            raise CheckpointError(f"{first} and {second} are the same model ({card.sha256[:12]}); name it once")
    members: list[SetMember] = []
    templates: list[np.ndarray] = []
    for path, system, card in loaded:
        points = np.array(card.template, np.float32)
        near = [n for n, known in enumerate(templates) if template.distance(known, points) < template.SAME_PX]
        templates += [] if near else [points]
        place = near[0] if near else len(templates) - 1
        told = outputs(system.head, system.encoder.embed_dim)
        embeds = content_hash(encoder_sha256(system.encoder), card.input.model_dump(mode="json"))
        members.append(SetMember(path, card, system, embeds, place, told))
    _check_outputs(members)
    return ModelSet(tuple(members), np.stack(templates))


def predict_track(
    models: ModelSet, embeddings: Embeddings, sound: LogMelReader | None, rows: np.ndarray, time_s: np.ndarray,
    inference: Inference,
) -> Iterator[tuple[slice, np.ndarray]]:  # fmt: skip
    """(columns, probabilities (S, …) float32 there) of one track, until all K·12 + C are told: each model's AUs, then
    the mean expression. Never all of a long track at once.

    Args:
        rows: (S,) the track's rows that have embeddings, in order of time.
        time_s: (S,).
    """
    column = None
    if sound is not None:
        media_time_s = np.array(embeddings.rows["time_s"].to_numpy(zero_copy_only=False))  # null = NaN: no sound there
        restarted = np.logical_or.accumulate(embeddings.rows["restart"].to_numpy(zero_copy_only=False))
        media_time_s[restarted] = np.nan  # `audio` ends where the clock starts anew
        column = sound.columns(media_time_s[rows])
    expressions: list[Tensor] = []
    first = 0
    for number, member in enumerate(models.members):
        width = member.system.encoder.embed_dim
        of_model = embeddings.of(rows, first, width)
        overlap = member.card.overlap_under(inference)
        said = run_head(member.system.head, of_model, time_s, overlap=overlap, mel=sound, column=column)
        yield slice(number * len(facs.AUS), (number + 1) * len(facs.AUS)), said["au"].numpy()
        expressions += [said["expr"]] if "expr" in said else []
        first += width
    if expressions:
        # Of one model as it is: the mean takes three copies.
        mean = torch.stack(expressions).double().mean(dim=0).float() if len(expressions) > 1 else expressions[0]
        yield slice(len(models.members) * len(facs.AUS), None), mean.numpy()


def _without_network(system: System) -> System:
    encoder = FrameEncoder()
    encoder.embed_dim = system.encoder.embed_dim
    return System(encoder=encoder, head=system.head)


def _check_outputs(members: Sequence[SetMember]) -> None:
    for member in members:
        if member.outputs.get("au") != len(facs.AUS):
            told = ", ".join(sorted(member.outputs))
            raise CheckpointError(
                f"{member.checkpoint} tells no Action Units (it tells: {told}); give the checkpoint of a stage that "
                "learns them"
            )
    classes = {member.outputs["expr"]: member for member in members if "expr" in member.outputs}
    if len(classes) > 1:
        said = " and ".join(f"{member.checkpoint} tells {count}" for count, member in sorted(classes.items()))
        raise CheckpointError(f"the models tell different numbers of expressions: {said}; name them in separate jobs")
    if max(classes, default=0) > len(facs.EXPRESSIONS):
        raise CheckpointError(f"{max(classes)} expressions have no names; aupipe knows {len(facs.EXPRESSIONS)}")
