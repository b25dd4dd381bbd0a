"""Passes that end early, processes that run side by side, shards that are damaged."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from references.networks import counting_network
from references.reads import counted_reads

from skretrieval._cache import _shards as _descriptor_store
from skretrieval._cache._shards import DescriptorReader
from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.pooling import GeMPooler, PoolerFusion, RMACPooler

N = 40
SCRIPT = """
import sys, time
import numpy as np
from references import networks
from skretrieval._cache import _shards as _descriptor_store
from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.pooling import GeMPooler

forward = networks.CountingNetwork.forward
networks.CountingNetwork.forward = lambda self, images: time.sleep(0.05) or forward(self, images)
_descriptor_store._PHOTOGRAPHS = 3
images = list(np.load(sys.argv[1]))
extractor = ConvFeatureExtractor(
    networks.counting_network, weights=None, image_size=None, device="cpu", batch_size=1, memory=sys.argv[2],
    memory_keeps="descriptors",
)
GeMPooler().fit_transform(extractor.fit_transform(images))
"""


def photographs(n=N):
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def extractor(memory, network=counting_network, **params):
    return ConvFeatureExtractor(
        network,
        weights=None,
        image_size=None,
        device="cpu",
        memory=memory,
        **{"batch_size": 1, "memory_keeps": "descriptors", **params},
    )


def describe(memory, images, pooler=None, **params):
    model = extractor(memory, **params)
    return (GeMPooler() if pooler is None else pooler).fit_transform(model.fit_transform(images))


def shards(folder):
    return sorted(folder.rglob("*.npz"))


def n_kept(folder):
    kept = 0
    for file in shards(folder):
        with np.load(file) as content:
            kept += len(content["digests"])
    return kept


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal on this system")
def test_a_killed_pass_is_resumed(tmp_path, monkeypatch):
    """Nothing that had been written is computed again, and the result is that of an uninterrupted pass."""
    images, memory = photographs(), tmp_path / "memory"
    np.save(tmp_path / "images.npy", images)
    tests = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "images.npy"), str(memory)], env=environment
    )
    try:
        while len(shards(memory)) < 3 and process.poll() is None:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL  # it had not finished
    kept = n_kept(memory)
    assert 9 <= kept < N
    log = tmp_path / "log"
    monkeypatch.setenv("SKRETRIEVAL_TEST_LOG", str(log))
    rows = describe(memory, images)
    assert log.read_text().count("image") == N - kept
    assert rows.tobytes() == describe(None, images).tobytes()
    with counted_reads() as read:
        describe(memory, images)
    assert not read


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_pass_keeps_all_that_was_described(tmp_path, error):
    images = photographs()
    made = []

    describe_one = GeMPooler._describe

    def stops(self, batches):
        if len(made) == 10:
            raise error("stop")
        made.append(1)
        return describe_one(self, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GeMPooler, "_describe", stops)
        with pytest.raises(error, match="stop"):
            describe(tmp_path, images)
    assert n_kept(tmp_path) == 10
    with counted_reads() as read:
        rows = describe(tmp_path, images)
    assert sum(read) == N - 10
    assert rows.tobytes() == describe(None, images).tobytes()


def test_descriptors_are_written_as_they_come(tmp_path, monkeypatch):
    """Not at the end, and not one by one."""
    monkeypatch.setattr(_descriptor_store, "_PHOTOGRAPHS", 8)
    seen = []
    describe_one = GeMPooler._describe

    def look(self, batches):
        seen.append(n_kept(tmp_path))
        return describe_one(self, batches)

    monkeypatch.setattr(GeMPooler, "_describe", look)
    describe(tmp_path, photographs())
    assert seen == [8 * (number // 8) for number in range(N)]


def test_a_damaged_shard_is_described_again(tmp_path, monkeypatch):
    monkeypatch.setattr(_descriptor_store, "_PHOTOGRAPHS", 8)
    images = photographs()
    expected = describe(tmp_path, images)
    damaged = shards(tmp_path)[0]
    damaged.write_bytes(damaged.read_bytes()[:-30])
    _descriptor_store._READERS.clear()  # as if it were another process
    with counted_reads() as read, pytest.warns(UserWarning, match=rf"{damaged.name} is damaged"):
        rows = describe(tmp_path, images)
    assert sum(read) == 8
    assert rows.tobytes() == expected.tobytes()
    with counted_reads() as read:
        describe(tmp_path, images)
    assert not read


def both_ways(memory, images, reverse):
    _descriptor_store._PHOTOGRAPHS = 3
    order = slice(None, None, -1) if reverse else slice(None)
    return describe(memory, images[order])[order], os.getpid()


def test_two_processes_at_once(tmp_path):
    images = photographs()
    (one, first), (two, second) = joblib.Parallel(n_jobs=2)(
        joblib.delayed(both_ways)(str(tmp_path), images, reverse) for reverse in (False, True)
    )
    assert first != second
    assert one.tobytes() == two.tobytes() == describe(None, images).tobytes()
    with counted_reads() as read:
        assert describe(tmp_path, images).tobytes() == one.tobytes()
    assert not read
    assert not list(tmp_path.rglob("*.tmp"))


def test_threads_share_what_they_find(tmp_path):
    images = photographs()
    expected = describe(tmp_path, images)
    maps = extractor(tmp_path).fit_transform(images)
    with counted_reads() as read:
        found = joblib.Parallel(n_jobs=4, backend="threading")(
            joblib.delayed(GeMPooler().fit_transform)(maps) for _ in range(4)
        )
    assert not read
    for rows in found:
        assert_array_equal(rows, expected)


def test_a_pooler_that_learns_reads_the_maps_to_learn_only(tmp_path):
    pooler = PoolerFusion([("gem", GeMPooler()), ("rmac", RMACPooler(whiten=True))], combine="concat")
    images = photographs(10)
    expected = describe(tmp_path, images, pooler)
    with counted_reads() as learning:
        pooler.fit(extractor(tmp_path).fit_transform(images))
    with counted_reads() as read:
        again = describe(tmp_path, images, pooler)
    assert sum(read) == sum(learning)
    assert again.tobytes() == expected.tobytes()


def test_a_process_lists_what_is_new(tmp_path, monkeypatch):
    images = photographs()
    read = []
    whole = DescriptorReader._read
    monkeypatch.setattr(
        DescriptorReader, "_read", lambda self, name, rows=True: read.append(rows) or whole(self, name, rows)
    )
    for end in (10, 20, 30, 40):
        describe(tmp_path, images[:end], network=partial(counting_network, None))
    assert read.count(False) == 3  # each shard once, by the pass after the one that wrote it
