"""What re-ranking gains: leave-one-out mAP of the photographs of a folder, with a paired test against no re-ranking.

    python benchmarks/rerank_quality.py IMAGES WEIGHTS --out benchmarks/results/rerank_quality.md

IMAGES has a folder for each object; WEIGHTS holds mobilenet_v2.pth and squeezenet1_0.pth. Each photograph queries the
others: GR-MAC of the last feature map, long side 320 unless told.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np

from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.metrics import average_precision, randomization_test
from skretrieval.pooling import GRMACPooler
from skretrieval.postprocessing import DatabaseAugmentation
from skretrieval.retrieval import (
    DiffusionReranker,
    DiscriminativeQueryExpansion,
    KReciprocalReranker,
    NearestNeighborsRetriever,
    QueryExpansion,
    SuperGlobalReranker,
)

NETWORKS = ["mobilenet_v2", "squeezenet1_0"]


def methods():
    """Name -> retriever and whether the gallery is augmented."""
    plain = NearestNeighborsRetriever()
    aqe = QueryExpansion(plain, 3)
    small = {"k": 5, "k_query": 3, "alpha": 0.9}
    return {
        "none": (plain, False),
        "AQE, n=3": (aqe, False),
        "alpha QE, n=5, alpha=3": (QueryExpansion(plain, 5, alpha=3.0), False),
        "DBA, n=3": (plain, True),
        "DBA + AQE, n=3": (aqe, True),
        "DQE, 5 positives": (DiscriminativeQueryExpansion(plain), False),
        "DQE, 3 positives": (DiscriminativeQueryExpansion(plain, 3), False),
        "k-reciprocal, k1=20": (KReciprocalReranker(plain), False),
        "k-reciprocal, k1=5, k2=3": (KReciprocalReranker(plain, k1=5, k2=3), False),
        "SuperGlobal, K=9": (SuperGlobalReranker(plain), False),
        "SuperGlobal, K=3": (SuperGlobalReranker(plain, n_refine=3), False),
        "diffusion, k=50": (DiffusionReranker(plain), False),
        "diffusion, k=5, k_query=3, alpha=.9": (DiffusionReranker(plain, **small), False),
        "AQE, then k-reciprocal": (KReciprocalReranker(aqe), False),
        "DBA, then k-reciprocal": (KReciprocalReranker(plain), True),
        "DBA + AQE, then k-reciprocal": (KReciprocalReranker(aqe), True),
        "k-reciprocal of diffusion, k=5": (KReciprocalReranker(DiffusionReranker(plain, **small)), False),
    }


def precisions(search, augmented, rows, labels):
    """Average precision of each photograph among the others, and the warnings of fit."""
    gallery = DatabaseAugmentation(3).fit_transform(rows) if augmented else rows
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        search.fit(gallery, labels)
    own = np.arange(len(rows))
    ranking = search.search(rows, len(rows) - 1, exclude=own)[1]
    found = [
        average_precision(order, np.flatnonzero((labels == label) & (own != i)))
        for i, (order, label) in enumerate(zip(ranking, labels, strict=True))
    ]
    return np.array(found), len(said)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    paths = sorted(arguments.images.glob("*/*.jpg"))
    labels = np.array([path.parent.name for path in paths])
    lines = ["| network | method | mAP | gain | p | warns |", "|---|---|---|---|---|---|"]
    for network in NETWORKS:
        weights = str(arguments.weights / f"{network}.pth")
        extractor = ConvFeatureExtractor(network, weights=weights, image_size=arguments.image_size)
        rows = GRMACPooler().fit_transform(extractor.fit_transform(paths))
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        base = None
        for name, (search, augmented) in methods().items():
            found, said = precisions(search, augmented, rows, labels)
            base = found if base is None else base
            p = "" if name == "none" else f"{randomization_test(found, base, random_state=0).p_value:.4f}"
            gain = f"{found.mean() - base.mean():+.3f}"
            lines.append(
                f"| {network} | {name} | {found.mean():.3f} | {gain} | {p} | {'yes' if said else ''} |"
            )
            print(lines[-1], flush=True)
    if arguments.out:
        title = f"# Re-ranking of {len(paths)} photographs of {len(set(labels))} objects"
        how = f"GR-MAC, long side {arguments.image_size}, leave-one-out; p of a paired test against none."
        head = f"{title}\n\n{how}\n\n"
        arguments.out.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
