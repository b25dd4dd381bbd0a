"""Tuning without labels: queries made from the gallery itself."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch, check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.validation import _num_samples

from ..datasets import make_photo_views
from ..extraction import check_images
from ..metrics import ap_from_relevance

_RANKED = 2**24  # entries of a ranking held at a time


@validate_params(
    {
        "images": "no_validation",
        "n_views": [Interval(Integral, 1, None, closed="left")],
        "n_images": [Interval(Integral, 1, None, closed="left"), None],
        "kinds": ["array-like"],
        "strength": [Interval(Real, 0, 1, closed="both")],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_pseudo_queries(
    images: Sequence[Any],
    n_views: int = 1,
    *,
    n_images: int | None = None,
    kinds: Sequence[str] = ("backdrop",),
    strength: float = 0.5,
    image_size: int | None = 1024,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Make queries whose right answers are known out of a gallery that nobody has labelled.

    Each is a view of one photograph: by default its middle before the backdrop of another. It is
    :func:`~skretrieval.datasets.make_photo_views` with the kinds and the strength that chose best where it was
    measured with true labels (see the notes), for :class:`PseudoQueryScorer`.

    Parameters
    ----------
    images : sequence of path, PIL.Image.Image, uint8 ndarray or ImageCrop
        The gallery; at least two photographs for "backdrop".

    n_views : int, default=1
        Views of each photograph.

    n_images : int or None, default=None
        Photographs to make views of, drawn at random: some hundred tell as much as all of a large gallery.
        None, or more than there are: all.

    kinds : sequence of {"backdrop", "crop", "warp", "relight", "blur", "jpeg"}
        What happens to a view.

    strength : float in [0, 1], default=0.5
        How far the view is from its photograph. Of weak views every setting finds every source, of very strong
        ones none does, and nothing can be chosen: the best score with ``n_relevant=1`` should lie well between
        0 and 1.

    image_size : int or None, default=1024
        Photographs with a longer longest side are reduced to it first; views are kept in memory. None keeps
        their size.

    random_state : int, RandomState instance or None, default=None
        An int gives the same views at every call.

    Returns
    -------
    queries : :class:`~sklearn.utils.Bunch`
        With the attributes

        images : list of uint8 ndarray of shape (H, W, 3)
            The views.
        sources : ndarray of shape (n_views_in_all,)
            The index in `images` (the gallery) of the photograph that each shows.
        changes : list of str
            What was done to each, in words.

    Raises
    ------
    ValueError, FileNotFoundError
        If `images` is empty, one of them cannot be read (the message names it), or a kind is unknown.

    Notes
    -----
    Crops, warps and changes of light keep what is behind the object, and so choose settings that recognise the
    background; photographs of one object rarely share it. The defaults were chosen with one network and
    confirmed with another, on photographs of single objects (``benchmarks/results/tuning.md``). For buildings,
    where what stands around stays, try the other kinds as well.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.model_selection import make_pseudo_queries
    >>> photographs = np.random.default_rng(0).integers(0, 256, (5, 40, 60, 3), dtype=np.uint8)
    >>> queries = make_pseudo_queries(photographs, n_views=2, n_images=3, random_state=0)
    >>> queries.sources
    array([0, 0, 1, 1, 2, 2])
    """
    items = check_images(images)
    rng = check_random_state(random_state)
    chosen = np.arange(len(items))
    if n_images is not None and n_images < len(items):
        chosen = np.sort(rng.choice(len(items), n_images, replace=False))
    views = make_photo_views(
        [items[i] for i in chosen],
        n_views,
        kinds=kinds,
        strength=strength,
        image_size=image_size,
        random_state=rng,
    )
    return Bunch(images=views.images, sources=chosen[views.labels], changes=views.changes)


