"""Numbers that a pooler cannot work with: the entry is named, and no descriptor is made up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ._batches import Batch


def check_nonnegative(batch: Batch, title: str) -> None:
    """Raise if a map has values below zero.

    Parameters
    ----------
    batch : Batch
        The maps, as they are.
    title : str
        For whom they would have no meaning.

    Raises
    ------
    ValueError
        That names the first such entry.
    """
    if not batch.nonnegative:
        bad = int(torch.nonzero(batch.maps.flatten(1).amin(dim=1) < 0)[0])
        raise ValueError(
            f"Entry {batch.indices[bad]}: negative activations have no meaning for {title}; use rectify=True."
        )


def check_descriptors(rows: np.ndarray, counts: np.ndarray, batches: tuple[Batch, ...]) -> None:
    """Raise unless all descriptors are finite.

    Parameters
    ----------
    rows : ndarray of shape (sum of counts, d)
        Descriptors of a batch, those of one image after those of another.
    counts : ndarray of shape (N,)
        Rows of each image.
    batches : tuple of Batch
        What they were made of, one for each layer.

    Raises
    ------
    ValueError
        That names the entry, and the size of its numbers.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if rows.dtype.kind != "f" or np.isfinite(rows.sum(dtype=np.float64)):  # one pass, without a mask
            _check_vanished(rows, counts, batches)
            return
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad) == 0:  # only the sum was too large
        return
    place = int(np.searchsorted(np.cumsum(counts), bad[0], side="right"))
    raise _out_of_range(batches, place, "its descriptor is not finite")


def _check_vanished(rows: np.ndarray, counts: np.ndarray, batches: tuple[Batch, ...]) -> None:
    """Raise if a descriptor is zero because the map has nothing but numbers that have lost their digits."""
    zero = np.flatnonzero(~rows.any(axis=1))
    for place in np.unique(np.searchsorted(np.cumsum(counts), zero, side="right")):
        largest = max(float(batch.maps[place].abs().max()) for batch in batches)
        if 0 < largest < float(torch.finfo(batches[0].maps.dtype).tiny):
            raise _out_of_range(batches, int(place), "its descriptor vanishes")


@contextmanager
def learned_from(batches: tuple[Batch, ...]) -> Iterator[None]:
    """Name the entry in the error of what finds NaN or infinity while something is learned.

    Parameters
    ----------
    batches : tuple of Batch
        Those with the largest numbers of all.

    Raises
    ------
    ValueError
        As was raised within, or with the entry.
    """
    try:
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # what comes of it is refused, here or when it describes
            yield
    except ValueError as error:
        if not any(word in str(error) for word in ("infs or NaNs", "infinity", "NaN")):
            raise
        sizes = torch.stack([batch.maps.abs().flatten(1).amax(dim=1).double() for batch in batches])
        raise _out_of_range(batches, int(sizes.amax(dim=0).argmax()), "nothing can be learned") from error


def _out_of_range(batches: tuple[Batch, ...], place: int, what: str) -> ValueError:
    largest = max(float(batch.maps[place].abs().max()) for batch in batches)
    limits = torch.finfo(batches[0].maps.dtype)
    return ValueError(
        f"Entry {batches[0].indices[place]}: {what}, because values of the feature map reach {largest:.3g} and what "
        f"is computed of them leaves the range of {limits.dtype}, from {limits.tiny:.3g} to "
        f"{limits.max:.3g}: scale the maps."
    )
