"""Photographs of flat objects, rendered: posters, labels and covers on tables, as five phones would take them.

    python benchmarks/flat_objects.py FOLDER [--objects 60] [--seed 0]

Writes FOLDER/OBJECT/PHONE.jpg. The objects come in families that share their layout, typeface and colours, as the
covers of one publisher do; within a family only the words and the picture differ, and pictures are crops of few
photographs, so that several objects show the same thing. Each phone has its own surroundings (a few tables that
objects share), white balance, blur, noise and compression. Pictures and backgrounds are crops of the photographs that
come with scikit-image and scikit-learn, so the script needs the extras `photos` and `opencv`, and no internet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = (640, 480)
PHONES = ("a", "b", "c", "d", "e")
N_FAMILIES = 8
_PHOTOGRAPHS = (
    "astronaut",
    "coffee",
    "chelsea",
    "rocket",
    "hubble_deep_field",
    "immunohistochemistry",
    "brick",
)
_PHOTOGRAPHS += ("grass", "gravel", "motorcycle", "retina", "coins", "page", "text")
_SYLLABLES = [
    "ba",
    "ce",
    "di",
    "fo",  # codespell:ignore fo
    "gu",
    "la",
    "me",
    "ni",
    "po",
    "ru",
    "sa",
    "te",
    "vi",
    "zo",
    "ka",
    "le",
    "mi",
    "no",
    "pu",
    "ra",
    "se",
    "ti",
    "vo",
    "lu",
]


def photographs(folder: Path | None = None) -> list[np.ndarray]:
    """Return the photographs that pictures and backgrounds are cut from: those of a folder, or of packages."""
    if folder is not None:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        return [np.asarray(Image.open(file).convert("RGB")) for file in files]
    from skimage import data
    from sklearn.datasets import load_sample_images

    found = []
    for name in _PHOTOGRAPHS:
        if name == "motorcycle":
            found.append(data.stereo_motorcycle()[0])
        else:
            found.append(getattr(data, name)())
    found += load_sample_images().images
    return [np.ascontiguousarray(x if x.ndim == 3 else np.stack([x] * 3, axis=2))[..., :3] for x in found]


def fonts() -> list[str]:
    """Return the TrueType fonts at hand: matplotlib's, which are the same everywhere."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [str(folder / f"{name}.ttf") for name in (
        "DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono", "STIXGeneral",
        "STIXGeneralBol", "cmr10",
    )]  # fmt: skip


def _words(rng: np.random.RandomState, n: int) -> str:
    return " ".join("".join(rng.choice(_SYLLABLES, rng.randint(2, 5))) for _ in range(n))


def _crop(
    image: np.ndarray, width: int, height: int, rng: np.random.RandomState, least: float = 0.25
) -> np.ndarray:
    """Return a part of a photograph of the wanted shape, scaled to it."""
    h, w = image.shape[:2]
    scale = min(w / width, h / height) * rng.uniform(least, 0.9)
    cw, ch = max(8, int(width * scale)), max(8, int(height * scale))
    x, y = rng.randint(0, max(1, w - cw)), rng.randint(0, max(1, h - ch))
    return cv2.resize(image[y : y + ch, x : x + cw], (width, height), interpolation=cv2.INTER_AREA)


