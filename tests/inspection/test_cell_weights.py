import sys

import matplotlib
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

from skretrieval.extraction import ConvFeatureExtractor, ImageCrop
from skretrieval.inspection import CellWeightsDisplay, CellWordsDisplay, RegionsDisplay
from skretrieval.pooling import (
    AdaptiveGaussianPooler,
    BoWPooler,
    ClassActivationMask,
    CroWPooler,
    EntropyPooler,
    GeMPooler,
    LayerwisePooler,
    MACPooler,
    PartWeightedPooler,
    PoolerFusion,
    RegionIntegrationPooler,
    SJWPooler,
    SPoCPooler,
    SumPooler,
    TEmbeddingPooler,
    WeightedPooler,
)

TERMS = ["center_prior", "crow", "response", "saliency", "adaptive_gaussian", "activation_norm", "scda"]


@pytest.mark.parametrize("term", TERMS)
def test_the_weights_of_every_term_make_the_descriptor(term, maps):
    pooler = WeightedPooler(term)
    described = pooler.fit_transform(maps)
    for index, map_ in enumerate(maps):
        display = CellWeightsDisplay.from_estimator(pooler, maps, index)
        assert display.weights.shape == map_.shape[1:]
        np.testing.assert_allclose((display.weights * map_).sum(axis=(1, 2)), described[index], rtol=2e-5)
        np.testing.assert_array_equal(display.cells_.get_array(), display.weights)


