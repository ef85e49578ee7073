"""Ground, roads, footpaths, kerbs and painted markings as meshes, in the order in which they must be drawn."""

from dataclasses import dataclass

import numpy as np
from panda3d.core import Triangulator

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.world.mesh import Colour, Mesh, flat_triangles, left_normals, merge, quads, ribbon, simplified
from opendrivevla_ros.world.state import Divider, Marking, RoadMap
from opendrivevla_ros.world.textures import ASPHALT_METRES, GRASS_METRES, PAVING_METRES

GROUND_TILE = 40.0  # metres; small enough for a texture level of its own at every distance
GROUND_MARGIN = 140.0  # metres of grass beyond the last road
FOOTPATH_WIDTH, KERB_WIDTH, KERB_HEIGHT = 2.6, 0.22, 0.12
LINE_WIDTH, STOP_LINE_WIDTH = 0.14, 0.40
DASH, GAP = 3.0, 4.5  # metres of a dashed line
STRIPE = 0.5  # width of a crosswalk's stripes and of the gaps between them, metres

GRASS: Colour = (0.40, 0.50, 0.26)
ASPHALT: Colour = (0.40, 0.40, 0.42)
PARKING: Colour = (0.47, 0.45, 0.44)
FOOTPATH: Colour = (0.66, 0.64, 0.60)
KERB: Colour = (0.74, 0.73, 0.70)
KERB_FACE: Colour = (0.58, 0.57, 0.55)
WHITE: Colour = (0.97, 0.97, 0.94)
YELLOW: Colour = (0.97, 0.78, 0.16)
WET = 0.70  # how much of its brightness a surface keeps when wet


@dataclass(frozen=True)
class Layer:
    """Meshes that lie on one another: drawn one after the other, without a depth test."""

    mesh: Mesh
    texture: str | None


def paving_layers(road: RoadMap, wet: bool) -> list[Layer]:
    """All level surfaces of a road map, lowest first."""
    keep = WET if wet else 1.0
    kerbs = [simplified(boundary) for boundary in road.boundaries]
    layers = [
        Layer(_ground(road, GRASS), "grass"),
        Layer(merge(_footpath(line) for line in kerbs), "paving"),
        Layer(merge(_filled(polygon, _dimmed(ASPHALT, keep)) for polygon in road.drivable), "asphalt"),
        Layer(merge(_filled(polygon, _dimmed(PARKING, keep)) for polygon in road.parking), "asphalt"),
        Layer(merge(_kerb(line) for line in kerbs), None),
    ]
    markings = [_crosswalk(polygon) for polygon in road.crosswalks]
    markings += [ribbon(line, -STOP_LINE_WIDTH / 2, STOP_LINE_WIDTH / 2, 0.0, WHITE) for line in road.stop_lines]
    markings += [_divider(divider) for divider in road.dividers]
    layers.append(Layer(merge(markings), None))
    return layers


def _dimmed(colour: Colour, keep: float) -> Colour:
    return colour[0] * keep, colour[1] * keep, colour[2] * keep


def _ground(road: RoadMap, colour: Colour) -> Mesh:
    low, high = road.bounds + np.array([[-GROUND_MARGIN], [GROUND_MARGIN]])
    counts = np.ceil((high - low) / GROUND_TILE).astype(int)
    xs, ys = (low[axis] + GROUND_TILE * np.arange(counts[axis]) for axis in (0, 1))
    corners = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    square = corners + GROUND_TILE * np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    return quads(np.concatenate([square, np.zeros((*square.shape[:2], 1))], axis=2), colour, uv=square / GRASS_METRES)


def _filled(polygon: Array, colour: Colour) -> Mesh:
    triangulator = Triangulator()
    polygon = simplified(polygon, longest=40.0)
    for x, y in polygon.tolist():
        triangulator.add_polygon_vertex(triangulator.add_vertex(x, y))
    triangulator.triangulate()
    triangles = [
        (triangulator.get_triangle_v0(i), triangulator.get_triangle_v1(i), triangulator.get_triangle_v2(i))
        for i in range(triangulator.get_num_triangles())
    ]
    points = np.column_stack([polygon, np.zeros(len(polygon))])
    return flat_triangles(points, triangles, colour, ASPHALT_METRES)


def _footpath(boundary: Array) -> Mesh:
    return ribbon(boundary, -FOOTPATH_WIDTH, 0.0, KERB_HEIGHT, FOOTPATH, PAVING_METRES)


def _kerb(boundary: Array) -> Mesh:
    """The upright face towards the road and the stone's top."""
    low = np.column_stack([boundary, np.zeros(len(boundary))])
    high = low + np.array([0.0, 0.0, KERB_HEIGHT])
    face = quads(np.stack([low[1:], low[:-1], high[:-1], high[1:]], axis=1), KERB_FACE)
    return merge([face, ribbon(boundary, -KERB_WIDTH, 0.0, KERB_HEIGHT, KERB)])


def _crosswalk(polygon: Array) -> Mesh:
    """Stripes across the longer side of a four-cornered polygon."""
    first, second, third, fourth = polygon
    if np.linalg.norm(second - first) < np.linalg.norm(third - second):
        first, second, third, fourth = second, third, fourth, first
    count = max(int(np.linalg.norm(second - first) / (2 * STRIPE)), 1)
    starts = (np.arange(count) + 0.25) / count
    ends = starts + 0.5 / count
    corners = [
        low + share[:, None] * (high - low)
        for (low, high), share in zip(
            ((first, second), (first, second), (fourth, third), (fourth, third)),
            (starts, ends, ends, starts),
            strict=True,
        )
    ]
    level = np.stack(corners, axis=1)
    if _area(level[0]) < 0:
        level = level[:, ::-1]
    return quads(np.concatenate([level, np.zeros((count, 4, 1))], axis=2), WHITE)


def _area(polygon: Array) -> float:
    """Signed area, positive counter-clockwise."""
    x, y = polygon.T
    return float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) / 2)


def _divider(divider: Divider) -> Mesh:
    colour = YELLOW if divider.marking in (Marking.SOLID_YELLOW, Marking.DASHED_YELLOW) else WHITE
    half = LINE_WIDTH / 2
    if divider.marking is Marking.SOLID_YELLOW:
        return merge(
            ribbon(simplified(divider.points), side - half, side + half, 0.0, colour) for side in (-0.15, 0.15)
        )
    if divider.marking is Marking.SOLID_WHITE:
        return ribbon(simplified(divider.points), -half, half, 0.0, colour)
    return _dashes(divider.points, half, colour)


def _dashes(line: Array, half: float, colour: Colour) -> Mesh:
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    starts = np.arange(GAP / 2, along[-1] - DASH, DASH + GAP)
    if not len(starts):
        return merge([])
    normals = left_normals(line)

    def at(distance: Array, offset: float) -> Array:
        x, y, nx, ny = (np.interp(distance, along, values) for values in (*line.T, *normals.T))
        return np.column_stack([x + offset * nx, y + offset * ny, np.zeros(len(distance))])

    pieces = []
    for first, last in ((0.0, DASH / 2), (DASH / 2, DASH)):  # in two halves, so that dashes follow a bend
        near, far = starts + first, starts + last
        pieces.append(
            quads(np.stack([at(near, -half), at(far, -half), at(far, half), at(near, half)], axis=1), colour)
        )
    return merge(pieces)
