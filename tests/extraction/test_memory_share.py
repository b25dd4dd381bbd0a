"""Photographs of all threads share the memory; one that takes too much is refused, and nobody waits for ever."""

import io
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from skretrieval.extraction import _memory_share
from skretrieval.extraction._decode import decode

SCENE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def encoded(image, kind):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind)
    return stream.getvalue()


def test_large_images_wait_for_their_share_of_memory(monkeypatch):
    monkeypatch.setattr(_memory_share, "memory_budget", lambda: 100)
    inside, most, lock = [0], [0], threading.Lock()

    def hold(n_pixels):
        with _memory_share.share_of_memory(n_pixels):
            with lock:
                inside[0] += n_pixels
                most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            with lock:
                inside[0] -= n_pixels

    threads = [threading.Thread(target=hold, args=(size,)) for size in (60, 60, 30, 30, 500, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert most[0] <= 100 or most[0] == 500  # what is too large for the budget is alone


def test_what_takes_half_of_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(_memory_share, "memory_limit", lambda: 12 * 20 * 16 - 1)
    with pytest.raises(ValueError, match="decoding it takes about"):
        decode(encoded(SCENE, "PNG"))


def test_photographs_that_are_kept_count_and_stop_nobody(monkeypatch):
    monkeypatch.setattr(_memory_share, "memory_budget", lambda: 12 * 20 * 16 * 2)
    data = encoded(SCENE, "PNG")
    before = _memory_share._held.total()
    kept = [decode(data) for _ in range(5)]
    assert _memory_share._held.total() - before == 5 * 12 * 20 * 16
    del kept
    decode(data)
    assert _memory_share._held.total() - before <= 2 * 12 * 20 * 16


DECODES_LARGE = """
import resource, sys, threading
from skretrieval.extraction import _memory_share, read_image, resize_longest
_memory_share.memory_budget = lambda: int(sys.argv[2])
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
resize_longest(read_image(sys.argv[1]), 64)
alone = peak()
def read():
    resize_longest(read_image(sys.argv[1]), 64)
threads = [threading.Thread(target=read) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(alone, peak())
"""


def test_threads_share_the_memory_for_large_photographs(tmp_path):
    side = 4000
    Image.new("RGB", (side, side), (10, 200, 30)).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size < 300_000

    def more_together(budget):
        """How many bytes more threads take at their peak than one."""
        done = subprocess.run(
            [sys.executable, "-c", DECODES_LARGE, str(tmp_path / "large.png"), str(budget)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1000000"},
        )
        alone, together = map(int, done.stdout.split())
        return together - alone

    bounded = more_together(side * side * 16)
    assert bounded < side * side * 8  # one at a time, but for the allocator's own holes
