"""Photographs to feature maps."""

from ._conv import ConvFeatureExtractor
from ._crop import ImageCrop, image_name
from ._decode import Facts, read_facts, read_file, read_orientation, read_size
from ._feature_maps import FeatureMaps
from ._formats import FORMATS, readable_suffixes
from ._images import (
    INTERPOLATIONS,
    UnreadableImageWarning,
    content_digest,
    read_image,
    resize_longest,
    scaled_size,
)
from ._inputs import check_images
from ._kernel import ConvKernelExtractor
from ._patch_network import PatchNetwork

__all__ = [
    "FORMATS",
    "INTERPOLATIONS",
    "ConvFeatureExtractor",
    "ConvKernelExtractor",
    "Facts",
    "FeatureMaps",
    "ImageCrop",
    "PatchNetwork",
    "UnreadableImageWarning",
    "check_images",
    "content_digest",
    "image_name",
    "read_facts",
    "read_file",
    "read_image",
    "read_orientation",
    "read_size",
    "readable_suffixes",
    "resize_longest",
    "scaled_size",
]
