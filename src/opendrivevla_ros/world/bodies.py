"""Shapes of road users, each in a unit box: x forward and y left in [-0.5, 0.5], z up in [0, 1].

The renderer stretches them to the road user's own length, width and height, so that a shape fills its true box.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from opendrivevla_ros.world.mesh import Colour, Mesh, ball, box, cylinder, disc, extrusion, merge, quads
from opendrivevla_ros.world.state import Category

GLASS: Colour = (0.13, 0.16, 0.20)
TYRE: Colour = (0.06, 0.06, 0.065)
HUB: Colour = (0.42, 0.43, 0.45)
TRIM: Colour = (0.10, 0.10, 0.11)
HEADLIGHT: Colour = (1.0, 0.98, 0.88)
LENS: Colour = (0.55, 0.56, 0.58)
TAIL_LIGHT: Colour = (0.45, 0.03, 0.03)
BRAKE_LIGHT: Colour = (1.0, 0.07, 0.04)
LAMP_SIDES = ((-0.46, -0.30), (0.30, 0.46))  # y of the right and the left lamp
INDICATOR: Colour = (1.0, 0.62, 0.05)

CAR_COLOURS: tuple[Colour, ...] = (
    (0.86, 0.87, 0.88),
    (0.62, 0.64, 0.66),
    (0.30, 0.32, 0.34),
    (0.10, 0.11, 0.13),
    (0.16, 0.27, 0.52),
    (0.52, 0.09, 0.10),
    (0.22, 0.34, 0.26),
    (0.66, 0.58, 0.42),
    (0.70, 0.38, 0.14),
)
BUS_COLOURS: tuple[Colour, ...] = ((0.88, 0.70, 0.16), (0.20, 0.42, 0.66), (0.82, 0.84, 0.84), (0.24, 0.52, 0.36))
CARGO_COLOURS: tuple[Colour, ...] = ((0.84, 0.84, 0.82), (0.36, 0.46, 0.58), (0.66, 0.62, 0.50), (0.58, 0.24, 0.18))
CLOTHES: tuple[Colour, ...] = (
    (0.70, 0.22, 0.20),
    (0.20, 0.34, 0.58),
    (0.88, 0.84, 0.76),
    (0.18, 0.18, 0.20),
    (0.30, 0.46, 0.30),
    (0.82, 0.60, 0.18),
    (0.48, 0.32, 0.52),
)
TROUSERS: tuple[Colour, ...] = ((0.14, 0.17, 0.26), (0.12, 0.12, 0.13), (0.40, 0.34, 0.26), (0.30, 0.31, 0.33))
SKINS: tuple[Colour, ...] = ((0.87, 0.68, 0.56), (0.72, 0.52, 0.40), (0.46, 0.31, 0.23))
HAIRS: tuple[Colour, ...] = ((0.12, 0.09, 0.07), (0.34, 0.22, 0.12), (0.62, 0.52, 0.36), (0.50, 0.50, 0.50))


@dataclass(frozen=True)
class Limb:
    """A part that swings about its pivot [3] in the x-z plane; phase: 0 or 1, in step or against it."""

    mesh: Mesh
    pivot: tuple[float, float, float]
    phase: int
    swing: float  # radians to each side at full stride


@dataclass(frozen=True)
class Body:
    """The shape of a road user. lights: shine unless it is parked; brake: while it brakes; left, right: indicators."""

    shell: Mesh
    lights: Mesh | None = None
    brake: Mesh | None = None
    left: Mesh | None = None
    right: Mesh | None = None
    limbs: tuple[Limb, ...] = ()


def body(category: Category, appearance: int) -> Body:
    """The shape of a road user; `appearance` seeds its colours and build."""
    random = np.random.default_rng([appearance, 23])
    return BUILDERS[category](random)


def _pick(random: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    chosen = colours[int(random.integers(len(colours)))]
    shift = random.normal(0.0, 0.02, 3)
    red, green, blue = (float(value) for value in np.clip(np.array(chosen[:3]) + shift, 0.02, 0.95))
    return red, green, blue


def _car(random: np.random.Generator) -> Body:
    paint = _pick(random, CAR_COLOURS)
    build = int(random.integers(3))  # saloon, hatchback, sport utility
    deck, rear_glass = ((-0.33, -0.16), (-0.47, -0.36), (-0.48, -0.42))[build]
    hull = extrusion(
        [
            (0.47, 0.16, 0.46),
            (0.495, 0.30, 0.48),
            (0.485, 0.46, 0.48),
            (0.44, 0.57, 0.47),
            (0.20, 0.63, 0.47),
            (-0.46, 0.66, 0.47),
            (-0.495, 0.50, 0.48),
            (-0.49, 0.25, 0.48),
            (-0.47, 0.16, 0.46),
        ],
        [TRIM, paint, paint, paint, paint, paint, paint, TRIM, TRIM],
        paint,
    )
    cabin = extrusion(
        [(0.235, 0.61, 0.455), (0.05, 0.955, 0.375), (rear_glass, 0.985, 0.375), (deck, 0.64, 0.455)],
        [GLASS, paint, GLASS, TRIM],
        GLASS,
    )
    roof = extrusion(
        [(0.05, 0.95, 0.385), (-0.02, 1.0, 0.36), (rear_glass + 0.03, 1.0, 0.36), (rear_glass - 0.01, 0.95, 0.385)],
        [paint, paint, paint, paint],
        paint,
    )
    pillars = _pillars(((0.05 + rear_glass) / 2, rear_glass + 0.05), paint)
    plate = box((-0.5, -0.12, 0.34), (-0.49, 0.12, 0.42), (0.85, 0.85, 0.80))
    grille = box((0.49, -0.24, 0.28), (0.5, 0.24, 0.40), TRIM)
    lenses = [box((0.47, right, 0.375), (0.497, left, 0.465), LENS) for right, left in LAMP_SIDES]
    mirrors = [box((0.12, side * 0.475 - 0.025, 0.62), (0.16, side * 0.475 + 0.025, 0.70), paint) for side in (-1, 1)]
    wheels = _wheels((0.315, -0.305), 0.072, 0.205, 0.5)
    dark_lamps = _tail_lamps(0.395, 0.53)
    return Body(
        merge([hull, cabin, roof, pillars, plate, grille, *lenses, *mirrors, wheels, dark_lamps]),
        lights=_front_lamps(0.37, 0.47),
        brake=merge([_brake_lamps(0.39, 0.55), _third_lamp(rear_glass, 0.93)]),
        left=_indicators(1, 0.34, 0.42),
        right=_indicators(-1, 0.34, 0.42),
    )


def _truck(random: np.random.Generator) -> Body:
    paint, cargo = _pick(random, CAR_COLOURS), _pick(random, CARGO_COLOURS)
    parts = [
        box((0.28, -0.47, 0.16), (0.495, 0.47, 0.48), paint),
        box((0.28, -0.47, 0.48), (0.495, 0.47, 0.76), paint, taper=0.94),
        box((0.485, -0.41, 0.50), (0.4955, 0.41, 0.70), GLASS),
        box((0.36, -0.474, 0.50), (0.47, 0.474, 0.68), GLASS),
        box((-0.49, -0.5, 0.22), (0.26, 0.5, 1.0), cargo),
        box((-0.495, -0.42, 0.24), (-0.489, 0.42, 0.97), tuple(0.85 * value for value in cargo[:3])),  # type: ignore[arg-type]
        box((-0.49, -0.40, 0.13), (0.30, 0.40, 0.24), TRIM),
        box((0.49, -0.36, 0.20), (0.5, 0.36, 0.34), TRIM),
        box((-0.5, -0.46, 0.10), (-0.485, 0.46, 0.14), TRIM),
        _wheels((0.37, -0.22, -0.33), 0.065, 0.155, 0.5),
        _tail_lamps(0.145, 0.205),
    ]
    return Body(
        merge(parts),
        lights=_front_lamps(0.22, 0.29),
        brake=_brake_lamps(0.14, 0.215),
        left=_indicators(1, 0.22, 0.26),
        right=_indicators(-1, 0.22, 0.26),
    )


def _bus(random: np.random.Generator) -> Body:
    paint = _pick(random, BUS_COLOURS)
    parts = [
        box((-0.495, -0.49, 0.12), (0.495, 0.49, 0.46), paint),
        box((-0.495, -0.48, 0.46), (0.495, 0.48, 0.80), GLASS),
        box((-0.495, -0.49, 0.80), (0.495, 0.49, 1.0), paint, taper=0.97),
        box((0.49, -0.40, 0.82), (0.5, 0.40, 0.92), (0.95, 0.62, 0.12), emission=1.0),
        box((-0.5, -0.20, 0.20), (-0.49, 0.20, 0.40), TRIM),
        _wheels((0.30, -0.27), 0.045, 0.16, 0.5),
        _tail_lamps(0.24, 0.34),
    ]
    for x in np.linspace(-0.42, 0.34, 7):
        parts.append(box((x - 0.012, -0.488, 0.46), (x + 0.012, 0.488, 0.80), paint))
    return Body(
        merge(parts),
        lights=_front_lamps(0.20, 0.27),
        brake=_brake_lamps(0.23, 0.36),
        left=_indicators(1, 0.29, 0.34),
        right=_indicators(-1, 0.29, 0.34),
    )


def _bicycle(random: np.random.Generator) -> Body:
    frame, shirt, trousers = _pick(random, CAR_COLOURS), _pick(random, CLOTHES), _pick(random, TROUSERS)
    skin, helmet = _pick(random, SKINS), _pick(random, CLOTHES)
    wheels = [_bicycle_wheel(x) for x in (0.31, -0.31)]
    bars = [
        cylinder(start, end, 0.012, frame, sides=5)
        for start, end in (
            ((-0.31, 0, 0.19), (-0.10, 0, 0.44)),
            ((-0.31, 0, 0.19), (-0.04, 0, 0.18)),
            ((-0.04, 0, 0.18), (-0.12, 0, 0.50)),
            ((-0.04, 0, 0.18), (0.22, 0, 0.46)),
            ((-0.10, 0, 0.44), (0.22, 0, 0.46)),
            ((0.31, 0, 0.19), (0.20, 0, 0.56)),
        )
    ]
    handles = cylinder((0.20, -0.42, 0.57), (0.20, 0.42, 0.57), 0.016, TRIM, sides=5, cap=TRIM)
    torso = cylinder((-0.13, 0, 0.50), (0.03, 0, 0.83), (0.085, 0.11), shirt, sides=6, cap=shirt).moved(
        np.diag([1.0, 2.6, 1.0, 1.0])
    )
    arms = [
        cylinder((0.02, side * 0.27, 0.79), (0.19, side * 0.36, 0.59), (0.026, 0.02), shirt, sides=5)
        for side in (-1, 1)
    ]
    head = [
        ball((0.07, 0, 0.90), (0.06, 0.16, 0.065), skin, sides=6),
        ball((0.06, 0, 0.94), (0.075, 0.19, 0.06), helmet),
    ]
    thighs = [cylinder((-0.12, s * 0.16, 0.50), (0.03, s * 0.17, 0.36), 0.034, trousers, sides=5) for s in (-1, 1)]
    calves = tuple(
        Limb(
            cylinder((0.03, s * 0.17, 0.37), (-0.04, s * 0.17, 0.10), (0.03, 0.022), trousers, sides=5, cap=TRIM),
            (0.03, s * 0.17, 0.37),
            phase,
            0.5,
        )
        for phase, s in enumerate((-1, 1))
    )
    lamps = [
        box((-0.485, -0.06, 0.34), (-0.46, 0.06, 0.38), TAIL_LIGHT, emission=0.5),
        box((0.235, -0.06, 0.50), (0.26, 0.06, 0.54), HEADLIGHT, emission=1.0),
    ]
    return Body(
        merge([*wheels, *bars, handles, torso, *arms, *head, *thighs, *lamps]),
        limbs=calves,
    )


def _pedestrian(random: np.random.Generator) -> Body:
    shirt, trousers = _pick(random, CLOTHES), _pick(random, TROUSERS)
    skin, hair = _pick(random, SKINS), _pick(random, HAIRS)
    torso = [
        box((-0.16, -0.26, 0.45), (0.16, 0.26, 0.66), shirt),
        box((-0.17, -0.34, 0.66), (0.17, 0.34, 0.83), shirt, taper=0.86),
        box((-0.15, -0.25, 0.42), (0.15, 0.25, 0.47), trousers),
        cylinder((0, 0, 0.82), (0.01, 0, 0.87), (0.09, 0.08), skin, sides=6),
        ball((0.03, 0, 0.915), (0.14, 0.12, 0.07), skin, sides=7),
        ball((-0.01, 0, 0.935), (0.15, 0.14, 0.065), hair, sides=7),
    ]
    limbs = []
    for phase, side in enumerate((-1, 1)):
        leg = merge(
            [
                cylinder((0, side * 0.13, 0.47), (0, side * 0.13, 0.03), (0.15, 0.09), trousers, sides=6),
                box((-0.10, side * 0.13 - 0.08, 0.0), (0.22, side * 0.13 + 0.08, 0.04), TRIM),
            ]
        )
        arm = merge(
            [
                cylinder((0, side * 0.38, 0.81), (0.02, side * 0.40, 0.50), (0.09, 0.07), shirt, sides=5),
                ball((0.03, side * 0.40, 0.48), (0.07, 0.06, 0.03), skin, sides=5, rings=3),
            ]
        )
        limbs.append(Limb(leg, (0.0, side * 0.13, 0.47), phase, 0.42))
        limbs.append(Limb(arm, (0.0, side * 0.38, 0.81), 1 - phase, 0.38))
    return Body(merge(torso), limbs=tuple(limbs))


BUILDERS = {
    Category.CAR: _car,
    Category.TRUCK: _truck,
    Category.BUS: _bus,
    Category.BICYCLE: _bicycle,
    Category.PEDESTRIAN: _pedestrian,
}


def _pillars(places: tuple[float, ...], paint: Colour) -> Mesh:
    """Upright strips (x) just outside a car's side windows."""
    strips = []
    for x in places:
        for side in (-1, 1):
            low, high = (side * 0.459, 0.61), (side * 0.379, 0.955)
            edges = [
                (x + side * 0.014, *low),
                (x - side * 0.014, *low),
                (x - side * 0.014, *high),
                (x + side * 0.014, *high),
            ]
            strips.append(edges)
    return quads(np.array(strips), paint)


