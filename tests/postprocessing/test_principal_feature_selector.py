"""Principal feature analysis against a loop over its definition."""

import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.metrics import euclidean_distances
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skretrieval.postprocessing import PrincipalFeatureSelector
from skretrieval.postprocessing import _principal_feature_selector as module
from skretrieval.retrieval import NearestNeighborsRetriever


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
    with pytest.warns(UserWarning, match="n_axes=8 exceeds the rank 5"):
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
    with pytest.raises(ValueError, match=r"n_axes=None: all descriptors are equal .*n_samples=9"):
        PrincipalFeatureSelector(2).fit(np.full((9, 4), 0.1))
    with pytest.raises(ValueError, match="contains NaN"):
        PrincipalFeatureSelector(2).fit(np.full((9, 4), np.nan))
    for parameters in ({"n_features": 0}, {"n_axes": 0}, {"n_axes": 1.5}, {"n_init": 0}, {"absolute": "yes"}):
        with pytest.raises(ValueError, match=next(iter(parameters))):
            PrincipalFeatureSelector(**parameters).fit(descriptors())


# ---------------------------------------------------------------------------------------------------------------------
# The seeds of k-means


def loadings(n=300, q=12):
    return np.linalg.qr(np.random.default_rng(2).normal(size=(n, q)))[0]


def test_seeds_are_those_of_greedy_kmeans_plus_plus():
    """A loop over the definition, with the same draws."""
    V = loadings(60, 4)
    seeds = module.greedy_seeds(euclidean_distances(V, squared=True), 9, np.random.RandomState(3))
    rng = np.random.RandomState(3)

    def squared(i, j):
        return float(((V[i] - V[j]) ** 2).sum())

    def drawn(masses):
        at, total = rng.random_sample() * sum(masses), 0.0
        for index, mass in enumerate(masses):
            total += mass
            if total >= at:
                return index
        raise AssertionError

    chosen = [drawn([1.0] * len(V))]
    while len(chosen) < 9:
        nearest = [min(squared(i, seed) for seed in chosen) for i in range(len(V))]
        candidates = [drawn(nearest) for _ in range(2 + int(np.log(9)))]
        costs = [sum(min(nearest[i], squared(i, c)) for i in range(len(V))) for c in candidates]
        chosen.append(candidates[costs.index(min(costs))])
    assert seeds.tolist() == chosen


def test_clusters_are_as_good_as_those_of_scikit_learn():
    V = loadings()
    own = [KMeans(40, init=module._seeding(V), n_init=1, random_state=seed).fit(V) for seed in range(8)]
    theirs = [KMeans(40, n_init=1, random_state=seed).fit(V) for seed in range(8)]
    assert np.isclose(np.mean([k.inertia_ for k in own]), np.mean([k.inertia_ for k in theirs]), rtol=0.02)
    assert len({k.inertia_ for k in own}) == 8  # the seeds follow the random state


def test_seeds_of_points_that_are_all_equal():
    seeds = module.greedy_seeds(np.zeros((5, 5)), 3, np.random.RandomState(0))
    assert ((seeds >= 0) & (seeds < 5)).all()


def test_too_many_features_for_a_table(monkeypatch):
    X = descriptors(D=30)
    expected = PrincipalFeatureSelector(8, random_state=0).fit(X).selected_features_
    monkeypatch.setattr(module, "_TABLE_BYTES", 8 * 30**2)
    assert callable(module._seeding(np.zeros((30, 3))))
    monkeypatch.setattr(module, "_TABLE_BYTES", 8 * 30**2 - 1)
    assert module._seeding(np.zeros((30, 3))) == "k-means++"
    assert PrincipalFeatureSelector(8, random_state=0).fit(X).selected_features_.tolist() == expected.tolist()


# ---------------------------------------------------------------------------------------------------------------------
# Region sets


def region_sets(n=40, D=12, seed=0, dtype=np.float64):
    """Sets of one to four descriptors; all but the first of each are of quite another kind."""
    rng = np.random.default_rng(seed)
    first = descriptors(n, D, seed)
    return [
        np.vstack([row, 100 * rng.normal(size=(rng.integers(0, 4), D)) ** 3]).astype(dtype) for row in first
    ]


@pytest.mark.parametrize("options", [{}, {"absolute": True}, {"use_correlation": True}, {"n_axes": 0.9}])
def test_the_first_descriptor_of_each_set_decides(options):
    sets = region_sets()
    selector = PrincipalFeatureSelector(5, random_state=0, **options).fit(sets)
    alone = PrincipalFeatureSelector(5, random_state=0, **options).fit(descriptors(40))
    assert selector.selected_features_.tolist() == alone.selected_features_.tolist()
    assert selector.n_features_in_ == 12
    everything = PrincipalFeatureSelector(5, random_state=0, **options).fit(np.vstack(sets))
    assert everything.selected_features_.tolist() != alone.selected_features_.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [list, tuple, "object"])
