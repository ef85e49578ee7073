"""Houses, trees, hedges and street lamps along the roads: decoration that never stands on a road or footpath."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from opendrivevla_ros.core.geometry import Array, planar_transform, yaw_of
from opendrivevla_ros.world.mesh import Colour, Mesh, ball, box, cylinder, left_normals, merge, quads, simplified
from opendrivevla_ros.world.paving import FOOTPATH_WIDTH
from opendrivevla_ros.world.state import RoadMap
from opendrivevla_ros.world.textures import FACADE_METRES, TEXEL_METRES, WINDOWS

GRID = 1.0  # metres a cell of the map of free ground
REACH = 60.0  # metres of that map beyond the road
HOUSE_GAP, TREE_GAP, LAMP_GAP = (0.5, 5.0), (7.0, 15.0), 27.0  # metres along the kerb
LIT_WINDOWS = 0.35

WALLS: tuple[Colour, ...] = (
    (0.80, 0.74, 0.64),
    (0.70, 0.44, 0.34),
    (0.62, 0.64, 0.68),
    (0.86, 0.83, 0.78),
    (0.72, 0.60, 0.46),
    (0.58, 0.66, 0.62),
)
ROOFS: tuple[Colour, ...] = ((0.46, 0.24, 0.18), (0.30, 0.30, 0.33), (0.40, 0.32, 0.26))
LEAVES: tuple[Colour, ...] = ((0.30, 0.44, 0.17), (0.24, 0.38, 0.18), (0.40, 0.46, 0.18), (0.52, 0.40, 0.16))
CONIFERS: tuple[Colour, ...] = ((0.16, 0.30, 0.18), (0.20, 0.32, 0.17))
TRUNK: Colour = (0.32, 0.25, 0.19)
POLE: Colour = (0.36, 0.38, 0.40)
LAMP: Colour = (1.0, 0.93, 0.74)
WINDOW_LIGHT: Colour = (0.98, 0.80, 0.48)


@dataclass(frozen=True)
class Prop:
    """Something that stands by the road. place: (x, y). parts: its meshes in the world frame by texture name.

    light: (x, y) of the ground that it lights at night. walls: the outline of a house, as x, y, yaw, length, width.
    """

    place: tuple[float, float]
    parts: tuple[tuple[str | None, Mesh], ...]
    light: tuple[float, float] | None = None
    walls: tuple[float, float, float, float, float] | None = None


class Kerb:
    """A boundary by arc length."""

    def __init__(self, line: Array) -> None:
        steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
        self._along = np.concatenate([[0.0], np.cumsum(steps)])
        self._points, self._outward = line, -left_normals(line)
        self.length = float(self._along[-1])

    def at(self, distance: float) -> tuple[Array, Array]:
        """The point [2] at a distance along the kerb and the unit normal [2] away from the road."""
        point = np.array([np.interp(distance, self._along, self._points[:, axis]) for axis in (0, 1)])
        normal = np.array([np.interp(distance, self._along, self._outward[:, axis]) for axis in (0, 1)])
        return point, normal / max(float(np.hypot(*normal)), 1e-9)


class FreeGround:
    """A raster of how far every place is from the roads and from what already stands there."""

    def __init__(self, road: RoadMap) -> None:
        low, high = road.bounds + np.array([[-REACH], [REACH]])
        self._origin = low
        width, height = np.ceil((high - low) / GRID).astype(int)
        mask = np.ones((height, width), np.uint8)
        for polygon in road.drivable:
            cv2.fillPoly(mask, [self._cells(polygon)], 0)
        self._distance = cv2.distanceTransform(mask, cv2.DIST_L2, 5) * GRID
        self._taken = np.zeros((height, width), np.uint8)

    def take(self, polygon: Array, clearance: float) -> bool:
        """Claims a convex polygon [N, 2] if it is free and `clearance` metres from every road; says whether it was."""
        cells = self._cells(polygon)
        low, high = cells.min(axis=0), cells.max(axis=0)
        height, width = self._taken.shape
        if (low < 0).any() or high[0] >= width or high[1] >= height:
            return False
        patch = (slice(low[1], high[1] + 1), slice(low[0], high[0] + 1))
        shape = np.zeros(self._taken[patch].shape, np.uint8)
        cv2.fillPoly(shape, [cells - low], 1)
        inside = shape == 1
        if self._taken[patch][inside].any() or self._distance[patch][inside].min() < clearance:
            return False
        self._taken[patch][inside] = 1
        return True

    def _cells(self, points: Array) -> np.ndarray:
        return np.floor((points - self._origin) / GRID).astype(np.int32)


def build_scenery(road: RoadMap, seed: int, lamps: bool) -> tuple[Prop, ...]:
    """Everything that stands along the kerbs; lamps: windows and street lamps shine. The last street is kept."""
    if _last.road is not road or (_last.seed, _last.lamps) != (seed, lamps):
        _last.props = _build(road, seed, lamps)
        _last.road, _last.seed, _last.lamps = road, seed, lamps
    return _last.props


def _build(road: RoadMap, seed: int, lamps: bool) -> tuple[Prop, ...]:
    random = np.random.default_rng([seed, 31])
    free = FreeGround(road)
    props: list[Prop] = []
    town = random.uniform(0.25, 0.95)  # how densely it is built up
    kerbs = [Kerb(simplified(boundary)) for boundary in road.boundaries]
    for kerb in kerbs:
        props.extend(_street_lamps(kerb, free, lamps))
    for kerb in kerbs:
        props.extend(_houses(kerb, free, random, town, lamps))
    for kerb in kerbs:
        props.extend(_trees(kerb, free, random, FOOTPATH_WIDTH + 1.2, TREE_GAP))
        props.extend(_trees(kerb, free, random, 18.0, (4.0, 16.0)))
    return tuple(props)


@dataclass
class _LastStreet:
    """The scenery asked for last: a street keeps its map object for as long as it is driven."""

    road: RoadMap | None = None
    seed: int = 0
    lamps: bool = False
    props: tuple[Prop, ...] = ()


_last = _LastStreet()


def house_walls(road: RoadMap, seed: int) -> Array:
    """[H, 5]: x, y, yaw, length and width of every house that `build_scenery` puts up."""
    lamps = _last.lamps if _last.road is road else False  # houses stand where they stand, by day and by night
    props = build_scenery(road, seed, lamps)
    return np.array([prop.walls for prop in props if prop.walls is not None]).reshape(-1, 5)


def _square(centre: Array, half: float) -> Array:
    return centre + half * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def _houses(kerb: Kerb, free: FreeGround, random: np.random.Generator, town: float, lamps: bool) -> Iterator[Prop]:
    distance, length = 0.0, kerb.length
    while distance < length:
        width = FACADE_METRES[0] / 2 * int(random.integers(3, 8))
        depth = FACADE_METRES[0] / 2 * int(random.integers(3, 5))
        setback = FOOTPATH_WIDTH + random.uniform(0.8, 6.0)
        point, outward = kerb.at(distance + width / 2)
        x, y = point + (setback + depth / 2) * outward
        pose = planar_transform(x, y, float(np.arctan2(outward[1], outward[0])))
        outline = np.array([[-depth, -width], [depth, -width], [depth, width], [-depth, width]]) / 2
        footprint = outline @ pose[:2, :2].T + pose[:2, 3]
        built = random.uniform() < town
        floors, look = int(random.integers(2, 7)), random.integers(1 << 30)
        if built and free.take(footprint, FOOTPATH_WIDTH + 0.4):
            yield _house(pose, depth, width, floors, np.random.default_rng(look), lamps)
        distance += width + random.uniform(*HOUSE_GAP)


def _house(pose: Array, depth: float, width: float, floors: int, random: np.random.Generator, lamps: bool) -> Prop:
    """A block with a front towards -x of its pose, floors 3 m high, under a flat or a pitched roof."""
    wall, roof = (colours[int(random.integers(len(colours)))] for colours in (WALLS, ROOFS))
    tone = random.uniform(0.88, 1.06)
    wall = (min(wall[0] * tone, 1.0), min(wall[1] * tone, 1.0), min(wall[2] * tone, 1.0))
    height = FACADE_METRES[1] / 2 * floors
    shell = box((-depth / 2, -width / 2, 0.0), (depth / 2, width / 2, height), wall)
    walls = shell.vertices.reshape(5, 4, 3)[:4]
    repeats = np.array([[width], [width], [depth], [depth]]) / FACADE_METRES[0]
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    uv = square * np.stack([repeats, np.full((4, 1), height / FACADE_METRES[1])], axis=-1)
    facade = quads(walls, wall, uv=uv)
    tops = []
    if floors <= 3 and random.uniform() < 0.7:
        tops.append(_pitched_roof(depth, width, height, roof))
    else:
        tops.append(
            box(
                (-depth / 2 - 0.2, -width / 2 - 0.2, height),
                (depth / 2 + 0.2, width / 2 + 0.2, height + 0.5),
                roof,
                closed=True,
            )
        )
    door = random.uniform(-width / 3, width / 3)
    tops.append(box((-depth / 2 - 0.06, door - 0.6, 0.0), (-depth / 2, door + 0.6, 2.2), (0.24, 0.19, 0.15)))
    front = int(random.integers(len(WINDOWS)))
    if lamps:
        tops.extend(_lit_windows(front, depth, width, floors, random))
    x, y = float(pose[0, 3]), float(pose[1, 3])
    parts = ((f"facade{front}", facade.moved(pose)), (None, merge(tops).moved(pose)))
    return Prop((x, y), parts, walls=(x, y, yaw_of(pose), depth, width))


def _pitched_roof(depth: float, width: float, height: float, colour: Colour) -> Mesh:
    x, y, ridge = depth / 2 + 0.35, width / 2 + 0.35, height + 0.38 * depth
    front_left, front_right = (-x, y, height - 0.1), (-x, -y, height - 0.1)
    back_left, back_right = (x, y, height - 0.1), (x, -y, height - 0.1)
    top_left, top_right = (0.0, y, ridge), (0.0, -y, ridge)
    slopes = [(front_left, front_right, top_right, top_left), (back_right, back_left, top_left, top_right)]
    gables = [(front_right, back_right, top_right, top_right), (back_left, front_left, top_left, top_left)]
    return quads(np.array(slopes + gables), colour)


def _lit_windows(facade: int, depth: float, width: float, floors: int, random: np.random.Generator) -> Iterator[Mesh]:
    """Warm rectangles over some of the front's windows above the ground floor."""
    bay, storey = FACADE_METRES[0] / 2, FACADE_METRES[1] / 2
    window = WINDOWS[facade]
    high = storey - window.top * TEXEL_METRES
    half, low, x = window.width * TEXEL_METRES / 2, high - window.height * TEXEL_METRES, -depth / 2 - 0.04
    for floor in range(1, floors):
        for column in range(int(width / bay)):
            if random.uniform() < LIT_WINDOWS:
                y, z = width / 2 - (column + 0.5) * bay, storey * floor
                corners = [
                    (x, y + half, z + low),
                    (x, y - half, z + low),
                    (x, y - half, z + high),
                    (x, y + half, z + high),
                ]
                glow = random.uniform(0.55, 0.95)
                warm = (WINDOW_LIGHT[0] * glow, WINDOW_LIGHT[1] * glow, WINDOW_LIGHT[2] * glow)
                yield quads([corners], warm, emission=1.0)