def make_design(
    family: np.random.RandomState, own: np.random.RandomState, sources: list[np.ndarray], typefaces: list[str]
) -> np.ndarray:
    """Draw one object. `family` decides what relatives share, `own` what is the object's own."""
    width, height = [(420, 600), (600, 420), (480, 480), (380, 620)][family.randint(4)]
    ground = tuple(int(c) for c in family.randint(60, 256, 3))
    ink = tuple(
        int(c) for c in (family.randint(0, 90, 3) if sum(ground) > 380 else family.randint(200, 256, 3))
    )
    accent = tuple(int(c) for c in family.randint(0, 256, 3))
    sheet = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(sheet)
    face, small_face = family.choice(len(typefaces), 2)
    title_at, picture_at = [(0.04, 0.34), (0.74, 0.06), (0.40, 0.56), (0.06, 0.24)][family.randint(4)]
    share = family.uniform(0.28, 0.38)
    band = family.uniform(0.0, 0.9)
    draw.rectangle((0, int(band * height), width, int((band + 0.07) * height)), fill=accent)
    picture = _crop(
        sources[(family.randint(len(sources)) + own.randint(12)) % len(sources)],
        int(width * 0.8), int(height * share), own,
    )  # fmt: skip
    sheet.paste(Image.fromarray(picture), (int(width * 0.1), int(height * picture_at)))
    title = ImageFont.truetype(typefaces[face], int(height * 0.075))
    text = ImageFont.truetype(typefaces[small_face], int(height * 0.034))
    draw.text((width * 0.07, height * title_at), _words(own, 2), font=title, fill=ink)
    draw.text((width * 0.07, height * (title_at + 0.09)), _words(own, 3), font=text, fill=accent)
    below = max(picture_at + share, title_at + 0.14) if title_at < 0.7 else picture_at + share
    for line in range(family.randint(2, 6)):
        draw.text((width * 0.07, height * (below + 0.02 + 0.045 * line)), _words(own, 4), font=text, fill=ink)
    # A mark of the house, the same on all of a family.
    x, y = family.uniform(0.6, 0.85), family.uniform(0.05, 0.85)
    draw.ellipse((width * x, height * y, width * x + 50, height * y + 50), fill=accent, outline=ink, width=4)
    return np.asarray(sheet)


