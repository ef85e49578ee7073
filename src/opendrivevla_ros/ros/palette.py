"""Colours of classes and the vehicle's outline, shared by markers and pictures."""

from dataclasses import dataclass

import numpy as np

from opendrivevla_ros.core.geometry import Array

Rgb = tuple[float, float, float]

PLAN_RGB: Rgb = (0.16, 0.85, 0.52)
OTHER_RGB: Rgb = (0.75, 0.75, 0.78)
_CLASS_RGB: dict[str, Rgb] = {
    "car": (1.00, 0.62, 0.15),
    "truck": (1.00, 0.42, 0.28),
    "construction_vehicle": (0.93, 0.75, 0.25),
    "bus": (1.00, 0.50, 0.55),
    "trailer": (0.85, 0.45, 0.20),
    "barrier": (0.62, 0.55, 0.48),
    "motorcycle": (0.95, 0.30, 0.75),
    "bicycle": (0.80, 0.35, 0.95),
    "pedestrian": (0.30, 0.65, 1.00),
    "traffic_cone": (0.95, 0.85, 0.30),
    "divider": (0.98, 0.85, 0.35),
    "ped_crossing": (0.35, 0.80, 0.95),
    "boundary": (0.92, 0.35, 0.38),
    "drivable_area": (0.45, 0.50, 0.58),
}


def class_rgb(label: str) -> Rgb:
    """The colour of an agent or map class, red, green, blue in [0, 1]."""
    return _CLASS_RGB.get(label, OTHER_RGB)


@dataclass(frozen=True)
class Footprint:
    """The vehicle's outline about base_link, metres: how far it reaches forwards and backwards, and its width.

    The default is nuScenes' Renault Zoe, 4.084 m x 1.730 m.
    """

    front: float = 3.414
    rear: float = 0.670
    width: float = 1.730

    def outline(self, *, closed: bool = False) -> Array:
        """The corners [4, 2] in base_link from front left clockwise; `closed` repeats the first."""
        half = self.width / 2
        corners = np.array([[self.front, half], [self.front, -half], [-self.rear, -half], [-self.rear, half]])
        return np.vstack([corners, corners[:1]]) if closed else corners
