"""The list of all public poolers: what each computes, needs and gives, and how scikit-learn's battery takes it."""

from functools import partial
from typing import NamedTuple

import numpy as np
from pooling import codebook_cases
from references import pooling as ref
from references.classifiers import linear_classifier
from sklearn.base import clone

from skretrieval import pooling
from skretrieval.pooling import (
    AdaptiveGaussianPooler,
    BasePooler,
    BoWPooler,
    ClassActivationMask,
    CroWPooler,
    EntropyPooler,
    FisherVectorPooler,
    GeMPooler,
    GRMACPooler,
    LayerwisePooler,
    MACPooler,
    NetVLADPooler,
    PartWeightedPooler,
    PoolerFusion,
    RegionalSecondOrderPooler,
    RegionIntegrationPooler,
    RegionSetPooler,
    RMACPooler,
    SJWPooler,
    SPoCPooler,
    SquareSumRMACPooler,
    SumPooler,
    TEmbeddingPooler,
    VLADPooler,
    WeightedPooler,
)

N_CHANNELS = 5


def twice(X):
    """Each map as the map of two layers; what is neither a list nor an array of maps stays what it is."""
    if not (isinstance(X, (list, tuple)) or getattr(X, "ndim", 0) > 0):
        return X
    return [entry if isinstance(entry, tuple) else (entry, entry) for entry in X]


class TwoLayersPooler(LayerwisePooler):
    """A LayerwisePooler that is given maps, so that what holds for maps can be asked of it."""

    def fit(self, X, y=None):
        return super().fit(twice(X), y)

    def transform(self, X):
        return super().transform(twice(X))

    def fit_transform(self, X, y=None):
        return super().fit_transform(twice(X), y)


class PoolerCase(NamedTuple):
    """A pooler and what tests have to know of it.

    Attributes
    ----------
    name : str
        Its name in the ids of tests.
    pooler : BasePooler
        Settings that suit small maps of ``N_CHANNELS`` channels; clone it, or take a copy with ``make``.
    reference : callable or None
        From a map (K, H, W) to the float64 descriptor; of a pooler that learns, from the fitted pooler to that.
    learns : bool
        Whether ``fit`` takes more from the maps than their number of channels, and so reads all of them.
    n_images : int
        How many images it needs to learn from.
    output : {"table", "sets"}
        One descriptor per image, or a list of region sets.
    n_layers : int
        How many maps of an image it takes.
    battery : tuple of BasePooler
        Settings for scikit-learn's battery, whose rows are 1x1 maps of few channels; the first take more checks.
    replaced : dict
        Tests of all poolers that don't apply to this one, and the test that stands in for each.
    """

    name: str
    pooler: BasePooler
    reference: object = None
    learns: bool = False
    n_images: int = 1
    output: str = "table"
    n_layers: int = 1
    battery: tuple = ()
    replaced: dict = {}

    def make(self, n_channels=N_CHANNELS):
        """Return an unfitted copy for maps of so many channels."""
        pooler = clone(self.pooler)
        if pooler.get_params(deep=False).get("backbone") is linear_classifier:
            pooler.set_params(backbone=partial(linear_classifier, n_channels))
        return pooler


def as_table(described):
    """Descriptors as they are, region sets one below the other."""
    return np.concatenate(described) if isinstance(described, list) else described


def _gsw():
    return PoolerFusion([("grmac", GRMACPooler()), ("sjw", SJWPooler())], weights=[0.6, 0.4])


#: Tests of all poolers that don't apply to some, and those that stand in for them.
_NEEDS_IMAGES = {"test_half_precision_does_not_overflow": "test_common.py::test_large_half_precision"}
_LEARNS = {
    "test_fit_does_not_run_the_network_over_everything": "engine/test_feature_maps.py::test_fit_reads_the_maps_once",
    "test_fit_transform_reads_the_maps_once": "engine/test_feature_maps.py::test_fit_reads_the_maps_once",
}
_GIVES_SETS = {
    "test_cross_val_predict_of_ragged_lists": "second_order/test_regional_second_order_retrieval.py::"
    "test_grid_search_in_two_processes",
    "test_grid_search_in_two_processes": "second_order/test_regional_second_order_retrieval.py::"
    "test_grid_search_in_two_processes",
    "test_pandas_output": "second_order/test_regional_second_order.py::test_set_output_leaves_lists_alone",
    "test_pandas_output_of_lazy_maps": "second_order/test_regional_second_order.py::"
    "test_set_output_leaves_lists_alone",
    "test_fit_reads_the_maps_once": "second_order/test_regional_second_order_photographs.py::"
    "test_passes_over_lazy_maps",
}

