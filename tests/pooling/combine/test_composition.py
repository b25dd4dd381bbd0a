"""The chain of Seddati et al. (2017) with local descriptors, from photographs to region sets, against its formulas."""

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from references import pooling as ref
from references.classifiers import tiny_resnet
from references.combinators import class_activation_mask, nearest_mask
from references.maps import make_map
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skretrieval.extraction import ConvFeatureExtractor, FeatureMaps
from skretrieval.pooling import (
    BoWPooler,
    ClassActivationMask,
    LayerwisePooler,
    MACPooler,
    PartWeightedPooler,
    PoolerFusion,
    RegionalSecondOrderPooler,
    RMACPooler,
    SquareSumRMACPooler,
    VLADPooler,
)
from skretrieval.pooling._engine._batches import raw_batches
from skretrieval.postprocessing import PrincipalFeatureSelector
from skretrieval.retrieval import NearestNeighborsRetriever

SIZES = [128, 96, 64]


def multi_resolution_local(n_features=10):
    layers = LayerwisePooler(SquareSumRMACPooler(), norm=None)
    local = ClassActivationMask(clone(layers), backbone=tiny_resnet, n_resolutions=len(SIZES))
    fusion = PoolerFusion([("global", layers), ("local", local)], combine="regions", norm=None)
    return make_pipeline(
        ConvFeatureExtractor(
            tiny_resnet,
            layers=["layer4", "layer3"],  # the classifier sees the first
            image_size=SIZES,
            multi_resolution="sum",
            weights=None,
            device="cpu",
            batch_size=4,
        ),
        fusion,
        PrincipalFeatureSelector(n_features, random_state=0),
    )


def photographs(n=12):
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (n, 5, 5, 3)).astype(np.uint8)
    sizes = [(96, 128), (128, 96), (100, 100)]
    return [
        np.kron(small, np.ones((30, 30, 1), np.uint8))[: sizes[i % 3][0], : sizes[i % 3][1]]
        for i, small in enumerate(smooth)
    ]


def reference(maps):
    """Global and local descriptor of one tuple of fused maps, in float64."""
    fc = tiny_resnet().fc
    weight, bias = fc.weight.detach().double().numpy(), fc.bias.detach().double().numpy()
    mask = class_activation_mask(maps[0], weight, bias, n_resolutions=len(SIZES))
    masked = [feature_map * nearest_mask(mask, *feature_map.shape[1:]) for feature_map in maps]
    return np.array(
        [np.concatenate([ref.square_sum_rmac(feature_map) for feature_map in own]) for own in (maps, masked)]
    )


@pytest.fixture(scope="module")
def fitted():
    return multi_resolution_local().fit(photographs())


def test_each_step_equals_its_formula(fitted):
    lazy = fitted[0].transform(photographs())
    double = [tuple(layer.astype(np.float64) for layer in maps) for maps in lazy]
    expected = [reference(maps) for maps in double]
    assert not all(np.allclose(*own) for own in expected)  # the masks do something
    assert_allclose(clone(fitted[1]).fit_transform(double), expected, rtol=1e-8, atol=1e-12)
    sets = fitted[1].transform(lazy)
    assert_allclose(sets, expected, rtol=2e-4, atol=1e-6)
    # two layers, each a unit vector, side by side
    assert_allclose(np.linalg.norm(np.vstack(sets), axis=1), np.sqrt(2), rtol=1e-5)
    # features chosen by the global descriptors, kept in the local ones too
    alone = clone(fitted[2]).fit(np.array([own[0] for own in sets]))
    assert_array_equal(fitted[2].selected_features_, alone.selected_features_)
    result = fitted.transform(photographs())
    assert isinstance(result, list)
    for own, chosen in zip(sets, result, strict=True):
        assert chosen.shape == (2, 10)
        assert chosen.dtype == np.float32
        assert_allclose(chosen, own[:, alone.selected_features_], rtol=1e-6)


def test_the_nearer_of_two_pairs_counts(fitted):
    """Global with global, local with local, by Manhattan distance, and the smaller of the two."""
    sets = [own.astype(np.float64) for own in fitted.transform(photographs())]
    expected = np.array(
        [[min(np.abs(q - r).sum() for q, r in zip(a, b, strict=True)) for b in sets] for a in sets]
    )
    retriever = NearestNeighborsRetriever(len(sets), metric="manhattan", region_pairs="same").fit(sets)
    distances, indices = retriever.kneighbors(sets)
    assert_allclose(distances, np.take_along_axis(expected, indices, axis=1), rtol=1e-8, atol=1e-12)
    assert_allclose(distances, np.sort(expected, axis=1), rtol=1e-8, atol=1e-12)


