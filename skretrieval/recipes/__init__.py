"""Published methods as complete Pipelines: photographs in, ranked neighbours out.

Every function returns an unfitted scikit-learn ``Pipeline`` with the steps ``extractor``, ``pooler``,
``normalizer``, ``whitening``, ``whitened_normalizer`` and ``retriever`` (the two of whitening only where it is
asked for; `regional_second_order` and `multi_resolution_pfa` reduce in ways of their own), with the papers'
settings. Any parameter can be changed or searched as usual, for instance ``gsw().set_params(pooler__sjw__rho=10)``.
Fit it on the gallery; ``predict`` gives the indices of the nearest gallery photographs of each query, best first,
and ``score`` the mAP by label.

All take the same keyword arguments besides their own (``Settings``):

extractor : estimator, "photographs", "passthrough" or None
    The network, exchanged for another: ``ConvKernelExtractor()``, ``ConvFeatureExtractor("resnet50")``, or
    ``"passthrough"`` when `X` holds feature maps already. ``"photographs"`` is what serves one's own photographs best
    (benchmarks/defaults.py) and needs no download: EfficientNet-Lite0 at longest side 384, which scales none up, with
    ``whitening="auto"`` unless the method has none, and poolers with ``rectify="auto"``. None is the network of the
    paper; where papers differ, VGG16's pool5 at longest side 1024, the size of the photographs of Oxford5k and Paris6k
    that they leave as they are.

whitening : {"auto", "pca", "learned"}, transformer or None
    "auto": PCA-whitening with the spectrum shrunk as far as the photographs are few (``PCAWhitening`` with
    ``shrinkage="size"``), in all dimensions unless `n_components` is given: for your own photographs, of any number.
    "pca": PCA-whitening fitted on what the Pipeline is fitted on (the papers use a sibling collection: fit one there
    and give it here as ``sklearn.frozen.FrozenEstimator``). "learned": discriminative whitening, which needs labels
    in ``fit``. "pca" and "learned" want twenty photographs or more for
    each dimension: with fewer, "auto" or None serves better, and a ``WhiteningWarning`` says so.

n_components : int or None
    Dimensions kept by "pca" or "learned". Not given, it is the method's own number, if it has one; None keeps all.

expand : int or None
    Query expansion with that many neighbours.

n_neighbors : int
    Neighbours that ``predict`` returns.
"""

from ._codebooks import bow_cnn, fisher, netvlad, t_embedding, vlad
from ._patches import mop_cnn, neural_codes, patch_ckn
from ._regions import fde, grmac, patchify, region_integration, regional_second_order, rmac
from ._several_maps import late_fusion_rmac, mfc, ms_rmac, multi_resolution_pfa, super_global
from ._tokens import anyloc, cls_gem
from ._weights import adaptive_gaussian, crow, gem, gsw, how, mac, sba, scda, sjw, spoc

__all__ = [
    "adaptive_gaussian",
    "anyloc",
    "bow_cnn",
    "cls_gem",
    "crow",
    "fde",
    "fisher",
    "gem",
    "grmac",
    "gsw",
    "how",
    "late_fusion_rmac",
    "mac",
    "mfc",
    "mop_cnn",
    "ms_rmac",
    "multi_resolution_pfa",
    "netvlad",
    "neural_codes",
    "patch_ckn",
    "patchify",
    "region_integration",
    "regional_second_order",
    "rmac",
    "sba",
    "scda",
    "sjw",
    "spoc",
    "super_global",
    "t_embedding",
    "vlad",
]
