"""Coloured, flat-shaded triangle meshes in numpy, and the few solids that everything in the street is made of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from opendrivevla_ros.core.geometry import Array

Colour = tuple[float, float, float] | tuple[float, float, float, float]  # red, green, blue (and opacity) in [0, 1]

# Corners of a cube, x counting fastest, then y: its faces to +x, -x, +y, -y, +z, -z.
CUBE_FACES = ((1, 3, 7, 5), (2, 0, 4, 6), (3, 2, 6, 7), (0, 1, 5, 4), (4, 5, 7, 6), (0, 2, 3, 1))


@dataclass(frozen=True)
class Mesh:
    """N vertices and M triangles, counter-clockwise seen from outside.

    vertices, normals: [N, 3]. colours: [N, 4] RGBA albedo in [0, 1]. emission: [N], 1 where the colour shines by
    itself, 0 where it takes its brightness from the light. uv: [N, 2] texture coordinates. triangles: [M, 3] indices.
    """

    vertices: Array
    normals: Array
    colours: Array
    emission: Array
    uv: Array
    triangles: NDArray[np.int64]

    def moved(self, matrix: Array) -> "Mesh":
        """The mesh under an affine 4x4 transform of positive determinant."""
        linear = matrix[:3, :3]
        normals = self.normals @ _cross(linear[[1, 2, 0]], linear[[2, 0, 1]]).T  # by the cofactors: inverse transposed
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        return replace(
            self,
            vertices=self.vertices @ matrix[:3, :3].T + matrix[:3, 3],
            normals=normals / np.maximum(lengths, 1e-12),
        )


def merge(meshes: Iterable[Mesh]) -> Mesh:
    """One mesh of many; an empty one of none."""
    parts = list(meshes)
    if not parts:
        return quads(np.zeros((0, 4, 3)), (0.0, 0.0, 0.0))
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    return Mesh(
        vertices=np.concatenate([part.vertices for part in parts]),
        normals=np.concatenate([part.normals for part in parts]),
        colours=np.concatenate([part.colours for part in parts]),
        emission=np.concatenate([part.emission for part in parts]),
        uv=np.concatenate([part.uv for part in parts]),
        triangles=np.concatenate([part.triangles + start for part, start in zip(parts, starts, strict=True)]),
    )


def quads(corners: ArrayLike, colour: ArrayLike, *, emission: float = 0.0, uv: ArrayLike | None = None) -> Mesh:
    """Planar quads [K, 4, 3], corners counter-clockwise seen from outside.

    colour: RGB(A), one for all [3 or 4], one a quad [K, 4] or one a corner [K, 4, 4]. uv: [K, 4, 2], or the unit
    square on every quad.
    """
    corners = np.asarray(corners, dtype=np.float64)
    count = len(corners)
    normals = _cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    normals /= np.maximum(np.sqrt((normals**2).sum(axis=1, keepdims=True)), 1e-12)
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    texture = np.broadcast_to(square if uv is None else np.asarray(uv, dtype=np.float64), (count, 4, 2))
    first = 4 * np.arange(count)[:, None, None]
    return Mesh(
        vertices=corners.reshape(-1, 3),
        normals=np.repeat(normals, 4, axis=0),
        colours=_corner_colours(np.asarray(colour, dtype=np.float64), count),
        emission=np.full(4 * count, emission),
        uv=texture.reshape(-1, 2),
        triangles=(first + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3),
    )


def flat_triangles(points: ArrayLike, triangles: ArrayLike, colour: Colour, texture_metres: float = 1.0) -> Mesh:
    """Triangles [M, 3] between points [N, 3] of a level surface, its texture laid on from above."""
    points = np.asarray(points, dtype=np.float64)
    return Mesh(
        vertices=points,
        normals=np.tile([0.0, 0.0, 1.0], (len(points), 1)),
        colours=np.tile(_opaque(colour), (len(points), 1)),
        emission=np.zeros(len(points)),
        uv=points[:, :2] / texture_metres,
        triangles=np.asarray(triangles, dtype=np.int64).reshape(-1, 3),
    )


def box(
    low: ArrayLike, high: ArrayLike, colour: Colour, *, emission: float = 0.0, taper: float = 1.0, closed: bool = False
) -> Mesh:
    """A box between two opposite corners [3], open below unless `closed`; `taper` scales its top about its middle."""
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    corners = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)]) * (high - low) + low
    middle = (low + high)[:2] / 2
    corners[4:, :2] = middle + (corners[4:, :2] - middle) * taper
    return quads(corners[np.array(CUBE_FACES[: 6 if closed else 5])], _opaque(colour), emission=emission)


def extrusion(profile: Sequence[tuple[float, float, float]], colours: Sequence[Colour], side: Colour) -> Mesh:
    """A body of mirrored sides: points (x, z, half width) of its outline, counter-clockwise seen from the right.

    colours: of the strip from each point to the next. side: of the two flanks. The outline must be convex.
    """
    points = np.array([(x, half, z) for x, z, half in profile])
    left, right = points, points * [1.0, -1.0, 1.0]
    count = len(points)
    following = np.roll(np.arange(count), -1)
    strips = np.stack([left, left[following], right[following], right], axis=1)
    skin = quads(strips, np.array([_opaque(colour) for colour in colours]))
    return merge([skin, disc(right, side), disc(left[::-1], side)])


def cylinder(
    start: ArrayLike, end: ArrayLike, radii: ArrayLike, colour: Colour, *, sides: int = 8, cap: Colour | None = None
) -> Mesh:
    """A round bar from `start` to `end` [3]; radii: at both ends, or one. cap: colour of its ends, open if None."""
    start, end = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    first, last = np.broadcast_to(np.asarray(radii, dtype=np.float64), (2,))
    axis = (end - start) / np.linalg.norm(end - start)
    across = np.cross(axis, [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0.0, 0.0])
    across /= np.linalg.norm(across)
    angles = 2 * np.pi * np.arange(sides) / sides
    ring = np.cos(angles)[:, None] * across + np.sin(angles)[:, None] * np.cross(axis, across)
    low, high = start + first * ring, end + last * ring
    following = np.roll(np.arange(sides), -1)
    parts = [quads(np.stack([low, low[following], high[following], high], axis=1), _opaque(colour))]
    if cap is not None:
        parts += [disc(high, cap), disc(low[::-1], cap)]
    return merge(parts)


def disc(ring: Array, colour: Colour) -> Mesh:
    """A flat convex polygon [K, 3], counter-clockwise seen from its visible side."""
    normal = np.cross(ring[1] - ring[0], ring[2] - ring[0])
    count = len(ring)
    return Mesh(
        vertices=ring,
        normals=np.tile(normal / np.linalg.norm(normal), (count, 1)),
        colours=np.tile(_opaque(colour), (count, 1)),
        emission=np.zeros(count),
        uv=np.zeros((count, 2)),
        triangles=np.array([(0, index, index + 1) for index in range(1, count - 1)]),
    )


def ball(centre: ArrayLike, radii: ArrayLike, colour: Colour, *, sides: int = 8, rings: int = 4) -> Mesh:
    """An ellipsoid with half axes `radii` [3], smoothly shaded; its texture goes twice around."""
    radii = np.asarray(radii, dtype=np.float64)
    polar = np.pi * np.arange(rings + 1) / rings
    around = 2 * np.pi * np.arange(sides + 1) / sides
    directions = np.stack(
        [
            np.sin(polar)[:, None] * np.cos(around),
            np.sin(polar)[:, None] * np.sin(around),
            np.broadcast_to(np.cos(polar)[:, None], (rings + 1, sides + 1)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    normals = directions / radii
    count = len(directions)
    uv = np.stack(np.broadcast_arrays(around / np.pi, polar[:, None] / np.pi), axis=-1).reshape(-1, 2)
    index = np.arange(count).reshape(rings + 1, sides + 1)
    low, low_next, high, high_next = index[1:, :-1], index[1:, 1:], index[:-1, :-1], index[:-1, 1:]
    lower = np.stack([low, low_next, high_next], axis=-1)[:-1]  # at the lowest ring all of `low` is the pole
    upper = np.stack([low, high_next, high], axis=-1)[1:]
    return Mesh(
        vertices=directions * radii + np.asarray(centre, dtype=np.float64),
        normals=normals / np.linalg.norm(normals, axis=1, keepdims=True),
        colours=np.tile(_opaque(colour), (count, 1)),
        emission=np.zeros(count),
        uv=uv,
        triangles=np.concatenate([lower.reshape(-1, 3), upper.reshape(-1, 3)]),
    )


def ribbon(line: Array, right: float, left: float, height: float, colour: Colour, texture_metres: float = 1.0) -> Mesh:
    """A level strip along a polyline [N, 2], from `right` to `left` metres to its left side (negative: right side)."""
    across = left_normals(line)
    edges = [np.column_stack([line + across * offset, np.full(len(line), height)]) for offset in (right, left)]
    corners = np.stack([edges[0][:-1], edges[0][1:], edges[1][1:], edges[1][:-1]], axis=1)
    return quads(corners, _opaque(colour), uv=corners[..., :2] / texture_metres)


def simplified(line: Array, tolerance: float = 0.02, longest: float = 10.0) -> Array:
    """Fewer points of a polyline [N, 2]: none off by more than about `tolerance`, no step over `longest` metres.

    A point stays where the course has turned since the last kept one, or where the step would grow too long.
    """
    kept = [0]
    for index in range(1, len(line) - 1):
        ahead, behind = line[index + 1] - line[kept[-1]], line[index] - line[kept[-1]]
        length = float(np.hypot(*ahead))
        offset = abs(ahead[0] * behind[1] - ahead[1] * behind[0]) / max(length, 1e-9)
        if length > longest or offset > tolerance:
            kept.append(index)
    return line[[*kept, len(line) - 1]]


def tiles(mesh: Mesh, size: float) -> dict[tuple[int, int], Mesh]:
    """The mesh cut up by squares of the ground, `size` metres wide; a triangle goes where its middle is."""
    if len(mesh.triangles) == 0:
        return {}
    middles = mesh.vertices[mesh.triangles, :2].mean(axis=1)
    keys, which = np.unique(np.floor(middles / size).astype(np.int64), axis=0, return_inverse=True)
    parts = {}
    for number, (x, y) in enumerate(keys.tolist()):
        used, triangles = np.unique(mesh.triangles[which == number], return_inverse=True)
        parts[x, y] = Mesh(
            mesh.vertices[used],
            mesh.normals[used],
            mesh.colours[used],
            mesh.emission[used],
            mesh.uv[used],
            triangles.reshape(-1, 3),
        )
    return parts


def left_normals(line: Array) -> Array:
    """Unit normals [N, 2] to the left of a polyline [N, 2], the mean of both sides at a bend."""
    steps = np.diff(line, axis=0)
    steps = steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-9)
    along = np.concatenate([steps[:1], steps[:-1] + steps[1:], steps[-1:]])
    along = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    return np.column_stack([-along[:, 1], along[:, 0]])


def _cross(a: Array, b: Array) -> Array:
    """Cross products of [K, 3] with [K, 3]: numpy's own spends longer on the checks of small arrays."""
    ax, ay, az = a.T
    bx, by, bz = b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=1)


def _opaque(colour: Colour) -> Array:
    return np.array([*colour, 1.0][:4])


def _corner_colours(colour: Array, count: int) -> Array:
    """RGBA [4 K, 4] of K quads' corners from one colour, one a quad or one a corner."""
    if colour.shape[-1] == 3:
        colour = np.concatenate([colour, np.ones((*colour.shape[:-1], 1))], axis=-1)
    if colour.ndim == 2:
        colour = colour[:, None]
    return np.broadcast_to(colour, (count, 4, 4)).reshape(-1, 4).copy()
