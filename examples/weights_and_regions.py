"""
See what a pooler weighs
========================

A pooler that adds up a feature map gives each cell a weight. Drawn over the photograph, the weights say what a
descriptor will answer to, and why a search finds what it finds. The pictures in :doc:`/methods` are made in the same
way, with a network trained on ImageNet; here the filters are learned from four photographs.
"""

# %%
# Feature maps of four photographs
# --------------------------------

from skretrieval.datasets import load_sample_photographs
from skretrieval.extraction import ConvKernelExtractor

wanted = ("coffee", "chelsea", "rocket", "astronaut")
samples = load_sample_photographs()
photographs = [path for path in samples.images if any(name in path for name in wanted)]
extractor = ConvKernelExtractor(n_channels=(32, 64), image_size=256, random_state=0)
maps = extractor.fit_transform(photographs)
print(f"{len(maps)} maps, the first of {maps[0].shape}")

# %%
# Weights of cells
# ----------------
# Each row is a spatial term of the grammar. Violet is the smallest weight of a panel, yellow its largest.

import matplotlib.pyplot as plt

from skretrieval.inspection import CellWeightsDisplay, RegionsDisplay
from skretrieval.pooling import RMACPooler, WeightedPooler

terms = ("center_prior", "crow", "saliency", "adaptive_gaussian")
figure, axes = plt.subplots(len(terms), len(maps), figsize=(8, 7), layout="constrained")
for row, term in zip(axes, terms):
    for index, ax in enumerate(row):
        CellWeightsDisplay.from_estimator(WeightedPooler(term), maps, index, ax=ax)
    row[0].set_title(term, fontsize=9)
plt.show()

# %%
# Regions
# -------
# R-MAC takes the maximum of each channel in square windows of several scales, and adds the normalised results. Here
# the windows of its first two scales:

figure, axes = plt.subplots(1, len(maps), figsize=(8, 2), layout="constrained")
for index, ax in enumerate(axes):
    RegionsDisplay.from_estimator(RMACPooler(n_levels=2), maps, index, ax=ax)
plt.show()
