"""What a real camera adds to a picture: exposure, and on request blur and sensor noise."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.world.appearance import Palette

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageEffects:
    """noise: standard deviation of sensor noise, grey levels. blur: standard deviation of a Gaussian, pixels.

    Raises ValueError for negative values.
    """

    noise: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        for name in ("noise", "blur"):
            value = getattr(self, name)
            if not 0 <= value < np.inf:
                raise ValueError(f"image {name} {value}; give a finite value of at least 0")

    def applied(self, image: Image, seed: tuple[int, ...]) -> Image:
        """The picture with blur and noise; the same seed gives the same noise."""
        if self.blur > 0:
            image = cv2.GaussianBlur(image, (0, 0), self.blur)
        if self.noise > 0:
            random = np.random.default_rng(seed)
            grain = self.noise * random.standard_normal(image.shape, dtype=np.float32)
            image = np.clip(np.rint(image + grain), 0, 255).astype(np.uint8)
        return image


def exposure_table(palette: Palette) -> Image:
    """[1, 256, 3] BGR: what becomes of every light level under the palette's gain and gamma, softly clipped."""
    light = np.arange(256)[:, None] / 255.0 * palette.gain[::-1]
    bright = np.maximum(light - 0.85, 0.0)
    rolled = np.minimum(light, 0.85) + 0.15 * (1 - np.exp(-bright / 0.15))
    return (255 * rolled**palette.gamma + 0.5).clip(0, 255).astype(np.uint8)[None]
