"""PCA-whitening of region vectors, learned in one pass in memory that does not grow with the images."""

from __future__ import annotations

import numpy as np
import torch

from ..._linalg import StreamedAxes, WhiteningAxes, check_rank, warn_if_thin


class RegionWhitening:
    """Gathers region vectors batch by batch, without the zero ones, and learns their whitening."""

    def __init__(self) -> None:
        # also below the rounding of float32 maps there is no variance, only noise
        self._rows = StreamedAxes(precision=np.float32)

    def update(self, vectors: torch.Tensor) -> None:
        """Add the non-zero regions of a batch, (N, R, K)."""
        self._rows.update(vectors.flatten(0, 1).cpu().numpy())

    def finish(self, n_components: int | None, n_samples: int, n_features: int) -> WhiteningAxes:
        """Return the axes of the regions seen (divisor n - 1, rank-safe).

        Parameters
        ----------
        n_components : int or None
            Axes kept at most.
        n_samples, n_features : int
            Images seen and channels, for messages.

        Raises
        ------
        ValueError
            If fewer than two regions had any activation, or all were equal.
        """
        if self._rows.n_rows < 2:
            raise ValueError(
                f"whiten=True needs at least 2 regions with activations to learn from, found {self._rows.n_rows} "
                f"(n_samples={n_samples}, n_features={n_features})."
            )
        n_rows = self._rows.n_rows
        axes = self._rows.finish(n_components)
        n_kept = check_rank(axes, "n_components", n_components, n_samples, n_features, "regions")
        warn_if_thin("whiten=True", n_rows, n_kept, n_features, 1.0, rows=f"regions of {n_samples} image(s)")
        return axes.whitening()
