"""Whether two photographs show the same thing: local features, and a homography that joins them."""

from ._local_features import (
    LocalFeatures,
    Verification,
    central_share,
    describe_points,
    import_cv2,
    match_points,
    verify_pair,
)

__all__ = [
    "LocalFeatures",
    "Verification",
    "central_share",
    "describe_points",
    "import_cv2",
    "match_points",
    "verify_pair",
]
