"""Learned whitening against scatters summed pair by pair in float64."""

from itertools import combinations

import joblib
import numpy as np
import pytest
from scipy import linalg
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from skretrieval._linalg import l2_normalize
from skretrieval.postprocessing import LearnedWhitening
from skretrieval.postprocessing._learned_whitening import _regularized, pair_scatter, same_label_scatter


def labelled(n_classes=8, n_features=5, seed=0, shuffle=True):
    """Classes of 1 to 6 rows with a correlated spread, and three rows without a label."""
    rng = np.random.default_rng(seed)
    sizes = [1, 2, 3, 4, 5, 6, 1, 2, 9, 7][:n_classes]
    y = np.repeat(np.arange(10, 10 + n_classes), sizes)
    spread = rng.normal(size=(n_features, n_features))
    X = (
        rng.normal(size=(n_classes, n_features))[y - 10] * 3
        + 0.5 * rng.normal(size=(len(y), n_features)) @ spread
    )
    X = np.vstack([X, rng.normal(size=(3, n_features)) * 3]) + rng.normal(size=n_features)
    y = np.append(y, [-1, -1, -1])
    order = rng.permutation(len(y)) if shuffle else np.arange(len(y))
    return X[order], y[order]


def scatters(X, y):
    """C_S and C_D as the definition has them, over unordered pairs."""
    same = np.zeros((X.shape[1], X.shape[1]))
    different = np.zeros_like(same)
    for i, j in combinations(range(len(X)), 2):
        outer = np.outer(X[i] - X[j], X[i] - X[j])
        if y[i] == y[j] and y[i] != -1:
            same += outer
        else:
            different += outer
    return same, different


