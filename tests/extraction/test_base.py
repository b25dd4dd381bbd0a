"""One network for all threads, forked processes, and bars that are not shown."""

import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import sklearn
import tqdm
from sklearn.pipeline import Pipeline

from skretrieval.extraction import ConvFeatureExtractor, ConvKernelExtractor

IMAGES = [np.random.default_rng(i).integers(0, 256, (40, 48, 3), dtype=np.uint8) for i in range(4)]


def conv(**params):
    given = {"weights": None, "random_state": 0, "image_size": 48, "device": "cpu", **params}
    return ConvFeatureExtractor("squeezenet1_1", **given)


def kernel(**params):
    return ConvKernelExtractor((4, 8), image_size=48, n_patches=200, random_state=0, device="cpu", **params)


@pytest.mark.parametrize("make", [conv, kernel])
def test_threads_share_one_network_of_a_loaded_model(make, monkeypatch):
    fitted = make().fit(IMAGES)
    wanted = fitted.transform(IMAGES)[0]
    loaded, built, build = pickle.loads(pickle.dumps(fitted)), [], type(fitted)._build
    monkeypatch.setattr(type(fitted), "_build", lambda self: (built.append(1), build(self))[1])
    start, found = threading.Barrier(8), []

    def ask():
        start.wait()
        found.append(loaded.transform(IMAGES)[0])

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(built) == 1
    assert len(found) == 8
    for maps in found:
        np.testing.assert_array_equal(maps, wanted)
    pickle.loads(pickle.dumps(loaded))  # without the lock


FORK = """
import multiprocessing, sys
import numpy as np
from skretrieval import recipes
from skretrieval.extraction import ConvKernelExtractor

images = [np.random.default_rng(i).integers(0, 256, (96, 128, 3), dtype=np.uint8) for i in range(6)]
extractor = ConvKernelExtractor((8, 64), image_size=128, random_state=0)
model = recipes.grmac(extractor=extractor, whitening="pca", n_components=4, n_neighbors=2).fit(images)
if ENGINE == "faiss":
    model[-1].set_params(engine="faiss").fit(np.random.default_rng(0).normal(size=(200, 4)).astype("float32"))
wanted = model.predict(images)

def child():
    np.testing.assert_array_equal(model.predict(images), wanted)

process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(40)
if process.is_alive():
    process.kill()
    sys.exit("the forked process hangs")
sys.exit(process.exitcode)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("engine", ["exact", "faiss"])
def test_a_forked_process_predicts_after_its_parent(engine):
    if engine == "faiss":
        pytest.importorskip("faiss")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK.replace("ENGINE", repr(engine))],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shown", [False, True])
def test_a_bar_is_made_only_where_it_is_shown(shown, monkeypatch, capsys):
    made, new = [], tqdm.tqdm.__new__
    monkeypatch.setattr(tqdm.tqdm, "__new__", lambda cls, *a, **k: (made.append(cls), new(cls, *a, **k))[1])
    before = threading.active_count()
    list(conv(verbose=shown).fit_transform(IMAGES))
    assert bool(made) == shown
    assert threading.active_count() == before  # nobody watches the bar
    assert tqdm.tqdm.monitor_interval > 0  # bars of others keep their watcher


# ------------------------------------------------------------------ containers
@pytest.mark.parametrize("container", ["pandas", "polars", "default"])
@pytest.mark.parametrize("make", [conv, kernel])
def test_maps_are_no_table_whatever_is_asked_for(make, container):
    wanted = make().fit_transform(IMAGES)[0]
    with sklearn.config_context(transform_output=container):
        maps = make().fit_transform(IMAGES)
        np.testing.assert_array_equal(maps[0], wanted)
        np.testing.assert_array_equal(make().fit(IMAGES).transform(IMAGES)[0], wanted)
    pipeline = Pipeline([("extractor", make())]).set_output(transform=container)
    np.testing.assert_array_equal(pipeline.fit_transform(IMAGES)[0], wanted)
