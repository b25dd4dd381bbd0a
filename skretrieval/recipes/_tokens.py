"""Methods over the tokens of a vision transformer."""

from __future__ import annotations

from typing import Unpack

import numpy as np
from sklearn.pipeline import Pipeline

from ..extraction import ConvFeatureExtractor
from ..pooling import GeMPooler, LayerwisePooler, SumPooler, VLADPooler
from ._build import Settings, describe_and_search


def anyloc(
    *,
    n_clusters: int = 32,
    random_state: int | np.random.RandomState | None = None,
    **settings: Unpack[Settings],
) -> Pipeline:
    """Return VLAD of the value facet of DINOv2's tokens (AnyLoc, Keetha et al. 2024).

    Tokens are l2-normalised, residuals to their nearest centre added, and l2-normalised per centre and as a whole. The
    authors learn the centres on photographs of the same kind of place, which is `fit` here.

    Parameters
    ----------
    n_clusters : int, default=32
        Centres.
    random_state : int, RandomState instance or None, default=None
        Of the codebook.
    **settings
        See the package. `whitening` is None unless given; the authors' smaller form is ``whitening="pca",
        n_components=512``. The default extractor is DINOv2's largest network (4.5 GB of weights): block 31 of
        ``"timm:vit_giant_patch14_dinov2.lvd142m"``.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Keetha, Mishra, Karhade, Jatavallabhula, Scherer, Krishna, Garg, "AnyLoc: towards universal visual place
    recognition", IEEE Robotics and Automation Letters 9(2), 2024, section III.
    """
    extractor = ConvFeatureExtractor(
        "timm:vit_giant_patch14_dinov2.lvd142m", layers="blocks.31.attn:value", image_size=1024
    )
    pooler = VLADPooler(n_clusters, power=1.0, random_state=random_state, rectify=False)
    return describe_and_search(pooler, {"extractor": extractor, "whitening": None}, **settings)


def cls_gem(*, p: float = 3.0, **settings: Unpack[Settings]) -> Pipeline:
    """Return the CLS token beside GeM of the patch tokens, each l2-normalised.

    The CLS token says what the whole shows, the patch tokens what is in it: DINOv2's authors put it beside the mean of
    the patch tokens for classification; here the mean is the power mean (of signed values: signed).

    Parameters
    ----------
    p : float, default=3.0
        Exponent of GeM.
    **settings
        See the package. `whitening` is None unless given. The default extractor is
        ``"timm:vit_base_patch14_dinov2.lvd142m"``; one of yours has ``tokens="patch+cls"``.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    References
    ----------
    Oquab et al., "DINOv2: learning robust visual features without supervision", Transactions on Machine Learning
    Research 2024, section 7 (CLS beside the mean of the patch tokens).

    Radenovic, Tolias, Chum, "Fine-tuning CNN image retrieval with no human annotation", IEEE Transactions on Pattern
    Analysis and Machine Intelligence 41(7), 2019, eq 3 (GeM).
    """
    extractor = ConvFeatureExtractor(
        "timm:vit_base_patch14_dinov2.lvd142m", tokens="patch+cls", image_size=518
    )
    parts = [("patch", GeMPooler(p, rectify="auto")), ("cls", SumPooler(rectify=False))]
    return describe_and_search(
        LayerwisePooler(parts), {"extractor": extractor, "whitening": None}, **settings
    )
