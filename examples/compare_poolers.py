"""Compare aggregation methods by GridSearchCV: poolers and their parameters, photographs through the network once.

    python examples/compare_poolers.py [FOLDER]

FOLDER has one sub-folder per object; without it, views of the photographs that ship with scikit-image are taken.
"""

import sys
import tempfile

from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer

from skretrieval.datasets import load_image_folder, load_sample_photographs, make_photo_views
from skretrieval.extraction import ConvKernelExtractor
from skretrieval.pooling import (
    CroWPooler,
    GeMPooler,
    GRMACPooler,
    MACPooler,
    SJWPooler,
    SPoCPooler,
    WeightedPooler,
)
from skretrieval.retrieval import NearestNeighborsRetriever


def main(folder=None):
    if folder:
        photographs = load_image_folder(folder)
    else:
        photographs = make_photo_views(load_sample_photographs().images[:8], n_views=4, random_state=0)
    with tempfile.TemporaryDirectory() as cache:
        # fitted once, on all photographs and without labels, so that every fold shares its filters and its cache
        extractor = ConvKernelExtractor(n_channels=(32, 64), image_size=128, random_state=0, memory=cache)
        maps = extractor.fit_transform(photographs.images)
        model = Pipeline(
            [
                ("pooler", MACPooler()),
                ("normalizer", Normalizer()),
                ("retriever", NearestNeighborsRetriever(1)),
            ]
        )
        grid = [
            {"pooler": [MACPooler(), SPoCPooler(), CroWPooler(), SJWPooler()]},
            {"pooler": [GeMPooler()], "pooler__p": [2.0, 3.0, 5.0]},
            {"pooler": [GRMACPooler()], "pooler__p": [2.0, 3.0, 5.0], "pooler__n_levels": [2, 3]},
            {"pooler": [WeightedPooler("crow", "sparsity", "rmac")], "pooler__region_norm": [None, "l2"]},
        ]
        search = GridSearchCV(model, grid, cv=StratifiedKFold(2, shuffle=True, random_state=0))
        search.fit(maps, photographs.labels)
    results = search.cv_results_
    for place in results["rank_test_score"].argsort(kind="stable"):
        chosen = {name: value for name, value in results["params"][place].items() if name != "pooler"}
        pooler = type(results["params"][place]["pooler"]).__name__
        print(f"{results['mean_test_score'][place]:.3f}  {pooler} {chosen or ''}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
