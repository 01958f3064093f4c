"""Thresholds for real faces, set with pictures of people at rest and with rendered intensities.

A model that was trained on rendered faces gives real faces at rest other scores than rendered ones, so thresholds from
rendered faces report some AUs in them, and miss others in faces that move. So the logits of rendered faces are moved by
the difference of both medians at rest. Then each AU gets one of two thresholds:

* With at least `MIN_POSITIVES` real pictures that show the AU: the highest threshold that finds all but one of the most
  faces with it that can be found with false alarms in at most `MAX_FALSE_ALARMS` of the resting faces.
* Otherwise: the higher of two. One is the highest threshold whose F1 on moved rendered faces is nearly the best, which
  says how intense a movement has to be. The other is the one that `EXPECTED_FALSE_ALARMS` of further people at rest are
  expected to reach.

`python -m aupipe.evaluation.resting_thresholds --real REAL --rendered RENDERED [--write CKPT …]` reads two
predictions.parquet of `evaluate.py`, prints the thresholds with figures of people on whom they were not set, and writes
the thresholds, and the median probabilities at rest, to the cards of the models.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aupipe import facs
from aupipe.arrays import Bools, Floats
from aupipe.errors import AupipeError, DatasetError, one_line
from aupipe.evaluation import calibration, metrics
from aupipe.evaluation.decision import apply_rule
from aupipe.evaluation.predictions import Predictions
from aupipe.models import checkpoint
from aupipe.storage import Storage, folder_and_name

MAX_FALSE_ALARMS = 0.10
EXPECTED_FALSE_ALARMS = 0.08  # Below the maximum, because few people give an uncertain quantile.
MIN_POSITIVES = 20
# Of the best F1. That of 120 positives is only known to about 0.03, and curves are flat at the top: the best threshold
# of AU26 was 0.53 on one set of rendered people and 0.24 on another.
NEARLY_BEST = 0.97
HALVINGS = 20  # A single halving of few people gives recalls that differ by 0.1.
_DIGITS = 3  # of the thresholds in the cards
_LEAST = 1e-6  # Probabilities of 0 and 1 have no logit.


def fit(real: Predictions, rendered: Predictions, by_recall: Bools) -> Floats:
    """Return thresholds (12,) for real faces; `by_recall` (12,): the AUs of the first rule, see `with_recall`.

    Raises:
        DatasetError: there are too few resting faces in `real` for `EXPECTED_FALSE_ALARMS`.
    """
    rest = metrics.resting(real.labels)
    needed = int(np.ceil(1.5 / EXPECTED_FALSE_ALARMS)) - 1
    if rest.sum() < needed:
        raise DatasetError(
            f"{int(rest.sum())} real resting faces; at least {needed} are needed, also in half of the people"
        )
    from_rendered = highest_nearly_best(rendered)
    thresholds = np.empty(len(facs.AUS))
    for au in range(len(facs.AUS)):
        resting = real.probabilities[rest, au]
        showing = real.probabilities[real.labels[:, au] == 1, au]
        if by_recall[au] and len(showing):
            thresholds[au] = best_recall(resting, showing)
        else:
            thresholds[au] = max(from_rendered[au], rarely_reached(resting))
    return thresholds.round(_DIGITS)


def highest_nearly_best(rendered: Predictions) -> Floats:
    """Return the highest thresholds (12,) with `NEARLY_BEST` of the best F1 of each AU; 0.5 for one without a positive.

    Among thresholds that rendered faces hardly tell apart, the highest gives real faces the fewest false alarms.
    """
    grid = np.arange(1, 1000) / 1000
    curves = calibration.f1_curves(rendered.labels, rendered.probabilities, grid)
    return np.array([0.5 if np.isnan(each).any() else grid[each >= NEARLY_BEST * each.max()][-1] for each in curves.T])


def on_real_scale(rendered: Predictions, real: Predictions) -> Predictions:
    """Return rendered faces whose logits are moved so that their medians at rest are those of the real faces.

    Raises:
        DatasetError: no face in `rendered` or none in `real` is at rest.
    """
    medians = []
    for name, each in (("real", real), ("rendered", rendered)):
        at_rest = metrics.resting(each.labels)
        if not at_rest.any():
            raise DatasetError(f"no {name} resting face; fix: add faces that are labeled without any AU")
        medians.append(np.median(_logit(each.probabilities[at_rest]), axis=0))
    moved = _logit(rendered.probabilities) + medians[0] - medians[1]
    return replace(rendered, probabilities=1 / (1 + np.exp(-moved)))


def with_recall(real: Predictions) -> Bools:
    """Return (12,) whether there are enough real pictures of an AU to set its threshold by recall."""
    enough: Bools = (real.labels == 1).sum(axis=0) >= MIN_POSITIVES
    return enough


def rarely_reached(resting: Floats) -> float:
    """Return the threshold that a further person at rest reaches with a probability of `EXPECTED_FALSE_ALARMS`.

    Of N exchangeable values, a new one is above the k-th highest with probability k/(N + 1). The threshold is the
    middle between the k-th and the next, which stands for k + ½.

    Args:
        resting: (N,) probabilities of resting faces.
    """
    highest = np.sort(resting)[::-1]
    k = int(EXPECTED_FALSE_ALARMS * (len(resting) + 1) - 0.5)
    return float(highest[k - 1] + highest[k]) / 2


def best_recall(resting: Floats, showing: Floats) -> float:
    """Return the highest threshold that all but one reach of the most faces with the AU that false alarms allow.

    At most `MAX_FALSE_ALARMS` of the resting faces reach it. One face is given up, because a threshold that depends on
    a single face is too low for other pictures of the same people.

    Args:
        resting: (N,) probabilities of resting faces.
        showing: (M,) probabilities of faces with the AU.
    """
    values = np.unique(np.concatenate([resting, showing]))
    candidates = np.append((values[1:] + values[:-1]) / 2, np.nextafter(values[-1], np.inf))
    alarms = (resting >= candidates[:, None]).mean(axis=1)
    recall = (showing >= candidates[:, None]).mean(axis=1)
    allowed = alarms <= MAX_FALSE_ALARMS
    return float(candidates[allowed & (recall >= recall[allowed].max() - 1.001 / len(showing))][-1])


def cross_fitted(real: Predictions, rendered: Predictions) -> Floats:
    """Return shares (N, 12) of `HALVINGS` in which an AU is predicted in a real row with thresholds of other people.

    Each halving divides the people at random, and the rows of a half are decided with the thresholds of the other one.
    """
    names, codes = real.video_codes()
    by_recall, rng = with_recall(real), np.random.default_rng(0)
    called = np.zeros(real.labels.shape)
    for _ in range(HALVINGS):
        half = rng.permutation(len(names))[codes] % 2
        for scored in (half == 0, half == 1):
            others = real.where(~scored)
            thresholds = fit(others, on_real_scale(rendered, others), by_recall)
            called[scored] += apply_rule([real.probabilities[scored]], [thresholds], "mean")[1]
    return called / HALVINGS


def text(real: Predictions, rendered: Predictions, thresholds: Floats) -> str:
    """Return a table with one line per AU: its threshold, and recall and false alarms of people it was not set on.

    Recall and F1 on rendered faces are those of logits that are not moved.
    """
    called, decided = cross_fitted(real, rendered), real.probabilities >= thresholds
    rest, auc = metrics.resting(real.labels), metrics.auc(real.labels, real.probabilities)
    alarms, same_alarms = called[rest].mean(axis=0), decided[rest].mean(axis=0)
    on_rendered = metrics.confusion(rendered.labels, rendered.probabilities >= thresholds)
    recall, f1 = metrics.recall(on_rendered), metrics.f1(on_rendered)
    lines = [
        f"{int(rest.sum())} real resting faces; other: people of one half with thresholds of the other half, mean of "
        f"{HALVINGS} halvings; same: all people with the thresholds of this table",
        f"{'':6}{'threshold':>10}   at rest: other, same   with AU: other, same, n{'AUC':>7}   rendered: recall, F1",
    ]
    for at, au in enumerate(facs.AUS):
        showing = real.labels[:, at] == 1
        shown = f"{called[showing, at].mean():.2f}, {decided[showing, at].mean():.2f}" if showing.any() else "-, -"
        area = "-" if np.isnan(auc[at]) else f"{auc[at]:.3f}"
        lines.append(
            f"{au:6}{thresholds[at]:10.3f}{alarms[at]:14.2f}, {same_alarms[at]:.2f}"
            f"{f'{shown}, {showing.sum()}':>26}{area:>8}{recall[at]:13.2f}, {f1[at]:.2f}"
        )
    return "\n".join(lines)


def write(folder: str, thresholds: Floats, real: Predictions) -> None:
    """Write thresholds and rest to a model's card, with their origin and the people on whom they were set."""
    card = checkpoint.load_card(folder)
    people, _ = real.video_codes()
    at_rest = metrics.resting(real.labels)
    training = card.training.model_copy(
        update={
            "thresholds_from": f"{int(at_rest.sum())} real resting faces and rendered intensities",
            "held_out_videos": tuple(dict.fromkeys((*card.training.held_out_videos, *people))),
        }
    )
    rest = np.median(real.probabilities[at_rest], axis=0).round(_DIGITS)
    fitted = {"thresholds": thresholds, "rest": rest}
    named = {name: dict(zip(facs.AUS, values.tolist(), strict=True)) for name, values in fitted.items()}
    card = card.model_copy(update={**named, "training": training})
    Storage(folder).write(checkpoint.CARD, card.model_dump_json(indent=1).encode())


