"""Principal feature analysis against a loop over its definition."""

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans

from skretrieval.postprocessing import PrincipalFeatureSelector


def descriptors(n=60, D=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, D)) @ rng.normal(size=(D, D)) + rng.normal(size=D)


def reference(X, p, q, absolute=False, correlation=False, seed=0):
    """Eigenvectors of the covariance, k-means of their rows, the member nearest to each centre, the first of equals."""
    matrix = np.corrcoef(X.T) if correlation else np.cov(X.T)
    vectors = np.linalg.eigh(matrix)[1][:, ::-1][:, :q]
    V = np.abs(vectors) if absolute else vectors
    kmeans = KMeans(p, n_init=10, random_state=seed).fit(V)
    chosen = []
    for cluster in range(p):
        members = np.flatnonzero(kmeans.labels_ == cluster)
        center = kmeans.cluster_centers_[cluster]
        distances = [round(float(np.sum((V[i] - center) ** 2)), 9) for i in members]
        chosen.append(int(members[distances.index(min(distances))]))
    return sorted(chosen)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("p", "n_axes", "q"), [(5, None, 4), (5, 3, 3), (1, None, 1), (11, None, 10)])
def test_equals_the_definition(seed, p, n_axes, q):
    X = descriptors(seed=seed)
    selector = PrincipalFeatureSelector(p, n_axes=n_axes, random_state=seed).fit(X)
    assert selector.n_axes_ == q
    assert selector.selected_features_.tolist() == reference(X, p, q, seed=seed)
    np.testing.assert_array_equal(selector.transform(X), X[:, selector.selected_features_])


@pytest.mark.parametrize("options", [{"absolute": True}, {"use_correlation": True}])
def test_options(options):
    X = descriptors() * np.logspace(0, 1, 12)
    found = PrincipalFeatureSelector(5, random_state=0, **options).fit(X).selected_features_.tolist()
    expected = reference(X, 5, 4, options.get("absolute", False), options.get("use_correlation", False))
    assert found == expected
    assert found != PrincipalFeatureSelector(5, random_state=0).fit(X).selected_features_.tolist()


@pytest.mark.parametrize("n", [10, 60])
def test_one_feature_stands_for_each_group(n):
    """Four factors with five noisy copies each; one copy of each factor is kept, fewer or more rows than features."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(n, 4))
    group = rng.permutation(np.repeat(np.arange(4), 5))
    X = factors[:, group] + 0.01 * rng.normal(size=(n, 20))
    selector = PrincipalFeatureSelector(4, random_state=0).fit(X)
    assert sorted(group[selector.selected_features_]) == [0, 1, 2, 3]


def test_absolute_takes_a_feature_and_its_negative_together():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(80, 3))
    X = np.hstack([factors, -factors]) + 0.01 * rng.normal(size=(80, 6))
    selected = PrincipalFeatureSelector(3, n_axes=3, absolute=True, random_state=0).fit(X).selected_features_
    assert sorted(selected % 3) == [0, 1, 2]


def test_share_of_the_variance_sets_the_number_of_axes():
    X = descriptors(D=12)
    values = np.linalg.eigvalsh(np.cov(X.T))[::-1]
    explained = np.cumsum(values) / values.sum()
    for share in (0.5, 0.9):
        q = PrincipalFeatureSelector(4, n_axes=share, random_state=0).fit(X).n_axes_
        assert explained[q - 1] >= share > (explained[q - 2] if q > 1 else 0)


@pytest.mark.parametrize("n_axes", [12, 40, 1 - 1e-12])
def test_all_axes_are_refused(n_axes):
    with pytest.raises(ValueError, match="takes all 12 principal axes of 12 features"):
        PrincipalFeatureSelector(5, n_axes=n_axes).fit(descriptors())


def test_fewer_rows_than_features():
    X = descriptors(n=6, D=30)
    assert PrincipalFeatureSelector(10, random_state=0).fit(X).n_axes_ == 5
    with pytest.warns(UserWarning, match="n_axes=8 is more than the rank of the data"):
        assert PrincipalFeatureSelector(10, n_axes=8, random_state=0).fit(X).n_axes_ == 5


def test_duplicates_and_constants_still_give_distinct_features():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(50, 2)) * [1.0, 3.0]
    X = np.column_stack([factors[:, [0, 0, 0, 1, 1, 1]], np.full((50, 2), 0.1)])
    with pytest.warns(UserWarning, match="form only 3 clusters; the 2 other features"):
        selector = PrincipalFeatureSelector(5, random_state=0).fit(X)
    # Of equal features the first; then the copies of the feature with the highest variance.
    assert selector.selected_features_.tolist() == [0, 3, 4, 5, 6]


def test_as_many_features_as_there_are_is_the_identity():
    X = descriptors(D=6)
    for n_features in (6, 7, 768):
        selector = PrincipalFeatureSelector(n_features).fit(X)
        np.testing.assert_array_equal(selector.transform(X), X)
        assert selector.n_axes_ == 0


def test_selector_interface(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(descriptors(), columns=[f"channel{i}" for i in range(12)])
    selector = clone(PrincipalFeatureSelector(5, random_state=0)).set_output(transform="pandas").fit(frame)
    support = selector.get_support()
    assert support.sum() == 5
    np.testing.assert_array_equal(selector.get_support(indices=True), selector.selected_features_)
    Z = selector.transform(frame)
    pd.testing.assert_frame_equal(Z, frame.loc[:, support])
    assert list(selector.get_feature_names_out()) == list(Z.columns)
    back = selector.inverse_transform(Z.to_numpy())
    np.testing.assert_array_equal(back[:, support], Z)
    assert not back[:, ~support].any()
    joblib.dump(selector, tmp_path / "selector.joblib")
    pd.testing.assert_frame_equal(joblib.load(tmp_path / "selector.joblib").transform(frame), Z)


def test_float32_selects_the_same():
    X = descriptors()
    selector = PrincipalFeatureSelector(5, random_state=0).fit(X.astype(np.float32))
    assert selector.transform(X.astype(np.float32)).dtype == np.float32
    assert selector.selected_features_.tolist() == reference(X, 5, 4)


def test_errors():
    with pytest.raises(ValueError, match="All 9 descriptors are equal"):
        PrincipalFeatureSelector(2).fit(np.full((9, 4), 0.1))
    with pytest.raises(ValueError, match="contains NaN"):
        PrincipalFeatureSelector(2).fit(np.full((9, 4), np.nan))
    for parameters in ({"n_features": 0}, {"n_axes": 0}, {"n_axes": 1.5}, {"n_init": 0}, {"absolute": "yes"}):
        with pytest.raises(ValueError, match=next(iter(parameters))):
            PrincipalFeatureSelector(**parameters).fit(descriptors())
