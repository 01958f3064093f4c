"""The check that ends a job early, because it would quarantine most of its inputs (`limits.quarantined_share`)."""

from __future__ import annotations

from aupipe.errors import AupipeError

_JUDGED_INPUTS = 200  # the first ones, which stand for the others


class Judge:
    """A check of the first results, because a wrong setting or a missing right concerns all inputs."""

    def __init__(self, max_share: float, inputs: int) -> None:
        """Create the check. `max_share`: of the inputs of the job that may be quarantined."""
        self._max_share, self._inputs = max_share, inputs
        self._due = self._seen = self._bad = self._bad_before = 0
        self._example = ""

    def begin(self, due: int) -> None:
        """Begin with so many further inputs. Their first results stand for all of them."""
        self._bad_before += self._bad
        self._due, self._seen, self._bad = due, 0, 0

    def add(self, reason: str) -> None:
        """Add the result of probing an input. `reason`: why it cannot be annotated; "" if it can.

        Raises:
            AupipeError: too many inputs will be quarantined, if the others are like the first ones.
        """
        self._seen += 1
        self._bad += bool(reason)
        self._example = reason or self._example
        expected = self._bad_before + self._due * self._bad / self._seen
        if self._seen == _JUDGED_INPUTS and expected > self._max_share * self._inputs:
            raise AupipeError(
                f"{self._bad} of the first {_JUDGED_INPUTS} inputs are quarantined, for example "
                f"{self._example}; fix: check the inputs, or allow it with --set limits.quarantined_share=1"
            )
