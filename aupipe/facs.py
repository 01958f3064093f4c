"""The twelve Action Units and the expression classes: names, order and the label for "unknown"."""

from __future__ import annotations

# FACS numbers of Aff-Wild2's AUs, in the order of its annotation files. Every array with an AU axis has this order.
AU_NUMBERS: tuple[int, ...] = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)

# Names in tables and configuration.
AUS: tuple[str, ...] = tuple(f"AU{number:02d}" for number in AU_NUMBERS)

# Names in the header line of Aff-Wild2's annotation files.
AFFWILD2_AUS: tuple[str, ...] = tuple(f"AU{number}" for number in AU_NUMBERS)

# Expression classes in label order: 7 in ABAW2; ABAW3 and later add Other.
EXPRESSIONS: tuple[str, ...] = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
EXPRESSIONS_ABAW2: tuple[str, ...] = EXPRESSIONS[:7]

# The label of an AU or expression without an annotation.
UNKNOWN: int = -1
