"""A small face store for the tests of learning."""

from collections.abc import Callable

import pytest

from aupipe.facestore.read import StoreIndex


@pytest.fixture(scope="session")
def index(make_store: Callable[..., str]) -> StoreIndex:
    """Four videos to learn from and three to score."""
    return StoreIndex.open(make_store(train=4, validation=3, frames=16))
