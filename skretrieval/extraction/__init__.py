"""Photographs to feature maps."""

from ._conv import ConvFeatureExtractor
from ._feature_maps import FeatureMaps
from ._images import ImageCrop

__all__ = ["ConvFeatureExtractor", "FeatureMaps", "ImageCrop"]
