"""Torch computes on one thread in overlapping blocks. After them, torch and OpenCV use as many threads as before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import cv2
import numpy as np
import pytest
import torch

import aupipe
from aupipe.annotation.runner import one_thread

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("last", [0, 1])
def test_overlapping_blocks_restore_the_threads_of_torch_whichever_ends_last(last: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    threads = [ThreadPoolExecutor(1) for _ in range(2)]
    try:
        with ExitStack() as stack:
            for thread in threads:
                stack.enter_context(thread)
            blocks = [one_thread(), one_thread()]
            for thread, block in zip(threads, blocks, strict=True):
                thread.submit(block.__enter__).result()
                assert thread.submit(torch.get_num_threads).result() == 1
            for number in (1 - last, last):
                threads[number].submit(blocks[number].__exit__, None, None, None).result()
                assert threads[number].submit(torch.get_num_threads).result() == 3
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_the_api_leaves_the_threads_of_opencv_as_they_were() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        assert aupipe.detect_faces(np.zeros((64, 64, 3), np.uint8)) == []
        assert cv2.getNumThreads() == 3
        aupipe.annotate(np.zeros((1, 64, 64, 3), np.uint8))
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)
