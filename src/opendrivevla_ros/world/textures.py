"""Procedural textures: asphalt, grass, paving, house fronts and leaves, each a tile that repeats without a seam.

A texture multiplies the colours that it lies on; its mean is near white.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array

Image = NDArray[np.uint8]

ASPHALT_METRES, GRASS_METRES, PAVING_METRES = 8.0, 14.0, 4.0  # how far one tile reaches
FACADE_METRES = (6.0, 6.0)  # width and height of one tile: two windows by two floors
TEXEL_METRES = FACADE_METRES[1] / 64


@dataclass(frozen=True)
class Window:
    """Texels of a window: its size and how far below the ceiling of its floor it begins."""

    height: int
    width: int
    top: int


# One kind of house front each: plaster, brick, wide offices, tall windows.
WINDOWS = (Window(16, 14, 8), Window(15, 12, 9), Window(14, 26, 8), Window(22, 11, 5))


def build_textures() -> dict[str, Image]:
    """All textures by name, BGR. They are the same in every process."""
    random = np.random.default_rng(5)
    textures = {"asphalt": _asphalt(random), "grass": _grass(random), "paving": _paving(random)}
    textures["leaves"] = _tile(0.55 + 0.45 * _noise(random, 64, (1.2, 3.0)))
    for index in range(len(WINDOWS)):
        textures[f"facade{index}"] = _facade(random, index)
    return textures


def _noise(random: np.random.Generator, size: int, scales: tuple[float, ...]) -> Array:
    """Smooth noise [size, size] in [0, 1] that wraps around; scales: blur widths in texels, all of one weight."""
    total = np.zeros((size, size))
    for scale in scales:
        tiled = np.tile(random.standard_normal((size, size)), (3, 3))
        smooth = cv2.GaussianBlur(tiled, (0, 0), scale)[size : 2 * size, size : 2 * size]
        total += smooth / smooth.std()
    total = total / len(scales) ** 0.5
    return np.clip(0.5 + total / 5, 0.0, 1.0)


def _tile(grey: Array, tint: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Image:
    return np.clip(grey[..., None] * np.array(tint) * 255, 0, 255).astype(np.uint8)


def _asphalt(random: np.random.Generator) -> Image:
    grey = 0.78 + 0.34 * (_noise(random, 128, (0.7, 6.0, 14.0)) - 0.15)
    cracks = np.ones((128, 128), np.float32)
    for _ in range(3):
        points = np.cumsum(random.normal(0, 7, (9, 2)), axis=0) + random.uniform(20, 108, 2)
        cv2.polylines(cracks, [points.astype(np.int32)], False, 0.82, 1, cv2.LINE_AA)
    return _tile(grey * cracks)


def _grass(random: np.random.Generator) -> Image:
    grey = 0.60 + 0.5 * _noise(random, 128, (0.8, 3.0, 12.0))
    dry = _noise(random, 128, (9.0,))[..., None]
    tint = (1 - dry) * np.array([0.85, 1.0, 0.82]) + dry * np.array([0.80, 0.97, 1.05])
    return np.clip(grey[..., None] * tint * 255, 0, 255).astype(np.uint8)


def _paving(random: np.random.Generator) -> Image:
    slabs = np.kron(random.uniform(0.84, 1.0, (4, 4)), np.ones((16, 16)))
    slabs[::16] = slabs[:, ::16] = 0.68
    return _tile(slabs * (0.9 + 0.15 * _noise(random, 64, (0.8,))))


def _facade(random: np.random.Generator, kind: int) -> Image:
    """Two windows by two floors, 64 x 64."""
    grey = np.full((64, 64), 0.94) * (0.95 + 0.08 * _noise(random, 64, (1.0, 5.0)))
    if kind == 1:
        grey[::4] *= 0.82
        for row in range(16):
            grey[4 * row : 4 * row + 4, (row % 2) * 4 :: 8] *= 0.90
    picture = np.repeat(grey[..., None], 3, axis=2)
    height, width, top = WINDOWS[kind].height, WINDOWS[kind].width, WINDOWS[kind].top
    for floor in range(2):
        for column in range(2):
            y, x = 32 * floor + top, 32 * column + (32 - width) // 2
            frame = np.array([0.86, 0.88, 0.90]) if kind % 2 == 0 else np.array([0.95, 0.95, 0.95])
            picture[y - 1 : y + height + 1, x - 1 : x + width + 1] = frame
            shine = np.linspace(0.42, 0.26, height)[:, None, None] * np.array([1.15, 1.0, 0.9])
            picture[y : y + height, x : x + width] = shine
            picture[y : y + height, x + width // 2] = 0.8
            picture[y + height + 1, x - 2 : x + width + 2] = 0.70
    return np.clip(picture * 255, 0, 255).astype(np.uint8)
