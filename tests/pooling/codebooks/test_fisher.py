"""Fisher vectors: they are what their name says, the gradient of the likelihood."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from references import codebooks as ref
from references.maps import make_map, make_ragged
from sklearn import config_context
from sklearn.mixture import GaussianMixture

from skretrieval.pooling import FisherVectorPooler
from skretrieval.pooling._codebooks._fisher import fisher_gradient


@pytest.fixture(scope="module")
def maps():
    return make_ragged(4, [(6, 7), (5, 5), (6, 7), (3, 9)], seed=100)


def log_likelihood(cells, weights, means, deviations):
    """Mean log-likelihood as scikit-learn computes it."""
    mixture = GaussianMixture(len(weights), covariance_type="diag")
    mixture.weights_, mixture.means_ = weights, means
    mixture.covariances_, mixture.precisions_cholesky_ = deviations**2, 1 / deviations
    return mixture.score(cells)


def test_gradient_of_the_likelihood(maps):
    """u and v are the derivatives by mean and deviation, times deviation / sqrt(w), / sqrt(2 w)."""
    pooler = FisherVectorPooler(3, n_local=None, power=1, random_state=0).fit(maps)
    weights, means, deviations = pooler.weights_, pooler.means_, np.sqrt(pooler.variances_)
    cells = np.array(ref.local_descriptors(maps[1]))
    tensors = [torch.from_numpy(values) for values in (weights, means, deviations**2)]
    valid = torch.ones(1, len(cells), dtype=torch.bool)
    u, v = fisher_gradient(torch.from_numpy(cells)[None], valid, *tensors)[0].numpy()
    step = 1e-6
    for k in range(3):
        for t in range(4):
            bump = np.zeros_like(means)
            bump[k, t] = step * deviations[k, t]
            by_mean = log_likelihood(cells, weights, means + bump, deviations)
            by_mean -= log_likelihood(cells, weights, means - bump, deviations)
            by_deviation = log_likelihood(cells, weights, means, deviations + bump)
            by_deviation -= log_likelihood(cells, weights, means, deviations - bump)
            assert_allclose(u[k, t], by_mean / (2 * step) / np.sqrt(weights[k]), rtol=1e-5, atol=1e-7)
            assert_allclose(
                v[k, t], by_deviation / (2 * step) / np.sqrt(2 * weights[k]), rtol=1e-5, atol=1e-7
            )
    together = np.concatenate([u.ravel(), v.ravel()])
    assert_allclose(pooler.transform(maps[1:2])[0], together / np.linalg.norm(together), rtol=1e-10)


def test_no_gradient_at_the_maximum(maps):
    """Over the descriptors that the mixture was fitted to, the likelihood is stationary."""
    shape = (4, 6, 7)
    feature_map = make_map(*shape, density=1.0)
    pooler = FisherVectorPooler(2, n_local=None, reg_covar=1e-12, max_iter=10_000, random_state=0)
    pooler.fit([feature_map])
    cells = torch.from_numpy(np.array(ref.local_descriptors(feature_map)))[None]
    tensors = [torch.from_numpy(values) for values in (pooler.weights_, pooler.means_, pooler.variances_)]
    valid = torch.ones(cells.shape[:2], dtype=torch.bool)
    at_fit = fisher_gradient(cells, valid, *tensors).abs().max()
    elsewhere = torch.from_numpy(np.array(ref.local_descriptors(make_map(*shape, seed=3, density=1.0))))[None]
    assert at_fit < 0.05 * fisher_gradient(elsewhere, valid, *tensors).abs().max()


def test_number_of_cells_does_not_matter(maps):
    """The gradient is that of the mean likelihood: a map twice over has the same."""
    pooler = FisherVectorPooler(3, n_local=None, power=1, random_state=0).fit(maps)
    twice = np.concatenate([maps[0], maps[0]], axis=2)
    assert_allclose(pooler.transform([twice]), pooler.transform(maps[:1]), rtol=1e-10, atol=1e-13)


def test_cells_that_are_none_do_not_count(maps):
    pooler = FisherVectorPooler(3, n_local=None, random_state=0).fit(maps)
    tensors = [torch.from_numpy(values) for values in (pooler.weights_, pooler.means_, pooler.variances_)]
    cells = torch.rand(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True, False, True, True, False, False], [False] * 6])
    found = fisher_gradient(cells, valid, *tensors)
    alone = fisher_gradient(cells[:1, [0, 2, 3]], valid[:1, [0, 2, 3]], *tensors)
    assert_allclose(found[0], alone[0])
    assert not found[1].any()


def test_array_api_dispatch(maps, monkeypatch):
    """The mixture starts by k-means, which scikit-learn does not dispatch; the maps are numpy arrays all the same."""
    if find_spec("sklearn.externals.array_api_compat") is None:  # scikit-learn before 1.7 brings none along
        pytest.importorskip("array_api_compat")
    expected = FisherVectorPooler(2, n_local=None, random_state=0).fit_transform(maps)
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    with config_context(array_api_dispatch=True):
        assert_allclose(FisherVectorPooler(2, n_local=None, random_state=0).fit_transform(maps), expected)


def test_iterations(maps):
    assert FisherVectorPooler(2, n_local=None, random_state=0).fit(maps).n_iter_ >= 1
    with pytest.warns(Warning, match="did not converge"):
        assert FisherVectorPooler(3, n_local=None, max_iter=1, random_state=0).fit(maps).n_iter_ == 1


def test_fewer_dimensions_than_asked_for(maps):
    with pytest.warns(UserWarning, match="n_local=64 exceeds the rank 4"):
        descriptors = FisherVectorPooler(2, random_state=0).fit_transform(maps)
    assert descriptors.shape == (4, 2 * 2 * 4)
