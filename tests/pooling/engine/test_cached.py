"""Descriptors kept on disk: what is known is not extracted again, and nothing stale is found."""

import os
import sys
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from references.networks import counting_network, two_layer_network
from references.reads import counted_reads
from sklearn.base import clone
from torch import nn

from skretrieval.extraction import ConvFeatureExtractor, ConvKernelExtractor, ImageCrop
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


def photographs(n=9, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (40 + 8 * (i % 3), 64, 3), dtype=np.uint8) for i in range(n)]


def extractor(memory=None, **params):
    return ConvFeatureExtractor(
        **{
            "backbone": counting_network,
            "image_size": 64,
            "device": "cpu",
            "batch_size": 2,
            "memory": memory,
            "memory_keeps": "descriptors",
            **params,
        }
    )


def maps_of(images, memory=None, **params):
    return extractor(memory, **params).fit(images).transform(images)


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
def test_a_second_pass_reads_nothing_and_gives_the_same_to_the_bit(pooler, tmp_path):
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


def test_maps_once_whichever_pooler_and_descriptors_once_for_each(tmp_path, monkeypatch):
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
    GeMPooler().fit_transform(maps_of(photographs(), tmp_path))
    rows, n = n_read(GeMPooler().fit_transform, maps_of(photographs(), tmp_path, **changed))
    assert n == 9
    assert_array_equal(rows, GeMPooler().fit_transform(maps_of(photographs(), **changed)))


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


def test_parameters_of_a_part_that_are_set_after_fit_name_nothing_wrong(tmp_path):
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


def test_channels_are_checked_where_nothing_is_extracted(tmp_path):
    maps = maps_of(photographs(3), tmp_path)
    GeMPooler().fit_transform(maps)
    fitted = GeMPooler().fit(np.ones((2, 4, 3, 3)))
    with pytest.raises(ValueError, match="Entry 0: has 10 channels, but 4 were expected"):
        fitted.transform(maps)


# ---------------------------------------------------------------------- bad photographs


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for path, image in zip(paths, photographs(6), strict=True):
        Image.fromarray(image).save(path)
    paths[1].write_bytes(paths[1].read_bytes()[:2000])
    paths[4] = tmp_path / "missing.png"
    return paths


@pytest.mark.parametrize("keeps", ["descriptors", "both"])
def test_unreadable_photographs_are_reported_in_every_call_and_never_kept(files, tmp_path, keeps):
    for read in (6, 2):
        maps = maps_of(files, tmp_path / "m", on_error="warn", memory_keeps=keeps)
        with (
            counted_reads() as n,
            pytest.warns(UserWarning, match=r"2 of 6 images.*1\.png.*missing") as caught,
        ):
            rows = GeMPooler().fit_transform(maps)
        assert len(caught) == 1
        assert sum(n) == read
        assert sorted(maps.failed_) == sorted(maps.extractor.failed_) == [1, 4]
        assert np.flatnonzero(~rows.any(axis=1)).tolist() == [1, 4]
    Image.fromarray(photographs(6)[1]).save(files[1])
    with pytest.warns(UserWarning, match="1 of 6"):
        rows = GeMPooler().fit_transform(maps_of(files, tmp_path / "m", on_error="warn"))
    assert rows[1].any()


def test_too_small_photographs_are_not_kept(tmp_path):
    images = [*photographs(2), np.zeros((2, 64, 3), np.uint8)]
    params = {"backbone": "squeezenet1_1", "weights": None, "random_state": 0, "on_error": "warn"}
    for read in (3, 1):
        with counted_reads() as n, pytest.warns(UserWarning, match="1 of 3 images.*too few"):
            rows = GeMPooler().fit_transform(maps_of(images, tmp_path, **params))
        assert sum(n) == read
        assert rows.any(axis=1).tolist() == [True, True, False]


def test_errors_name_the_entry_of_the_user_whatever_is_known(files, tmp_path):
    pooler, place = GeMPooler(), tmp_path / "m"
    good = [files[0], files[2], files[3], files[5]]
    pooler.fit_transform(maps_of(good, place))
    with pytest.raises(ValueError, match=r"Entry 3 \(.*1\.png"):
        pooler.transform(maps_of([*good[:3], files[1]], place))
    maps = extractor(place).fit(good).transform([*good, good[0], files[1]])
    with pytest.raises(ValueError, match=r"Entry 5 \(.*1\.png"):
        pooler.transform(maps[[3, 5, 1]])


class Stretch(nn.Module):
    """Pixels stretched to [0, 1], with 0 / 0 on a photograph of one colour."""

    def forward(self, images):
        low = images.amin(dim=(2, 3), keepdim=True)
        return (images - low) / (images.amax(dim=(2, 3), keepdim=True) - low)


def test_nan_names_the_place_whatever_is_known(tmp_path):
    good, grey = photographs(4), np.zeros((48, 64, 3), np.uint8)
    model = extractor(tmp_path, backbone=Stretch, weights=None).fit(good)
    GeMPooler().fit_transform(model.transform(good))
    for _ in range(2):
        with pytest.raises(ValueError, match="Entry 2: the feature map contains NaN"):
            GeMPooler().fit_transform(model.transform([*good[:2], grey, *good[2:]]))
