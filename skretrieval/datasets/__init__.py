"""Names to photographs and ground truth: folders, sample photographs, synthetic views and feature maps."""

from ._feature_maps import make_feature_maps
from ._folder import load_image_folder
from ._samples import load_sample_photographs
from ._views import make_photo_views

__all__ = ["load_image_folder", "load_sample_photographs", "make_feature_maps", "make_photo_views"]