def _table(
    place: np.random.RandomState, own: np.random.RandomState, sources: list[np.ndarray], clutter: int
) -> np.ndarray:
    """Return what lies under and around an object: a surface, often with other things on it.

    `place` decides what photographs at one place share, `own` what differs. The same generator for both gives
    photographs of a place that never moves, pixel by pixel.
    """
    width, height = SIZE
    kind, colour, contrast = place.randint(3), place.randint(50, 200, 3), place.uniform(30, 110)
    columns, source = 12 + place.randint(30), sources[place.randint(len(sources))]
    rng = own
    if kind < 2:  # boards or cloth
        grain = cv2.resize(rng.rand(height // 3, columns).astype(np.float32), SIZE)
        grain = cv2.GaussianBlur(grain, (0, 0), 1.5)[..., np.newaxis]
        image = colour + (grain - 0.5) * contrast
    else:
        image = cv2.GaussianBlur(_crop(source, width, height, rng), (0, 0), 6).astype(np.float32)
    for _ in range(rng.randint(0, clutter + 1)):  # other things
        w, h = rng.randint(60, 220, 2)
        thing = _crop(sources[rng.randint(len(sources))], int(w), int(h), rng).astype(np.float32)
        thing = cv2.GaussianBlur(thing, (0, 0), rng.uniform(0.8, 2.5))
        x, y = rng.randint(-40, width - 40), rng.randint(-40, height - 40)
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        image[y0:y1, x0:x1] = thing[y0 - y : y1 - y, x0 - x : x1 - x]
    return np.clip(image, 0, 255).astype(np.float32)


def take_photograph(
    design: np.ndarray,
    table: np.ndarray,
    phone: int,
    rng: np.random.RandomState,
    difficulty: float,
    near: float,
) -> np.ndarray:
    """Photograph a design on a table: perspective, rotation, light, the phone's colours, blur, noise."""
    width, height = SIZE
    h, w = design.shape[:2]
    angle = np.deg2rad(rng.normal(0, 14 * difficulty))
    size = rng.uniform(0.5, 0.95) * near * height
    flat = np.array([[-w, -h], [w, -h], [w, h], [-w, h]], dtype=np.float64) / max(w, h) / 2 * size
    turned = flat @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    tilt = rng.normal(0, 0.35 * difficulty, 2)  # towards and across
    depth = 1 + np.clip(turned @ tilt / size, -0.45, 0.8)
    corners = turned / depth[:, np.newaxis]
    middle = np.array([width, height]) * rng.uniform(0.38, 0.62, 2)
    target = (corners + middle).astype(np.float32)
    source = np.array([[0, 0], [w, 0], [w, h], [0, h]], dtype=np.float32)
    matrix = cv2.getPerspectiveTransform(source, target)
    seen = cv2.warpPerspective(design, matrix, SIZE, flags=cv2.INTER_AREA).astype(np.float32)
    mask = cv2.warpPerspective(np.ones((h, w), np.float32), matrix, SIZE)[..., np.newaxis]
    shadow = cv2.GaussianBlur(np.roll(mask[..., 0], (6, 8), (0, 1)), (0, 0), 9)[..., np.newaxis]
    image = table * (1 - 0.45 * shadow) * (1 - mask) + seen * mask
    y, x = np.mgrid[0:height, 0:width] / max(SIZE) - 0.4
    direction = rng.normal(0, 0.8 * difficulty, 2)
    light = np.clip(1 + x * direction[0] + y * direction[1], 0.35, 1.7) * rng.uniform(0.6, 1.25)
    image = image * light[..., np.newaxis]
    if rng.rand() < 0.4 * difficulty:  # a lamp's reflection
        cx, cy, r = rng.uniform(100, 540), rng.uniform(100, 380), rng.uniform(30, 90)
        spot = np.exp(-(((x + 0.4) * 640 - cx) ** 2 + ((y + 0.4) * 640 - cy) ** 2) / (2 * r * r))
        image = image + 150 * spot[..., np.newaxis]
    own = np.random.RandomState(900 + phone)  # what the phone does to all its photographs
    balance = 1 + own.normal(0, 0.13, 3) + rng.normal(0, 0.05, 3)
    image = 255 * np.clip(image * balance / 255, 0, 1) ** own.uniform(0.75, 1.35)
    image = cv2.GaussianBlur(image, (0, 0), own.uniform(0.4, 1.6) * rng.uniform(0.7, 1.3))
    image = image + rng.normal(0, own.uniform(2, 11), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def make_flat_objects(
    n_objects: int = 60,
    seed: int = 0,
    difficulty: float = 1.0,
    *,
    near: float = 1.0,
    assets: Path | None = None,
    clutter: int = 4,
    fixed: bool = False,
):
    """Yield (object, phone, photograph of shape (480, 640, 3), JPEG quality)."""
    sources, typefaces = photographs(assets), fonts()
    pictures, grounds = sources[::2], sources[1::2]
    for number in range(n_objects):
        family = number % N_FAMILIES
        own = np.random.RandomState(10_000 * seed + number)
        design = make_design(np.random.RandomState(500 + family + 50 * seed), own, pictures, typefaces)
        for phone, name in enumerate(PHONES):
            place = np.random.RandomState(7000 + 100 * seed + 10 * phone + own.randint(4))  # 4 tables a phone
            table = _table(place, place if fixed else own, grounds, clutter)
            quality = int(np.random.RandomState(900 + phone).randint(35, 90))
            yield f"{number:03d}", name, take_photograph(design, table, phone, own, difficulty, near), quality


def write(folder: Path, **options) -> None:
    """Write the photographs as JPEG files, one folder an object."""
    for label, name, image, quality in make_flat_objects(**options):
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / label / f"{name}.jpg", quality=quality)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--objects", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--difficulty", type=float, default=1.0)
    parser.add_argument("--near", type=float, default=1.0, help="1.5: objects fill their photographs.")
    parser.add_argument("--clutter", type=int, default=4, help="Other things on a table, at most.")
    parser.add_argument(
        "--assets", type=Path, help="A folder of photographs to cut pictures and tables from."
    )
    parser.add_argument("--fixed", action="store_true", help="A place looks the same in each photograph.")
    given = parser.parse_args()
    options = {"seed": given.seed, "difficulty": given.difficulty, "near": given.near, "assets": given.assets}
    write(given.folder, n_objects=given.objects, clutter=given.clutter, fixed=given.fixed, **options)