@pytest.mark.parametrize(
    ("pooler", "term", "params"),
    [
        (SPoCPooler(), "center_prior", None),
        (CroWPooler(), "crow", None),
        (RegionIntegrationPooler(), "crow", None),
        (SJWPooler(rho=7), "saliency", {"rho": 7}),
        (AdaptiveGaussianPooler(0.4), "adaptive_gaussian", {"alpha": 0.4}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_named_poolers_have_the_weights_of_their_term(pooler, term, params, maps):
    found = CellWeightsDisplay.from_estimator(pooler, maps, 2).weights
    expected = CellWeightsDisplay.from_estimator(WeightedPooler(term, spatial_params=params), maps, 2).weights
    np.testing.assert_array_equal(found, expected)


def test_negative_activations_are_cut_as_the_pooler_cuts_them(maps):
    shifted = [map_ - 0.2 for map_ in maps]
    found = CellWeightsDisplay.from_estimator(WeightedPooler("response"), shifted).weights
    assert (found >= 0).all()
    with pytest.raises(ValueError, match="Entry 0: negative activations"):
        CellWeightsDisplay.from_estimator(WeightedPooler("response", rectify=False), shifted)


def test_a_function_of_the_user(maps):
    def left(maps):
        weights = maps.new_zeros(1, *maps.shape[2:])
        weights[:, :, 0] = 1
        return weights

    weights = CellWeightsDisplay.from_estimator(WeightedPooler(left), maps).weights
    assert (weights[:, 0] == 1).all()
    assert (weights[:, 1:] == 0).all()


def test_the_mask_of_a_class_activation(maps):
    wide = [np.concatenate([map_] * 32) for map_ in maps]
    pooler = ClassActivationMask(MACPooler(), backbone="resnet18", weights=None, random_state=0).fit(wide)
    for index, described in enumerate(pooler.transform(wide)):
        mask = CellWeightsDisplay.from_estimator(pooler, wide, index).weights
        assert set(np.unique(mask)) <= {0, 1}
        np.testing.assert_array_equal((wide[index] * mask).max(axis=(1, 2)), described)


def test_the_mask_of_a_class_activation_over_several_layers(maps):
    wide = [(np.concatenate([map_] * 32), map_) for map_ in maps]
    pooler = ClassActivationMask(
        LayerwisePooler(MACPooler(), norm=None), backbone="resnet18", weights=None, random_state=0
    ).fit(wide)
    mask = CellWeightsDisplay.from_estimator(pooler, wide, 3).weights
    np.testing.assert_array_equal((wide[3][1] * mask).max(axis=(1, 2)), pooler.transform(wide)[3, 512:])


@pytest.mark.parametrize("exponents", [(2.0, 2.0), (1.0, 3.0)])
def test_each_part_of_a_part_weighted_pooler(maps, exponents):
    pooler = PartWeightedPooler(3, norm_order=exponents[0], root=exponents[1]).fit(maps)
    described = pooler.transform(maps)[1].reshape(3, 16)
    for part in range(3):
        weights = CellWeightsDisplay.from_estimator(pooler, maps, 1, part=part).weights
        np.testing.assert_allclose((weights * maps[1]).sum(axis=(1, 2)), described[part], rtol=2e-5)
    with pytest.raises(IndexError, match="part 3 is out of range for 3 parts"):
        CellWeightsDisplay.from_estimator(pooler, maps, part=3)


@pytest.mark.parametrize("points", ["all", "grid"])
def test_democratic_weights_make_the_descriptor(maps, points):
    pooler = TEmbeddingPooler(4, n_local=8, points=points, n_points=20, power=1, random_state=0).fit(maps)
    weights = CellWeightsDisplay.from_estimator(pooler, maps).weights
    assert weights.shape == maps[0].shape[1:]
    assert (weights[-2:, -3:] == 0).all()  # no activation
    assert (weights > 0).sum() <= (20 if points == "grid" else weights.size - 6)
    cells = maps[0].reshape(16, -1).T.astype(np.float64)
    cells = cells[weights.ravel() > 0]
    local = pooler.local_axes_
    cells = (cells / np.linalg.norm(cells, axis=1, keepdims=True) - local.mean) @ local.components.T
    cells /= np.linalg.norm(cells, axis=1, keepdims=True)
    way = cells[:, None] - pooler.cluster_centers_
    way = (way / np.linalg.norm(way, axis=2, keepdims=True)).reshape(len(cells), -1)
    axes = pooler.embedding_axes_
    total = weights.ravel()[weights.ravel() > 0] @ ((way - axes.mean) @ axes.components.T)
    np.testing.assert_allclose(total / np.linalg.norm(total), pooler.transform(maps)[0], atol=1e-5)


def test_pixels_are_the_blend_of_photograph_and_colour(photograph, pixel_at):
    weights = np.zeros((3, 4))
    weights[2, 3] = 5  # the lower right cell: x in [90, 120], y in [60, 90]
    display = CellWeightsDisplay(weights, photograph).plot(alpha=0.6)
    colours = matplotlib.colormaps["viridis"]
    for x, y, grey, share in [
        (105, 75, 200, 1.0),
        (85, 75, 200, 0.0),
        (105, 55, 200, 0.0),
        (15, 15, 40, 0.0),
    ]:
        expected = 0.6 * np.array(colours(share)[:3]) + 0.4 * grey / 255
        np.testing.assert_allclose(pixel_at(display.ax_, x, y), expected, atol=0.01)
    assert display.photograph_.get_array().shape == (90, 120, 3)
    assert display.figure_ is display.ax_.figure


def test_colours_of_the_photograph_can_be_kept(photograph, pixel_at):
    photograph[..., 2] = 0
    display = CellWeightsDisplay(np.zeros((3, 4)), photograph).plot(gray=False, alpha=0)
    np.testing.assert_allclose(pixel_at(display.ax_, 100, 40), [200 / 255, 200 / 255, 0], atol=0.01)
    display = CellWeightsDisplay(np.zeros((3, 4)), photograph).plot(alpha=0)
    luminance = (0.299 + 0.587) * 200 / 255
    np.testing.assert_allclose(pixel_at(display.ax_, 100, 40), [luminance] * 3, atol=0.01)


def test_without_a_photograph_the_cells_alone_are_drawn_opaque(pixel_at):
    weights = np.arange(12.0).reshape(3, 4)
    display = CellWeightsDisplay(weights).plot(cmap="gray")
    assert display.photograph_ is None
    for row, column in [(0, 0), (1, 2), (2, 3)]:
        shade = pixel_at(display.ax_, column + 0.5, row + 0.5)
        np.testing.assert_allclose(shade, weights[row, column] / 11, atol=0.01)


def test_settings_reach_the_image_and_the_given_axes_are_used(photograph):
    figure, ax = matplotlib.pyplot.subplots()
    display = CellWeightsDisplay(np.ones((3, 4)), photograph).plot(
        ax, vmin=0, vmax=2, interpolation="bilinear"
    )
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert display.cells_.get_clim() == (0, 2)
    assert display.cells_.get_interpolation() == "bilinear"
    assert display.cells_.get_extent() == [0, 120, 90, 0]


def test_lazy_maps_bring_their_photograph(photograph):
    photograph[10:40, 20:50] = 120
    extractor = ConvFeatureExtractor("squeezenet1_1", weights=None, random_state=0, image_size=96)
    items = [photograph[::-1], photograph, ImageCrop(photograph, (10, 10, 90, 70))]
    maps = extractor.fit_transform(items)
    display = CellWeightsDisplay.from_estimator(CroWPooler(), maps, 1)
    np.testing.assert_array_equal(display.image, photograph)
    alone = CellWeightsDisplay.from_estimator(CroWPooler(), [maps[1]], image=photograph[:, ::-1])
    np.testing.assert_array_equal(alone.weights, display.weights)
    np.testing.assert_array_equal(alone.image, photograph[:, ::-1])
    cropped = CellWeightsDisplay.from_estimator(CroWPooler(), maps, -1)
    np.testing.assert_array_equal(cropped.image, photograph[10:70, 10:90])


@pytest.mark.parametrize(
    "pooler", [SumPooler(), GeMPooler(), WeightedPooler(), SPoCPooler(center_prior=False)]
)
def test_poolers_that_weigh_all_cells_alike(pooler, maps):
    with pytest.raises(ValueError, match="weighs all cells alike"):
        CellWeightsDisplay.from_estimator(pooler, maps)


def test_a_sum_of_embeddings_weighs_all_cells_alike(maps):
    pooler = TEmbeddingPooler(2, n_local=4, aggregation="sum", random_state=0).fit(maps)
    with pytest.raises(ValueError, match="weighs all cells alike"):
        CellWeightsDisplay.from_estimator(pooler, maps)


@pytest.mark.parametrize(
    "pooler",
    [EntropyPooler(), BoWPooler(4), PoolerFusion([("sum", SumPooler())])],
    ids=lambda p: type(p).__name__,
)
def test_poolers_without_weights_of_cells(pooler, maps):
    with pytest.raises(TypeError, match=r"has no weights of cells.*ClassActivationMask, PartWeightedPooler"):
        CellWeightsDisplay.from_estimator(pooler, maps)


def test_what_learns_must_be_fitted(maps):
    with pytest.raises(NotFittedError):
        CellWeightsDisplay.from_estimator(PartWeightedPooler(3), maps)


@pytest.mark.parametrize("display", [CellWeightsDisplay, CellWordsDisplay, RegionsDisplay])
def test_no_pooler(display, maps):
    with pytest.raises(TypeError, match="expected a pooler, got str"):
        display.from_estimator("crow", maps)


def test_invalid_parameters_and_entries(maps):
    with pytest.raises(InvalidParameterError, match="'spatial' parameter"):
        CellWeightsDisplay.from_estimator(WeightedPooler("nothing"), maps)
    with pytest.raises(IndexError, match="index 8 is out of range for 8 feature maps"):
        CellWeightsDisplay.from_estimator(CroWPooler(), maps, 8)
    with pytest.raises(ValueError, match="contains NaN"):
        CellWeightsDisplay.from_estimator(CroWPooler(), [np.full((3, 2, 2), np.nan)])
    with pytest.raises(ValueError, match="got a tuple of 2 maps"):
        CellWeightsDisplay.from_estimator(CroWPooler(), [(maps[0], maps[1])])


@pytest.mark.parametrize(
    "display",
    [
        CellWeightsDisplay(np.ones((2, 2))),
        CellWordsDisplay(np.ones((2, 2), dtype=int)),
        RegionsDisplay([], (2, 2)),
    ],
    ids=lambda display: type(display).__name__,
)
def test_without_matplotlib_the_error_names_the_extra(display, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=rf'{type(display).__name__}.plot needs .* extra "plot"'):
        display.plot()
