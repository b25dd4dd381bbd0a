"""Names to photographs and ground truth: published benchmarks, folders, samples, synthetic views and maps."""

from ._distractors import fetch_flickr100k, fetch_revisitop1m
from ._feature_maps import make_feature_maps
from ._folder import check_box, list_images, load_image_folder
from ._ground_truth import load_revisited_ground_truth
from ._holidays import fetch_holidays
from ._oxford import fetch_oxford5k, fetch_paris6k
from ._revisited import fetch_roxford5k, fetch_rparis6k
from ._samples import load_sample_photographs
from ._store import get_data_home
from ._ukbench import fetch_ukbench
from ._views import make_photo_views

__all__ = [
    "check_box",
    "fetch_flickr100k",
    "fetch_holidays",
    "fetch_oxford5k",
    "fetch_paris6k",
    "fetch_revisitop1m",
    "fetch_roxford5k",
    "fetch_rparis6k",
    "fetch_ukbench",
    "get_data_home",
    "list_images",
    "load_image_folder",
    "load_revisited_ground_truth",
    "load_sample_photographs",
    "make_feature_maps",
    "make_photo_views",
]
