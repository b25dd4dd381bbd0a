"""
Find photographs by changed views of them
=========================================

The gallery are the photographs that ship with scikit-image and scikit-learn; the queries are crops, warps, blurred,
relit and recompressed views of them. The filters are learned from the photographs themselves, so nothing is
downloaded.

Run as a script, it takes the name of a page to write, with every query and what was found for it::

    python examples/search_photographs.py [page.html]
"""

# %%
# Photographs, and views of them
# ------------------------------
# The label of a view is the number of the photograph that it shows.
from skretrieval.datasets import load_sample_photographs, make_photo_views

samples = load_sample_photographs()
views = make_photo_views(samples.images, n_views=2, random_state=0)
print(f"{len(samples.images)} photographs, {len(views.images)} queries")

# %%
# A published method as a Pipeline
# --------------------------------
# GSW adds two descriptors of each photograph, GR-MAC and SJW. Its whitening is left out, since it wants a collection
# of thousands. The names in the diagram lead to their pages.

from skretrieval import recipes
from skretrieval.extraction import ConvKernelExtractor

extractor = ConvKernelExtractor(n_channels=(32, 128), image_size=160, random_state=0)
model = recipes.gsw(extractor=extractor, whitening=None, n_neighbors=5)
model.fit(samples.images, samples.labels)

# %%
# What is found
# -------------
# ``predict`` gives the gallery's indices for each query, best first; ``score`` is the mAP by label.

ranking = model.predict(views.images)
labels = [samples.labels[source] for source in views.labels]
print(f"mAP {model.score(views.images, labels):.3f}")
print(f"first is right: {(ranking[:, 0] == views.labels).mean():.3f}")

# %%
# Five queries, and the three photographs that are nearest to each:

import matplotlib.pyplot as plt
from PIL import Image


def show(ax, image, title=""):
    ax.imshow(image if hasattr(image, "shape") else Image.open(image))
    ax.set_title(title, fontsize=8)
    ax.axis("off")


shown = range(0, 30, 6)
figure, axes = plt.subplots(len(shown), 4, figsize=(7, 1.45 * len(shown)), layout="constrained")
for row, query in zip(axes, shown):
    show(row[0], views.images[query], "query")
    for rank, (ax, found) in enumerate(zip(row[1:], ranking[query]), start=1):
        right = "right" if found == views.labels[query] else "wrong"
        show(ax, samples.images[found], f"{rank}: {right}")
plt.show()

# %%
# The page
# --------
# Written only where a name for it was given.

import sys

if sys.argv[1:]:
    from skretrieval.inspection import results_page

    distances, indices = model[-1].kneighbors(model[:-1].transform(views.images))
    results_page(
        sys.argv[1],
        queries=views.images,
        gallery=samples.images,
        indices=indices,
        scores=1 - distances,
        query_labels=labels,
        gallery_labels=samples.labels,
    )
    print(f"wrote {sys.argv[1]}")
