"""Light, sky, haze and exposure of a place, from its time of day, weather and seed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.world.mesh import Mesh
from opendrivevla_ros.world.state import Appearance, TimeOfDay, Weather

SUN_ELEVATION_DEGREES = {TimeOfDay.DAY: (32.0, 62.0), TimeOfDay.DUSK: (7.0, 14.0), TimeOfDay.NIGHT: (35.0, 50.0)}
LAMP_GLOW = np.array([0.16, 0.14, 0.10])
EXPOSURE_SPREAD = 0.10  # the cameras' automatic exposure is off by this share, to one standard deviation


@dataclass(frozen=True)
class Light:
    """What falls on a surface. sun: unit vector towards it, world frame. direct, ambient: RGB strength."""

    sun: Array
    direct: Array
    ambient: Array

    def shade(self, mesh: Mesh) -> NDArray[np.uint8]:
        """RGBA [N, 4] of a mesh's vertices: albedo under this light, own light where it shines by itself."""
        facing = np.maximum(mesh.normals @ self.sun, 0.0)[:, None]
        upward = 0.75 + 0.25 * mesh.normals[:, 2:]  # the sky lights what faces up more than what faces down
        received = self.ambient * upward + self.direct * facing
        strength = received * (1 - mesh.emission[:, None]) + mesh.emission[:, None]
        rgb = np.clip(mesh.colours[:, :3] * strength, 0.0, 1.0)
        return (np.concatenate([rgb, mesh.colours[:, 3:]], axis=1) * 255 + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class Palette:
    """Everything about light and air. Colours are RGB in [0, 1].

    zenith, horizon: the sky's. clouds: how much of it they cover, [0, 1]. haze: share of light lost per metre.
    shadow: opacity of shadows. lamps: street lamps, windows and headlights shine. wet: the road is dark with rain.
    gain, gamma: exposure: picture = (gain light) ^ gamma; gain is one a channel.
    """

    light: Light
    zenith: Array
    horizon: Array
    clouds: float
    haze: float
    shadow: float
    lamps: bool
    wet: bool
    gain: Array
    gamma: float

    @property
    def on_the_road(self) -> Light:
        """The light on road users: from above and slightly ahead, as they turn about with their shading baked in,
        and with the glow of the street lamps where those shine.
        """
        sun = np.array([0.32, 0.28, 0.905])
        glow = LAMP_GLOW if self.lamps else np.zeros(3)
        return Light(sun / np.linalg.norm(sun), self.light.direct, self.light.ambient + glow)


def palette(appearance: Appearance) -> Palette:
    """The palette of an appearance: the same for the same seed, time of day and weather."""
    random = np.random.default_rng([appearance.seed, 11])
    time, weather = appearance.time_of_day, appearance.weather
    elevation = np.radians(random.uniform(*SUN_ELEVATION_DEGREES[time]))
    azimuth = random.uniform(-np.pi, np.pi)
    flat = np.cos(elevation)
    sun = np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
    direct, ambient, zenith, horizon = (
        np.array(colour)
        for colour in {
            TimeOfDay.DAY: ((0.66, 0.62, 0.54), (0.66, 0.68, 0.72), (0.26, 0.48, 0.82), (0.76, 0.85, 0.93)),
            TimeOfDay.DUSK: ((0.62, 0.38, 0.20), (0.42, 0.38, 0.44), (0.22, 0.27, 0.46), (0.95, 0.66, 0.44)),
            TimeOfDay.NIGHT: ((0.06, 0.07, 0.10), (0.21, 0.22, 0.28), (0.02, 0.03, 0.07), (0.10, 0.11, 0.17)),
        }[time]
    )
    grey = 0.0 if weather is Weather.CLEAR else {Weather.CLOUDY: 0.7, Weather.RAIN: 0.9, Weather.FOG: 0.95}[weather]
    luminance = {TimeOfDay.DAY: 0.78, TimeOfDay.DUSK: 0.50, TimeOfDay.NIGHT: 0.09}[time]
    overcast = luminance * np.array([0.97, 1.0, 1.03]) * (0.82 if weather is Weather.RAIN else 1.0)
    zenith, horizon = zenith + grey * (0.85 * overcast - zenith), horizon + grey * (overcast - horizon)
    ambient = ambient + grey * 0.35 * direct.mean()
    direct = direct * (1 - 0.85 * grey)
    haze = {Weather.CLEAR: 0.0008, Weather.CLOUDY: 0.0012, Weather.RAIN: 0.004, Weather.FOG: 0.016}[weather]
    warmth = 1 + random.normal(0.0, 0.02)
    gain = np.exp(np.clip(random.normal(0.0, EXPOSURE_SPREAD), -0.2, 0.15)) * np.array([warmth, 1.0, 1 / warmth])
    return Palette(
        light=Light(sun, direct, ambient),
        zenith=zenith,
        horizon=horizon,
        clouds=0.25 if weather is Weather.CLEAR else 0.8,
        haze=haze,
        shadow=0.50 - 0.28 * grey,
        lamps=time is not TimeOfDay.DAY,
        wet=weather is Weather.RAIN,
        gain=gain,
        gamma=0.9 if time is TimeOfDay.NIGHT else 1.0,
    )
