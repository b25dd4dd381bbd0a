"""Whitening by a shrunk spectrum, against scikit-learn, and the warning for few rows."""

import warnings

import joblib
import numpy as np
import pytest
from scipy import linalg
from sklearn.covariance import ledoit_wolf_shrinkage, shrunk_covariance
from sklearn.metrics.pairwise import euclidean_distances

from skretrieval._linalg import l2_normalize, shrinkage_for_size
from skretrieval.metrics import leave_one_out_map
from skretrieval.pooling import RegionIntegrationPooler, RMACPooler
from skretrieval.postprocessing import LearnedWhitening, PCAWhitening, WhiteningWarning
from skretrieval.retrieval import NearestNeighborsRetriever

SHAPES = [(80, 12), (13, 12), (12, 12), (9, 30), (300, 7)]


def descriptors(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_auto_is_the_coefficient_of_ledoit_and_wolf(n, d, dtype):
    X = descriptors(n, d).astype(dtype)
    expected = ledoit_wolf_shrinkage(X.astype(np.float64))
    assert PCAWhitening(shrinkage="auto").fit(X).shrinkage_ == pytest.approx(expected, rel=1e-7)
    assert PCAWhitening(3, shrinkage="auto").fit(X).shrinkage_ == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("shrinkage", [0.1, 0.7, 1.0, "auto", "size"])
@pytest.mark.parametrize("power", [0.5, 0.25])
def test_rows_are_multiplied_by_a_power_of_the_covariance(n, d, shrinkage, power):
    X, X_new = descriptors(n, d), descriptors(5, d, seed=1)
    whitening = PCAWhitening(shrinkage=shrinkage, power=power).fit(X)
    covariance = shrunk_covariance(np.cov(X.T), shrinkage=whitening.shrinkage_)
    values, vectors = linalg.eigh(covariance)
    mean = X.mean(axis=0) * (n / (n + 10) if shrinkage == "size" else 1)
    expected = (X_new - mean) @ (vectors * values**-power) @ vectors.T
    found = whitening.transform(X_new)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert whitening.n_components_ == d == len(whitening.get_feature_names_out())
    np.testing.assert_allclose(whitening.inverse_transform(found), X_new, rtol=1e-6, atol=1e-7)
    single = whitening.transform(X_new.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-2, atol=1e-3)


def test_region_sets_are_whitened_as_their_rows():
    sets = [descriptors(3, 6, seed=i) for i in range(5)]
    whitening = PCAWhitening(shrinkage="size").fit(sets)
    np.testing.assert_array_equal(
        whitening.components_, PCAWhitening(shrinkage="size").fit(np.concatenate(sets)).components_
    )
    for found, rows in zip(whitening.transform(sets), sets, strict=True):
        np.testing.assert_allclose(found, whitening.transform(rows))


def test_shrunk_axes_can_be_cut():
    X = descriptors(40, 8)
    found = PCAWhitening(3, shrinkage=0.4).fit(X)
    values = np.linalg.eigvalsh(shrunk_covariance(np.cov(X.T), shrinkage=0.4))[::-1]
    np.testing.assert_allclose(found.shrunk_variance_, values[:3])
    np.testing.assert_allclose(
        found.transform(X), (X - found.mean_) @ found.components_.T / np.sqrt(values[:3])
    )
    np.testing.assert_allclose(
        found.transform(found.inverse_transform(found.transform(X))), found.transform(X)
    )


def test_one_axis_for_eight_rows_where_nothing_is_shrunk():
    X = descriptors(80, 60)
    assert PCAWhitening("auto").fit(X).n_components_ == 10
    assert PCAWhitening("auto").fit(X[:5]).n_components_ == 1
    assert PCAWhitening("auto", shrinkage="size").fit(X).n_components_ == 60


def test_few_rows_end_at_equal_distances_and_are_told():
    X = l2_normalize(descriptors(20, 64))
    with pytest.warns(
        WhiteningWarning, match=r"learned from 20 rows, and whitens 19 axes of 64 features"
    ) as told:
        Z = PCAWhitening().fit_transform(X)
    assert "equally far from one another" in str(told[0].message)
    distances = euclidean_distances(Z)[np.triu_indices(20, 1)]
    np.testing.assert_allclose(distances, distances[0])  # the hazard is real
    kept = PCAWhitening(shrinkage="size").fit_transform(X)
    assert np.ptp(euclidean_distances(kept)[np.triu_indices(20, 1)]) > 0.2 * euclidean_distances(kept).max()


@pytest.mark.parametrize(
    ("whitening", "n", "warns"),
    [
        (PCAWhitening(), 159, True),
        (PCAWhitening(), 160, False),
        (PCAWhitening(7), 139, True),
        (PCAWhitening(7), 140, False),
        (PCAWhitening(power=0.25), 39, True),
        (PCAWhitening(power=0.25), 40, False),
        (PCAWhitening(power=0), 10, False),
        (PCAWhitening(shrinkage=0.5), 39, True),
        (PCAWhitening(shrinkage=0.5), 40, False),
        (PCAWhitening(7, shrinkage=0.5), 139, True),
        (PCAWhitening(1), 159, True),
        (PCAWhitening("auto"), 40, True),
    ],
)
def test_where_whitening_warns(whitening, n, warns):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        whitening.fit(descriptors(n, 8))
    assert any(issubclass(one.category, WhiteningWarning) for one in caught) == warns


@pytest.mark.parametrize("n", [2, 3, 30, 300, 3000])
def test_the_size_of_the_fit_never_warns(n):
    assert shrinkage_for_size(n, 8) == 80 / (80 + n)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PCAWhitening(shrinkage="size").fit(descriptors(n, 8))


def test_learned_whitening_and_poolers_warn_too():
    X, y = descriptors(40, 8), np.arange(40) // 4
    with pytest.warns(
        WhiteningWarning, match="LearnedWhitening was learned from 30 differences within objects"
    ):
        LearnedWhitening().fit(X, y)
    maps = np.abs(np.random.default_rng(0).normal(size=(6, 8, 9, 9)))
    for pooler in (RMACPooler(whiten=True), RegionIntegrationPooler()):
        with pytest.warns(WhiteningWarning, match=r"whiten=True was learned from \d+ regions of 6 image"):
            pooler.fit(maps)


def made(n, d=256, seed=0):
    """Objects of five photographs whose differences share the axes of the objects, as those of pooled maps do."""
    rng = np.random.default_rng(seed)
    labels, fall = np.arange(n) // 5, np.arange(1, d + 1) ** -0.7
    fall /= np.linalg.norm(fall)
    rows = (
        1 / np.sqrt(d)
        + 0.6 * (rng.normal(size=(n // 5, d)) * fall)[labels]
        + 0.4 * rng.normal(size=(n, d)) * fall
    )
    return l2_normalize(rows), labels


@pytest.mark.parametrize("n", [30, 100, 300])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_no_whitening_loses_a_search_without_a_warning(n, elsewhere):
    X, labels = made(n)
    learned = made(n, seed=1) if elsewhere else (X, labels)
    search = NearestNeighborsRetriever()
    plain, lost = leave_one_out_map(search, X, labels), []
    settings = [
        *(PCAWhitening(shrinkage=s) for s in (None, "size", "auto", 0.3, 0.6, 0.9)),
        *(PCAWhitening(k) for k in ("auto", 10, 40)),
        PCAWhitening(power=0.25),
        *([LearnedWhitening()] if elsewhere else []),
    ]
    for whitening in settings:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = leave_one_out_map(search, whitening.fit(*learned).transform(X), labels)
        told = any(issubclass(one.category, WhiteningWarning) for one in caught)
        lost.append(plain - found)
        assert told or plain - found <= 0.02, whitening
    assert max(lost) > 0.1  # else nothing was put to the test


def test_a_whitening_saved_without_shrinkage_still_works(tmp_path):
    X = descriptors(30, 5)
    old = PCAWhitening().fit(X)
    expected = old.transform(X)
    for name in ("shrinkage", "shrinkage_", "shrunk_variance_", "null_variance_", "_keeps_all"):
        del old.__dict__[name]
    joblib.dump(old, tmp_path / "old.joblib")
    again = joblib.load(tmp_path / "old.joblib")
    np.testing.assert_array_equal(again.transform(X), expected)
    assert again.shrinkage is None


def test_one_row_stays_as_it_is():
    """By the number of rows, whitening begins with nothing: neither an axis nor the mean is trusted."""
    row = descriptors(1, 8)
    whitening = PCAWhitening(shrinkage="size").fit(row)
    np.testing.assert_allclose(l2_normalize(whitening.transform(row)), l2_normalize(row), rtol=1e-6)
    np.testing.assert_allclose(whitening.inverse_transform(whitening.transform(row)), row, rtol=1e-6)
    assert whitening.components_.shape == (0, 8)
    equal = PCAWhitening(shrinkage="size").fit(np.repeat(row, 3, axis=0))
    np.testing.assert_allclose(equal.mean_, row[0] * 3 / 13, rtol=1e-6)
    for shrinkage in (None, "auto", 0.5):
        with pytest.raises(ValueError, match="minimum of 2"):
            PCAWhitening(shrinkage=shrinkage).fit(row)
    with pytest.raises(ValueError, match="minimum of 2"):
        PCAWhitening(1, shrinkage="size").fit(row)


def test_two_alike_stay_alike():
    """Without the mean of two rows one is the opposite of the other."""
    rows = np.abs(descriptors(1, 30)) + 0.01 * descriptors(2, 30)
    found = l2_normalize(PCAWhitening(shrinkage="size").fit_transform(rows))
    assert found[0] @ found[1] > 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        centred = l2_normalize(PCAWhitening(shrinkage=1.0).fit_transform(rows))
    assert centred[0] @ centred[1] < -0.9
