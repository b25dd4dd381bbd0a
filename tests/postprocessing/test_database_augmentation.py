"""Database-side augmentation against a loop over its definition."""

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline

from skretrieval._linalg import l2_normalize
from skretrieval.postprocessing import DatabaseAugmentation, _database_augmentation


def descriptors(n=40, D=8, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=(n, D)).astype(dtype)


def expand(x, others, n, alpha):
    """Unit x plus its n most similar unit rows, the first of equals, weighted."""
    order = sorted(range(len(others)), key=lambda j: (-(x @ others[j]), j))[:n]
    total = x + sum(max(x @ others[j], 0.0) ** alpha * others[j] for j in order)
    return total / np.linalg.norm(total)


@pytest.mark.parametrize("n_neighbors", [1, 5, 39, 100])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_equals_the_loop(n_neighbors, alpha):
    X = descriptors()
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    expected = [expand(x, np.delete(unit, i, axis=0), n_neighbors, alpha) for i, x in enumerate(unit)]
    augmentation = DatabaseAugmentation(n_neighbors, alpha=alpha)
    np.testing.assert_allclose(augmentation.fit_transform(X), expected, atol=1e-12)
    # Rows of the database are recognised in any order and company.
    queries = descriptors(3, seed=1)
    mixed = np.vstack([queries, X[[7, 3]]])
    Z = augmentation.transform(mixed)
    np.testing.assert_allclose(Z[3:], [expected[7], expected[3]], atol=1e-12)
    np.testing.assert_allclose(Z[:3], l2_normalize(queries), atol=1e-15)
    Z = DatabaseAugmentation(n_neighbors, alpha=alpha, augment_queries=True).fit(X).transform(mixed)
    np.testing.assert_allclose(Z[3:], [expected[7], expected[3]], atol=1e-12)
    np.testing.assert_allclose(
        Z[:3], [expand(q, unit, n_neighbors, alpha) for q in l2_normalize(queries)], atol=1e-12
    )


def test_blocks_of_rows_change_nothing(monkeypatch):
    X = descriptors()
    expected = DatabaseAugmentation(4).fit_transform(X)
    monkeypatch.setattr(_database_augmentation, "_BLOCK_ELEMENTS", 3 * len(X))
    np.testing.assert_allclose(DatabaseAugmentation(4).fit_transform(X), expected, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_that_are_each_others_neighbors_become_equal(dtype):
    centres, noise = descriptors(6, seed=2), descriptors(18, seed=3)
    X = (np.tile(centres, (3, 1)) + 0.05 * noise).astype(dtype)
    Z = DatabaseAugmentation(2).fit_transform(X).reshape(3, 6, -1)
    np.testing.assert_array_equal(Z[1], Z[0])
    np.testing.assert_array_equal(Z[2], Z[0])


def test_ties_go_to_the_first_rows():
    X = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, -1, 0]])
    Z = DatabaseAugmentation(2).fit_transform(X)
    half = np.sqrt(1 / 3)
    np.testing.assert_allclose(Z[0], [half, half, half])
    np.testing.assert_allclose(Z[1], [half, half, half])
    np.testing.assert_allclose(Z[3], [half, -half, half])


def test_duplicates_are_neighbours_of_each_other():
    X = np.array([[1.0, 0], [1, 0], [0, 1], [0.6, 0.8]])
    Z = DatabaseAugmentation(1).fit_transform(X)
    np.testing.assert_allclose(Z[:2], X[:2])
    np.testing.assert_allclose(Z[2], l2_normalize([0.6, 1.8]))


def test_zero_rows_and_zero_sums():
    X = np.array([[0.0, 0], [1, 0], [-1, 0]])
    Z = DatabaseAugmentation(2).fit_transform(X)
    np.testing.assert_array_equal(Z, X)  # 1 and -1 cancel: the descriptor is kept
    # A zero descriptor is near to nothing: it borrows from nobody.
    for augment_queries in (False, True):
        augmentation = DatabaseAugmentation(2, augment_queries=augment_queries).fit(
            [[0.0, 0], [1, 0], [0.6, 0.8]]
        )
        np.testing.assert_array_equal(augmentation.transform([[0.0, 0]]), [[0, 0]])
    np.testing.assert_array_equal(DatabaseAugmentation().fit_transform([[0.0, 0.0]]), [[0, 0]])
    np.testing.assert_allclose(DatabaseAugmentation().fit_transform([[3.0, 4.0]]), [[0.6, 0.8]])


def test_negative_zero_is_zero():
    X = descriptors()
    X[5, 2] = 0.0
    augmentation = DatabaseAugmentation(3).fit(X)
    same = X.copy()
    same[5, 2] = -0.0
    np.testing.assert_array_equal(augmentation.transform(same), augmentation.transform(X))


def test_rows_that_differ_in_one_bit_are_queries():
    X = descriptors()
    other = X.copy()
    other[4, 3] = np.nextafter(other[4, 3], 9)
    augmentation = DatabaseAugmentation(3).fit(X)
    Z, expected = augmentation.transform(other), augmentation.transform(X)
    np.testing.assert_allclose(Z[4], l2_normalize(X[4]))
    assert np.abs(expected[4] - Z[4]).max() > 0.01
    np.testing.assert_array_equal(np.delete(Z, 4, axis=0), np.delete(expected, 4, axis=0))


def test_a_hard_view_is_found_through_an_easier_one():
    """In the plane: a good view at 40 degrees from the query, a hard one at 62, a distractor at -55."""
    query, good, hard, distractor = ([np.cos(a), np.sin(a)] for a in np.deg2rad([0, 40, 62, -55]))
    query, gallery = np.array([query]), np.array([good, hard, distractor])
    assert np.argsort(-(gallery @ query[0])).tolist() == [0, 2, 1]
    pipeline = make_pipeline(DatabaseAugmentation(1, alpha=3.0), NearestNeighbors(n_neighbors=3)).fit(gallery)
    neighbors = pipeline[-1].kneighbors(pipeline[:-1].transform(query), return_distance=False)
    assert sorted(neighbors[0, :2].tolist()) == [0, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_read_only_and_persistence(tmp_path, dtype):
    X = descriptors(dtype=dtype)
    before = X.copy()
    X.flags.writeable = False
    augmentation = clone(DatabaseAugmentation(3, alpha=2.0)).fit(X)
    Z = augmentation.transform(X)
    assert Z.dtype == dtype
    np.testing.assert_array_equal(X, before)
    np.testing.assert_allclose(np.linalg.norm(Z, axis=1), 1, atol=1e-6)
    joblib.dump(augmentation, tmp_path / "augmentation.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "augmentation.joblib").transform(X), Z)


def test_the_database_is_a_copy():
    X = descriptors()
    augmentation = DatabaseAugmentation(3).fit(X)
    rows = X.copy()
    expected = augmentation.transform(rows)
    X[:] = 0
    np.testing.assert_array_equal(augmentation.transform(rows), expected)


def test_errors():
    for parameters in ({"n_neighbors": 0}, {"alpha": -1.0}, {"augment_queries": "no"}):
        with pytest.raises(ValueError, match=next(iter(parameters))):
            DatabaseAugmentation(**parameters).fit(descriptors())
    with pytest.raises(ValueError, match="contains NaN"):
        DatabaseAugmentation().fit(np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="X has 3 features, but DatabaseAugmentation is expecting 8"):
        DatabaseAugmentation().fit(descriptors()).transform(np.ones((2, 3)))