def main(argv: Sequence[str] | None = None) -> int:
    """Print the thresholds, and write them where asked. Return 0, or 2 where an input is unusable."""
    parser = argparse.ArgumentParser(
        prog="python -m aupipe.evaluation.resting_thresholds", description="Thresholds from real people at rest."
    )
    parser.add_argument("--real", required=True, metavar="FILE", help="predictions.parquet of labeled real pictures")
    parser.add_argument("--rendered", required=True, metavar="FILE", help="predictions.parquet of rendered faces")
    parser.add_argument("--write", nargs="+", default=[], metavar="CKPT", help="models whose cards get the thresholds")
    args = parser.parse_args(argv)
    try:
        real, rendered = _read(args.real), _read(args.rendered)
        thresholds = fit(real, on_real_scale(rendered, real), with_recall(real))
        print(text(real, rendered, thresholds))  # noqa: T201
        for folder in args.write:
            write(folder, thresholds, real)
    except AupipeError as error:
        print(one_line(error), file=sys.stderr)  # noqa: T201
        return 2
    return 0


def _logit(probabilities: Floats) -> Floats:
    inside = np.clip(probabilities, _LEAST, 1 - _LEAST)
    return np.log(inside) - np.log1p(-inside)


def _read(path: str) -> Predictions:
    storage, name = folder_and_name(path)
    if not storage.exists(name):
        raise DatasetError(f"{path}: no such file; fix: give the predictions.parquet of evaluate.py")
    return Predictions.from_parquet(storage.read(name))


if __name__ == "__main__":
    sys.exit(main())