def reference_axes(same, different):
    """``C_S^(-1/2) eig(C_S^(-1/2) C_D C_S^(-1/2))``, descending, in columns."""
    root = linalg.inv(linalg.sqrtm(same).real)
    values, vectors = np.linalg.eigh(root @ different @ root)
    P = root @ vectors[:, ::-1]
    return P * np.sign(P[np.abs(P).argmax(axis=0), np.arange(P.shape[1])]), values[::-1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_features", [1, 2, 5])
def test_closed_form_scatters(seed, n_features):
    X, y = labelled(seed=seed, n_features=n_features)
    same, different = scatters(X, y)
    found = same_label_scatter(X, y)
    np.testing.assert_allclose(found, same, rtol=1e-12, atol=1e-11)
    mean = X.mean(axis=0)
    np.testing.assert_allclose(len(X) * (X - mean).T @ (X - mean) - found, different, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_axes_for_labels(seed):
    X, y = labelled(seed=seed)
    whitening = LearnedWhitening().fit(X, y)
    same, different = scatters(X, y)
    P, values = reference_axes(same, different)
    np.testing.assert_allclose(whitening.components_.T, P, rtol=1e-7, atol=1e-9)
    # The eigenvalues of T and of C_D differ by exactly one.
    np.testing.assert_allclose(whitening.eigenvalues_ - 1, values, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whitening.components_ @ same @ whitening.components_.T, np.eye(5), atol=1e-9)
    np.testing.assert_allclose(whitening.mean_, X.mean(axis=0))
    assert whitening.regularization_ == 0
    np.testing.assert_allclose(whitening.transform(X), (X - X.mean(axis=0)) @ P, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("n_components", [1, 3, 5])
def test_fewer_components_are_the_most_discriminative(n_components):
    X, y = labelled()
    Z = LearnedWhitening(n_components).fit_transform(X, y)
    assert Z.shape == (len(X), n_components)
    np.testing.assert_allclose(Z, LearnedWhitening().fit_transform(X, y)[:, :n_components], atol=1e-10)


def test_singletons_and_unlabelled_rows_enter_the_total_only():
    X, y = labelled(shuffle=False)
    alone = np.array([np.sum(y == label) == 1 for label in y]) & (y != -1)
    assert alone.sum() == 2
    relabelled = np.where(alone, -1, y)
    np.testing.assert_array_equal(same_label_scatter(X, y), same_label_scatter(X, relabelled))
    whitening = LearnedWhitening().fit(X, y)
    np.testing.assert_array_equal(LearnedWhitening().fit(X, relabelled).components_, whitening.components_)
    without = LearnedWhitening().fit(X[~alone & (y != -1)], y[~alone & (y != -1)])
    assert np.abs(without.components_ - whitening.components_).max() > 1e-3


def test_string_labels():
    X, y = labelled()
    names = np.array([f"object {label}" for label in y])
    known = y != -1
    np.testing.assert_array_equal(
        LearnedWhitening().fit(X[known], names[known]).components_,
        LearnedWhitening().fit(X[known], y[known]).components_,
    )
    objects = np.array(names[known], dtype=object)
    np.testing.assert_array_equal(
        LearnedWhitening().fit(X[known], objects).components_,
        LearnedWhitening().fit(X[known], y[known]).components_,
    )


def random_pairs(n, n_pairs=40, seed=0):
    rng = np.random.default_rng(seed)
    q = rng.integers(0, n, n_pairs)
    return q, (q + rng.integers(1, n, n_pairs)) % n


def test_axes_for_pairs():
    """Each pair counts once; the total scatter is about the mean of the query rows."""
    X, _ = labelled()
    q, p = random_pairs(len(X))
    whitening = LearnedWhitening().fit(X, pairs=(q, p))
    same = sum(np.outer(X[i] - X[j], X[i] - X[j]) for i, j in zip(q, p, strict=True))
    center = sum(X[i] for i in q) / len(q)
    total = sum(np.outer(x - center, x - center) for x in X)
    P, values = reference_axes(same, total)
    np.testing.assert_allclose(pair_scatter(X, q, p), same, rtol=1e-12)
    np.testing.assert_allclose(whitening.mean_, center, rtol=1e-12)
    np.testing.assert_allclose(whitening.components_.T, P, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(whitening.eigenvalues_, values, rtol=1e-9)
    assert whitening.regularization_ == 0
    # The order within a pair matters for the mean only.
    assert not np.allclose(LearnedWhitening().fit(X, pairs=(p, q)).mean_, center)


def test_pairs_take_precedence_over_labels_in_a_pipeline():
    X, y = labelled()
    pairs = random_pairs(len(X))
    pipeline = make_pipeline(Normalizer(), LearnedWhitening(), Normalizer())
    Z = pipeline.fit_transform(X, y, learnedwhitening__pairs=pairs)
    unit = l2_normalize(X)
    np.testing.assert_allclose(
        Z, l2_normalize(LearnedWhitening().fit(unit, pairs=pairs).transform(unit)), atol=1e-12
    )


@pytest.mark.parametrize("n_features", [40, 200])
def test_no_axis_without_variance(n_features):
    """With fewer rows than features only the directions of the rows are used: no noise, no ridge direction."""
    X, y = labelled(n_classes=10, n_features=n_features)
    rank = min(len(X) - 1, n_features)
    with pytest.warns(UserWarning, match="scatter of the same-label pairs is singular; a ridge of 1e-10"):
        whitening = LearnedWhitening().fit(X, y)
    assert whitening.n_components_ == rank
    assert whitening.regularization_ == 1e-10
    same, _different = scatters(X, y)
    ridge = 1e-10 * np.trace(same) / n_features
    np.testing.assert_allclose(
        whitening.components_ @ same @ whitening.components_.T
        + ridge * whitening.components_ @ whitening.components_.T,
        np.eye(rank),
        atol=1e-4,
    )
    mean = X.mean(axis=0)
    outside = np.linalg.svd(X - mean)[2][rank:] if n_features > rank else np.zeros((0, n_features))
    np.testing.assert_allclose(
        whitening.components_ @ outside.T, 0, atol=1e-6 * np.abs(whitening.components_).max()
    )
    assert np.all(np.isfinite(whitening.transform(X)))
    with (
        pytest.warns(UserWarning, match="ridge"),
        pytest.warns(UserWarning, match=f"n_components={n_features + 1} exceeds the rank {rank}"),
    ):
        assert LearnedWhitening(n_features + 1).fit(X, y).n_components_ == rank


def test_rank_deficient_rows_without_a_ridge():
    """A missing direction of the data is dropped, not filled by the ridge."""
    X, y = labelled(n_classes=10, n_features=4)
    lifted = X @ np.random.default_rng(0).normal(size=(4, 9))
    whitening = LearnedWhitening().fit(lifted, y)
    assert whitening.n_components_ == 4
    assert whitening.regularization_ == 0
    # An invertible map of the data leaves the whitened coordinates as they are.
    expected = LearnedWhitening().fit_transform(X, y)
    found = whitening.transform(lifted)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-6, atol=1e-7)


def test_ridge_is_relative_to_the_scale():
    X, y = labelled(n_classes=6, n_features=30)
    with pytest.warns(UserWarning, match="ridge"):
        small = LearnedWhitening().fit(X * 1e-6, y)
    with pytest.warns(UserWarning, match="ridge"):
        large = LearnedWhitening().fit(X * 1e6, y)
    assert small.regularization_ == large.regularization_ == 1e-10
    np.testing.assert_allclose(
        l2_normalize(small.transform(X * 1e-6)), l2_normalize(large.transform(X * 1e6)), atol=1e-4
    )


def test_it_separates_objects_better_than_the_raw_descriptors():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(30), 4)
    nuisance = rng.normal(size=(2, 20)) * 5
    X = rng.normal(size=(30, 20))[y] + rng.normal(size=(120, 2)) @ nuisance + 0.1 * rng.normal(size=(120, 20))

    def nearest_is_same(Z, y):
        S = l2_normalize(Z) @ l2_normalize(Z).T
        np.fill_diagonal(S, -2)
        return np.mean(y[S.argmax(axis=1)] == y)

    train, test = slice(0, 60), slice(60, 120)
    whitening = LearnedWhitening().fit(X[train], y[train])
    assert nearest_is_same(X[test], y[test]) < 0.5
    assert nearest_is_same(whitening.transform(X[test]), y[test]) > 0.9


def test_float32_and_read_only():
    X, y = labelled()
    X32 = X.astype(np.float32)
    X32.flags.writeable = False
    whitening = LearnedWhitening().fit(X32, y)
    Z = whitening.transform(X32)
    assert Z.dtype == np.float32
    assert whitening.components_.dtype == np.float32
    np.testing.assert_allclose(
        l2_normalize(Z), l2_normalize(LearnedWhitening().fit_transform(X, y)), atol=2e-4
    )


def test_errors_of_labels():
    X, y = labelled()
    with pytest.raises(ValueError, match="requires y to be passed"):
        LearnedWhitening().fit(X)
    for labels in (np.arange(len(X)), np.full(len(X), -1)):
        with pytest.raises(ValueError, match="No two samples share a label"):
            LearnedWhitening().fit(X, labels)
    with pytest.raises(ValueError, match="y is continuous"):
        LearnedWhitening().fit(X, y + 0.5)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LearnedWhitening().fit(X, y[:-1])
    with pytest.raises(ValueError, match=r"all descriptors are equal .*n_samples=4"):
        LearnedWhitening().fit(np.full((4, 3), 0.1), [0, 0, 1, 1])
    duplicates = np.repeat(X[:4], 3, axis=0)
    with pytest.raises(ValueError, match="two descriptors of every same-label pair are equal"):
        LearnedWhitening().fit(duplicates, np.repeat(np.arange(4), 3))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (([0, 1], [1]), r"equal length, got shapes \(2,\) and \(1,\)"),
        (([[0, 1]], [[1, 2]]), "two 1-D index arrays"),
        (([], []), "is empty"),
        (([0.0], [1.0]), "integer indices of rows of X, got dtype float64"),
        (([True, False], [False, True]), "got dtype bool"),
        (([0, 3], [1, 99]), r"pairs\[1\] points at row 99, but X has rows 0 to 31"),
        (([0, -1], [1, 2]), r"pairs\[1\] points at row -1"),
        (([0, 4], [1, 4]), r"pairs\[1\] joins row 4 with itself"),
        (([0], [1], [2]), "got 3 of them"),
    ],
)
def test_errors_of_pairs(pairs, message):
    X, _ = labelled(n_classes=9)
    X = X[:32]
    with pytest.raises(ValueError, match=message):
        LearnedWhitening().fit(X, pairs=pairs)


def test_pandas_output_names_and_persistence(tmp_path):
    pytest.importorskip("pandas")
    X, y = labelled()
    whitening = clone(LearnedWhitening(2)).set_output(transform="pandas").fit(X, y)
    Z = whitening.transform(X)
    assert list(Z.columns) == ["learnedwhitening0", "learnedwhitening1"]
    joblib.dump(whitening, tmp_path / "whitening.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "whitening.joblib").transform(X), Z)


def test_singular_scatters_that_cholesky_accepts_get_a_ridge():
    """Pivots made of rounding errors pass a factorisation; the condition number tells."""
    accepted = 0
    for seed in range(50):
        rows = np.random.default_rng(seed).normal(size=(5, 6))
        scatter = rows.T @ rows
        accepted += linalg.lapack.dpotrf(scatter, lower=1)[1] == 0
        with pytest.warns(UserWarning, match="ridge"):
            regular, ridge = _regularized(scatter, 6)
        assert ridge == 1e-10
        np.testing.assert_allclose(regular, scatter + 1e-10 * np.trace(scatter) / 6 * np.eye(6), rtol=1e-12)
    assert accepted > 5