_TAKES_TUPLES = dict.fromkeys(
    [
        "test_same_as_on_arrays",
        "test_subsets",
        "test_transform_reads_the_maps_once",
        "test_fit_reads_the_maps_once",
        "test_fit_does_not_run_the_network_over_everything",
        "test_fit_transform_reads_the_maps_once",
        "test_pipeline",
        "test_pandas_output_of_lazy_maps",
        "test_no_lazy_maps",
        "test_nan_in_a_lazy_map_names_the_photograph",
    ],
    "combine/test_layerwise.py::test_lazy_maps",
)

#: the papers' settings of what computes a formula and learns nothing
FORMULAS = [
    PoolerCase("sum", SumPooler(), ref.sum_pool, battery=(SumPooler(), SumPooler(rectify=False))),
    PoolerCase(
        "spoc",
        SPoCPooler(),
        ref.spoc,
        battery=(SPoCPooler(), SPoCPooler(center_prior=False, rectify=False)),
    ),
    PoolerCase("mac", MACPooler(), ref.mac, battery=(MACPooler(), MACPooler(rectify=False))),
    PoolerCase("gem", GeMPooler(), ref.gem, battery=(GeMPooler(), GeMPooler(p=1.0, rectify=False))),
    PoolerCase("crow", CroWPooler(), ref.crow, battery=(CroWPooler(),)),
    PoolerCase(
        "rmac",
        RMACPooler(),
        ref.rmac,
        battery=(RMACPooler(), RMACPooler(include_global=True, rectify=False), RMACPooler(whiten=True)),
    ),
    PoolerCase(
        "grmac",
        GRMACPooler(),
        ref.grmac,
        battery=(GRMACPooler(), GRMACPooler(region_norm="l2", include_global=True, p=2.5)),
    ),
    PoolerCase("sjw", SJWPooler(), ref.sjw, battery=(SJWPooler(),)),
    PoolerCase(
        "weighted",
        WeightedPooler(),
        ref.sum_pool,
        battery=(
            WeightedPooler(),
            WeightedPooler(spatial="crow", channel="sparsity", regions="rmac", region_norm="l2", whiten=True),
        ),
    ),
    PoolerCase(
        "gsw",
        _gsw(),
        ref.gsw,
        battery=(
            _gsw(),
            PoolerFusion(
                [("max", MACPooler()), ("white", RMACPooler(whiten=True))],
                combine="concat",
                norm=None,
                weights=[1.0, 0.5],
            ),
        ),
    ),
    PoolerCase(
        "region_integration",
        RegionIntegrationPooler(whiten=False),
        ref.region_integration,
        # rows are 1x1 maps, where the channel weight log(K / 2) leaves nothing of the battery's two columns to whiten;
        # the whitening is that of RMACPooler above
        battery=(RegionIntegrationPooler(whiten=False),),
    ),
    PoolerCase(
        "adaptive_gaussian",
        AdaptiveGaussianPooler(),
        ref.adaptive_gaussian,
        battery=(AdaptiveGaussianPooler(),),
    ),
    PoolerCase(
        "square_sum_rmac", SquareSumRMACPooler(), ref.square_sum_rmac, battery=(SquareSumRMACPooler(),)
    ),
]