def _trees(
    kerb: Kerb, free: FreeGround, random: np.random.Generator, offset: float, gap: tuple[float, float]
) -> Iterator[Prop]:
    distance, length = random.uniform(*gap), kerb.length
    while distance < length:
        point, outward = kerb.at(distance)
        centre = point + (offset + random.uniform(-0.3, 0.12 * offset)) * outward
        look = random.integers(1 << 30)
        if free.take(_square(centre, 1.0), FOOTPATH_WIDTH + 0.2):
            yield _plant(centre, np.random.default_rng(look))
        distance += random.uniform(*gap)


def _plant(centre: Array, random: np.random.Generator) -> Prop:
    kind = int(random.choice(3, p=(0.62, 0.18, 0.20)))
    leaf = int(random.choice(len(LEAVES), p=(0.4, 0.3, 0.2, 0.1)))
    crown, trunk = _plant_parts(kind, leaf)
    size, turn = random.uniform(0.8, 1.25), random.uniform(-np.pi, np.pi)
    pose = planar_transform(float(centre[0]), float(centre[1]), turn)
    pose[:3, :3] *= size
    parts: list[tuple[str | None, Mesh]] = [("leaves", crown.moved(pose)), (None, trunk.moved(pose))]
    return Prop((float(centre[0]), float(centre[1])), tuple(parts))


