"""Parts shared out to threads: everything is done once, and the number of threads of BLAS comes back."""

from threading import Barrier, Thread

import numpy as np
import pytest

from skretrieval.retrieval import NearestNeighborsRetriever
from skretrieval.retrieval._search import _threads
from skretrieval.retrieval._search._threads import in_threads


@pytest.fixture(autouse=True)
def _several_threads(monkeypatch):
    """Let BLAS have two threads; put its own number back."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = numbers()
    _threads._set_threads([2] * len(before))
    yield
    assert numbers() == [2] * len(before)
    _threads._set_threads(before)


def numbers():
    return [library.get_num_threads() for library in _threads._blas()]


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("n", [0, 1, 50])
def test_every_argument_once(n, products):
    done, seen = [], []
    in_threads(lambda x: done.append(x) or seen.append(max(numbers())), range(n), products=products)
    assert sorted(done) == list(range(n))
    assert set(seen) <= {1 if products and n > 1 else 2}


def test_errors_arrive_and_leave_nothing_behind():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda x: 1 // x, [1, 0, 2], products=True)


def test_searches_at_the_same_time():
    # The second one begins before the first one ends, and ends after it.
    meet, last, seen = Barrier(2, timeout=30), Barrier(2, timeout=30), []

    def first():
        with _threads._products_alone():
            meet.wait()
        seen.extend(numbers())
        last.wait()

    def second():
        with _threads._products_alone():
            meet.wait()
            last.wait()
            seen.extend(numbers())

    threads = [Thread(target=function) for function in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {1}


def test_the_number_of_threads_changes_no_result(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(9000, 300)).astype(np.float16)
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        for metric in ("cosine", "euclidean"):
            retriever = NearestNeighborsRetriever(metric=metric).fit(X, np.arange(9000) // 3)
            distances, indices = retriever.kneighbors(X[:50])
            score = retriever.score(X[:50], np.arange(50) // 3)
            found.append((distances, indices, retriever.kneighbors(X[:5], 9000)[1], score))
    for left, right in zip(found[:2], found[2:]):
        for one, other in zip(left, right):
            np.testing.assert_array_equal(one, other)
