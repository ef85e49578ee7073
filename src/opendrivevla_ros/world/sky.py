"""The sky around the viewer and the haze in front of what is far away."""

import cv2
import numpy as np

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.world.appearance import Palette
from opendrivevla_ros.world.mesh import Mesh, merge, quads

RADIUS = 200.0  # metres; it is drawn first and never hides anything
SECTORS = 32
ELEVATIONS = np.radians([-1.5, 2.5, 6.0, 11.0, 18.0, 27.0, 40.0, 60.0, 88.0])
# Metres: every shell dims what lies behind it by the light lost since the one before. Thin air needs only one.
THICK_DISTANCES, THIN_DISTANCES = (30.0, 60.0, 100.0, 150.0), (90.0,)
THICK_HAZE = 0.003  # share of light lost per metre from which the air is thick


def sky_dome(palette: Palette, seed: int) -> Mesh:
    """A dome seen from inside: gradient, glow around the sun, drifts of cloud and far hills."""
    random = np.random.default_rng([seed, 41])
    azimuths = 2 * np.pi * np.arange(SECTORS + 1) / SECTORS
    rings = np.stack(
        [
            np.cos(ELEVATIONS)[:, None] * np.cos(azimuths),
            np.cos(ELEVATIONS)[:, None] * np.sin(azimuths),
            np.broadcast_to(np.sin(ELEVATIONS)[:, None], (len(ELEVATIONS), SECTORS + 1)),
        ],
        axis=-1,
    )
    colours = _sky_colours(palette, rings, random)
    dome = merge(
        [_strip(rings[low], rings[low + 1], colours[low], colours[low + 1]) for low in range(len(ELEVATIONS) - 1)]
    )
    return merge([dome, _hills(palette, azimuths, random)])


def haze_shells(palette: Palette) -> list[Mesh]:
    """Translucent walls around the viewer, farthest first."""
    shells = []
    distances = THICK_DISTANCES if palette.haze > THICK_HAZE else THIN_DISTANCES
    shares = 1 - np.exp(-palette.haze * np.diff((0.0, *distances)))
    angles = 2 * np.pi * np.arange(25) / 24
    ring = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(25)])
    for distance, share in reversed(list(zip(distances, shares, strict=True))):
        levels = [ring * distance + [0.0, 0.0, height] for height in (0.0, 0.07 * distance, 0.45 * distance)]
        shades = [np.tile([*palette.horizon, opacity], (25, 1)) for opacity in (share, share, 0.0)]
        shells.append(
            merge([_strip(levels[step], levels[step + 1], shades[step], shades[step + 1]) for step in (0, 1)])
        )
    return shells


def _sky_colours(palette: Palette, directions: Array, random: np.random.Generator) -> Array:
    """RGBA [rings, azimuths, 4]."""
    height = np.clip(directions[..., 2:], 0.0, 1.0) ** 0.55
    colours = palette.horizon + height * (palette.zenith - palette.horizon)
    drift = np.tile(random.standard_normal((len(ELEVATIONS), SECTORS)), (1, 3)).astype(np.float32)
    drift = cv2.GaussianBlur(drift, (0, 0), sigmaX=2.0, sigmaY=0.7)[:, SECTORS : 2 * SECTORS]
    drift = np.concatenate([drift, drift[:, :1]], axis=1)[..., None] / max(float(drift.std()), 1e-6)
    brightness = float(palette.horizon.mean())
    white = np.array([1.0, 1.0, 1.0]) * min(1.12 * brightness, 1.0)
    cover = palette.clouds * np.clip(0.25 + 0.35 * drift, 0.0, 1.0) * np.clip(directions[..., 2:] * 6, 0.0, 1.0)
    colours = colours + cover * (white - colours)
    towards = np.clip(directions @ palette.light.sun, 0.0, 1.0)[..., None]
    colours = colours + palette.light.direct * (0.45 * towards**24 + 0.12 * towards**4)
    return np.concatenate([np.clip(colours, 0.0, 0.98), np.ones((*colours.shape[:2], 1))], axis=2)


def _hills(palette: Palette, azimuths: Array, random: np.random.Generator) -> Mesh:
    """A line of hills and woods at the horizon, half lost in the haze."""
    phases, weights = random.uniform(0, 2 * np.pi, 6), np.array([0.5, 0.9, 0.6, 0.5, 0.3, 0.3])
    waves = np.array([2, 3, 5, 9, 14, 23])
    crest = 0.030 + 0.012 * (weights * np.sin(np.outer(azimuths, waves) + phases)).sum(axis=1)
    crest = np.maximum(crest, 0.008)
    ring = np.column_stack([np.cos(azimuths), np.sin(azimuths), np.zeros(len(azimuths))])
    ground = palette.light.ambient * 0.9 * np.array([0.34, 0.42, 0.32])
    clear = np.exp(-palette.haze * 500)
    colour = np.clip(palette.horizon + 0.6 * clear * (ground - palette.horizon), 0, 1)
    foot = np.clip(0.5 * (colour + palette.horizon), 0, 1)
    shades = [np.tile([*tone, 1.0], (len(azimuths), 1)) for tone in (foot, colour)]
    return _strip(ring - [0, 0, 0.03], ring + crest[:, None] * [0, 0, 1.0], shades[0], shades[1])


def _strip(low: Array, high: Array, low_colours: Array, high_colours: Array) -> Mesh:
    """Quads between two rings [N, 3] as seen from inside, one colour [N, 4] a corner, shining by themselves."""
    corners = np.stack([low[1:], low[:-1], high[:-1], high[1:]], axis=1)
    colours = np.stack([low_colours[1:], low_colours[:-1], high_colours[:-1], high_colours[1:]], axis=1)
    return quads(corners, colours, emission=1.0)