def test_region_sets_come_back_as_region_sets(dtype, kind):
    sets = region_sets(dtype=dtype)
    X = np.empty(len(sets), dtype=object) if kind == "object" else kind(sets)
    if kind == "object":
        X[:] = sets
    for own in sets:
        own.flags.writeable = False
    selector = PrincipalFeatureSelector(5, random_state=0)
    for Z in (selector.fit(X).transform(X), selector.fit_transform(X)):
        assert isinstance(Z, list)
        assert len(Z) == len(sets)
        for own, chosen in zip(sets, Z, strict=True):
            assert chosen.dtype == dtype
            np.testing.assert_array_equal(chosen, own[:, selector.selected_features_])
    back = selector.inverse_transform(Z)
    for own, again in zip(sets, back, strict=True):
        expected = np.zeros_like(own)
        expected[:, selector.selected_features_] = own[:, selector.selected_features_]
        np.testing.assert_array_equal(again, expected)
        assert again.dtype == dtype
    # fitted on sets, it takes tables, and the other way round
    np.testing.assert_array_equal(selector.transform(np.vstack(sets)), np.vstack(Z))
    table = PrincipalFeatureSelector(5, random_state=0).fit(np.vstack([own[:1] for own in sets]))
    np.testing.assert_array_equal(np.vstack(table.transform(X)), np.vstack(Z))


def test_all_features_of_region_sets():
    sets = region_sets()
    for own, same in zip(sets, PrincipalFeatureSelector().fit_transform(sets), strict=True):
        np.testing.assert_array_equal(own, same)


def test_containers_leave_region_sets_alone():
    pd = pytest.importorskip("pandas")
    sets = region_sets()
    selector = PrincipalFeatureSelector(5, random_state=0).set_output(transform="pandas")
    for Z in (selector.fit_transform(sets), selector.transform(sets)):
        assert isinstance(Z, list)
        assert isinstance(Z[0], np.ndarray)
    assert isinstance(selector.transform(np.vstack(sets)), pd.DataFrame)
    with config_context(transform_output="pandas"):
        assert isinstance(clone(selector).fit_transform(sets)[0], np.ndarray)


def test_region_sets_through_joblib_and_processes(tmp_path):
    sets = region_sets(400, 120)
    selector = PrincipalFeatureSelector(20, n_init=1, random_state=0).fit(sets)
    expected = selector.transform(sets)
    joblib.dump(selector, tmp_path / "selector.joblib")
    for own, again in zip(expected, joblib.load(tmp_path / "selector.joblib").transform(sets), strict=True):
        np.testing.assert_array_equal(own, again)
    y = np.arange(len(sets)) % 200
    model = make_pipeline(clone(selector), NearestNeighborsRetriever(10, metric="manhattan"))
    scores = [
        GridSearchCV(
            model,
            {"principalfeatureselector__n_features": [10, 20]},
            cv=2,
            n_jobs=n_jobs,
            error_score="raise",
        )
        .fit(sets, y)
        .cv_results_["mean_test_score"]
        for n_jobs in (None, 2)
    ]
    np.testing.assert_array_equal(*scores)


def test_bad_region_sets():
    sets = region_sets()
    selector = PrincipalFeatureSelector(5, random_state=0).fit(sets)
    broken = [own.copy() for own in sets]
    broken[7] = np.vstack([broken[7], np.full((1, 12), np.nan)])
    where = f"NaN in item 7, region {len(sets[7])}"
    for call in (selector.transform, selector.fit_transform, clone(selector).fit):
        with pytest.raises(ValueError, match=where):
            call(broken)
    cases = [
        ([*sets[:3], np.zeros((0, 12))], "Item 3 has 0 regions"),
        ([*sets[:3], np.zeros(12)], "Item 3: expected 2 dimensions"),
        ([*sets[:3], np.zeros((1, 11))], "Item 3 has 11 features"),
    ]
    for X, message in cases:
        for call in (selector.transform, clone(selector).fit):
            with pytest.raises(ValueError, match=message):
                call(X)
    with pytest.raises(
        ValueError, match="Item 0 has 5 features, but PrincipalFeatureSelector is expecting 12"
    ):
        selector.transform([own[:, :5] for own in sets])
    with pytest.raises(TypeError, match="Item 1 is sparse"):
        selector.transform([sets[0], sparse.csr_matrix(sets[1])])
    with pytest.raises(ValueError, match="different shape"):
        selector.inverse_transform(sets)
    with pytest.raises(ValueError, match="minimum of 2"):
        clone(selector).fit(sets[:1])
    with pytest.raises(ValueError, match="not fitted"):
        clone(selector).transform(sets)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_selection_equals_a_slow_reference_where_clusters_are_clear(seed, dtype):
    """Features in clear groups: k-means can only find these, and the rest of the method is written out in float64."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(5), 4))
    X = (rng.normal(size=(300, 5)) * [5, 4, 3, 2, 1])[:, groups] + 0.02 * rng.normal(size=(300, 20))
    X = X.astype(dtype)

    rows = X.astype(np.float64)
    centred = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / (len(rows) - 1))
    leading = vectors[:, np.argsort(values)[::-1][:4]]  # q = p - 1
    expected = []
    for group in range(5):
        members = np.flatnonzero(groups == group)
        centre = leading[members].mean(axis=0)
        apart = [np.sqrt(sum((leading[member] - centre) ** 2)) for member in members]
        expected.append(members[int(np.argmin(apart))])

    selector = PrincipalFeatureSelector(5, random_state=seed).fit(X)
    assert selector.get_support(indices=True).tolist() == sorted(expected)
