"""One thread for small operations, and everything as before afterwards."""

import threading

import numpy as np
import pytest
import torch
from references.maps import make_map

from skretrieval.pooling import PoolerFusion, SJWPooler, SquareSumRMACPooler, VLADPooler, WeightedPooler
from skretrieval.pooling._engine._batches import _openmp, iter_batches, one_thread


@pytest.fixture
def three_threads():
    """Three threads in this thread of Python, even where there are fewer cores."""
    before = [library.get_num_threads() for library in _openmp()]
    for library in _openmp():
        library.set_num_threads(3)
    yield
    for library, number in zip(_openmp(), before, strict=True):
        library.set_num_threads(number)


def test_one_thread_then_as_before(three_threads):
    maps = torch.zeros(1, 1, 1, 1)
    with one_thread(maps):
        assert torch.get_num_threads() == 1
        with one_thread(maps):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with pytest.raises(KeyError), one_thread(maps):
        raise KeyError
    assert torch.get_num_threads() == 3


def test_maps_elsewhere_change_nothing(three_threads):
    with one_thread(torch.zeros(1, 1, 1, 1, device="meta")):
        assert torch.get_num_threads() == 3


def test_other_threads_keep_theirs(three_threads):
    """torch.set_num_threads would hand its number to every thread that starts computing meanwhile."""
    found = {}

    def look(name):
        torch.ones(3).sum()
        found[name] = torch.get_num_threads()

    threads = [threading.Thread(target=look, args=(name,)) for name in ("outside", "inside")]
    threads[0].start()
    threads[0].join()
    with one_thread(torch.zeros(1, 1, 1, 1)):
        threads[1].start()
        threads[1].join()
    assert found["inside"] == found["outside"]


@pytest.mark.parametrize(
    "pooler", [WeightedPooler(reduce=None), SJWPooler(), SquareSumRMACPooler()], ids=type
)
def test_poolers_compute_on_one(pooler, three_threads):
    seen = []

    def term(maps, boxes, spatial):
        seen.append(torch.get_num_threads())
        return maps.sum(dim=(2, 3))[:, None]

    maps = [make_map(4, 6, 8, seed=seed) for seed in range(3)]
    if isinstance(pooler, WeightedPooler):
        pooler = WeightedPooler(reduce=term)
    assert pooler.fit_transform(maps).shape == (3, 4)
    assert set(seen) <= {1}
    assert bool(seen) == isinstance(pooler, WeightedPooler)
    assert torch.get_num_threads() == 3


def test_each_part_of_a_fusion_has_its_number_of_threads(three_threads, monkeypatch):
    """Codebooks multiply large matrices: they keep the threads that the others give up."""
    seen = {"word": set(), "codebook": set()}

    def word(maps, boxes, spatial):
        seen["word"].add(torch.get_num_threads())
        return maps.sum(dim=(2, 3))[:, None]

    aggregate, update = VLADPooler._aggregate, VLADPooler._update
    monkeypatch.setattr(
        VLADPooler,
        "_aggregate",
        lambda self, *args: seen["codebook"].add(torch.get_num_threads()) or aggregate(self, *args),
    )
    monkeypatch.setattr(
        VLADPooler,
        "_update",
        lambda self, *args: seen["codebook"].add(torch.get_num_threads()) or update(self, *args),
    )
    parts = [
        ("word", WeightedPooler(reduce=word)),
        ("white", WeightedPooler(reduce=word, whiten=True)),
        ("vlad", VLADPooler(2, random_state=0)),
    ]
    maps = [make_map(4, 6, 8, seed=seed) for seed in range(6)]
    PoolerFusion([("inner", PoolerFusion(parts, combine="concat"))]).fit(maps).transform(maps)
    assert seen == {"word": {1}, "codebook": {3}}
    assert torch.get_num_threads() == 3


def test_what_makes_the_maps_keeps_its_threads(three_threads):
    """The network runs between two blocks: it must get all the threads there are."""
    seen = []

    class Lazy(list):
        def __getitem__(self, index):
            seen.append(torch.get_num_threads())
            return super().__getitem__(index)

    maps = Lazy(make_map(4, 6, 8 + seed, seed=seed) for seed in range(3))
    for _ in iter_batches(maps, None):
        seen.append(torch.get_num_threads())
    WeightedPooler().fit_transform(maps)
    assert np.unique(seen).tolist() == [3]
