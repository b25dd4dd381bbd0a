"""The outputs of every public estimator on seeded inputs, to hold one commit against another.

    python benchmarks/outputs.py --save before.npz      # in the old checkout
    python benchmarks/outputs.py --compare before.npz   # in the new one

`--compare` prints every output that is not equal to the last bit, and ends with exit status 1 if one differs by more
than `--tolerance` times its largest entry.
"""

from __future__ import annotations

import argparse
import sys
import warnings

import numpy as np
import torch
from scipy import sparse
from sklearn.preprocessing import Normalizer

from skretrieval import extraction, metrics, pooling, postprocessing, recipes, retrieval
from skretrieval.datasets import load_sample_photographs, make_feature_maps, make_photo_views

SEED = 0


def pooler_cases():
    """Every pooler, as published and with other parameters: name, pooler."""
    p = pooling
    yield from {
        "sum": p.SumPooler(),
        "spoc": p.SPoCPooler(),
        "spoc-flat": p.SPoCPooler(center_prior=False),
        "mac": p.MACPooler(),
        "gem": p.GeMPooler(),
        "gem-20": p.GeMPooler(p=20.0),
        "crow": p.CroWPooler(),
        "rmac": p.RMACPooler(),
        "rmac-global": p.RMACPooler(include_global=True),
        "grmac": p.GRMACPooler(),
        "grmac-l2": p.GRMACPooler(region_norm="l2", p=4.5),
        "region_integration": p.RegionIntegrationPooler(),
        "region_integration-8": p.RegionIntegrationPooler(n_components=8),
        "region_integration-plain": p.RegionIntegrationPooler(whiten=False),
        "sjw": p.SJWPooler(),
        "adaptive_gaussian": p.AdaptiveGaussianPooler(),
        "adaptive_gaussian-sparsity": p.AdaptiveGaussianPooler(channel="sparsity"),
        "square_sum_rmac": p.SquareSumRMACPooler(),
        "second_order": p.RegionalSecondOrderPooler(n_local=8, n_components=16),
        "second_order-1": p.RegionalSecondOrderPooler(n_components=8, order=1),
        "second_order-whole": p.RegionalSecondOrderPooler(n_local=6, n_components=8, regions="whole"),
        "bow": p.BoWPooler(n_clusters=16, random_state=SEED),
        "vlad": p.VLADPooler(n_clusters=4, random_state=SEED),
        "vlad-6": p.VLADPooler(n_clusters=4, n_local=6, random_state=SEED),
        "fisher": p.FisherVectorPooler(n_clusters=4, random_state=SEED),
        "t_embedding": p.TEmbeddingPooler(n_clusters=4, random_state=SEED),
        "netvlad": p.NetVLADPooler(n_clusters=4, random_state=SEED),
        "part_weighted": p.PartWeightedPooler(n_parts=6),
        "entropy": p.EntropyPooler(),
        "weighted-whiten": p.WeightedPooler(
            "crow", "sparsity", "rmac", region_norm="l2", whiten=True, n_components=6
        ),
        "weighted-params": p.WeightedPooler(
            "response", regions="rmac", reduce="power_mean", reduce_params={"p": 5.0}
        ),
        "weighted-scda": p.WeightedPooler("scda", reduce="mean"),
        "weighted-superglobal": p.WeightedPooler(reduce="regional_power_mean"),
        "gsw": p.PoolerFusion([("grmac", p.GRMACPooler()), ("sjw", p.SJWPooler())], weights=[0.6, 0.4]),
        "fusion-learns": p.PoolerFusion(
            [("vlad", p.VLADPooler(n_clusters=3, random_state=SEED)), ("ri", p.RegionIntegrationPooler())],
            combine="concat",
        ),
        "fusion-regions": p.PoolerFusion([("a", p.SumPooler()), ("b", p.MACPooler())], combine="regions"),
    }.items()


def put(outputs, name, value):
    if isinstance(value, list | tuple):
        value = np.concatenate([np.atleast_1d(np.asarray(part)).ravel() for part in value])
    value = value.toarray() if sparse.issparse(value) else np.asarray(value)
    assert value.dtype.kind in "fiub", name
    outputs[name] = value


def of_poolers(outputs):
    maps, _ = make_feature_maps(24, n_channels=16, random_state=SEED)
    signed = [entry - 0.2 for entry in maps]
    inputs = {
        "float32": [entry.astype(np.float32) for entry in maps],
        "float64": [entry.astype(np.float64) for entry in maps],
        "signed": [entry.astype(np.float32) for entry in signed],
        "torch": [torch.from_numpy(entry.astype(np.float32)) for entry in maps],
    }
    for name, pooler in pooler_cases():
        for kind, X in inputs.items():
            put(outputs, f"pooling/{name}/{kind}/fit_transform", pooler.fit_transform(X))
            put(outputs, f"pooling/{name}/{kind}/transform", pooler.fit(X[:16]).transform(X[16:]))
    pairs = [(entry, entry[:8] ** 2) for entry in inputs["float32"]]
    for combine in ("concat", "sum", "mean", "max", "power_mean"):
        same = [(entry, entry**2) for entry in inputs["float32"]]
        layerwise = pooling.LayerwisePooler(pooling.MACPooler(), combine=combine)
        put(outputs, f"pooling/layerwise/{combine}", layerwise.fit_transform(same))
    put(
        outputs,
        "pooling/layerwise/unlike",
        pooling.LayerwisePooler(pooling.SumPooler()).fit_transform(pairs),
    )


