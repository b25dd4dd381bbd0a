"""Codebooks whose entries are visual words: which word each cell of a map belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ..._linalg import tensor_of
from .._engine._batches import n_entries
from ._base import CodebookPooler
from ._centers import nearest


class VisualWordPooler(CodebookPooler):
    """A codebook that gives each local descriptor a share of every word: ``_shares(cells)`` returns (N, n, k)."""

    def _shares(self, cells: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _assigned(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the word of each local descriptor and its share of it, both (N, n)."""
        shares, words = self._shares(cells).max(dim=2)
        return words, shares

    def assign(self, X: Any, return_shares: bool = False) -> Any:
        """Tell the visual word of each cell.

        Parameters
        ----------
        X : FeatureMaps, array of shape (n, C, H, W), or sequence of (C, H_i, W_i) arrays or tensors
            Feature maps with the number of channels seen in fit.

        return_shares : bool, default=False
            Whether to return also how much of a cell goes to its word.

        Returns
        -------
        words : list of n int ndarrays of shape (H_i, W_i)
            Index of the word; the one of the largest share where the codebook divides a cell among words
            (`FisherVectorPooler`, `NetVLADPooler`), else the nearest. -1 for cells that are no local descriptor: those
            without activation and, with `points` other than "all", those that are not salient. Where the pooler
            enlarges its maps (``upsample`` of `BoWPooler`), the cells are those of the enlarged map.

        shares : list of n ndarrays of shape (H_i, W_i)
            In [0, 1]: 1 where a cell belongs to one word alone, 0 where the word is -1. Only with `return_shares`.

        Raises
        ------
        NotFittedError
            If there are no words yet.

        ValueError
            Empty input, wrong rank, another channel count than in fit, NaN or infinity: the entry is named.

        Examples
        --------
        >>> import numpy as np
        >>> from skretrieval.pooling import VLADPooler
        >>> maps = np.zeros((1, 2, 2, 2))
        >>> maps[0, :, 0] = [[3.0, 0.0], [0.0, 5.0]]  # two cells unlike, two without activation
        >>> words = VLADPooler(2, random_state=0).fit(maps).assign(maps)[0]
        >>> bool(words[0, 0] != words[0, 1]), words[1].tolist()
        (True, [-1, -1])
        """
        check_is_fitted(self)
        self._validate_params()
        words: list[Any] = [None] * n_entries(X)
        shares: list[Any] = [None] * len(words)
        with torch.inference_mode():
            for indices, local, shape in self._located(X):
                found, share = self._assigned(local.vectors)
                found, share = (
                    local.over_cells(found, shape, -1).cpu(),
                    local.over_cells(share, shape, 0).cpu(),
                )
                for index, own, its_share in zip(indices, found.numpy(), share.numpy(), strict=True):
                    words[index], shares[index] = own, its_share
        return (words, shares) if return_shares else words


class NearestWordPooler(VisualWordPooler):
    """A codebook that gives each local descriptor to the nearest of its ``cluster_centers_``."""

    cluster_centers_: np.ndarray

    def _words(self, cells: torch.Tensor) -> torch.Tensor:
        """Return the nearest word (N, n) of local descriptors (N, n, D)."""
        centers = tensor_of(self.cluster_centers_, cells)
        return nearest(cells.flatten(0, 1), centers).view(cells.shape[:2])

    def _assigned(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._words(cells), cells.new_ones(cells.shape[:2])