def test_fit_transform_and_a_model_from_disk_give_the_same(fitted, tmp_path):
    expected = fitted.transform(photographs())
    assert_allclose(clone(fitted).fit_transform(photographs()), expected, rtol=1e-6)
    joblib.dump(fitted, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib", mmap_mode="r").transform(photographs())
    assert_array_equal(again, expected)


@pytest.mark.parametrize("step", ["global", "local"])
def test_parameters_reach_the_innermost_pooler(step):
    model = multi_resolution_local()
    path = f"poolerfusion__{step}__" + ("poolers__" if step == "global" else "pooler__poolers__")
    model.set_params(**{path + "n_levels": 1})
    assert model.get_params()[path + "n_levels"] == 1
    maps = [(make_map(16, 3, 4, seed=0), make_map(12, 6, 8, seed=1))]
    changed, plain = (pooler.fit_transform(maps)[0] for pooler in (model[1], multi_resolution_local()[1]))
    different = [not np.allclose(*rows) for rows in zip(changed, plain, strict=True)]
    assert different == [step == "global", step == "local"]


def test_the_chain_clones_and_prints():
    model = multi_resolution_local()
    assert repr(clone(model)) == repr(model)
    assert clone(model).get_params().keys() == model.get_params().keys()


# ---------------------------------------------------------------------------------------------------------------------
# Parts that learn


class PassesCounted(FeatureMaps):
    """Maps from memory that count how often all of them are asked for."""

    def __init__(self, maps):
        super().__init__(None, maps)
        self.n_passes = 0

    def head(self):
        return PassesCounted(self.images[:1])

    def batches(self):
        self.n_passes += 1
        yield from raw_batches(self.images, layers=isinstance(self.images[0], tuple))


LEARNING = [
    ("rmac", RMACPooler(whiten=True, n_components=3)),
    ("vlad", VLADPooler(n_clusters=2, n_local=3, random_state=0)),
    ("plain", MACPooler()),
    ("parts", PartWeightedPooler(2)),
    ("words", BoWPooler(3, sparse_output=False, random_state=0)),
]


def test_all_parts_of_a_fusion_learn_from_one_pass():
    maps = [make_map(4, 5 + i % 3, 6, seed=i) for i in range(24)]
    counted = PassesCounted(maps)
    fusion = PoolerFusion(LEARNING, combine="concat", norm=None).fit(counted)
    assert counted.n_passes == 1
    alone = [clone(pooler).fit_transform(maps) for _, pooler in LEARNING]
    assert fusion._n_features_out == sum(rows.shape[1] for rows in alone)
    assert_allclose(fusion.transform(maps), np.hstack(alone), rtol=1e-9, atol=1e-9)


def test_parts_share_as_many_passes_as_one_needs():
    """Two for the part with local axes and whitening; the others learn in the first and sit out the second."""
    maps = [make_map(4, 5 + i % 3, 6, seed=i) for i in range(24)]
    hulls = RegionalSecondOrderPooler(n_local=3, n_components=3, n_min=10)
    parts = [
        ("hulls", hulls),
        ("first", clone(hulls).set_params(order=1)),
        *LEARNING[:1],
        ("plain", MACPooler()),
    ]
    counted = PassesCounted(maps)
    fusion = PoolerFusion(parts, combine="concat", norm=None).fit(counted)
    assert counted.n_passes == 2
    for name, pooler in fusion.poolers_[:3]:
        alone = clone(pooler).fit(maps)
        assert_allclose(alone.region_whitening_.mean, pooler.region_whitening_.mean, err_msg=name)
    assert fusion._n_features_out == 3 + 3 + 3 + 4


@pytest.mark.parametrize("nested", [False, True])
def test_all_layers_learn_from_one_pass(nested):
    tuples = [
        tuple(
            make_map(channels, 5 + i % 3, 6, seed=100 * place + i)
            for place, channels in enumerate([4, 6, 3, 5, 4])
        )
        for i in range(24)
    ]
    counted = PassesCounted(tuples)
    layers = LayerwisePooler(LEARNING, norm=None)
    pooler = (
        PoolerFusion([("one", layers), ("two", clone(layers))], combine="concat", norm=None)
        if nested
        else layers
    )
    pooler = clone(pooler).fit(counted)
    assert counted.n_passes == 1
    alone = np.hstack(
        [
            clone(part).fit_transform([entry[place] for entry in tuples])
            for place, (_, part) in enumerate(LEARNING)
        ]
    )
    assert pooler._n_features_out == alone.shape[1] * (1 + nested)
    assert_allclose(pooler.transform(tuples), np.hstack([alone] * (1 + nested)), rtol=1e-9, atol=1e-9)