class PseudoQueryScorer:
    """Score a retrieval pipeline by how it finds the photographs that pseudo-queries were made from.

    A scorer, ``GridSearchCV(pipeline, grid, cv=WholeGallerySplit(), scoring=PseudoQueryScorer(...))``, that needs
    no labels: the pipeline is fitted on the whole gallery and ranks it for queries that the scorer holds.

    Of each query the photograph that it shows, its source, is a right answer. So may be others: another
    photograph of the object, found before the source, is no mistake, and settings that see through the change
    of the photograph would be punished for it. Therefore the ``n_relevant - 1`` photographs that the fitted
    pipeline itself finds nearest to the source count as right answers, too: a query is to be answered as its
    source would be. The score is the mean average precision (trapezoid rule) with these answers.

    Parameters
    ----------
    queries : sequence of photographs, FeatureMaps, feature maps or descriptors
        What the pipeline takes as X: the views for a pipeline that starts with an extractor, their maps for
        one that starts with a pooler.

    sources : array-like of shape (n_queries,)
        Index in the gallery of the photograph that each query was made from.

    n_relevant : int, default=5
        Right answers of a query: the source and its nearest neighbours, about as many as the photographs of
        one object that the gallery may hold. 1: the source alone.

    See Also
    --------
    make_pseudo_queries : Makes the queries.
    WholeGallerySplit : The splitter.
    GalleryQuerySplit : With labels.

    Notes
    -----
    It says which setting is better, not how good one is: the score lies above the mAP under true labels where
    views are easier than other photographs, and below it where they are harder.

    Settings that answer alike whatever is asked (descriptors that hold hardly anything but brightness, say)
    agree with themselves: in a grid with such settings, look at ``n_relevant=1`` as well.

    With ``n_relevant > 1`` the neighbours of all gallery items are searched, n^2 comparisons for each setting.

    Threads: any number may score by one object at the same time, each an estimator of its own.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import Pipeline
    >>> from skretrieval.datasets import make_feature_maps
    >>> from skretrieval.model_selection import PseudoQueryScorer, WholeGallerySplit
    >>> from skretrieval.pooling import GeMPooler
    >>> from skretrieval.retrieval import NearestNeighborsRetriever
    >>> maps, _ = make_feature_maps(n_samples=12, n_classes=6, random_state=0)
    >>> views = [x[:, 1:, 2:] for x in maps]  # stands for the maps of make_pseudo_queries(...).images
    >>> search = GridSearchCV(
    ...     Pipeline([("pooler", GeMPooler()), ("retriever", NearestNeighborsRetriever())]),
    ...     {"pooler__p": [1.0, 3.0, 30.0]},
    ...     cv=WholeGallerySplit(),
    ...     scoring=PseudoQueryScorer(views, range(12), n_relevant=2),
    ... )
    >>> search.fit(maps).cv_results_["mean_test_score"].shape
    (3,)
    >>> search.best_estimator_["retriever"].n_samples_fit_  # the gallery, without the views
    12
    """

    def __init__(self, queries: Any, sources: Any, *, n_relevant: int = 5) -> None:
        self.queries = queries
        self.sources = sources
        self.n_relevant = n_relevant

    def __repr__(self) -> str:
        return f"PseudoQueryScorer({len(self.sources)} queries, n_relevant={self.n_relevant})"

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Score a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            A retriever, or a Pipeline that ends in one (also scikit-learn's NearestNeighbors), fitted on the
            gallery; or a fitted search, whose best estimator is taken.

        X : sequence of n images
            The gallery, as the test part of :class:`WholeGallerySplit` gives it. Only counted.

        y : ignored
            For the scikit-learn interface.

        Returns
        -------
        score : float
            Mean average precision of the pseudo-queries, in [0, 1].

        Raises
        ------
        TypeError
            If the estimator doesn't end in a retriever.

        ValueError
            If the estimator was fitted on a part of the gallery only (another cross-validation than
            :class:`WholeGallerySplit`), or the sources don't fit queries and gallery.
        """
        sources = self._check_sources()
        retriever, queries = self._embed(estimator)
        n = retriever.n_samples_fit_
        if _num_samples(X) != n or sources.max() >= n:
            raise ValueError(
                f"The estimator was fitted on {n} images; the gallery to score on has {_num_samples(X)}, and the "
                f"sources go up to {sources.max()}. Pseudo-queries search the gallery they were made from: use "
                "cv=WholeGallerySplit(), and fit on all of it."
            )
        relevant = sources[:, np.newaxis]
        k = min(self.n_relevant, n)
        if k > 1:
            nearest = retriever.kneighbors(n_neighbors=k - 1, return_distance=False)
            relevant = np.column_stack([sources, nearest[sources]])
        precisions = []
        step = max(1, _RANKED // n)
        for start in range(0, len(sources), step):
            part = slice(start, start + step)
            ranking = retriever.kneighbors(queries[part], n_neighbors=n, return_distance=False)
            right = np.zeros(ranking.shape, dtype=bool)
            np.put_along_axis(right, relevant[part], True, axis=1)
            precisions.append(ap_from_relevance(np.take_along_axis(right, ranking, axis=1)))
        return float(np.concatenate(precisions).mean())

    def _check_sources(self) -> np.ndarray:
        if (
            isinstance(self.n_relevant, bool)
            or not isinstance(self.n_relevant, Integral)
            or self.n_relevant < 1
        ):
            raise ValueError(f"n_relevant must be an integer of at least 1, got {self.n_relevant!r}.")
        sources = column_or_1d(self.sources)
        if len(sources) == 0 or sources.dtype.kind not in "iu" or sources.min() < 0:
            raise ValueError(f"sources must be indices of the gallery, at least one, got {self.sources!r}.")
        if _num_samples(self.queries) != len(sources):
            raise ValueError(f"There are {_num_samples(self.queries)} queries, but {len(sources)} sources.")
        return sources

    def _embed(self, estimator: Any) -> tuple[Any, Any]:
        """Return the retriever and the queries' descriptors."""
        estimator = getattr(estimator, "best_estimator_", estimator)
        queries = self.queries
        while isinstance(estimator, Pipeline):
            if len(estimator) > 1:
                queries = estimator[:-1].transform(queries)
            estimator = estimator[-1]
        if not hasattr(estimator, "kneighbors"):
            raise TypeError(
                f"{type(estimator).__name__} finds no neighbours: end the pipeline in a retriever "
                "(NearestNeighborsRetriever)."
            )
        return estimator, queries
