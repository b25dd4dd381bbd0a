"""Find photographs by changed views of them, with nothing to download.

    python examples/search_photographs.py [page.html]

The gallery are the photographs that ship with scikit-image; the queries are crops, warps, blurred, relit and
recompressed views of them. Writes a page with every query and what was found.
"""

import sys

from skretrieval import recipes
from skretrieval.datasets import load_sample_photographs, make_photo_views
from skretrieval.extraction import ConvKernelExtractor


def main(page=None):
    samples = load_sample_photographs()
    views = make_photo_views(samples.images, n_views=2, random_state=0)

    extractor = ConvKernelExtractor(n_channels=(32, 128), image_size=160, random_state=0)
    model = recipes.gsw(extractor=extractor, whitening=None, n_neighbors=5)
    model.fit(samples.images, samples.labels)

    ranking = model.predict(views.images)
    labels = [samples.labels[source] for source in views.labels]
    print(f"{len(samples.images)} photographs, {len(views.images)} queries")
    print(f"mAP {model.score(views.images, labels):.3f}")
    print(f"first is right: {(ranking[:, 0] == views.labels).mean():.3f}")
    if page:
        from skretrieval.inspection import results_page

        distances, indices = model[-1].kneighbors(model[:-1].transform(views.images))
        results_page(
            page,
            queries=views.images,
            gallery=samples.images,
            indices=indices,
            scores=1 - distances,
            query_labels=labels,
            gallery_labels=samples.labels,
        )
        print(f"wrote {page}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
