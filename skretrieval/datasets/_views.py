"""Other views of photographs: what a second camera, another hour and a messenger app do to a picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, validate_params

from ..extraction import check_images, read_image, scaled_size

_MIN_SIDE = 8  # pixels: a crop stops here, so that a view of an icon is still a picture


def _backdrop(
    image: Image.Image, rng: np.random.RandomState, strength: float, other: Image.Image
) -> tuple[Image.Image, str]:
    """Carry the middle of the photograph, 45 % to 75 % of each side (at full strength), into another one.

    Photographs of one object share the object, not what is behind it; the other kinds keep what is behind it.
    The box may shrink to 60 %, stands anywhere, and its edge is feathered: a hard one is a thing to recognise.
    """
    kept = 1.0 - strength * rng.uniform(0.25, 0.55, size=2)
    middle = 0.5 + strength * rng.uniform(-0.25, 0.25, size=2)
    scale = 1.0 - strength * rng.uniform(0.0, 0.4)
    place = rng.uniform(size=2)
    size = np.array(image.size)
    side = np.minimum(size, np.maximum(_MIN_SIDE, np.rint(kept * size))).astype(int)
    left, top = np.rint(middle * (size - side)).astype(int)
    target = np.minimum(side, np.maximum(_MIN_SIDE, np.rint(scale * side))).astype(int)
    box = image.crop((int(left), int(top), int(left + side[0]), int(top + side[1])))
    box = box.resize((int(target[0]), int(target[1])), Image.Resampling.BICUBIC)
    blur = strength * 0.02 * min(box.size)
    inset = round(2 * blur)
    mask = Image.new("L", box.size, 0)
    mask.paste(255, (inset, inset, box.width - inset, box.height - inset))
    view = other.resize(image.size, Image.Resampling.BICUBIC)
    x, y = np.rint(place * (size - target)).astype(int)
    view.paste(box, (int(x), int(y)), mask.filter(ImageFilter.GaussianBlur(blur)))
    return view, f"backdrop {1 - target.prod() / size.prod():.0%}"


def _crop(image: Image.Image, rng: np.random.RandomState, strength: float) -> tuple[Image.Image, str]:
    """Keep a box of 55 % to 90 % of each side (at full strength), anywhere in the photograph."""
    kept = 1.0 - strength * rng.uniform(0.10, 0.45, size=2)
    place = rng.uniform(size=2)
    size = np.array(image.size)
    side = np.minimum(size, np.maximum(_MIN_SIDE, np.rint(kept * size))).astype(int)
    left, top = np.rint(place * (size - side)).astype(int)
    box = (int(left), int(top), int(left + side[0]), int(top + side[1]))
    return image.crop(box), f"crop {side.prod() / size.prod():.0%}"


def _homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Solve for the 8 coefficients that map `source` points to `target` points, both of shape (4, 2)."""
    x, y = source.T
    zero, one = np.zeros(4), np.ones(4)
    u, v = target.T
    upper = np.column_stack([x, y, one, zero, zero, zero, -u * x, -u * y])
    lower = np.column_stack([zero, zero, zero, x, y, one, -v * x, -v * y])
    return np.linalg.solve(np.vstack([upper, lower]), np.concatenate([u, v]))


def _warp(image: Image.Image, rng: np.random.RandomState, strength: float) -> tuple[Image.Image, str]:
    """Look from another side: each corner moves inwards by up to 18 % of the side (at full strength).

    Corners only move inwards, so every pixel of the view shows a part of the photograph: no black border that
    would tell views from photographs.
    """
    width, height = image.size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=float)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * [width, height]
    shift = strength * rng.uniform(0.0, 0.18, size=(4, 2))
    # PIL asks where each pixel of the view comes from.
    coefficients = _homography(corners, corners + inwards * shift)
    view = image.transform(
        image.size, Image.Transform.PERSPECTIVE, tuple(coefficients), Image.Resampling.BICUBIC
    )
    return view, f"warp {shift.mean():.0%}"


def _relight(image: Image.Image, rng: np.random.RandomState, strength: float) -> tuple[Image.Image, str]:
    """Change the exposure: gamma within 1/1.8 to 1.8, gain within 1/1.25 to 1.25, colours by up to 12 %."""
    gamma = 1.8 ** (strength * rng.uniform(-1, 1))
    gain = 1.25 ** (strength * rng.uniform(-1, 1))
    colour = 1.12 ** (strength * rng.uniform(-1, 1, size=3))
    level = (np.arange(256) / 255.0) ** gamma
    table = np.clip(np.rint(255.0 * gain * colour[:, np.newaxis] * level), 0, 255)
    return image.point(table.astype(int).ravel().tolist()), f"gamma {gamma:.2f} gain {gain:.2f}"


