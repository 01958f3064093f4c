"""Scores as a text table for the terminal."""

from __future__ import annotations

from typing import Any

_TITLES = {
    "raw_at_0.5": "raw 0.5", "with_thresholds": "thresholds", "with_thresholds_and_smoothing": "+ smoothing",
    "as_given": "as given",
}  # fmt: skip


def text(result: dict[str, Any]) -> str:
    """Return the table of a `scores.json`: F1 of every AU at every stage, floor, AUC, AP, false alarms at rest."""
    stages = result["stages"]
    titles = ("floor", *(_TITLES[name] for name in stages))
    lines = [
        f"{'F1':<10}"
        + "".join(f"{t:>14}" for t in titles)
        + f"{'95 %':>18}{'threshold':>11}{'positives':>11}{'calibration':>13}"
        + f"{'AUC':>8}{'AP':>8}{'at rest':>9}"
    ]
    for au, own in result["per_au"].items():
        threshold = "-" if own["threshold"] is None else f"{own['threshold']:.3f}"
        row = [own["floor"], *(stage["per_au"][au] for stage in stages.values())]
        lines.append(
            _row(au, row, own["ci95"])
            + f"{threshold:>11}{own['positives']:11d}{_or_dash(own['calibration_error']):>13}"
            + f"{_or_dash(own['auc']):>8}{_or_dash(own['average_precision']):>8}"
            + f"{_or_dash(own['false_alarms_at_rest']):>9}"
        )
    macro = [result["floor"], *(stage["macro_f1"] for stage in stages.values())]
    means = f"{'':35}{_or_dash(result['auc']):>8}{_or_dash(result['average_precision']):>8}"
    lines.append(_row("macro", macro, result["ci95"]["macro_f1"]) + means)
    lines.append(
        "AUC, AP: area under the ROC curve (0.5 by chance) and average precision (by chance the share of positives). "
        f"At rest: share of the {result['n_resting_frames']} faces without any AU in which it is predicted"
    )
    if without := [au for au, own in result["per_au"].items() if own["f1"] is None]:
        lines.append(f"no row has a label of {', '.join(without)}: not in the means")
    for column, groups in result.get("groups", {}).items():
        lines.append(f"macro F1 by {column}:")
        lines += [_group(value, scores) for value, scores in groups.items()]
    low, high = result["ci95"]["above_floor"]
    lines.append(
        f"macro F1 above the floor (predict all ones): {result['macro_f1'] - result['floor']:+.3f}, "
        f"95 % {low:+.3f} … {high:+.3f} (paired bootstrap over {result['n_videos']} videos); "
        f"{result['n_frames']} frames"
    )
    if (other := result.get("against")) is not None:
        low, high = other["ci95"]
        lines.append(
            f"macro F1 against {other['predictions']} ({other['macro_f1']:.3f}): {other['difference']:+.3f}, "
            f"95 % {low:+.3f} … {high:+.3f} (paired)"
        )
    for name, stage in stages.items():
        lines.append(_published_metrics(_TITLES[name], stage, name == result["compared_with_published"]))
    if (note := result.get("expression_note")) is not None:
        lines.append(note)
    if (tuned := result.get("validation_tuned")) is not None:
        lines.append(
            f"validation-tuned (thresholds and smoothing ±{tuned['smoothing_radius']} fitted on the scored rows, "
            f"so optimistic): {tuned['macro_f1']:.3f}"
        )
    if seen := result.get("seen_videos"):
        lines.append(
            f"NOT a held-out score: {seen} of the {result['n_videos']} videos were used for training or tuning"
        )
    return "\n".join(lines)


def _published_metrics(title: str, stage: dict[str, Any], compared: bool) -> str:
    """Return a line with the metrics of a stage that the papers print besides F1."""
    expression = stage["expression"]
    return (
        f"{title}: element accuracy {stage['acc_elem']:.3f}, exact {stage['acc_exact']:.3f}, "
        f"ABAW2 metric {stage['metric_abaw2']['with_acc_elem']:.3f}"
        + ("" if expression is None else f", expression F1 {expression['macro_f1']:.3f}")
        + ("" if expression is None else f" and accuracy {expression['accuracy']:.3f}")
        + ("; the stage to compare with published figures" if compared else "")
    )


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _row(name: str, values: list[float | None], interval: tuple[float, float] | None) -> str:
    drawn = "-" if interval is None else _range(interval)
    return f"{name:<10}" + "".join(f"{_or_dash(value):>14}" for value in values) + f"{drawn:>18}"


def _group(value: str, scores: dict[str, Any]) -> str:
    missing = scores["aus_without_positives"]
    return (
        f"  {value:<16}{scores['macro_f1']:8.3f}  95 % {_range(scores['ci95'])}, floor {scores['floor']:.3f}, "
        f"{scores['n_videos']} videos, {scores['n_frames']} frames"
        + (f"; without positives, so scored 0: {' '.join(missing)}" if missing else "")
    )


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} … {interval[1]:.3f}"
