"""Bags of visual words: sparse output, words, and what counts."""

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from references import codebooks as ref
from references.maps import make_map, make_ragged
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from sklearn.pipeline import make_pipeline

from skretrieval.pooling import BoWPooler


@pytest.fixture(scope="module")
def maps():
    maps = make_ragged(5, [(6, 7), (5, 5), (6, 7), (3, 9), (1, 1), (5, 5)], seed=100)
    return [*maps, np.zeros((5, 4, 4))]


@pytest.mark.parametrize(
    "parameters", [{}, {"n_local": None, "upsample": 1}, {"n_local": 3, "upsample": 3}], ids=str
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_equals_dense(maps, parameters, dtype):
    maps = [feature_map.astype(dtype) for feature_map in maps]
    pooler = BoWPooler(9, random_state=0, **parameters).fit(maps)
    bags = pooler.transform(maps)
    assert isinstance(bags, sparse.csr_matrix)
    assert bags.shape == (7, 9)
    assert bags.dtype == dtype
    assert bags.has_sorted_indices
    dense = clone(pooler).set_params(sparse_output=False).fit(maps).transform(maps)
    assert isinstance(dense, np.ndarray)
    assert_allclose(bags.toarray(), dense, rtol=1e-6)
    assert bags.nnz == np.count_nonzero(dense)


def test_zero_map_has_no_words(maps):
    bags = BoWPooler(9, random_state=0).fit_transform(maps)
    assert bags[6].nnz == 0
    assert_allclose(np.sqrt(bags.multiply(bags).sum(axis=1)).A1[:6], 1)


def test_mixed_dtypes_are_promoted(maps):
    mixed = [
        feature_map.astype(dtype) for feature_map, dtype in zip(maps, ["f4", "f8"] * 3 + ["f4"], strict=True)
    ]
    pooler = BoWPooler(4, random_state=0)
    assert pooler.fit_transform(mixed).dtype == np.float64


def test_counts_by_hand():
    pooler = BoWPooler(3, n_local=None, upsample=1, random_state=0).fit([make_map(2, 6, 6)])
    pooler.cluster_centers_ = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.6]])
    #  three cells to the right, one up, one on the diagonal; one is empty
    feature_map = np.array([[[2.0, 9.0, 1e-3], [0.0, 5.0, 0.0]], [[0.0, 0.1, 0.0], [4.0, 5.0, 0.0]]])
    assert_allclose(pooler.transform([feature_map]).toarray(), [np.array([3, 1, 1]) / np.sqrt(11)])


def test_words_of_separate_groups_are_found():
    """Three directions with a little noise: three words, and each image has its own."""
    rng = np.random.default_rng(0)
    directions = np.eye(3)[[0, 1, 2, 0]]
    maps = [d[:, None, None] + 0.02 * rng.random((3, 5, 5)) for d in directions]
    # k-means starts from random descriptors: some start finds all three
    found = [
        BoWPooler(3, n_local=None, upsample=1, random_state=seed).fit_transform(maps) for seed in range(10)
    ]
    bags = max((bag.toarray() for bag in found), key=lambda bag: (bag > 0.99).any(axis=0).sum())
    assert_allclose(np.sort(bags, axis=1), [[0, 0, 1]] * 4)
    assert_array_equal(bags[0], bags[3])
    assert len(set(bags[:3].argmax(axis=1))) == 3


def test_default_dimensions_are_all(maps):
    pooler = BoWPooler(4, random_state=0).fit(maps)
    assert pooler.local_axes_.components.shape == (5, 5)
    assert pooler.cluster_centers_.shape == (4, 5)


def test_sparse_batches_of_many_words(monkeypatch):
    """Small blocks, counted one by one, in the order of the images."""
    maps = make_ragged(4, [(4, 5), (3, 3)] * 6, seed=7)
    pooler = BoWPooler(40, random_state=0).fit(maps)
    expected = pooler.transform(maps).toarray()
    monkeypatch.setattr("skretrieval.pooling._codebooks._base.BLOCK_NUMBERS", 500)
    monkeypatch.setattr("skretrieval.pooling._codebooks._centers.BLOCK_NUMBERS", 500)
    assert_allclose(pooler.transform(maps).toarray(), expected)
    reference = [ref.bow(m, pooler.cluster_centers_, axes=pooler.local_axes_[:2], upsample=2) for m in maps]
    assert_allclose(expected, reference, rtol=1e-10, atol=1e-14)


def test_persists_and_goes_on_in_a_pipeline(maps, tmp_path):
    model = make_pipeline(BoWPooler(9, random_state=0), TruncatedSVD(2, random_state=0))
    reduced = model.fit_transform(maps)
    assert reduced.shape == (7, 2)
    joblib.dump(model, tmp_path / "model.joblib")
    assert_array_equal(joblib.load(tmp_path / "model.joblib").transform(maps), model.transform(maps))


def test_a_frame_wants_dense_output(maps):
    pooler = BoWPooler(9, random_state=0).set_output(transform="pandas")
    with pytest.raises(ValueError, match="sparse"):
        pooler.fit_transform(maps)
    frame = pooler.set_params(sparse_output=False).fit_transform(maps)
    assert list(frame.columns) == [f"bowpooler{t}" for t in range(9)]
