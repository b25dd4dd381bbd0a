"""From descriptors to better descriptors: power normalisation, whitening, selection, augmentation.

L2 normalisation is scikit-learn's :class:`~sklearn.preprocessing.Normalizer`; none of the estimators here
repeats it.
"""

from .._linalg import WhiteningWarning as WhiteningWarning
from ._database_augmentation import DatabaseAugmentation
from ._learned_whitening import LearnedWhitening
from ._pca_whitening import PCAWhitening
from ._power_normalizer import PowerNormalizer
from ._principal_feature_selector import PrincipalFeatureSelector

__all__ = [
    "DatabaseAugmentation",
    "LearnedWhitening",
    "PCAWhitening",
    "PowerNormalizer",
    "PrincipalFeatureSelector",
]
