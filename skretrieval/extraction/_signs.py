"""Which maps of an extractor have negative values."""

from __future__ import annotations

from typing import Any

import numpy as np


class SignsMixin:
    """What an extractor says of the signs of its maps, for poolers with ``rectify="auto"``."""

    _building: Any
    _forward: Any
    _network: Any
    _signed: list[bool]
    multi_resolution: Any
    sizes: Any

    def signed(self) -> list[bool]:
        """Tell which of its maps have negative values, found with one small image of noise.

        A map that ends in a ReLU has none; those of transformers, of linear bottlenecks, and of a convolution or a
        normalisation without an activation behind it have. The noise shows every value that a pixel can have, so
        that thousands of activations would have to be positive by chance for a signed map to be taken for another.

        Returns
        -------
        signed : list of bool
            One for each map that a photograph has. The same for the same network, whatever the photographs.

        Examples
        --------
        >>> from skretrieval.extraction import ConvFeatureExtractor
        >>> layers = ["features.12", "features.12.squeeze"]
        >>> ConvFeatureExtractor("squeezenet1_1", weights=None, layers=layers, random_state=0).signed()
        [False, True]
        """
        with self._building():
            self._network()  # forgets what is known of another one
            if "_signed" not in self.__dict__:
                noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
                (layers,) = self._forward([[noise]])
                self._signed = [bool((maps < 0).any()) for maps in layers]
            return self._signed * (1 if self.multi_resolution == "sum" else len(self.sizes()))
