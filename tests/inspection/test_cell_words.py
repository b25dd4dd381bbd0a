import numpy as np
import pytest
from matplotlib.colors import to_rgb
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture

from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.inspection import CellWordsDisplay
from skretrieval.pooling import (
    BoWPooler,
    CroWPooler,
    FisherVectorPooler,
    NetVLADPooler,
    TEmbeddingPooler,
    VLADPooler,
)


def columns(map_, axes=None):
    """The l2-normalised columns of a map, reduced where asked; NaN where there is no activation."""
    cells = map_.reshape(len(map_), -1).T.astype(np.float64)
    with np.errstate(invalid="ignore"):
        cells = cells / np.linalg.norm(cells, axis=1, keepdims=True)
    if axes is not None:
        cells = (cells - axes.mean) @ axes.components.T
        cells /= np.linalg.norm(cells, axis=1, keepdims=True)
    return cells


def squares(map_, pooler):
    """Squared distances of cells to centres, (n, k)."""
    return ((columns(map_)[:, None] - pooler.cluster_centers_) ** 2).sum(axis=2)


def test_vlad_has_the_nearest_centre(maps):
    pooler = VLADPooler(5, random_state=0).fit(maps)
    for index in (0, 3):
        display = CellWordsDisplay.from_estimator(pooler, maps, index)
        distances = squares(maps[index], pooler)
        bare = np.isnan(distances).any(axis=1)
        expected = np.where(bare, -1, np.nan_to_num(distances).argmin(axis=1))
        np.testing.assert_array_equal(display.words.ravel(), expected)
        np.testing.assert_array_equal(display.strengths.ravel(), ~bare)
    assert bare.sum() == 0
    first = CellWordsDisplay.from_estimator(pooler, maps, 0).words
    assert (first[-2:, -3:] == -1).all()  # no activation
    assert (first[:-2] >= 0).all()


def test_netvlad_has_the_centre_of_largest_weight(maps):
    pooler = NetVLADPooler(5, random_state=0).fit(maps)
    display = CellWordsDisplay.from_estimator(pooler, maps, 3)
    logits = -pooler.alpha_ * squares(maps[3], pooler)
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(display.words.ravel(), weights.argmax(axis=1))
    np.testing.assert_allclose(display.strengths.ravel(), weights.max(axis=1), rtol=1e-5)
    assert display.strengths.min() < 0.9  # soft indeed


def test_a_fisher_vector_has_the_component_of_largest_posterior(maps):
    pooler = FisherVectorPooler(3, n_local=6, random_state=0).fit(maps)
    mixture = GaussianMixture(3, covariance_type="diag")
    mixture.weights_, mixture.means_, mixture.covariances_ = pooler.weights_, pooler.means_, pooler.variances_
    mixture.precisions_cholesky_ = 1 / np.sqrt(pooler.variances_)
    posteriors = mixture.predict_proba(columns(maps[3], pooler.local_axes_))
    display = CellWordsDisplay.from_estimator(pooler, maps, 3)
    np.testing.assert_array_equal(display.words.ravel(), posteriors.argmax(axis=1))
    np.testing.assert_allclose(display.strengths.ravel(), posteriors.max(axis=1), rtol=1e-4)


def test_a_bag_of_words_is_the_histogram_of_the_words_drawn(maps):
    pooler = BoWPooler(12, n_local=6, sparse_output=False, random_state=0).fit(maps)
    display = CellWordsDisplay.from_estimator(pooler, maps)
    assert display.words.shape == tuple(2 * side for side in maps[0].shape[1:])
    counts = np.bincount(display.words[display.words >= 0], minlength=12)
    np.testing.assert_allclose(counts / np.linalg.norm(counts), pooler.transform(maps)[0], rtol=1e-5)


@pytest.mark.parametrize("upsample", [1, 2])
def test_only_salient_cells_have_words(maps, upsample):
    pooler = BoWPooler(
        8, n_local=None, upsample=upsample, points="grid", n_points=10, sparse_output=False, random_state=0
    ).fit(maps)
    display = CellWordsDisplay.from_estimator(pooler, maps)
    assert display.words.shape == tuple(upsample * side for side in maps[0].shape[1:])
    drawn = display.words >= 0
    assert drawn.sum() == 10
    counts = np.bincount(display.words[drawn], minlength=8)
    np.testing.assert_allclose(counts / np.linalg.norm(counts), pooler.transform(maps)[0], rtol=1e-5)
    if upsample == 1:
        response = maps[0].sum(axis=0)
        assert response[drawn].min() >= response[~drawn].max()


