"""Adapt the papers' settings to a small folder of photographs with labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from .._encoders import stand_in
from .._evaluate import seeded
from .._photo_set import PhotoSet
from .._plain import settings_key
from ._tables import build

_WORDS = 16  # of a codebook for each photograph, at most
_KERNEL_CHANNELS = 128  # of the kernel extractor, which is not fitted yet
_PAPER_CHANNELS = {("layer4",): 2048, ("layer3",): 1024, ("layer4", "layer3"): 3072}


class Adapter:
    """Builds the Pipelines of a paper's settings for a small folder, and notes what had to change."""

    def __init__(
        self,
        photographs: PhotoSet,
        halves: list[Any],
        backbone: str | None,
        weights: Any,
        image_size: int | None,
        notes: list[str],
    ) -> None:
        self.n_learn = min(map(len, halves))
        sizes = np.unique(np.asarray(photographs.labels), return_counts=True)[1]
        self.n_expand = max(1, int(np.median(sizes)) - 2)
        self.arguments = (backbone, weights, image_size)
        self.notes = notes
        self._channels: dict[str, list[int]] = {}

    def __call__(self, recipe: str, settings: dict[str, Any], varied: str = "") -> Pipeline:
        """Build the Pipeline of some settings; a parameter that is varied stays as it is."""
        asked = build(recipe, settings)
        extractor = stand_in(asked.named_steps["extractor"], *self.arguments)
        changed = dict(settings)
        if changed.get("expand", 0) > self.n_expand and not varied.endswith("n_expand"):
            changed["expand"] = self.n_expand
            self._note(f"queries are expanded with {self.n_expand} results: the objects have few photographs")
        if recipe == "bow_cnn":
            changed["n_clusters"] = min(25000, _WORDS * self.n_learn)
            self._note(f"bow_cnn: a codebook of {changed['n_clusters']} words")
        if recipe == "multi_resolution_pfa":
            changed["n_features"] = self._features(changed.get("n_features", 768), settings, extractor)
        if not self._whitens(asked, extractor, varied):
            changed["whitening"] = None
            changed.pop("n_components", None)
            self._note(
                f"whitening that would need more than {self.n_learn} photographs to learn from is left out"
            )
        return seeded(build(recipe, changed, extractor))

    def _whitens(self, asked: Pipeline, extractor: Any, varied: str) -> bool:
        """Tell whether a half holds enough photographs, or regions of them, to learn the whitening from."""
        pooler = asked.named_steps["pooler"]
        if getattr(pooler, "whiten", False):
            n_levels = 1 if varied.endswith("n_levels") else pooler.n_levels
            # windows of the grid on an oblong map
            n_regions = sum(level * (level + 1) for level in range(1, n_levels + 1))
            return n_regions * self.n_learn >= 2 * sum(self._channels_of(extractor))
        step = asked.named_steps.get("whitening")
        if step is None:
            return True
        return self.n_learn >= 2 * (step.n_components or sum(self._channels_of(extractor)))

    def _features(self, n_features: int, settings: dict[str, Any], extractor: Any) -> int:
        """Select the same share of features as the paper."""
        layers = settings.get("extractor", {}).get("layers", ["layer4", "layer3"])
        whole = _PAPER_CHANNELS[tuple(np.atleast_1d(layers).tolist())]
        return max(2, round(n_features / whole * sum(self._channels_of(extractor))))

    def _channels_of(self, extractor: Any) -> list[int]:
        key = settings_key(extractor)
        if key not in self._channels:
            fitted = (
                extractor.fit([np.zeros((64, 64, 3), dtype=np.uint8)])
                if hasattr(extractor, "backbone")
                else None
            )
            self._channels[key] = [_KERNEL_CHANNELS] if fitted is None else fitted.channels()
        return self._channels[key]

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
