"""Names of poolers for the descriptors that are kept: one name only for what describes alike."""

import functools
import hashlib
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import nn

from skretrieval._cache._key import NamelessError, feed, pooler_key
from skretrieval.datasets import make_feature_maps
from skretrieval.pooling import (
    BoWPooler,
    ClassActivationMask,
    GeMPooler,
    LayerwisePooler,
    PoolerFusion,
    RMACPooler,
    SJWPooler,
    VLADPooler,
    WeightedPooler,
)
from skretrieval.utils import all_estimators


def name_of(value):
    digest = hashlib.blake2b()
    feed(digest, value)
    return digest.digest()


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    hnp.from_dtype(np.dtype("f4")),
    hnp.from_dtype(np.dtype("f8")),
    hnp.from_dtype(np.dtype("i8")),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(), inner, max_size=4),
    ),
    max_leaves=12,
)


def exactly(value):
    """Spell a value with its types, so that equal spellings are the same value."""
    if isinstance(value, dict):
        return "dict", sorted((key, exactly(entry)) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return type(value).__name__, [exactly(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.dtype.str, value.tobytes()
    return type(value).__name__, repr(value)


@given(one=values, two=values)
def test_values_have_one_name_if_they_are_the_same(one, two):
    assert (name_of(one) == name_of(two)) == (repr(exactly(one)) == repr(exactly(two)))
    assert name_of(pickle.loads(pickle.dumps(one))) == name_of(one)


@pytest.mark.parametrize(
    "alike",
    [
        (1, 1.0, True, np.int64(1), np.int32(1), np.float64(1), np.float32(1), np.bool_(True), "1", b"1"),
        (0.0, -0.0, 0, None, False, "", math.nan),
        ([1, 2], (1, 2), np.array([1, 2]), np.array([1.0, 2.0]), np.array([[1, 2]]), [[1, 2]], [1, [2]]),
        ({}, [], (), "", np.zeros(0), np.zeros((0, 1))),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": 1, "b": 2, "c": None}),
        ("ab", ["a", "b"], ["ab"], ["ab", ""]),
        (
            np.maximum,
            np.minimum,
            np.linalg.norm,
            np.float32,
            torch.nn.functional.relu,
            GeMPooler,
            GeMPooler(),
        ),
        (math.inf, -math.inf, np.inf * np.float64(1)),
    ],
)
def test_what_is_alike_is_told_apart(alike):
    assert len({name_of(value) for value in alike}) == len(alike)


def test_names_do_not_depend_on_order_or_memory():
    assert name_of({"a": 1, "b": 2}) == name_of({"b": 2, "a": 1})
    array = np.arange(12.0).reshape(3, 4)
    frozen = array.copy()
    frozen.setflags(write=False)
    assert name_of(array) == name_of(np.asfortranarray(array)) == name_of(frozen)
    assert name_of(array) != name_of(array.T.copy())


def test_memory_mapped_arrays_have_the_name_of_their_content(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(5.0))
    assert name_of(np.load(tmp_path / "a.npy", mmap_mode="r")) == name_of(np.arange(5.0))


@pytest.mark.parametrize(
    "value",
    [
        lambda maps: maps,
        math.sqrt,
        max,
        functools.partial(np.sum, axis=0),
        nn.ReLU(),
        torch.zeros(1),
        torch.relu,
        np.random.RandomState(0),
        np.random.default_rng(0),
        np.array([None]),
        {1: "one"},
        {1, 2},
        object(),
        pytest.raises,
        PCA(),
        [1, {"deep": (lambda: 0,)}],
        np.array([1.0]).sum,
        np.ma.array([1.0]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_name(value):
    with pytest.raises(NamelessError):
        feed(hashlib.blake2b(), value)


def test_a_function_that_hides_another():
    """Its module and name lead to something else, as those of a decorated function may."""

    def norm(maps):
        return maps

    norm.__module__, norm.__qualname__ = "numpy.linalg", "norm"
    assert pooler_key(WeightedPooler(norm)) is None
    assert pooler_key(WeightedPooler(np.linalg.norm)) is not None


class OwnPooler(GeMPooler):
    pass


@pytest.mark.parametrize(
    "pooler",
    [
        OwnPooler(),
        WeightedPooler(regions=lambda height, width: np.array([[0, 0, height, width]])),
        WeightedPooler(reduce_params={"p": torch.tensor(2.0)}),
        PoolerFusion([("own", OwnPooler())]),
        LayerwisePooler(PoolerFusion([("a", GeMPooler()), ("b", WeightedPooler(lambda maps: maps))])),
        ClassActivationMask(GeMPooler()),
        PoolerFusion([("masked", ClassActivationMask(GeMPooler()))]),
        ClassActivationMask(GeMPooler(), backbone=nn.Linear(2, 2)),
    ],
    ids=lambda pooler: "".join(str(pooler).split(" at 0x")[0].split())[:50],
)
def test_poolers_without_a_name(pooler):
    assert pooler_key(pooler) is None


def _instances():
    for _, kind in all_estimators():
        if kind.__module__.startswith("skretrieval.pooling"):
            needed = {"poolers": [("gem", GeMPooler())], "pooler": GeMPooler()}
            yield kind(**{name: needed[name] for name in kind._parameter_constraints if name in needed})


@pytest.mark.parametrize("pooler", _instances(), ids=lambda pooler: type(pooler).__name__)
def test_every_pooler_is_named_by_all_its_parameters(pooler):
    learns = pooler._learns
    key = pooler_key(pooler)
    if isinstance(pooler, ClassActivationMask):
        assert key is None
        return
    assert key is not None
    assert pooler_key(clone(pooler)) == pooler_key(pickle.loads(pickle.dumps(pooler))) == key
    for name in pooler.get_params():
        if name not in ("poolers", "gem") and pooler._learns == learns:
            other = clone(pooler)
            for attribute in ("__dict__",) if "__" not in name else ():
                getattr(other, attribute)[name] = 0.123  # whether it is valid does not matter here
            if "__" in name:
                other.set_params(**{name: 0.123})
            assert pooler_key(other) != key, name


def test_fitted_attributes_count_only_where_something_is_learned():
    maps, _ = make_feature_maps(6, 8, random_state=0)
    for pooler in (GeMPooler(), PoolerFusion([("gem", GeMPooler()), ("sjw", SJWPooler())])):
        before = pooler_key(pooler)
        assert pooler_key(pooler.set_output(transform="pandas").fit(maps)) == before
    for pooler in (
        VLADPooler(3, random_state=0),
        BoWPooler(3, random_state=0),
        RMACPooler(whiten=True),
        PoolerFusion([("gem", GeMPooler()), ("rmac", RMACPooler(whiten=True))]),
    ):
        keys = [pooler_key(clone(pooler).fit(part)) for part in (maps, maps, maps[:5])]
        assert keys[0] == keys[1] != keys[2]
        assert pooler_key(pickle.loads(pickle.dumps(clone(pooler).fit(maps)))) == keys[0]


def test_private_attributes_that_were_learned_count():
    maps, _ = make_feature_maps(6, 8, random_state=0)
    pooler = VLADPooler(3, random_state=0).fit(maps)
    before = pooler_key(pooler)
    pooler._learned_in_some_later_version = np.zeros(2)
    assert pooler_key(pooler) != before
    pooler._learned_in_some_later_version = KMeans()
    assert pooler_key(pooler) is None
