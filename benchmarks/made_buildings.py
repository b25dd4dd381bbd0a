"""Photographs of buildings, rendered: houses with two fronts, seen from several sides and distances.

    python benchmarks/made_buildings.py FOLDER [--objects 11] [--seed 0]

Writes FOLDER/BUILDING/VIEW.jpg. Each house has two fronts at a right angle, drawn from few kinds of windows, walls and
roofs that houses share. A view turns round the corner, so that two views show one front alone or both under a strong
perspective; trees and a sky that change stand before and behind it. For tune.py: what is rigid, but not flat.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from flat_objects import _crop, photographs
from PIL import Image

SIZE = (640, 480)


def front(shared: np.random.RandomState, own: np.random.RandomState, columns: int) -> np.ndarray:
    """Draw a front: a wall, rows of windows of one kind, a door, a cornice."""
    height, width = 400, 70 * columns
    wall = shared.randint(90, 235, 3).astype(np.float32)
    image = np.ones((height, width, 3), np.float32) * wall
    image += (
        cv2.resize(shared.rand(height // 4, width // 4).astype(np.float32) - 0.5, (width, height))[..., None]
        * 40
    )
    rows, kind = shared.randint(3, 6), shared.randint(4)
    glass, frame = shared.randint(20, 90, 3).tolist(), shared.randint(150, 256, 3).tolist()
    step = height // (rows + 1)
    for row in range(rows):
        for column in range(columns):
            x, y = 70 * column + 20, step // 2 + step * row
            w, h = 30, int(step * (0.5 + 0.12 * kind))
            tint = np.clip(np.array(glass) + own.randint(-15, 60), 0, 255).tolist()
            cv2.rectangle(image, (x, y), (x + w, y + h), tint, -1)
            cv2.rectangle(image, (x, y), (x + w, y + h), frame, 3)
            if kind % 2:
                cv2.line(image, (x + w // 2, y), (x + w // 2, y + h), frame, 2)
            if kind >= 2:
                cv2.line(image, (x, y + h // 3), (x + w, y + h // 3), frame, 2)
            if kind == 3:
                cv2.ellipse(image, (x + w // 2, y), (w // 2, 10), 0, 180, 360, frame, -1)
            if own.rand() < 0.25:  # a blind, a balcony, a flower box
                low = y + int(h * own.uniform(0.3, 0.8))
                cv2.rectangle(image, (x - 3, low), (x + w + 3, low + 8), own.randint(0, 256, 3).tolist(), -1)
    door = 70 * own.randint(columns) + 12
    cv2.rectangle(
        image, (door, height - step + 10), (door + 46, height), own.randint(20, 140, 3).tolist(), -1
    )
    image = np.clip(image, 0, 255).astype(np.uint8)
    for _ in range(own.randint(1, 4)):  # signs
        x, y = own.randint(0, width - 60), own.randint(height // 2, height - 30)
        sign = str(own.randint(10, 9999))
        cv2.rectangle(image, (x, y), (x + 60, y + 20), own.randint(0, 256, 3).tolist(), -1)
        cv2.putText(
            image, sign, (x + 3, y + 16), cv2.FONT_HERSHEY_SIMPLEX, 0.55, own.randint(0, 256, 3).tolist(), 2
        )
    cv2.rectangle(image, (0, 0), (width, 10 + 8 * kind), frame, -1)
    return image.astype(np.float32)


def view(fronts, angle: float, rng: np.random.RandomState, sources) -> np.ndarray:
    """Project the two fronts for a camera that stands `angle` radians round the corner."""
    width, height = SIZE
    sky = np.ones((height, width, 3), np.float32) * rng.uniform([90, 120, 150], [190, 210, 255])
    sky += cv2.resize(rng.rand(6, 8).astype(np.float32), SIZE, interpolation=cv2.INTER_CUBIC)[..., None] * 60
    ground = int(height * rng.uniform(0.75, 0.9))
    sky[ground:] = (
        _crop(sources[rng.randint(len(sources))], width, height - ground, rng).mean(2, keepdims=True) * 0.7
    )
    image = sky
    distance, focal = rng.uniform(550, 1100), rng.uniform(480, 700)
    centre, level = width * rng.uniform(0.35, 0.65), ground - 5
    directions = (np.pi + angle, angle + np.pi / 2)  # of the two fronts, away from the corner
    for texture, way in zip(fronts, directions):
        h, w = texture.shape[:2]
        end = np.array([np.cos(way), np.sin(way)]) * w
        ends = [(end[0], end[1]), (0, 0)] if end[0] < 0 else [(0, 0), (end[0], end[1])]
        if (
            abs(end[0]) < 20
            or (way == directions[0]) != (end[0] < 0)
            or min(distance + e[1] for e in ends) < 150
        ):
            continue
        corners = []
        for x, depth in ends:
            scale = focal / (distance + depth)
            corners += [(centre + x * scale, level - h * scale), (centre + x * scale, level)]
        target = np.array([corners[0], corners[2], corners[3], corners[1]], np.float32)
        source = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
        matrix = cv2.getPerspectiveTransform(source, target)
        seen = cv2.warpPerspective(texture * rng.uniform(0.55, 1.15), matrix, SIZE, flags=cv2.INTER_AREA)
        mask = cv2.warpPerspective(np.ones((h, w), np.float32), matrix, SIZE)[..., None]
        image = image * (1 - mask) + seen * mask
    for _ in range(rng.randint(1, 5)):  # trees, cars and people before it
        x, y = rng.randint(0, width), rng.randint(ground - 80, height)
        axes = (int(rng.uniform(15, 60)), int(rng.uniform(20, 110)))
        blob = np.zeros((height, width), np.float32)
        cv2.ellipse(blob, (x, y), axes, 0, 0, 360, 1, -1)
        image = np.where(
            blob[..., None] > 0, _crop(sources[rng.randint(len(sources))], width, height, rng), image
        )
    image = 255 * np.clip(image * rng.uniform(0.75, 1.2, 3) / 255, 0, 1) ** rng.uniform(0.8, 1.3)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2)) + rng.normal(
        0, rng.uniform(2, 8), image.shape
    )
    return np.clip(image, 0, 255).astype(np.uint8)


def make_buildings(n_objects: int = 11, n_views: int = 5, seed: int = 0):
    """Yield (building, view, photograph of shape (480, 640, 3))."""
    sources = photographs()
    for number in range(n_objects):
        own = np.random.RandomState(20_000 + 1000 * seed + number)
        shared = 40 * seed + number % 4
        fronts = [front(np.random.RandomState(shared), own, own.randint(4, 9)) for _ in range(2)]
        for turn in range(n_views):
            yield f"{number:03d}", f"{turn}", view(fronts, np.deg2rad(own.uniform(12, 78)), own, sources)


def write(folder: Path, n_objects: int, seed: int) -> None:
    """Write the photographs as JPEG files, one folder a building."""
    for label, name, image in make_buildings(n_objects, seed=seed):
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / label / f"{name}.jpg", quality=80)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--objects", type=int, default=11)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write(arguments.folder, arguments.objects, arguments.seed)