def _wheels(axles: tuple[float, ...], radius_x: float, radius_z: float, outside: float) -> Mesh:
    """A wheel at both ends of each axle (x), elliptic so that stretching to a true size makes it round."""
    angles = 2 * np.pi * np.arange(10) / 10
    ring = np.column_stack([np.cos(angles), np.zeros(10), np.sin(angles)])  # counter-clockwise seen from the right
    wheels = []
    for side in (-1, 1):
        inner, outer = sorted((side * (outside - 0.12), side * (outside - 0.005)))
        face = ring if side < 0 else ring[::-1]
        parts = [
            cylinder((0, inner, 0), (0, outer, 0), 1.0, TYRE, sides=10),
            disc(face + np.array([0, side * (outside - 0.005), 0]), TYRE),
            disc(face[::2] * 0.6 + np.array([0, side * outside, 0]), HUB),
        ]
        for x in axles:
            placed = np.diag([radius_x, 1.0, radius_z, 1.0])
            placed[:3, 3] = (x, 0.0, radius_z)
            wheels.append(merge(parts).moved(placed))
    return merge(wheels)


def _bicycle_wheel(x: float) -> Mesh:
    """A rim with crossed spokes that lets the street show through."""
    angles = np.linspace(0, 2 * np.pi, 13)
    points = np.column_stack([x + 0.172 * np.cos(angles), np.zeros(13), 0.19 + 0.172 * np.sin(angles)])
    rim = [cylinder(start, end, 0.016, TYRE, sides=4) for start, end in pairwise(points)]
    spokes = [cylinder(points[i], points[i + 6], 0.004, HUB, sides=3) for i in (0, 2, 4)]
    return merge([*rim, *spokes])


def _tail_lamps(low: float, high: float) -> Mesh:
    """Red lamps between two heights at the rear corners, behind the brake lights."""
    return merge(
        box((-0.497, right, low), (-0.48, left, high), TAIL_LIGHT, emission=0.5) for right, left in LAMP_SIDES
    )


def _brake_lamps(low: float, high: float) -> Mesh:
    return merge(box((-0.5, right, low), (-0.48, left, high), BRAKE_LIGHT, emission=1.0) for right, left in LAMP_SIDES)


def _third_lamp(x: float, z: float) -> Mesh:
    return box((x - 0.04, -0.14, z), (x - 0.01, 0.14, z + 0.035), BRAKE_LIGHT, emission=1.0)


def _front_lamps(low: float, high: float) -> Mesh:
    return merge(box((0.47, right, low), (0.5, left, high), HEADLIGHT, emission=1.0) for right, left in LAMP_SIDES)


def _indicators(side: int, low: float, high: float) -> Mesh:
    inner, outer = sorted((side * 0.40, side * 0.495))
    return merge(
        box((x - 0.015, inner, low), (x + 0.015, outer, high), INDICATOR, emission=1.0) for x in (-0.485, 0.485)
    )
