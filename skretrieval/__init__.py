"""Training-free image retrieval as scikit-learn estimators.

The sub-packages stand in the order of the data: ``extraction`` (photographs to feature maps), ``pooling``
(feature maps to descriptors), ``postprocessing`` (whitening), ``retrieval`` (search, query expansion),
``metrics`` and ``datasets``. ``recipes`` holds one function per published method.
"""

from ._version import __version__

__all__ = ["__version__"]