def of_postprocessing(outputs):
    rng = np.random.default_rng(SEED)
    labels = np.repeat(np.arange(20), 5)
    for dtype in (np.float32, np.float64):
        for n_features in (24, 160):  # covariance and Gram matrix
            X = rng.normal(size=(100, n_features)) @ rng.normal(size=(n_features, n_features))
            X = Normalizer().fit_transform(X).astype(dtype)
            p = postprocessing
            for name, step in {
                "pca": p.PCAWhitening(),
                "pca-8": p.PCAWhitening(n_components=8, power=0.25),
                "pca-share": p.PCAWhitening(n_components=0.8, center=False),
                "learned": p.LearnedWhitening(),
                "learned-8": p.LearnedWhitening(n_components=8),
                "power": p.PowerNormalizer(),
                "selector": p.PrincipalFeatureSelector(n_features=10, random_state=SEED),
                "augmentation": p.DatabaseAugmentation(),
            }.items():
                key = f"postprocessing/{name}/{np.dtype(dtype).name}-{n_features}"
                put(outputs, key, step.fit(X, labels).transform(X[:40]))
        sets = np.split(X, np.arange(3, 100, 3))
        put(outputs, f"postprocessing/sets/{np.dtype(dtype).name}", p.PCAWhitening(6).fit_transform(sets))


def of_retrieval(outputs):
    rng = np.random.default_rng(SEED)
    labels = np.repeat(np.arange(30), 10)
    centers = rng.normal(size=(30, 32))
    X = (centers[labels] + rng.normal(size=(300, 32))).astype(np.float32)
    queries = (centers + rng.normal(size=(30, 32))).astype(np.float32)
    r = retrieval
    for metric in ("cosine", "euclidean", "manhattan"):
        base = r.NearestNeighborsRetriever(n_neighbors=20, metric=metric)
        models = {"plain": base}
        if metric == "cosine":
            models["expanded"] = r.QueryExpansion(base, n_expand=5, alpha=1.0)
            models["expanded-without"] = r.QueryExpansion(base, n_expand=5, include_query=False)
        for name, model in models.items():
            model.fit(X, labels)
            distances, indices = model.kneighbors(queries)
            put(outputs, f"retrieval/{metric}/{name}/distances", distances)
            put(outputs, f"retrieval/{metric}/{name}/indices", indices)
            put(outputs, f"retrieval/{metric}/{name}/own", model.kneighbors()[1])
            put(outputs, f"retrieval/{metric}/{name}/score", model.score(queries, np.arange(30)))
    sets = np.split(X, np.arange(3, 300, 3))
    model = r.NearestNeighborsRetriever(n_neighbors=10).fit(sets)
    put(outputs, "retrieval/sets/distances", model.kneighbors(sets[:9])[0])
    put(outputs, "retrieval/sets/indices", model.kneighbors(sets[:9])[1])
    put(outputs, "metrics/leave_one_out", metrics.leave_one_out_map(base.fit(X, labels), X, labels))
    put(outputs, "metrics/revisited", of_revisited(rng))


def of_revisited(rng):
    ranks = np.argsort(rng.random((5, 60)), axis=1)
    truth = [{"easy": [i, i + 9], "hard": [i + 20], "junk": [i + 31]} for i in range(5)]
    found = metrics.evaluate_revisited(ranks, truth)
    return [found[level]["map"] for level in sorted(found)]


def of_recipes(outputs):
    gallery = load_sample_photographs().images
    views = make_photo_views(gallery, n_views=1, random_state=SEED).images
    make = extraction.ConvKernelExtractor
    for name in ("gsw", "grmac", "spoc", "region_integration", "regional_second_order", "vlad"):
        extractor = make(n_channels=(16, 32), image_size=96, random_state=SEED)
        options = (
            {"n_local": 8, "n_components": 16} if name == "regional_second_order" else {"whitening": None}
        )
        model = getattr(recipes, name)(extractor=extractor, n_neighbors=5, **options)
        random = {key: SEED for key in model.get_params() if key.endswith("pooler__random_state")}
        model.set_params(**random).fit(gallery, np.arange(len(gallery)))
        distances, indices = model[-1].kneighbors(model[:-1].transform(views))
        put(outputs, f"recipes/{name}/distances", distances)
        put(outputs, f"recipes/{name}/indices", indices)
    network = extraction.ConvFeatureExtractor(
        "squeezenet1_1", weights=None, random_state=SEED, image_size=128
    )
    put(outputs, "extraction/squeezenet", list(network.fit(gallery[:3]).transform(gallery[:3])))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--save", help="file to write")
    parser.add_argument("--compare", help="file to compare with")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    outputs: dict[str, np.ndarray] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in (of_poolers, of_postprocessing, of_retrieval, of_recipes):
            part(outputs)
    if options.save:
        np.savez_compressed(options.save, **outputs)
        print(f"{len(outputs)} outputs saved")
    if options.compare:
        sys.exit(compare(dict(np.load(options.compare)), outputs, options.tolerance))


def compare(before, after, tolerance):
    """Print what differs; return the exit status."""
    equal, worst = 0, 0.0
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None or new is None or old.shape != new.shape or old.dtype != new.dtype:
            print(f"{name}: {None if old is None else (old.shape, old.dtype)} before, "
                  f"{None if new is None else (new.shape, new.dtype)} now")  # fmt: skip
            worst = np.inf
        elif np.array_equal(old, new):
            equal += 1
        else:
            relative = float(np.abs(old - new).max() / np.abs(old).max())
            print(f"{name}: differs by {relative:.1e} of its largest entry")
            worst = max(worst, relative)
    print(f"{equal} of {len(before)} outputs are equal to the last bit; largest difference {worst:.1e}")
    return int(worst > tolerance)


if __name__ == "__main__":
    main()
