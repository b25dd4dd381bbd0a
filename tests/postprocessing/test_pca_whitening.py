"""PCA-whitening against brute-force float64 references, and its rank."""

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from skretrieval._linalg import l2_normalize
from skretrieval.postprocessing import PCAWhitening

SHAPES = [(80, 12), (13, 12), (12, 12), (9, 30)]


def descriptors(n, D, seed=0, rank=None):
    """Rows of unit length of the given rank about their mean."""
    rng = np.random.default_rng(seed)
    rank = D if rank is None else rank
    return rng.normal(size=(n, rank)) @ rng.normal(size=(rank, D)) + rng.normal(size=D)


def reference(X, X_new, n_components, power):
    """Covariance by an explicit sum over rows, all its eigenpairs, projection of every new row."""
    mean = sum(X) / len(X)
    covariance = sum(np.outer(x - mean, x - mean) for x in X) / (len(X) - 1)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1][:n_components], vectors[:, ::-1][:, :n_components]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(n_components)])
    return np.array([values**-power * (vectors.T @ (x - mean)) for x in X_new])


@pytest.mark.parametrize(("n", "D"), SHAPES)
@pytest.mark.parametrize("power", [0.5, 0.25, 0.0, 1.0])
def test_equals_the_brute_force_reference(n, D, power):
    X, X_new = descriptors(n, D), descriptors(5, D, seed=1)
    whitening = PCAWhitening(power=power).fit(X)
    rank = min(n - 1, D)
    assert whitening.n_components_ == rank
    np.testing.assert_allclose(
        whitening.transform(X_new), reference(X, X_new, rank, power), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize(("n", "D"), SHAPES)
@pytest.mark.parametrize("wanted", [1, 5])
def test_fewer_components_are_the_first_ones(n, D, wanted):
    X = descriptors(n, D)
    Z = PCAWhitening(wanted).fit_transform(X)
    assert Z.shape == (n, wanted)
    np.testing.assert_allclose(Z, PCAWhitening().fit_transform(X)[:, :wanted], atol=1e-9)


@pytest.mark.parametrize(("n", "D"), SHAPES)
def test_whitened_training_data_have_identity_covariance(n, D):
    Z = PCAWhitening().fit_transform(descriptors(n, D))
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(np.cov(Z.T), np.eye(Z.shape[1]), atol=1e-9)


def test_equals_scikit_learn_on_data_of_full_rank():
    X = descriptors(60, 8)
    ours, theirs = PCAWhitening().fit(X), PCA(whiten=True).fit(X)
    np.testing.assert_allclose(np.abs(ours.transform(X)), np.abs(theirs.transform(X)), atol=1e-10)
    np.testing.assert_allclose(ours.explained_variance_, theirs.explained_variance_)
    np.testing.assert_allclose(ours.explained_variance_ratio_, theirs.explained_variance_ratio_)
    np.testing.assert_allclose(ours.mean_, theirs.mean_)


@pytest.mark.parametrize(("n", "D"), [(20, 20), (20, 64)])
def test_no_axis_without_variance_receives_the_energy_of_a_new_row(n, D):
    """n rows span n - 1 directions; scikit-learn keeps n, and a new row lands on the last one."""
    X, x = l2_normalize(descriptors(n, D)), l2_normalize(descriptors(1, D, seed=3))
    theirs = PCA(whiten=True).fit(X).transform(x)[0]
    assert theirs[-1] ** 2 > 0.999 * (theirs @ theirs)  # the hazard is real
    ours = PCAWhitening().fit(X)
    assert ours.n_components_ == n - 1
    z = ours.transform(x)[0]
    assert np.max(z**2) < 0.9 * (z @ z)


@pytest.mark.parametrize(("n", "D"), [(40, 12), (8, 30)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rank_deficient_rows(n, D, dtype):
    X = descriptors(n, D, rank=4).astype(dtype)
    assert PCAWhitening().fit(X).n_components_ == 4
    with pytest.warns(UserWarning, match=r"n_components=6 exceeds the rank 4 of the descriptors; 4 are kept"):
        whitening = PCAWhitening(6).fit(X)
    assert whitening.n_components_ == 4
    assert whitening.components_.shape == (4, D)
    np.testing.assert_allclose(np.cov(whitening.transform(X).T.astype(float)), np.eye(4), atol=1e-3)


def test_duplicates():
    X = descriptors(6, 10)
    whitening = PCAWhitening().fit(np.repeat(X, 4, axis=0))
    assert whitening.n_components_ == 5
    np.testing.assert_allclose(
        l2_normalize(whitening.transform(X)), l2_normalize(PCAWhitening().fit_transform(X)), atol=1e-8
    )


def test_constant_feature_is_ignored_and_constant_rows_are_refused():
    X = np.column_stack([descriptors(20, 3), np.full(20, 0.1)])
    whitening = PCAWhitening().fit(X)
    assert whitening.n_components_ == 3
    np.testing.assert_array_equal(whitening.components_[:, 3], 0)
    with pytest.raises(ValueError, match=r"all descriptors are equal .*n_samples=5"):
        PCAWhitening().fit(np.full((5, 3), 0.1))


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999999])
def test_share_of_the_variance(share):
    X = descriptors(50, 10)
    whitening = PCAWhitening(share).fit(X)
    ratio = PCA().fit(X).explained_variance_ratio_.cumsum()
    d = whitening.n_components_
    assert ratio[d - 1] >= share
    assert d == 1 or ratio[d - 2] < share
    np.testing.assert_allclose(whitening.explained_variance_ratio_.cumsum(), ratio[:d])


def test_without_centring():
    X = descriptors(40, 6)
    whitening = PCAWhitening(center=False).fit(X)
    np.testing.assert_array_equal(whitening.mean_, 0)
    Z = whitening.transform(X)
    np.testing.assert_allclose(Z.T @ Z / 39, np.eye(6), atol=1e-10)


def test_inverse_transform_is_exact_or_the_nearest_point():
    X = descriptors(40, 8)
    for power in (0.5, 0.25, 0.0):
        whitening = PCAWhitening(power=power).fit(X)
        np.testing.assert_allclose(whitening.inverse_transform(whitening.transform(X)), X, atol=1e-9)
    reduced = PCAWhitening(3).fit(X)
    back = reduced.inverse_transform(reduced.transform(X))
    np.testing.assert_allclose((X - back) @ reduced.components_.T, 0, atol=1e-9)
    np.testing.assert_allclose(reduced.transform(back), reduced.transform(X), atol=1e-9)
    with pytest.raises(ValueError, match="X has 4 columns, but there are n_components_=3"):
        reduced.inverse_transform(np.ones((2, 4)))


def test_rows_are_not_brought_to_unit_length():
    lengths = np.linalg.norm(PCAWhitening().fit_transform(descriptors(30, 5)), axis=1)
    assert lengths.std() > 0.1


@pytest.mark.parametrize(("n", "D"), [(300, 24), (20, 24)])
def test_float32_stays_float32_and_close_to_float64(n, D):
    X = l2_normalize(np.abs(descriptors(n, D)))
    X32 = X.astype(np.float32)
    X32.flags.writeable = False
    whitening = PCAWhitening().fit(X32)
    Z = whitening.transform(X32)
    assert Z.dtype == np.float32
    assert whitening.components_.dtype == np.float32
    assert whitening.transform(X).dtype == np.float64
    np.testing.assert_allclose(l2_normalize(Z), l2_normalize(PCAWhitening().fit_transform(X)), atol=2e-4)


@pytest.mark.parametrize(
    "parameters", [{"n_components": 0}, {"n_components": 1.5}, {"power": -1}, {"power": 2}, {"center": "yes"}]
)
def test_bad_parameters(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        PCAWhitening(**parameters).fit(descriptors(9, 3))


def test_bad_input():
    X = descriptors(9, 3)
    whitening = PCAWhitening().fit(X)
    with pytest.raises(ValueError, match="X has 2 features, but PCAWhitening is expecting 3"):
        whitening.transform(X[:, :2])
    with pytest.raises(ValueError, match="contains NaN"):
        whitening.transform(np.where(X[0, 0] == X, np.nan, X))
    with pytest.raises(ValueError, match="contains infinity"):
        PCAWhitening().fit(np.where(X[0, 0] == X, np.inf, X))
    with pytest.raises(ValueError, match="minimum of 2"):
        PCAWhitening().fit(X[:1])


def test_pandas_output_names_and_persistence(tmp_path):
    pytest.importorskip("pandas")
    X = descriptors(20, 4)
    whitening = clone(PCAWhitening(2)).set_output(transform="pandas").fit(X)
    Z = whitening.transform(X)
    assert list(Z.columns) == ["pcawhitening0", "pcawhitening1"] == list(whitening.get_feature_names_out())
    joblib.dump(whitening, tmp_path / "whitening.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "whitening.joblib").transform(X), Z)


def test_grid_search_over_a_pipeline():
    X = descriptors(60, 6)
    y = np.arange(60) % 3
    X[np.arange(60), y] += 5
    from sklearn.neighbors import KNeighborsClassifier

    pipeline = make_pipeline(Normalizer(), PCAWhitening(), Normalizer(), KNeighborsClassifier(3))
    search = GridSearchCV(
        pipeline,
        {"pcawhitening__n_components": [2, 0.9, None], "pcawhitening__power": [0.25, 0.5]},
        cv=3,
        n_jobs=2,
    ).fit(X, y)
    assert search.best_score_ > 0.5
    assert np.all(np.isfinite(search.cv_results_["mean_test_score"]))
