"""
Compare methods of aggregation by GridSearchCV
==============================================

A pooler is a step of the Pipeline like any other, so a grid can hold several poolers and the parameters of each. The
photographs go through the network once.

Run as a script, it takes a folder that has one sub-folder per object; without it, views of the photographs that ship
with scikit-image and scikit-learn are taken::

    python examples/compare_poolers.py [FOLDER]
"""

import sys
import tempfile

from skretrieval.datasets import load_image_folder, load_sample_photographs, make_photo_views

if sys.argv[1:]:
    photographs = load_image_folder(sys.argv[1])
else:
    photographs = make_photo_views(load_sample_photographs().images[:8], n_views=4, random_state=0)

# %%
# Feature maps
# ------------
# The extractor is fitted once, on all photographs and without labels, so that every fold shares its filters and its
# cache.

from skretrieval.extraction import ConvKernelExtractor

cache = tempfile.TemporaryDirectory()
extractor = ConvKernelExtractor(n_channels=(32, 64), image_size=128, random_state=0, memory=cache.name)
maps = extractor.fit_transform(photographs.images)

# %%
# The grid
# --------
# Each fold's training part is the gallery, its test part queries it, and the score is the retriever's mAP.

from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer

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
cache.cleanup()

# %%
# All settings, best first
# ------------------------

results = search.cv_results_
rows = []
for place in results["rank_test_score"].argsort(kind="stable"):
    chosen = {name: value for name, value in results["params"][place].items() if name != "pooler"}
    pooler = type(results["params"][place]["pooler"]).__name__
    rows.append((results["mean_test_score"][place], f"{pooler} {chosen or ''}"))
for score, name in rows:
    print(f"{score:.3f}  {name}")

# %%
# With labels of your own, read :doc:`/tuning` first: how to split decides what the score means.

import matplotlib.pyplot as plt

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
scores, names = zip(*rows[::-1])
ax.barh([name.replace("pooler__", "") for name in names], scores)
ax.tick_params(axis="y", labelsize=7)
ax.set_xlabel("mAP")
plt.show()
