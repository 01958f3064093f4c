import threading

import pytest

from aupipe.periodic import periodically

pytestmark = pytest.mark.unit


def test_again_and_again_and_once_more_at_the_end() -> None:
    calls, thrice = [], threading.Event()

    def act() -> None:
        calls.append(threading.current_thread())
        if len(calls) == 3:
            thrice.set()

    with periodically(act, every_s=0.01):
        assert thrice.wait(timeout=60)
    assert threading.current_thread() not in calls
    assert not calls[0].is_alive()


def test_a_short_block_is_told_of_once_even_if_it_fails() -> None:
    calls = []
    with pytest.raises(ValueError, match="work"), periodically(lambda: calls.append(1), every_s=3600):
        raise ValueError("work")
    assert calls == [1]
