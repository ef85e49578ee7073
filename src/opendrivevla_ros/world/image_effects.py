"""What a real camera adds to a picture: exposure, and on request blur and sensor noise."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.world.appearance import Palette

Image = NDArray[np.uint8]
_STARTS = 1 << 16


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
            start = np.random.default_rng(seed).integers(_STARTS)
            grain = _grain(image.size)[start : start + image.size].reshape(image.shape)
            image = np.asarray(cv2.add(image, np.float32(self.noise) * grain, dtype=cv2.CV_8U))
        return image


@cache
def _grain(size: int) -> NDArray[np.float32]:
    """Normal numbers for a picture of `size` from any of _STARTS starts; drawing anew takes eight times as long."""
    return np.random.default_rng(0).standard_normal(size + _STARTS, dtype=np.float32)


def exposure_table(palette: Palette) -> Image:
    """[1, 256, 3] BGR: what becomes of every light level under the palette's gain and gamma, softly clipped."""
    light = np.arange(256)[:, None] / 255.0 * palette.gain[::-1]
    bright = np.maximum(light - 0.85, 0.0)
    rolled = np.minimum(light, 0.85) + 0.15 * (1 - np.exp(-bright / 0.15))
    return (255 * rolled**palette.gamma + 0.5).clip(0, 255).astype(np.uint8)[None]
