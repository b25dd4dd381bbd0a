"""Photographs to feature maps."""

from ._conv import ConvFeatureExtractor
from ._feature_maps import FeatureMaps
from ._images import (
    ImageCrop,
    UnreadableImageWarning,
    check_images,
    content_digest,
    image_name,
    read_image,
    resize_longest,
    scaled_size,
)
from ._kernel import ConvKernelExtractor
from ._patch_network import PatchNetwork

__all__ = [
    "ConvFeatureExtractor",
    "ConvKernelExtractor",
    "FeatureMaps",
    "ImageCrop",
    "PatchNetwork",
    "UnreadableImageWarning",
    "check_images",
    "content_digest",
    "image_name",
    "read_image",
    "resize_longest",
    "scaled_size",
]
