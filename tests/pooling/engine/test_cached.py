"""Descriptors kept on disk: what is known is not extracted again, and nothing stale is found."""

import os
import sys
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from fixtures.cached import maps_of, photographs
from numpy.testing import assert_array_equal
from PIL import Image
from references.networks import counting_network, two_layer_network
from references.reads import counted_reads
from sklearn.base import clone

from skretrieval.extraction import ConvKernelExtractor, ImageCrop
from skretrieval.pooling import (
    BoWPooler,
    CroWPooler,
    GeMPooler,
    LayerwisePooler,
    MACPooler,
    PoolerFusion,
    RegionalSecondOrderPooler,
    RMACPooler,
    SJWPooler,
    VLADPooler,
    WeightedPooler,
)
from skretrieval.pooling._engine import _cached as _kept


def as_bytes(described):
    """Everything about a result: values, dtypes, shapes, order."""
    if hasattr(described, "indptr"):
        described = [described.data, described.indices, described.indptr]
    elif isinstance(described, np.ndarray):
        described = [described]
    return [(rows.dtype, rows.shape, rows.tobytes()) for rows in described]


def n_read(work, *args):
    with counted_reads() as read:
        result = work(*args)
    return result, sum(read)


POOLERS = [
    GeMPooler(),
    SJWPooler(),
    WeightedPooler("crow", "sparsity", "rmac", "power_mean", "l2", reduce_params={"p": 2.5}),
    RMACPooler(whiten=True, n_components=3),
    VLADPooler(3, random_state=0),
    BoWPooler(5, n_local=None, random_state=0),
    BoWPooler(5, n_local=None, random_state=0, sparse_output=False),
    PoolerFusion([("gem", GeMPooler()), ("crow", CroWPooler())], weights=[0.6, 0.4]),
    PoolerFusion([("gem", GeMPooler()), ("crow", CroWPooler())], combine="regions"),
    PoolerFusion([("gem", GeMPooler()), ("rmac", RMACPooler(whiten=True))], combine="concat"),
    RegionalSecondOrderPooler(n_local=4, n_components=6),
    LayerwisePooler(GeMPooler()),
    LayerwisePooler([("a", MACPooler()), ("b", RMACPooler(whiten=True, n_components=3))]),
]


@pytest.mark.parametrize("pooler", POOLERS, ids=lambda pooler: "".join(str(pooler).split())[:40])
def test_a_second_pass_reads_nothing_and_gives_the_same_bits(pooler, tmp_path):
    tuples = isinstance(pooler, LayerwisePooler)
    params = {"backbone": two_layer_network if tuples else counting_network}
    images = photographs()
    plain = maps_of(images, **params)
    fitted = clone(pooler).fit(plain)
    expected = as_bytes(fitted.transform(plain))
    first, n_first = n_read(fitted.transform, maps_of(images, tmp_path, **params))
    again = joblib.load(_dumped(fitted, tmp_path))
    second, n_second = n_read(again.transform, maps_of(images, tmp_path, **params))
    assert as_bytes(first) == as_bytes(second) == expected
    assert (n_first, n_second) == (9, 0)
    some, n_some = n_read(again.transform, maps_of(images[5:2:-1], tmp_path, **params))
    assert n_some == 0
    assert as_bytes(some[1]) == as_bytes(fitted.transform(plain)[4])
    names = fitted.get_feature_names_out() if hasattr(fitted, "_n_features_out") else None
    assert names is None or list(names) == list(again.get_feature_names_out())


def _dumped(model, folder):
    joblib.dump(model, folder / "model.joblib")
    return folder / "model.joblib"


@pytest.mark.parametrize(
    "pooler", [pooler for pooler in POOLERS if not pooler._learns], ids=lambda p: str(p)[:20]
)
def test_a_pooler_fitted_on_what_is_known_is_fitted(pooler, tmp_path):
    """fit_transform and transform share what they keep, and leave the pooler in the same state."""
    params = {"backbone": two_layer_network if pooler._layers else counting_network}
    seen, new = clone(pooler), clone(pooler)
    expected = seen.fit_transform(maps_of(photographs(), tmp_path, **params))
    found, n = n_read(new.fit_transform, maps_of(photographs(), tmp_path, **params))
    assert n == 0
    assert as_bytes(found) == as_bytes(expected)
    assert list(new.get_feature_names_out()) == list(seen.get_feature_names_out())
    assert new.n_features_in_ == seen.n_features_in_
    assert _state(new) == _state(seen)
    other = maps_of(photographs(seed=1), tmp_path, **params)
    assert as_bytes(new.transform(other)) == as_bytes(seen.transform(other))
    frame = clone(pooler)
    if isinstance(found, np.ndarray):
        table = frame.set_output(transform="pandas").fit_transform(maps_of(photographs(), tmp_path, **params))
        assert_array_equal(table.to_numpy(), expected)


