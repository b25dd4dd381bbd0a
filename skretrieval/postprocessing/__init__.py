"""From descriptors to better descriptors: power normalisation and whitening.

L2 normalisation is scikit-learn's :class:`~sklearn.preprocessing.Normalizer`; none of the estimators here
repeats it.
"""

from ._learned_whitening import LearnedWhitening
from ._pca_whitening import PCAWhitening
from ._power_normalizer import PowerNormalizer

__all__ = ["LearnedWhitening", "PCAWhitening", "PowerNormalizer"]
