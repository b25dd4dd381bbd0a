"""Methods that weigh cells or channels of one map per photograph, and plain sums, means and maxima."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

from sklearn.pipeline import Pipeline

from ..pooling import (
    AdaptiveGaussianPooler,
    CroWPooler,
    GeMPooler,
    GRMACPooler,
    MACPooler,
    PartWeightedPooler,
    PoolerFusion,
    SJWPooler,
    SPoCPooler,
    WeightedPooler,
)
from ._build import Settings, describe_and_search


def gsw(
    *,
    alpha: float = 0.6,
    n_levels: int = 3,
    p: float = 3.0,
    n_channels: float | int = 0.3,
    rho: float = 100.0,
    **settings: Unpack[Settings],
) -> Pipeline:
    """Return GSW: GR-MAC and SJW fused, whitened without reduction (Zhao et al. 2021, eq 10).

    Parameters
    ----------
    alpha : float, default=0.6
        Weight of GR-MAC; SJW has ``1 - alpha``.
    n_levels, p : int, float
        Of :class:`~skretrieval.pooling.GRMACPooler`.
    n_channels, rho : float
        Of :class:`~skretrieval.pooling.SJWPooler`.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Zhao, Wu, Zhang, Liu, "Toward improving image retrieval via global saliency weighted feature", ISPRS International
    Journal of Geo-Information 10(4):249, 2021, section 3.1, eq 10.

    Examples
    --------
    >>> from skretrieval import recipes
    >>> list(recipes.gsw(expand=10).named_steps)
    ['extractor', 'pooler', 'normalizer', 'whitening', 'whitened_normalizer', 'retriever']
    """
    parts = [("grmac", GRMACPooler(n_levels, p)), ("sjw", SJWPooler(n_channels, rho))]
    return describe_and_search(PoolerFusion(parts, weights=[alpha, 1 - alpha]), {}, **settings)


def sjw(*, n_channels: float | int = 0.3, rho: float = 100.0, **settings: Unpack[Settings]) -> Pipeline:
    """Return saliency joint weighting alone (Zhao et al. 2021, section 3.3).

    Parameters
    ----------
    n_channels, rho : float
        Of :class:`~skretrieval.pooling.SJWPooler`.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Zhao, Wu, Zhang, Liu, "Toward improving image retrieval via global saliency weighted feature", ISPRS International
    Journal of Geo-Information 10(4):249, 2021, section 3.3, eqs 14-24.
    """
    return describe_and_search(SJWPooler(n_channels, rho), {}, **settings)


def adaptive_gaussian(
    *, alpha: float = 0.1, channel: str | Callable | None = "element", **settings: Unpack[Settings]
) -> Pipeline:
    """Return adaptive Gaussian and element-value weights of VGG16's pool5 (Wang et al. 2018).

    Parameters
    ----------
    alpha, channel : float, str or None
        Of :class:`~skretrieval.pooling.AdaptiveGaussianPooler`.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Wang, Zhu, Pang, Li, Li, Qian, "Adaptive co-weighting deep convolutional features for object retrieval", ICME 2018,
    sections 2.2 and 2.3, Algorithm 1 and eqs 1-5.
    """
    return describe_and_search(AdaptiveGaussianPooler(alpha, channel), {}, **settings)


def crow(**settings: Unpack[Settings]) -> Pipeline:
    """Return CroW (Kalantidis et al. 2016).

    Parameters
    ----------
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Kalantidis, Mellina, Osindero, "Cross-dimensional weighting for aggregated deep convolutional features", ECCV
    Workshops 2016, sections 4.1 and 4.2.
    """
    return describe_and_search(CroWPooler(), {}, **settings)


def spoc(*, center_prior: bool = True, **settings: Unpack[Settings]) -> Pipeline:
    """Return SPoC (Babenko and Lempitsky 2015): 256 whitened dimensions unless `n_components` says otherwise.

    Parameters
    ----------
    center_prior : bool, default=True
        False for Holidays, as in the paper.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Babenko, Lempitsky, "Aggregating deep convolutional features for image retrieval", ICCV 2015.
    """
    return describe_and_search(SPoCPooler(center_prior), {"n_components": 256}, **settings)


def mac(**settings: Unpack[Settings]) -> Pipeline:
    """Return MAC (Razavian et al. 2014; Tolias et al. 2016).

    With ``n_components=256`` it is the compact descriptor of Razavian et al. that the papers compare with.

    Parameters
    ----------
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Razavian, Sullivan, Carlsson, Maki, "Visual instance retrieval with deep convolutional networks", arXiv:1412.6574,
    2014.

    Tolias, Sicre, Jegou, "Particular object retrieval with integral max-pooling of CNN activations", ICLR 2016.
    """
    return describe_and_search(MACPooler(), {}, **settings)


def gem(*, p: float = 3.0, **settings: Unpack[Settings]) -> Pipeline:
    """Return GeM (Radenovic et al. 2019), without the fine-tuned network of that paper.

    Parameters
    ----------
    p : float, default=3.0
        Of :class:`~skretrieval.pooling.GeMPooler`.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Radenovic, Tolias, Chum, "Fine-tuning CNN image retrieval with no human annotation", IEEE Transactions on Pattern
    Analysis and Machine Intelligence 2019, eq 3.
    """
    return describe_and_search(GeMPooler(p), {}, **settings)


def sba(*, n_parts: int = 25, **settings: Unpack[Settings]) -> Pipeline:
    """Return part-based weighting (PWA, and SBA of the same authors): 4096 whitened dimensions by default.

    Parameters
    ----------
    n_parts : int, default=25
        Of :class:`~skretrieval.pooling.PartWeightedPooler`.
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Xu, Shi, Qi, Wang, Xiao, "Unsupervised part-based weighting aggregation of deep convolutional features for image
    retrieval", AAAI 2018.

    Xu, Wang, Qi, Shi, Xiao, "Unsupervised semantic-based aggregation of deep convolutional features", IEEE Transactions
    on Image Processing 2019.
    """
    return describe_and_search(PartWeightedPooler(n_parts), {"n_components": 4096}, **settings)


def scda(**settings: Unpack[Settings]) -> Pipeline:
    """Return SCDA (Wei et al. 2017): mean and maximum over the largest connected piece of strong cells.

    Parameters
    ----------
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Wei, Luo, Wu, Zhou, "Selective convolutional descriptor aggregation for fine-grained image retrieval", IEEE
    Transactions on Image Processing 26(6), 2017, sections III-B and III-C.
    """
    parts = [(reduce, WeightedPooler("scda", reduce=reduce)) for reduce in ("mean", "max")]
    defaults: Settings = {"whitening": None}
    return describe_and_search(PoolerFusion(parts, combine="concat"), defaults, **settings)


def how(**settings: Unpack[Settings]) -> Pipeline:
    """Return the weighted SPoC of HOW (Tolias et al. 2020): cells count by the norm of their activations.

    The authors train the network for it; here it is as given.

    Parameters
    ----------
    **settings
        See the package.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Tolias, Jenicek, Chum, "Learning and aggregating deep local descriptors for instance-level recognition", ECCV 2020,
    section 3.1.
    """
    return describe_and_search(WeightedPooler("activation_norm"), {}, **settings)