@cache
def _plant_parts(kind: int, leaf: int) -> tuple[Mesh, Mesh]:
    """Crown and trunk of a broad-leaved tree (kind 0), a conifer (1) or a bush (2)."""
    green, dark = LEAVES[leaf], CONIFERS[leaf % len(CONIFERS)]
    shade: Colour = (0.88 * green[0], 0.88 * green[1], 0.88 * green[2])
    if kind == 2:
        return ball((0, 0, 0.55), (1.0, 0.9, 0.7), green, sides=7, rings=4), merge([])
    if kind == 1:
        cones = [
            cylinder((0, 0, low), (0, 0, high), (radius, 0.05), dark, sides=7)
            for low, high, radius in ((0.9, 4.2, 1.5), (2.6, 5.6, 1.15), (4.2, 7.0, 0.8))
        ]
        return merge(cones), cylinder((0, 0, 0), (0, 0, 1.0), 0.14, TRUNK, sides=5)
    crowns = [
        ball((0, 0, 4.6), (1.7, 1.7, 1.8), green, sides=8, rings=5),
        ball((0.9, 0.4, 3.9), (1.2, 1.2, 1.1), shade, sides=7, rings=4),
        ball((-0.7, -0.6, 4.1), (1.2, 1.3, 1.2), shade, sides=7, rings=4),
    ]
    return merge(crowns), cylinder((0, 0, 0), (0, 0, 3.2), (0.17, 0.11), TRUNK, sides=5)


def _street_lamps(kerb: Kerb, free: FreeGround, lamps: bool) -> Iterator[Prop]:
    for distance in np.arange(LAMP_GAP / 2, kerb.length, LAMP_GAP):
        point, outward = kerb.at(distance)
        base = point + 0.7 * outward
        if not free.take(_square(base, 0.1), 0.0):
            continue
        head = base - 1.5 * outward
        pose = planar_transform(float(base[0]), float(base[1]), float(np.arctan2(-outward[1], -outward[0])))
        light = (float(head[0]), float(head[1]))
        yield Prop((float(base[0]), float(base[1])), ((None, _lamp_post(lamps).moved(pose)),), light)


@cache
def _lamp_post(shines: bool) -> Mesh:
    """A pole whose arm reaches towards x."""
    return merge(
        [
            cylinder((0, 0, 0), (0, 0, 6.2), (0.09, 0.06), POLE, sides=5),
            cylinder((0, 0, 6.15), (1.5, 0, 6.45), 0.05, POLE, sides=4),
            box((1.25, -0.25, 6.36), (1.75, 0.25, 6.46), LAMP, emission=float(shines), closed=True),
        ]
    )