def test_a_word_has_its_colour_in_every_photograph(maps):
    pooler = VLADPooler(4, random_state=0).fit(maps)
    colours = {}
    for index in range(len(maps)):
        display = CellWordsDisplay.from_estimator(pooler, maps, index)
        drawn = display.cells_.get_array()
        np.testing.assert_array_equal(drawn[..., 3], display.words >= 0)
        for word, colour in zip(display.words.ravel(), drawn[..., :3].reshape(-1, 3), strict=True):
            if word >= 0:
                np.testing.assert_array_equal(colours.setdefault(word, colour), colour)
    assert len(colours) == 4
    assert len({tuple(colour) for colour in colours.values()}) == 4


def test_pixels_of_cells_with_and_without_a_word(photograph, pixel_at):
    words = np.array([[0, -1], [1, 1]])
    display = CellWordsDisplay(words, np.array([[1, 1], [0.5, 1]]), photograph).plot(alpha=0.8)
    red = np.array(to_rgb((1.0, 0.2, 0.2)))  # hue 0, saturation 0.8
    np.testing.assert_allclose(pixel_at(display.ax_, 30, 20), 0.8 * red + 0.2 * 40 / 255, atol=0.01)
    np.testing.assert_allclose(pixel_at(display.ax_, 90, 20), [200 / 255] * 3, atol=0.01)
    full = (pixel_at(display.ax_, 90, 70) - 0.2 * 200 / 255) / 0.8
    np.testing.assert_allclose(pixel_at(display.ax_, 30, 70), 0.4 * full + 0.6 * 40 / 255, atol=0.02)
    assert display.cells_.get_extent() == [0, 120, 90, 0]


def test_without_a_photograph_words_are_opaque():
    display = CellWordsDisplay(np.array([[0, -1]])).plot()
    assert display.photograph_ is None
    np.testing.assert_array_equal(display.cells_.get_array()[..., 3], [[1, 0]])


def test_points_detected_in_lazy_maps():
    pytest.importorskip("skimage")
    rng = np.random.default_rng(0)
    photograph = np.full((96, 96, 3), 128, dtype=np.uint8)
    photograph[30:60, 30:60] = np.kron(rng.integers(0, 2, (6, 6)) * 255, np.ones((5, 5)))[..., None]
    extractor = ConvFeatureExtractor("squeezenet1_1", weights=None, random_state=0, image_size=192)
    maps = extractor.fit_transform([photograph])
    pooler = VLADPooler(2, points="hessian", random_state=0).fit(maps)
    display = CellWordsDisplay.from_estimator(pooler, maps)
    np.testing.assert_array_equal(display.image, photograph)
    rows, cols = np.nonzero(display.words >= 0)
    side = len(display.words)
    # the pattern lies between 31 % and 63 %
    for places in (rows, cols):
        assert places.min() >= int(0.2 * side)
        assert places.max() <= int(0.75 * side)


def test_errors(maps):
    with pytest.raises(TypeError, match=r"CroWPooler has no visual words.*VLADPooler"):
        CellWordsDisplay.from_estimator(CroWPooler(), maps)
    with pytest.raises(TypeError, match="TEmbeddingPooler has no visual words"):
        CellWordsDisplay.from_estimator(TEmbeddingPooler(2), maps)
    with pytest.raises(NotFittedError):
        CellWordsDisplay.from_estimator(VLADPooler(2), maps)
    pooler = VLADPooler(2, random_state=0).fit(maps)
    with pytest.raises(IndexError, match="index -9 is out of range"):
        CellWordsDisplay.from_estimator(pooler, maps, -9)
    with pytest.raises(ValueError, match="has 3 channels, but 16 were expected"):
        CellWordsDisplay.from_estimator(pooler, [np.ones((3, 2, 2))])
