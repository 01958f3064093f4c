"""The twelve Action Units and the expression classes: names, order and the label for "unknown"."""

from __future__ import annotations

# FACS numbers of Aff-Wild2's AUs, in the order of its annotation files. Every array with an AU axis has this order.
AU_NUMBERS: tuple[int, ...] = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)

# Names in tables and configuration.
AUS: tuple[str, ...] = tuple(f"AU{number:02d}" for number in AU_NUMBERS)

# The movement that each AU is, in words.
AU_NAMES: dict[str, str] = {
    "AU01": "inner brow raiser", "AU02": "outer brow raiser", "AU04": "brow lowerer", "AU06": "cheek raiser",
    "AU07": "lid tightener", "AU10": "upper lip raiser", "AU12": "lip corner puller", "AU15": "lip corner depressor",
    "AU23": "lip tightener", "AU24": "lip pressor", "AU25": "lips part", "AU26": "jaw drop",
}  # fmt: skip

# Names in the header line of Aff-Wild2's annotation files.
AFFWILD2_AUS: tuple[str, ...] = tuple(f"AU{number}" for number in AU_NUMBERS)

# Expression classes in label order: 7 in ABAW2; ABAW3 and later add Other.
EXPRESSIONS: tuple[str, ...] = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
EXPRESSIONS_ABAW2: tuple[str, ...] = EXPRESSIONS[:7]

# The label of an AU or expression without an annotation.
UNKNOWN: int = -1
