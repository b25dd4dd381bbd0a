"""Real photographs that come inside installed packages: nothing is downloaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

# (package, file below the package, scene, title). Photographs of the same scene share the scene's name. Left
# out of scikit-image's pictures: drawings, test patterns, pages of text, pictures from microscopes.
_PHOTOGRAPHS = (
    ("skimage", "data/astronaut.png", "astronaut", "Eileen Collins, astronaut"),
    ("skimage", "data/brick.png", "brick", "Brick wall"),
    ("skimage", "data/camera.png", "camera", "Photographer with his camera"),
    ("skimage", "data/chelsea.png", "chelsea", "Chelsea the cat"),
    ("skimage", "data/coffee.png", "coffee", "Cup of coffee"),
    ("skimage", "data/coins.png", "coins", "Greek coins from Pompeii"),
    ("skimage", "data/grass.png", "grass", "Grass"),
    ("skimage", "data/gravel.png", "gravel", "Gravel"),
    ("skimage", "data/hubble_deep_field.jpg", "hubble_deep_field", "Hubble eXtreme Deep Field"),
    ("skimage", "data/moon.png", "moon", "Surface of the moon"),
    ("skimage", "data/motorcycle_left.png", "motorcycle", "Motorcycle, left camera"),
    ("skimage", "data/motorcycle_right.png", "motorcycle", "Motorcycle, right camera"),
    ("skimage", "data/rocket.jpg", "rocket", "Falcon 9 on its launch pad"),
    ("sklearn", "datasets/images/china.jpg", "china", "Temple in China"),
    ("sklearn", "datasets/images/flower.jpg", "flower", "Dahlia"),
)

_DESCR = """Sample photographs
------------------
15 photographs of 14 scenes (a motorcycle was taken by two cameras side by side) that come inside the packages
scikit-image (13; CC0 or public domain, see the docstrings of skimage.data) and scikit-learn (2; CC BY 2.0,
china.jpg by danielbuechele, flower.jpg by vultilion). Nothing is downloaded.
"""


def load_sample_photographs() -> Bunch:
    """Load the real photographs that come with scikit-image and scikit-learn, offline.

    Returns
    -------
    photographs : :class:`~sklearn.utils.Bunch`
        With the attributes

        images : list of str
            The files, 300 to 1000 pixels on the longest side, colour and grey.
        titles : list of str
            What each shows.
        labels : ndarray of shape (15,), dtype str
            The scene. Two photographs, by two cameras side by side, show the same motorcycle.
        target : ndarray of shape (15,)
            The scene as a number; ``target_names[target]`` are the labels.
        target_names : ndarray of shape (14,), dtype str
            The names of the scenes, sorted.
        DESCR : str
            Where they come from, and their licences.

    Raises
    ------
    ImportError
        If scikit-image is not installed; the message names the extra `photos`.

    FileNotFoundError
        If the installed release no longer carries one of the files.

    Examples
    --------
    >>> from skretrieval.datasets import load_sample_photographs
    >>> photographs = load_sample_photographs()
    >>> len(photographs.images), len(photographs.target_names)
    (15, 14)
    >>> photographs.titles[3]
    'Chelsea the cat'
    """
    images = []
    for package, name, _, _ in _PHOTOGRAPHS:
        path = _package_folder(package) / name
        if not path.is_file():
            raise FileNotFoundError(
                f"The installed {package} doesn't carry {name}. skretrieval knows the files of scikit-image "
                "0.24 to 0.26 and scikit-learn 1.6 to 1.9; install one of these."
            )
        images.append(str(path))
    labels = np.array([scene for _, _, scene, _ in _PHOTOGRAPHS])
    target_names, target = np.unique(labels, return_inverse=True)
    return Bunch(
        images=images,
        titles=[title for _, _, _, title in _PHOTOGRAPHS],
        labels=labels,
        target=target,
        target_names=target_names,
        DESCR=_DESCR,
    )


def _package_folder(package: str) -> Path:
    """Find where a package is installed without importing it (and so without touching its downloader)."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(
            f"The sample photographs come with {package}, which is not installed. "
            'Install the extra "photos": pip install "scikit-retrieval[photos]".'
        )
    return Path(spec.origin).parent
