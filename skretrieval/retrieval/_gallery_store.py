"""The gallery of a retriever: replaced and read as a whole, changed by one thread at a time."""

from typing import Any

from numpy.typing import NDArray

from ._descriptors import DescriptorSet
from ._locks import ProcessLock
from ._scale import exponent_of, largest_number, scaled

# Held for the moment in which the parts of a gallery are replaced, or read together.
_SNAPSHOT = ProcessLock()


class GalleryMixin:
    """Keep the rows of a gallery, their offsets and lengths, and its labels; the estimator has ``metric_``."""

    metric_: str

    def _store(self, gallery: DescriptorSet, labels: NDArray[Any] | None) -> None:
        with _SNAPSHOT:
            self.gallery_, self.region_offsets_ = gallery.rows, gallery.offsets
            self.row_lengths_, self.labels_ = gallery.lengths, labels
            self.n_samples_fit_ = gallery.n_items
            self._largest = 1.0 if self.metric_ == "cosine" else largest_number(gallery.rows)

    def _changing(self) -> Any:
        """Return the lock of the calls that change the gallery; it is in no copy and no pickle."""
        return self.__dict__.setdefault("_lock", ProcessLock())

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_lock"}

    @property
    def _gallery(self) -> DescriptorSet:
        with _SNAPSHOT:
            return DescriptorSet(self.gallery_, self.region_offsets_, self.row_lengths_)

    def _in_range(self, queries: DescriptorSet) -> tuple[DescriptorSet, DescriptorSet, int]:
        """Return queries and gallery, divided by a power of two if their squares would leave the range of floats."""
        gallery, exponent = self._gallery, 0
        if self.metric_ != "cosine":
            exponent = exponent_of(
                max(getattr(self, "_largest", 1.0), largest_number(queries.rows)), gallery.dtype
            )
        return (
            (scaled(queries, exponent), scaled(gallery, exponent), exponent)
            if exponent
            else (queries, gallery, 0)
        )
