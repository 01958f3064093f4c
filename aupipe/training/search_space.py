"""Search space of one setting of a recipe."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from aupipe.config import Section

Kind = Literal["choice", "uniform", "log_uniform"]


class Dimension(Section):
    """Values of one setting: one of several, or a number from a range on a linear or logarithmic scale."""

    choice: tuple[Any, ...] | None = Field(default=None, min_length=1)  # Try one of these values.
    uniform: tuple[float, float] | None = None  # Try a number between these two.
    log_uniform: tuple[float, float] | None = None  # Try a number between these two, uniform on a logarithmic scale.

    @model_validator(mode="after")
    def _one_kind(self) -> Dimension:
        if sum(value is not None for value in (self.choice, self.uniform, self.log_uniform)) != 1:
            raise ValueError("exactly one of choice, uniform, log_uniform is needed")
        if self.choice is None and not self.ends[0] < self.ends[1]:
            raise ValueError("the lower end must come first")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError("log_uniform must be above 0")
        return self

    @property
    def kind(self) -> Kind:
        """Name of the field that is set."""
        return "choice" if self.choice is not None else "uniform" if self.uniform is not None else "log_uniform"

    @property
    def ends(self) -> tuple[Any, ...]:
        """All values of a choice, or the lowest and the highest value of a range."""
        return self.choice or self.uniform or self.log_uniform or ()

    def draw(self, rng: np.random.Generator) -> Any:
        """Return a random value."""
        if self.choice is not None:
            return self.choice[int(rng.integers(len(self.choice)))]
        low, high = self.ends
        if self.uniform is not None:
            return self.tidy(float(rng.uniform(low, high)))
        return self.tidy(math.exp(rng.uniform(math.log(low), math.log(high))))

    def tidy(self, value: Any) -> Any:
        """Return a number rounded to three significant digits; a value of a choice is returned unchanged."""
        if self.choice is not None:
            return value
        low, high = self.ends
        return min(max(float(f"{value:.3g}"), low), high)
