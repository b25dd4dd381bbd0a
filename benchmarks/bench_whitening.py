"""Whitening and selection: fits against bare linear algebra and scikit-learn, transforms against the product.

Descriptors are float32, of unit length, with a spectrum that falls. 8256 = 128 * 129 / 2 is the length of a regional
second-order descriptor. With fewer rows than features the bare form works on the Gram matrix, otherwise on the
covariance, as the package does; like the package it accumulates in float64, scikit-learn in float32.
"""

from functools import lru_cache

import numpy as np
import pytest
from scipy import linalg
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from skretrieval.postprocessing import LearnedWhitening, PCAWhitening, PrincipalFeatureSelector

slow = pytest.mark.slow
SIZES = [(100, 128), (10_000, 128), (400, 512), (10_000, 512), (1_000, 2048), (8_000, 2048), (2_000, 8256)]
LARGEST = (10_000, 8256)
IMAGES_PER_OBJECT = 4


@lru_cache(maxsize=1)
def make_descriptors(n, n_features):
    rng = np.random.default_rng(0)
    scale = (1 + np.arange(n_features, dtype=np.float32)) ** -0.5
    objects = rng.standard_normal((n // IMAGES_PER_OBJECT, n_features), dtype=np.float32)
    objects = np.repeat(objects, IMAGES_PER_OBJECT, axis=0)
    X = (objects + rng.standard_normal((n, n_features), dtype=np.float32)) * rng.permutation(scale)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def size_of(X):
    return f"{X.shape[0]} x {X.shape[1]}"


def fits(*, largest=True):
    """Parameters (n, d) of a test of fits."""
    sizes = [*SIZES, LARGEST] if largest else SIZES
    return pytest.mark.parametrize(
        ("n", "d"), [pytest.param(n, d, marks=[slow] * (d > 2048)) for n, d in sizes]
    )


def effort(X):
    """Rounds, and whether there are calls before: what takes a minute is called once."""
    return {"warm": min(X.shape) < 2_000, "rounds": 1 if min(X.shape) >= 2_000 else 3}


# ---------------------------------------------------------------------------------------------------------------------
# The bare linear algebra


def scatter_about(X, mean):
    centered = X - mean
    return centered.T @ centered


def bare_whitening(X):
    """Axes over the standard deviations along them: no check, no rank, no order, no sign."""
    mean = X.mean(axis=0, dtype=np.float64)
    if len(X) >= X.shape[1]:
        values, vectors = linalg.eigh(scatter_about(X, mean), driver="evd", overwrite_a=True)
        return (vectors / np.sqrt(np.maximum(values, 1e-12))).T
    centered = X - mean
    values, vectors = linalg.eigh(centered @ centered.T, driver="evd", overwrite_a=True)
    return (vectors / np.maximum(values, 1e-12)).T @ centered


def bare_learned_whitening(X, same_rows, mean):
    """Two scatters and LAPACK's generalised eigenproblem, which needs that of same-label differences to be regular."""
    if (
        len(X) < X.shape[1]
    ):  # neither is: in the coordinates along the axes of the Gram matrix, and with a ridge
        axes = bare_whitening(X)[1:]
        X, same_rows, mean = X @ axes.T, same_rows @ axes.T, axes @ mean
    total, same = scatter_about(X, mean), same_rows.T @ same_rows
    if len(same_rows) < 2 * len(same):
        same += 1e-8 * np.trace(same) * np.eye(len(same))
    return linalg.eigh(total, same, overwrite_a=True, overwrite_b=True)[1].T[::-1]


def about_their_object(X):
    """Differences to the mean of the object, float64; its scatter is that of all pairs of one label, up to a factor."""
    objects = X.reshape(-1, IMAGES_PER_OBJECT, X.shape[1]).astype(np.float64)
    return (objects - objects.mean(axis=1, keepdims=True)).reshape(X.shape)


def bare_selection(X, n_features):
    """scikit-learn's axes and its k-means of the loadings."""
    loadings = PCA(n_features - 1, svd_solver="full").fit(X).components_.T
    return KMeans(n_features, n_init=10, random_state=0).fit(loadings)


# ---------------------------------------------------------------------------------------------------------------------
# Fits


@fits()
def test_pca_whitening(against, n, d):
    X = make_descriptors(n, d)
    against(
        lambda: PCAWhitening().fit(X),
        lambda: bare_whitening(X),
        table="Whitening: PCA, fits",
        row=size_of(X),
        column="all axes",
        to="bare product and eigendecomposition",
        **effort(X),
    )


@fits(largest=False)
@pytest.mark.filterwarnings("ignore:The scatter of the same-label pairs is singular")
@pytest.mark.parametrize("by", ["labels", "pairs"])
def test_learned_whitening(against, n, d, by):
    X = make_descriptors(n, d)
    if by == "labels":
        options = {"y": np.arange(n) // IMAGES_PER_OBJECT}

        def bare():
            return bare_learned_whitening(X, about_their_object(X), X.mean(axis=0, dtype=np.float64))
    else:
        # every image with the next one of its object
        queries = np.flatnonzero(np.arange(n) % IMAGES_PER_OBJECT < IMAGES_PER_OBJECT - 1)
        options = {"pairs": (queries, queries + 1)}

        def bare():
            differences = X[queries].astype(np.float64) - X[queries + 1]
            return bare_learned_whitening(X, differences, X[queries].mean(axis=0, dtype=np.float64))

    if n > 3 * d:  # without a ridge, which is not the same one
        first, expected = LearnedWhitening(5).fit(X, **options).components_, bare()[:5]
        cosines = np.abs(np.sum(first * expected, axis=1)) / np.linalg.norm(expected, axis=1)
        np.testing.assert_allclose(cosines, np.linalg.norm(first, axis=1), rtol=1e-3)
    against(
        lambda: LearnedWhitening().fit(X, **options),
        bare,
        table="Whitening: learned, fits",
        row=size_of(X),
        column=by,
        to="bare products and generalised eigendecomposition",
        note="finds the rank first: one more eigendecomposition, and a projection" if n > d else "",
        **effort(X),
    )


@fits(largest=False)
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_pca_against_scikit_learn(against, n, d, share):
    X = make_descriptors(n, d)
    n_components = None if share == 1 else int(share * min(n, d))
    solver = PCA(n_components, whiten=True, random_state=0).fit(X)._fit_svd_solver
    against(
        lambda: PCAWhitening(n_components).fit(X),
        lambda: PCA(n_components, whiten=True, random_state=0).fit(X),
        table="Whitening: PCA, fits against scikit-learn",
        row=size_of(X),
        column="all axes" if share == 1 else "a quarter of the axes",
        to="PCA(whiten=True)",
        note=f"scikit-learn's choice: {solver}, in float32" + ", approximate" * (solver == "randomized"),
        **effort(X),
    )


@pytest.mark.parametrize(("n", "d"), [(1_000, 128), (400, 512), (2_000, 512), (1_000, 2048)])
def test_selector(against, n, d):
    X = make_descriptors(n, d)
    against(
        lambda: PrincipalFeatureSelector(d // 4, random_state=0).fit(X),
        lambda: bare_selection(X, d // 4),
        table="Selection: fits, a quarter of the features",
        row=size_of(X),
        column="PrincipalFeatureSelector",
        to="scikit-learn's PCA and k-means",
        rounds=1,
        seconds=2.0,
        warm=d < 2048,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Transforms


@pytest.mark.parametrize("kind", ["PCAWhitening", "LearnedWhitening", "scikit-learn's PCA"])
@pytest.mark.parametrize(("n", "d"), [(10_000, 128), (10_000, 512), (8_000, 2048)])
def test_transform(against, n, d, kind):
    X = make_descriptors(n, d)
    some = X[: 2 * d]
    if kind == "LearnedWhitening":
        model = LearnedWhitening().fit(some, np.arange(len(some)) // IMAGES_PER_OBJECT)
    else:
        model = PCAWhitening().fit(some) if kind == "PCAWhitening" else PCA(whiten=True).fit(some)
    axes = model.components_
    if kind != "LearnedWhitening":
        axes = axes / np.sqrt(model.explained_variance_)[:, None]
    np.testing.assert_allclose(model.transform(some), (some - model.mean_) @ axes.T, rtol=1e-3, atol=1e-2)
    against(
        lambda: model.transform(X),
        lambda: (X - model.mean_) @ axes.T,
        table="Whitening: transforms",
        row=size_of(X),
        column=kind,
        to="bare difference and product",
    )


@pytest.mark.parametrize(("n", "d"), [(10_000, 512), (8_000, 2048)])
def test_selector_transform(against, n, d):
    X = make_descriptors(n, d)
    selector = PrincipalFeatureSelector(d // 4, n_init=1, random_state=0).fit(X[: 2 * d])
    chosen = selector.selected_features_
    np.testing.assert_array_equal(selector.transform(X), X[:, chosen])
    against(
        lambda: selector.transform(X),
        lambda: X[:, chosen],
        table="Selection: transforms",
        row=size_of(X),
        column="PrincipalFeatureSelector",
        to="X[:, selected]",
    )