#: what learns from the maps
LEARNED = [
    PoolerCase(
        "bow",
        BoWPooler(6, n_local=None, random_state=0, sparse_output=False),
        codebook_cases.bow,
        battery=(BoWPooler(2), BoWPooler(2, n_local=None, upsample=1, sparse_output=False)),
    ),
    PoolerCase(
        "vlad",
        VLADPooler(2, random_state=0),
        codebook_cases.vlad,
        battery=(VLADPooler(2), VLADPooler(2, n_local="all", intra_norm=False, power=1, rectify=False)),
    ),
    PoolerCase(
        "fisher",
        FisherVectorPooler(2, n_local=None, random_state=0),
        codebook_cases.fisher,
        battery=(
            FisherVectorPooler(2, n_local="all"),
            FisherVectorPooler(2, n_local=None, rectify=False),
        ),
    ),
    PoolerCase(
        "t_embedding",
        TEmbeddingPooler(2, n_local=None, n_drop=1, random_state=0),
        codebook_cases.t_embedding,
        replaced=_NEEDS_IMAGES,
        battery=(
            TEmbeddingPooler(2, n_local=None, n_drop=1),
            TEmbeddingPooler(2, n_local=None, n_drop=0, aggregation="sum"),
        ),
    ),
    PoolerCase(
        "netvlad",
        NetVLADPooler(2, random_state=0),
        codebook_cases.netvlad,
        battery=(
            NetVLADPooler(2),
            NetVLADPooler(3, n_local="all", rectify=False, points="grid", n_points=1),
        ),
    ),
    PoolerCase(
        "part_weighted",
        PartWeightedPooler(2),
        battery=(PartWeightedPooler(2), PartWeightedPooler(1, norm_order=1.0)),
    ),
    PoolerCase(
        "second_order",
        RegionalSecondOrderPooler(n_local=3, n_components=4, n_min=20),
        output="sets",
        replaced={**_NEEDS_IMAGES, **_GIVES_SETS},
        battery=(
            RegionalSecondOrderPooler(n_local="all", n_components=None, reg=0.1),
            RegionalSecondOrderPooler(n_local="all", n_components=None, order=1),
            RegionalSecondOrderPooler(
                n_local="all", n_components=None, reg=0.1, rectify=False, regions="whole"
            ),
        ),
    ),
]
LEARNED = [case._replace(learns=True, n_images=4, replaced={**_LEARNS, **case.replaced}) for case in LEARNED]

#: what learns nothing here and has references in tests of its own
OTHERS = [
    PoolerCase(
        "entropy",
        EntropyPooler(),
        battery=(EntropyPooler(), EntropyPooler(rectify=False, n_bins=3)),
    ),
    PoolerCase(
        "class_activation",
        ClassActivationMask(SumPooler(), backbone=linear_classifier),
        battery=(
            ClassActivationMask(SumPooler(), backbone=linear_classifier),
            ClassActivationMask(
                PoolerFusion([("max", MACPooler(rectify=False)), ("gem", GeMPooler())]),
                backbone=linear_classifier,
                threshold=1.1,
                n_resolutions=3,
            ),
        ),
    ),
    PoolerCase(
        "region_set",
        RegionSetPooler(),
        output="sets",
        replaced=_GIVES_SETS,
        battery=(
            RegionSetPooler("whole"),
            RegionSetPooler("rmac", "crow", "sparsity", "power_mean", n_levels=2, region_norm="l2"),
        ),
    ),
    PoolerCase(
        "layerwise",
        TwoLayersPooler([("fine", GeMPooler()), ("coarse", MACPooler())]),
        n_layers=2,
        replaced=_TAKES_TUPLES,
        battery=(LayerwisePooler(GeMPooler()), LayerwisePooler([("a", MACPooler()), ("b", GeMPooler())])),
    ),
]

POOLERS = FORMULAS + LEARNED + OTHERS
PUBLIC = {
    name
    for name in pooling.__all__
    if isinstance(kind := getattr(pooling, name), type)
    and issubclass(kind, BasePooler)
    and kind is not BasePooler
}


def parametrize_with_poolers(metafunc):
    """Run every test of a ``case`` for every pooler, but for those that the list names as replaced."""
    if "case" in metafunc.fixturenames:
        applies = [case for case in POOLERS if metafunc.function.__name__ not in case.replaced]
        metafunc.parametrize("case", applies, ids=lambda case: case.name)
