"""How recipes build their Pipelines, and the settings that all recipes share."""

from __future__ import annotations

from functools import partial
from typing import Any, TypedDict, Unpack

from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer

from ..extraction import ConvFeatureExtractor
from ..pooling import keep_signs
from ..postprocessing import LearnedWhitening, PCAWhitening
from ..retrieval import NearestNeighborsRetriever, QueryExpansion

Step = tuple[str, Any]

#: What stands for the network that serves one's own photographs best (benchmarks/defaults.py).
PHOTOGRAPHS = "photographs"


class Settings(TypedDict, total=False):
    """The keyword arguments that all recipes share, described at the head of the package."""

    extractor: Any
    whitening: Any
    n_components: int | None
    expand: int | None
    n_neighbors: int


def describe_and_search(
    pooler: BaseEstimator,
    defaults: Settings,
    retriever: NearestNeighborsRetriever | None = None,
    /,
    **settings: Unpack[Settings],
) -> Pipeline:
    """Build the Pipeline of extractor, pooler, l2, whitening with another l2, and search.

    Parameters
    ----------
    pooler : pooler
        The method.
    defaults : dict
        What the method sets where the caller does not.
    retriever : NearestNeighborsRetriever, optional
        Default: by cosine.
    **settings
        What the caller of the recipe gave.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    Raises
    ------
    ValueError
        If `whitening` is an unknown name, or `n_components` was given without one for it to apply to.
    TypeError
        If there is no such setting.
    """
    if settings.get("extractor") is None:
        settings["extractor"] = defaults.get("extractor")
    usual = _usual_whitening(settings["extractor"])
    chosen: Settings = {"whitening": usual, **defaults, **settings}  # type: ignore[typeddict-item]
    whitening = chosen["whitening"]
    if not isinstance(whitening, str) and settings.get("n_components") is not None:
        raise ValueError(
            f"n_components={settings['n_components']} is for whitening='pca' or 'learned', not for {whitening!r}; "
            "'auto' takes it, too."
        )
    # a method's own number of dimensions is for collections of thousands: "auto" keeps all that nobody cuts
    wanted = (settings if whitening == "auto" else chosen).get("n_components")
    steps: list[Step] = [("normalizer", Normalizer())]
    if whitening is not None:
        named = isinstance(whitening, str)
        whitener = _by_name(whitening)(wanted) if named else _copy(whitening)
        steps += [("whitening", whitener), ("whitened_normalizer", Normalizer())]
    return in_a_row(pooler, steps, retriever, **chosen)


def whiten_regions(pooler: Any, defaults: Settings, /, **settings: Unpack[Settings]) -> Pipeline:
    """Let a pooler whiten its regions, where the whitening asked for is PCA; else as ``describe_and_search``."""
    if settings.get("whitening", _usual_whitening(settings.get("extractor"))) != "pca":
        return describe_and_search(pooler.set_params(whiten=False), defaults, **settings)
    chosen: Settings = {**defaults, **settings}
    pooler.set_params(whiten=True, n_components=chosen.get("n_components"))
    return in_a_row(pooler, [("normalizer", Normalizer())], **chosen)


def in_a_row(
    pooler: BaseEstimator,
    steps: list[Step],
    retriever: NearestNeighborsRetriever | None = None,
    include_query: bool = True,
    /,
    **settings: Unpack[Settings],
) -> Pipeline:
    """Build the Pipeline of extractor, pooler, any steps, and search.

    Parameters
    ----------
    pooler : pooler
        The method.
    steps : list of (str, transformer)
        What stands between the pooler and the search.
    retriever : NearestNeighborsRetriever, optional
        Default: by cosine.
    include_query : bool
        Of the query expansion.
    **settings
        ``extractor``, ``expand`` and ``n_neighbors``; the others are the caller's affair.

    Returns
    -------
    pipeline : Pipeline
        Unfitted.

    Raises
    ------
    TypeError
        If there is no such setting.
    """
    unknown = [name for name in settings if name not in Settings.__annotations__]
    if unknown:
        raise TypeError(
            f"unknown settings {unknown}: besides the recipe's own there are {list(Settings.__annotations__)}."
        )
    extractor = settings.get("extractor")
    own = _is_own(extractor)
    if own:
        network: Any = photograph_network()
    elif isinstance(extractor, str) and extractor != "passthrough":
        raise ValueError(
            f"extractor must be an estimator, 'passthrough' or 'photographs', got {extractor!r}."
        )
    else:
        network = ConvFeatureExtractor("vgg16", layers="pool5") if extractor is None else _copy(extractor)
    retriever = NearestNeighborsRetriever() if retriever is None else retriever
    search: Any = retriever.set_params(n_neighbors=settings.get("n_neighbors", retriever.n_neighbors))
    expand = settings.get("expand")
    if expand is not None:
        search = QueryExpansion(search, expand, include_query=include_query)
    model = Pipeline([("extractor", network), ("pooler", pooler), *steps, ("retriever", search)])
    return keep_signs(model) if own else model


def _is_own(extractor: Any) -> bool:
    return isinstance(extractor, str) and extractor == PHOTOGRAPHS


def _usual_whitening(extractor: Any) -> str:
    return "auto" if _is_own(extractor) else "pca"


def photograph_network() -> ConvFeatureExtractor:
    """Return the network for one's own photographs: ImageNet's, small, with weights that came through pip.

    Size and type are those that benchmarks/defaults.py found; a photograph is never scaled up.
    """
    return ConvFeatureExtractor(
        "timm:tf_efficientnet_lite0", image_size=384, enlarge=False, dtype="auto", random_state=0
    )


def _by_name(whitening: str) -> Any:
    known = {
        "auto": partial(PCAWhitening, shrinkage="size"),
        "pca": PCAWhitening,
        "learned": LearnedWhitening,
    }
    if whitening not in known:
        raise ValueError(
            f"whitening must be 'pca', 'learned', 'auto', a transformer or None, got {whitening!r}."
        )
    return known[whitening]


def _copy(step: Any) -> Any:
    """Clone an estimator, so that two Pipelines never share one; "passthrough" stays."""
    return step if isinstance(step, str) else clone(step)
