"""Real threads on one retriever, and forked processes."""

import pickle
import threading

import joblib
import numpy as np
import pytest

from skretrieval.retrieval import NearestNeighborsRetriever


def rows(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 16)).astype(np.float32)


def together(*functions, seconds=60):
    """Run functions at the same time; return what they raised."""
    start, raised = threading.Barrier(len(functions)), []

    def run(function):
        start.wait()
        try:
            function()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    assert not any(thread.is_alive() for thread in threads)
    return raised


@pytest.mark.parametrize("index", ["flat", "hnsw", "ivfpq"])
def test_first_queries_of_a_loaded_faiss_model(index):
    pytest.importorskip("faiss")
    gallery = rows(3000)
    params = {"index": index, "nbits": 4} if index == "ivfpq" else {"index": index}
    model = NearestNeighborsRetriever(5, engine="faiss", engine_params=params).fit(gallery)
    wanted, stored = model.predict(gallery[:8]), pickle.dumps(model)
    for _ in range(10):
        loaded, found = pickle.loads(stored), np.empty_like(wanted)

        def ask(i, loaded=loaded, found=found):
            found[i] = loaded.predict(gallery[i : i + 1])[0]

        assert together(*(lambda i=i: ask(i) for i in range(8))) == []
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("engine", ["exact", "faiss"])
def test_changes_at_the_same_time_take_turns(engine):
    if engine == "faiss":
        pytest.importorskip("faiss")
    model = NearestNeighborsRetriever(3, engine=engine).fit(rows(500))

    def add(seed):
        for i in range(10):
            model.partial_fit(rows(20, 100 * seed + i))

    def remove():
        for _ in range(20):
            model.remove([0, 1, 2])

    raised = together(lambda: add(1), lambda: add(2), remove, remove)
    assert raised == []
    assert model.n_samples_fit_ == len(model.gallery_) == 500 + 400 - 120
    fresh = NearestNeighborsRetriever(3).fit(model.gallery_)
    np.testing.assert_array_equal(model.predict(rows(9, 7)), fresh.predict(rows(9, 7)))


@pytest.mark.parametrize("engine", ["exact", "faiss"])
def test_searches_beside_partial_fit_see_one_gallery(engine):
    if engine == "faiss":
        pytest.importorskip("faiss")
    first, queries = rows(400), rows(3, 9)
    model = NearestNeighborsRetriever(3, engine=engine).fit(first)
    done = threading.Event()

    def add():
        for i in range(30):
            model.partial_fit(rows(10, i))
        done.set()

    def search():
        while not done.is_set():
            distances, indices = model.kneighbors(queries)
            assert indices.max() < model.n_samples_fit_
            assert (np.diff(distances, axis=1) >= 0).all()

    assert together(add, search, search) == []


def test_the_lock_is_in_no_pickle_and_no_hash():
    one, other = NearestNeighborsRetriever().fit(rows(30)), NearestNeighborsRetriever().fit(rows(30))
    one.partial_fit(rows(2))
    other.partial_fit(rows(2))
    assert joblib.hash(one) == joblib.hash(other) == joblib.hash(pickle.loads(pickle.dumps(one)))