def _state(pooler):
    parts = [(name, _state(part)) for name, part in getattr(pooler, "poolers_", [])]
    return (
        {name for name in vars(pooler)},
        pooler._n_features_out,
        pooler.n_features_in_,
        pooler._channels,
        parts,
    )


def test_only_what_is_new_is_extracted(tmp_path):
    images = photographs(12)
    GeMPooler().fit_transform(maps_of(images[3:7], tmp_path))
    rows, n = n_read(GeMPooler().fit_transform, maps_of(images, tmp_path))
    assert n == 8
    np.testing.assert_allclose(rows, GeMPooler().fit_transform(maps_of(images)), rtol=1e-5)
    crop = ImageCrop(images[0], (0, 0, 32, 32))
    _, n = n_read(GeMPooler().fit_transform, maps_of([crop, images[0], images[0]], tmp_path))
    assert n == 1
    _, n = n_read(GeMPooler().fit_transform, maps_of(images, tmp_path, batch_size=5, n_jobs=1, verbose=False))
    assert n == 0


def test_maps_once_for_all_poolers_and_descriptors_once_for_each(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("SKRETRIEVAL_TEST_LOG", str(log))
    for pooler in (GeMPooler(), GeMPooler(), SJWPooler(), GeMPooler()):
        pooler.fit_transform(maps_of(photographs(), tmp_path / "m", memory_keeps="both"))
    assert log.read_text().count("image") == 9
    assert len(list(tmp_path.rglob("*.npz"))) == 2


def test_no_function_of_the_cache_runs_without_memory():
    model = PoolerFusion([("gem", GeMPooler()), ("rmac", RMACPooler(whiten=True))], combine="concat")
    maps, ran = maps_of(photographs(3)), set()

    def look(frame, event, _):
        if event == "call":
            ran.add(frame.f_globals.get("__name__", ""))

    sys.setprofile(look)
    try:
        model.fit(maps).transform(maps)
    finally:
        sys.setprofile(None)
    assert "skretrieval.pooling._engine._base" in ran
    assert not {name for name in ran if "skretrieval" in name and "_cache" in name}


def test_nothing_is_done_without_memory(monkeypatch):
    monkeypatch.setattr(_kept, "pooler_key", None)
    assert GeMPooler().fit_transform(maps_of(photographs(3))).shape == (3, 10)
    assert GeMPooler().fit_transform(list(maps_of(photographs(3)))).shape == (3, 10)


# ---------------------------------------------------------------------- nothing stale


def wave(maps):
    return maps.sum(dim=1)


class OwnPooler(GeMPooler):
    """Defined outside the package."""


OWN = [
    (WeightedPooler(spatial=wave), 9),
    (WeightedPooler(spatial=lambda maps: maps.sum(dim=1)), 9),
    (WeightedPooler(reduce="power_mean", reduce_params={"p": np.float64(2)}), 0),
    (PoolerFusion([("a", WeightedPooler(spatial=wave)), ("b", GeMPooler())]), 9),
    (OwnPooler(), 9),
    (PoolerFusion([("own", OwnPooler())]), 9),
]


@pytest.mark.parametrize(("pooler", "expected"), OWN, ids=lambda value: str(value)[:30])
def test_what_cannot_be_named_is_not_kept(pooler, expected, tmp_path):
    for _ in range(2):
        _, n = n_read(clone(pooler).fit_transform, maps_of(photographs(), tmp_path))
    assert n == expected


@pytest.mark.parametrize(
    "changed",
    [
        GeMPooler(p=3.5),
        GeMPooler(p=np.nextafter(3.0, 4)),
        GeMPooler(rectify=False),
        MACPooler(),
        PoolerFusion([("gem", GeMPooler())]),
    ],
    ids=str,
)
def test_another_pooler_finds_nothing(changed, tmp_path):
    GeMPooler(p=3.0).fit_transform(maps_of(photographs(), tmp_path))
    rows, n = n_read(changed.fit_transform, maps_of(photographs(), tmp_path))
    assert n == 9
    assert_array_equal(rows, clone(changed).fit_transform(maps_of(photographs())))


@pytest.mark.parametrize(
    "changed",
    [
        {"image_size": 32},
        {"image_size": [64, 32], "multi_resolution": "sum"},
        {"dtype": "bfloat16"},
        {"layers": "first"},
        {"backbone": partial(counting_network, None), "weights": "weights.pth"},
    ],
    ids=lambda changed: "-".join(changed),
)
def test_another_network_finds_nothing(changed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = counting_network()
    network.second.weight.data *= 2
    torch.save(network.state_dict(), "weights.pth")
    GeMPooler(rectify=False).fit_transform(maps_of(photographs(), tmp_path))
    rows, n = n_read(GeMPooler(rectify=False).fit_transform, maps_of(photographs(), tmp_path, **changed))
    assert n == 9
    assert_array_equal(rows, GeMPooler(rectify=False).fit_transform(maps_of(photographs(), **changed)))


def test_another_photograph_under_the_same_name(tmp_path):
    path = tmp_path / "photograph.png"
    rows = []
    for image in photographs(2):
        Image.fromarray(image[:40]).save(path)
        os.utime(path, (0, 0))
        rows.append(GeMPooler().fit_transform(maps_of([path], tmp_path / "m")))
        assert_array_equal(rows[-1], GeMPooler().fit_transform(maps_of([path])))
    assert not np.array_equal(*rows)


def test_a_refitted_kernel_extractor(tmp_path):
    model = ConvKernelExtractor(
        (8, 16), image_size=32, n_patches=500, random_state=0, memory=tmp_path, memory_keeps="descriptors"
    )
    maps = model.fit(photographs()).transform(photographs())
    first = GeMPooler().fit_transform(maps)
    second, n = n_read(GeMPooler().fit_transform, model.fit(photographs()).transform(photographs()))
    assert n == 0
    assert_array_equal(first, second)
    model.fit(photographs(seed=1))  # the maps follow
    third, n = n_read(GeMPooler().fit_transform, maps)
    assert n == 9
    assert not np.allclose(first, third)


@pytest.mark.parametrize(
    "pooler",
    [
        VLADPooler(3, random_state=0),
        RMACPooler(whiten=True, n_components=3),
        RegionalSecondOrderPooler(n_local=4, n_components=6),
        PoolerFusion([("gem", GeMPooler()), ("rmac", RMACPooler(whiten=True))], combine="concat"),
    ],
    ids=lambda pooler: str(pooler)[:20],
)
def test_a_pooler_that_learned_something_else(pooler, tmp_path):
    maps, plain = maps_of(photographs(), tmp_path), maps_of(photographs())
    pooler.fit(plain)
    first, n = n_read(pooler.transform, maps)
    assert n == 9
    pooler.fit(maps_of(photographs(12, seed=1)))
    second, n = n_read(pooler.transform, maps)
    assert n == 9
    assert as_bytes(second) == as_bytes(pooler.transform(plain)) != as_bytes(first)
    pooler.fit(plain)
    again, n = n_read(pooler.transform, maps)
    assert n == 0
    assert as_bytes(again) == as_bytes(first)


def test_parameters_of_a_part_set_after_fit_name_nothing_wrong(tmp_path):
    """A fitted fusion describes with the copies that it made, and its parameters are others by then."""
    maps, plain = maps_of(photographs(), tmp_path), maps_of(photographs())
    for fusion in (
        PoolerFusion([("gem", GeMPooler(p=3.0)), ("mac", MACPooler())]),
        PoolerFusion([("inner", PoolerFusion([("gem", GeMPooler(p=3.0))])), ("mac", MACPooler())]),
    ):
        name = next(name for name in fusion.get_params() if name.endswith("gem__p"))
        old = fusion.fit(plain).transform(plain)
        fusion.set_params(**{name: 5.0})
        assert_array_equal(fusion.transform(maps), old)
        new = clone(fusion).fit_transform(maps)
        assert_array_equal(new, clone(fusion).fit_transform(plain))
        assert not np.array_equal(new, old)
        fitted = clone(fusion).fit(plain)
        fitted.poolers_[0][1].set_params(**{name.partition("__")[2]: 9.0})
        fitted.transform(maps)
        assert_array_equal(clone(fusion).fit_transform(maps), new)