def _blur(image: Image.Image, rng: np.random.RandomState, strength: float) -> tuple[Image.Image, str]:
    """Lose focus: a Gaussian of up to 0.5 % of the longest side (at full strength)."""
    sigma = strength * rng.uniform(0.1, 0.5) / 100.0 * max(image.size)
    return image.filter(ImageFilter.GaussianBlur(sigma)), f"blur {sigma:.1f} px"


def _jpeg(image: Image.Image, rng: np.random.RandomState, strength: float) -> tuple[Image.Image, str]:
    """Compress: JPEG of quality 95 at strength 0, of 15 to 65 at full strength."""
    quality = round(95 - strength * rng.uniform(30, 80))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    with Image.open(buffer, formats=["JPEG"]) as decoded:
        return decoded.convert("RGB"), f"JPEG {quality}"


# In the order of the world: where the thing stands, the camera's place, the light, the lens, the file.
_KINDS: dict[str, Callable] = {
    "backdrop": _backdrop,
    "crop": _crop,
    "warp": _warp,
    "relight": _relight,
    "blur": _blur,
    "jpeg": _jpeg,
}


@validate_params(
    {
        "n_views": [Interval(Integral, 1, None, closed="left")],
        "kinds": ["array-like"],
        "strength": [Interval(Real, 0, 1, closed="both")],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_photo_views(
    images: Sequence[Any],
    n_views: int = 4,
    *,
    kinds: Sequence[str] = ("crop", "warp", "blur", "relight", "jpeg"),
    strength: float = 0.7,
    image_size: int | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Make other views of photographs: queries whose right answers are known.

    Every view passes through all the `kinds`, each with its own random amount, always in the order in which
    they happen in the world: backdrop (the middle of the photograph before another of the photographs), crop,
    warp (perspective), relight (gamma, gain, colour), blur, jpeg.

    Parameters
    ----------
    images : sequence of path, PIL.Image.Image, uint8 ndarray or ImageCrop
        The photographs.

    n_views : int, default=4
        Views of each photograph.

    kinds : sequence of {"backdrop", "crop", "warp", "blur", "relight", "jpeg"}
        What happens to a view. Default: all but "backdrop", which needs at least two photographs.

    strength : float in [0, 1], default=0.7
        How far the view is from its photograph. At 0 only the JPEG compression (quality 95) is left.

    image_size : int, default=None
        Photographs with a longer longest side are reduced to it first. None keeps their size.

    random_state : int, RandomState instance or None, default=None
        An int makes the views reproducible. View v of photograph i then doesn't depend on the photographs
        after i, unless one of these is its backdrop.

    Returns
    -------
    views : :class:`~sklearn.utils.Bunch`
        With the attributes

        images : list of uint8 ndarray of shape (H, W, 3)
            The views, those of the first photograph first. They differ in size.
        labels : ndarray of shape (n_images * n_views,)
            The index of the photograph that each view shows; also as `target`.
        changes : list of str
            What was done to each view, in words.

    Raises
    ------
    ValueError, FileNotFoundError
        If `images` is empty, one of them cannot be read (the message names it), a kind is unknown, or
        "backdrop" is asked of a single photograph.

    Examples
    --------
    >>> import numpy as np
    >>> from skretrieval.datasets import make_photo_views
    >>> photograph = np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)
    >>> views = make_photo_views([photograph], n_views=2, kinds=["warp", "jpeg"], random_state=0)
    >>> views.labels
    array([0, 0])
    >>> views.images[0].shape
    (60, 80, 3)
    >>> views.changes[0]
    'warp 8%, JPEG 44'
    """
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if isinstance(kinds, str) or unknown:
        raise ValueError(f"kinds must be a sequence out of {sorted(_KINDS)}, got {kinds!r}.")
    items = check_images(images)
    if "backdrop" in kinds and len(items) < 2:
        raise ValueError('kinds has "backdrop", which needs at least 2 photographs, got 1.')
    steps = [step for kind, step in _KINDS.items() if kind in set(kinds)]
    seeds = check_random_state(random_state).randint(np.iinfo(np.int32).max, size=(len(items), n_views))

    def read(index):
        photograph = read_image(items[index], position=index, draft=image_size)
        if image_size is None or max(photograph.size) <= image_size:
            return photograph
        return photograph.resize(scaled_size(*photograph.size, image_size), Image.Resampling.BICUBIC)

    views, changes = [], []
    for index in range(len(items)):
        photograph = read(index)
        for seed in seeds[index]:
            rng = np.random.RandomState(seed)
            view, words = photograph, []
            for step in steps:
                if step is _backdrop:
                    other = read((index + rng.randint(1, len(items))) % len(items))
                    view, word = step(view, rng, strength, other)
                else:
                    view, word = step(view, rng, strength)
                words.append(word)
            views.append(np.asarray(view))
            changes.append(", ".join(words))
    labels = np.repeat(np.arange(len(items)), n_views)
    return Bunch(images=views, labels=labels, target=labels, changes=changes)
