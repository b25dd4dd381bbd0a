"""Region sets through the steps between pooler and retriever: each descriptor as it would be in a table."""

import numpy as np
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, clone
from sklearn.pipeline import make_pipeline

from skretrieval._region_sets import OutputMixin
from skretrieval.postprocessing import DatabaseAugmentation, LearnedWhitening, PCAWhitening, PowerNormalizer
from skretrieval.retrieval import NearestNeighborsRetriever


def make_sets(dtype=np.float64, n=20, d=6):
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(m, d)).astype(dtype) for m in rng.integers(1, 5, size=n)]
    for item in sets:
        item.flags.writeable = False
    return sets


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [list, tuple, "object"])
@pytest.mark.parametrize(
    "step", [PCAWhitening(4), PCAWhitening(0.8, power=0.25, center=False), PowerNormalizer(0.7)]
)
def test_all_regions_are_rows(step, kind, dtype):
    sets = make_sets(dtype)
    X = np.empty(len(sets), dtype=object) if kind == "object" else kind(sets)
    if kind == "object":
        X[:] = sets
    table = clone(step).fit(np.vstack(sets))
    fitted = clone(step).fit(X)
    assert fitted.n_features_in_ == 6
    for Z in (fitted.transform(X), clone(step).fit_transform(X), table.transform(X)):
        assert isinstance(Z, list)
        assert [len(z) for z in Z] == [len(x) for x in sets]
        assert {z.dtype for z in Z} == {np.dtype(dtype)}
        np.testing.assert_array_equal(np.vstack(Z), table.transform(np.vstack(sets)))
    back = fitted.inverse_transform(Z)
    assert [len(z) for z in back] == [len(x) for x in sets]
    np.testing.assert_array_equal(np.vstack(back), fitted.inverse_transform(np.vstack(Z)))


@pytest.mark.parametrize("step", [PCAWhitening(), PowerNormalizer()])
def test_whole_numbers_become_floats(step):
    sets = [np.array([[1, 0], [4, 9]]), np.array([[2, 5]])]
    Z = clone(step).fit_transform(sets)
    np.testing.assert_array_equal(np.vstack(Z), clone(step).fit_transform(np.vstack(sets)))
    assert Z[0].dtype == np.float64


def test_learned_whitening_of_whole_images_whitens_their_regions():
    sets = make_sets()
    whole = np.stack([item.mean(axis=0) for item in sets])
    whitening = LearnedWhitening(3).fit(whole, np.arange(20) // 2)
    Z = whitening.transform(sets)
    np.testing.assert_array_equal(np.vstack(Z), whitening.transform(np.vstack(sets)))


@pytest.mark.parametrize("params", [{"y": np.arange(20) // 2}, {"pairs": ([0], [1])}])
def test_learned_whitening_says_what_it_learns_from(params):
    for method in (LearnedWhitening().fit, LearnedWhitening().fit_transform):
        with pytest.raises(
            ValueError, match=r"LearnedWhitening learns from one descriptor per image.*PCAWhitening"
        ):
            method(make_sets(), **params)


def test_database_augmentation_says_what_takes_region_sets():
    augmentation = DatabaseAugmentation()
    fitted = DatabaseAugmentation().fit(np.eye(6))
    for method in (augmentation.fit, augmentation.fit_transform, fitted.transform):
        with pytest.raises(
            ValueError, match=r"DatabaseAugmentation takes one descriptor per image.*QueryExpansion"
        ):
            method(make_sets())


@pytest.mark.parametrize("step", [PCAWhitening(), PowerNormalizer(), LearnedWhitening()])
def test_bad_sets_are_named(step):
    sets = make_sets()
    fitted = clone(step).fit(np.vstack([item[:1] for item in sets]), np.arange(20) // 2)
    broken = [item.copy() for item in sets]
    broken[7] = np.vstack([broken[7], np.full((1, 6), np.nan)])
    methods = [fitted.transform]
    if not isinstance(step, LearnedWhitening):
        methods += [clone(step).fit, clone(step).fit_transform]
    for method in methods:
        with pytest.raises(ValueError, match=f"NaN in item 7, region {len(sets[7])}"):
            method(broken)
        with pytest.raises(ValueError, match="Item 1 has 0 regions"):
            method([sets[0], sets[1][:0]])
        with pytest.raises(ValueError, match="Item 1 has 5 features"):
            method([sets[0], sets[1][:, :5]])
        with pytest.raises(TypeError, match="Item 0 is sparse"):
            method([sparse.csr_array(sets[0]), sets[1]])
    with pytest.raises(ValueError, match=f"{type(step).__name__} is expecting 6 features"):
        fitted.transform([item[:, :5] for item in sets])


def test_not_fitted_is_said_first():
    with pytest.raises(ValueError, match="not fitted"):
        PCAWhitening().transform(make_sets())
    # nothing is learned by a power
    np.testing.assert_array_equal(PowerNormalizer(1.0).transform(make_sets())[0], make_sets()[0])


@pytest.mark.parametrize("step", [PCAWhitening(3), PowerNormalizer()])
def test_containers_of_tables_only(step):
    pd = pytest.importorskip("pandas")
    sets = make_sets()
    step = clone(step).set_output(transform="pandas")
    table = pd.DataFrame(np.vstack(sets), columns=list("abcdef"))
    assert isinstance(step.fit_transform(sets)[0], np.ndarray)
    assert isinstance(step.fit_transform(table), pd.DataFrame)
    assert isinstance(step.transform(sets)[0], np.ndarray)


@pytest.mark.parametrize("step", [PCAWhitening(3), PowerNormalizer()])
def test_configured_containers_of_tables_only(step):
    pd = pytest.importorskip("pandas")
    sets = make_sets()
    table = pd.DataFrame(
        np.vstack(sets), columns=list("abcdef"), index=np.arange(100, 100 + len(np.vstack(sets)))
    )
    with config_context(transform_output="pandas"):
        assert isinstance(clone(step).fit_transform(sets)[0], np.ndarray)
        frame = clone(step).fit_transform(table)
    assert frame.columns.tolist() == clone(step).fit(table).get_feature_names_out().tolist()
    assert frame.index.equals(table.index)


class Chooser(OutputMixin, OneToOneFeatureMixin, BaseEstimator, auto_wrap_output_keys=None):
    """Gives what a parameter names, as a pooler does."""

    def __init__(self, sets=False):
        self.sets = sets

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return self._output(X, list(X[:, None]) if self.sets else X)


class DerivedChooser(Chooser):
    pass


def test_output_is_contained_if_it_is_a_table():
    pd = pytest.importorskip("pandas")
    X = np.ones((3, 2))
    chooser = DerivedChooser().set_output(transform="pandas")
    for Z in (chooser.fit_transform(X), chooser.transform(X)):
        assert isinstance(Z, pd.DataFrame)
    chooser.set_params(sets=True)
    for Z in (chooser.fit_transform(X), chooser.transform(X)):
        assert type(Z) is list
    assert type(chooser.set_params(sets=False).set_output(transform="default").transform(X)) is np.ndarray


def test_regions_whitened_in_a_pipeline():
    sets = make_sets()
    model = make_pipeline(PowerNormalizer(), PCAWhitening(), NearestNeighborsRetriever(5)).fit(sets)
    assert model.predict(sets)[:, 0].tolist() == list(range(20))
