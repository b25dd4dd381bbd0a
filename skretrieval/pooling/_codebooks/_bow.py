"""BoW: bags of visual words, sparse histograms of nearest words."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.cluster import MiniBatchKMeans
from sklearn.preprocessing import normalize
from sklearn.utils._param_validation import Interval

from ..._linalg import l2
from .._engine._batches import BATCH_BYTES, BLOCK_BYTES, Batch, RegionRows
from ._visual_words import NearestWordPooler


class BoWPooler(NearestWordPooler):
    """Histogram of the visual words of all cells, l2-normalised (BoW-CNN).

    The map is enlarged, each cell's column l2-normalised, PCA-whitened and l2-normalised again, and counted for the
    nearest of `n_clusters` words that mini-batch k-means learned. Cells without activation are not counted;
    of words that are equally near, the first counts.

    Parameters
    ----------
    n_clusters : int, default=25000
        Visual words.

    n_local : int, "all" or None, default="all"
        Dimensions of the PCA-whitened local descriptors; "all" for as many as there are (the paper's 512 of 512
        channels), None for no PCA.

    upsample : int, default=2
        Bilinear enlargement of the map before it is cut into cells.

    sparse_output : bool, default=True
        Give a CSR matrix, else an array.

    points : {"all", "grid", "hessian"}, default="all"
        Which cells are local descriptors: all; those of largest response (sum over channels); or those in which the
        photograph has a blob or corner (determinant of the Hessian; needs `X` to be
        :class:`~skretrieval.extraction.FeatureMaps`, whose photographs are read again in every pass, and the extra
        ``photos``).

    n_points : int, default=4000
        Cells taken ("grid"), what ties with the last of them included; or detections that count, those of largest
        response ("hessian"). A cell is one descriptor, however many detections lie in it. A photograph without
        a detection in a cell with a response is described as by "grid".

    sample_size : int, default=250000
        Local descriptors that the words are learned from, drawn from all images alike.

    random_state : int, RandomState instance or None, default=None
        Draws the sample and starts k-means.

    rectify : bool or "auto", default=True
        Replace negative activations by zero first.
        "auto" cuts them off only where the network gives none (it ends in a ReLU), and keeps those of other maps.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, D)
        The words.

    local_axes_ : WhiteningAxes
        Mean, components and eigenvalues of the PCA-whitening, only with `n_local`.

    n_features_in_ : int
        Channels K of the maps.

    Notes
    -----
    The words are started from random descriptors: k-means++ needs time quadratic in the number of words.
    The paper uses conv5_1 of VGG16 at 336 x 256 pixels, a 21 x 16 map.

    Threads: any number may call ``transform`` of one fitted pooler at the same time; ``fit`` and ``set_params``
    need it for themselves.

    References
    ----------
    Mohedano, Salvador, McGuinness, Marques, O'Connor, Giro-i-Nieto, "Bags of local convolutional features for
    scalable instance search", ICMR 2016, section 3.

    Examples
    --------
    >>> from skretrieval.datasets import make_feature_maps
    >>> from skretrieval.pooling import BoWPooler
    >>> maps, _ = make_feature_maps(6, 16, random_state=0)
    >>> BoWPooler(n_clusters=50, random_state=0).fit_transform(maps).shape
    (6, 50)
    """

    _parameter_constraints: dict = {
        **NearestWordPooler._parameter_constraints,
        "upsample": [Interval(Integral, 1, None, closed="left")],
        "sparse_output": ["boolean"],
    }
    _exact = False  # counts are exact; only the nearest word has to be found

    def __init__(
        self,
        n_clusters=25000,
        *,
        n_local="all",
        upsample=2,
        sparse_output=True,
        points="all",
        n_points=4000,
        sample_size=250_000,
        random_state=None,
        rectify=True,
    ):
        self.n_clusters = n_clusters
        self.n_local = n_local
        self.upsample = upsample
        self.sparse_output = sparse_output
        self.points = points
        self.n_points = n_points
        self.sample_size = sample_size
        self.random_state = random_state
        self.rectify = rectify

    @property
    def _upsample(self) -> int:
        return self.upsample

    def _learn_codebook(self, sample: np.ndarray, rng: np.random.RandomState) -> None:
        model = MiniBatchKMeans(
            self.n_clusters,
            init="random",
            n_init=1,
            batch_size=max(1024, self.n_clusters),
            random_state=rng.randint(np.iinfo(np.int32).max),
        )
        self.cluster_centers_ = model.fit(sample).cluster_centers_
        self._n_features_out = self.n_clusters

    def _numbers(self, n_cells: int, n_local: int) -> int:
        return n_cells * n_local  # `nearest` takes care of its own

    def _aggregate(self, cells: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        counts = cells.new_zeros(len(cells), self.n_clusters)
        return l2(counts.scatter_add_(1, self._words(cells), valid.to(cells)))

    @property
    def _describing_bytes(self) -> int:  # type: ignore[override]
        return BATCH_BYTES if self.sparse_output else BLOCK_BYTES

    def _describe_all(self, X: Any, describe: Any = None):
        if not self.sparse_output:
            return super()._describe_all(X)
        bags = super()._describe_all(X, self._bags)
        words, counts = np.concatenate(bags).T.astype(np.float64)
        borders = np.concatenate([[0], np.cumsum([len(bag) for bag in bags])])
        shape = (len(bags), self.n_clusters)
        matrix = sparse.csr_matrix((counts, words.astype(np.int64), borders), shape=shape)
        return normalize(matrix, copy=False).astype(bags[0].dtype)

    def _bags(self, batches: tuple[Batch, ...]) -> RegionRows:
        """Return sparse bags as rows (word, count), one set per image; counted here, so that cells do not pile up."""
        rows, counts = [], []
        for block in self._blocks(batches[0]):
            local = self._local(block)
            valid = local.valid
            words = self._words(local.vectors)[valid].cpu().numpy()
            image = np.repeat(np.arange(len(valid)), valid.sum(dim=1).cpu().numpy())
            ones = np.ones(len(image), dtype=np.int64)
            bags = sparse.coo_matrix((ones, (image, words)), shape=(len(valid), self.n_clusters)).tocsr()
            rows.append(np.stack([bags.indices, bags.data], axis=1))
            counts.append(np.diff(bags.indptr))
        pairs = torch.from_numpy(np.concatenate(rows))  # exact in float32 below 2**24
        return RegionRows(pairs.to(batches[0].maps.dtype), np.concatenate(counts))
