"""The settings of an evaluation job."""

from __future__ import annotations

from aupipe.config import Inference, Resources, Section
from aupipe.evaluation.decision import EnsembleRule


class ScoringConfig(Section):
    """The figures that an evaluation computes."""

    # Score videos that a model was trained or tuned on; the figure states it.
    allow_seen: bool = False
    # Also compute the optimistic score whose thresholds and smoothing are fitted on the scored rows themselves.
    tune: bool = False


class SubmitConfig(Section):
    """All settings of `submit.py`."""

    ensemble: EnsembleRule = "mean"  # Rule that combines several checkpoints.
    inference: Inference = Inference()
    resources: Resources = Resources()


class EvaluateConfig(Section):
    """All settings of `evaluate.py`."""

    ensemble: EnsembleRule = "mean"  # Rule that combines several checkpoints.
    evaluate: ScoringConfig = ScoringConfig()
    inference: Inference = Inference()
    resources: Resources = Resources()
