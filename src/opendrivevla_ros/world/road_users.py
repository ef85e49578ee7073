"""The road users on stage: one group of nodes for each, made when first seen and moved from frame to frame."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from panda3d.core import GeomNode, NodePath, TransparencyAttrib

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.world.appearance import Palette
from opendrivevla_ros.world.bodies import Body, body
from opendrivevla_ros.world.mesh import Mesh, merge, quads
from opendrivevla_ros.world.panda_geometry import matrix, node
from opendrivevla_ros.world.state import EGO_HEIGHT, EGO_LENGTH, EGO_WIDTH, Actor, Attribute, Category, Ego

LOOKS = 24  # different shapes and colours of each category
STRIDE = 1.5  # metres walked for two steps
CADENCE_SPEED = 1.2  # m/s at which legs swing fully
BLINK_NS = 400_000_000  # an indicator is on for so long, then off
# In the bin of the ground, plus the road user's id: what overlaps is blended in one order, whoever was seen first.
SHADOW_ORDER, BEAM_ORDER = 100, 1_000_000
EGO_ID = -1
SHADOW_EDGE = 0.25  # share of a footprint by which its shadow fades out
MAX_SHADOW_SHIFT = 0.6  # metres
BEAM_OPACITY = 0.30


@dataclass
class _Puppet:
    """The nodes of one road user. size: what they were made for."""

    size: tuple[float, float, float]
    root: NodePath
    shadow: NodePath
    limbs: list[tuple[NodePath, Array, float]] = field(default_factory=list)  # node, scaled pivot, signed swing
    lights: NodePath | None = None
    brake: NodePath | None = None
    left: NodePath | None = None
    right: NodePath | None = None
    beam: NodePath | None = None


class RoadUsers:
    """All actors and the ego vehicle's shadow, below a scene's root, in one light."""

    def __init__(self, root: NodePath, palette: Palette) -> None:
        self._root = root
        self._palette = palette
        self._light = palette.on_the_road
        self._puppets: dict[int, _Puppet] = {}
        self._nodes: dict[tuple[Category, int, str], GeomNode] = {}
        self._shadow = node(_soft_shadow(palette.shadow), self._light)
        self._beam = node(_beam_mesh(), self._light) if palette.lamps else None
        sun = palette.light.sun
        shift = -sun[:2] / max(float(sun[2]), 0.25) * 0.35
        self._shadow_shift = shift
        self._ego_shadow = self._ground_node(self._shadow, SHADOW_ORDER + EGO_ID)
        self._ego_beam = self._ground_node(self._beam, BEAM_ORDER + EGO_ID) if self._beam is not None else None

    def place(self, actors: Iterable[Actor], ego: Ego, time_ns: int) -> None:
        """Moves every actor to its pose; those that are gone leave the stage."""
        seen = set()
        for actor in actors:
            seen.add(actor.id)
            puppet = self._puppets.get(actor.id)
            if puppet is None or puppet.size != actor.size:
                self._remove(actor.id)
                puppet = self._puppets[actor.id] = self._make(actor)
            self._pose(puppet, actor, time_ns)
        for gone in self._puppets.keys() - seen:
            self._remove(gone)
        x, y = ego.centre
        size = (EGO_LENGTH, EGO_WIDTH, EGO_HEIGHT)
        self._ego_shadow.set_mat(matrix(self._shadow_pose(float(x), float(y), ego.yaw, size)))
        if self._ego_beam is not None:
            self._ego_beam.set_mat(matrix(_planar(float(x), float(y), ego.yaw, EGO_LENGTH)))

    def _make(self, actor: Actor) -> _Puppet:
        look = actor.appearance % LOOKS
        shape = _shape(actor.category, look)
        root = self._root.attach_new_node("actor")
        scaled = np.diag([*actor.size, 1.0])

        def part(name: str, mesh: Mesh | None) -> NodePath | None:
            if mesh is None:
                return None
            path = root.attach_new_node(self._shaded(actor.category, look, name, mesh))
            path.set_mat(matrix(scaled))
            return path

        part("shell", shape.shell)
        puppet = _Puppet(
            actor.size,
            root,
            self._ground_node(self._shadow, SHADOW_ORDER + actor.id),
            lights=part("lights", shape.lights),
            brake=part("brake", shape.brake),
            left=part("left", shape.left),
            right=part("right", shape.right),
        )
        for index, limb in enumerate(shape.limbs):
            path = part(f"limb{index}", limb.mesh)
            sign = -1.0 if limb.phase else 1.0
            puppet.limbs.append((path, np.array(limb.pivot) * actor.size, sign * limb.swing))
        if self._beam is not None and actor.category in (Category.CAR, Category.TRUCK, Category.BUS):
            puppet.beam = self._ground_node(self._beam, BEAM_ORDER + actor.id)
        return puppet

    def _pose(self, puppet: _Puppet, actor: Actor, time_ns: int) -> None:
        puppet.root.set_mat(matrix(actor.pose))
        puppet.shadow.set_mat(matrix(self._shadow_pose(actor.x, actor.y, actor.yaw, actor.size)))
        parked = actor.attribute is Attribute.PARKED
        _show(puppet.lights, not parked)
        _show(puppet.beam, not parked)
        _show(puppet.brake, actor.brake_lights)
        blink = (time_ns // BLINK_NS) % 2 == 0
        _show(puppet.left, actor.indicator > 0 and blink)
        _show(puppet.right, actor.indicator < 0 and blink)
        if puppet.beam is not None:
            puppet.beam.set_mat(matrix(_planar(actor.x, actor.y, actor.yaw, actor.size[0])))
        if puppet.limbs:
            stride = np.sin(2 * np.pi * actor.walked / STRIDE)
            effort = 1.0 if actor.category is Category.BICYCLE else min(abs(actor.speed) / CADENCE_SPEED, 1.0)
            scaled = np.diag([*actor.size, 1.0])
            for path, pivot, swing in puppet.limbs:
                path.set_mat(matrix(_swung(scaled, pivot, float(swing * effort * stride))))

    def _shadow_pose(self, x: float, y: float, yaw: float, size: tuple[float, float, float]) -> Array:
        shift = np.clip(self._shadow_shift * size[2], -MAX_SHADOW_SHIFT, MAX_SHADOW_SHIFT)
        pose = _planar(x + float(shift[0]), y + float(shift[1]), yaw, 0.0)
        pose[:3, :3] = pose[:3, :3] @ np.diag([size[0], size[1], 1.0])
        return pose

    def _shaded(self, category: Category, look: int, name: str, mesh: Mesh) -> GeomNode:
        key = (category, look, name)
        if key not in self._nodes:
            self._nodes[key] = node(mesh, self._light)
        return self._nodes[key]

    def _ground_node(self, geometry: GeomNode, order: int) -> NodePath:
        path = self._root.attach_new_node(geometry.make_copy())
        path.set_bin("background", order)
        path.set_depth_test(False)
        path.set_depth_write(False)
        path.set_transparency(TransparencyAttrib.M_alpha)
        return path

    def _remove(self, actor_id: int) -> None:
        puppet = self._puppets.pop(actor_id, None)
        if puppet is not None:
            for path in (puppet.root, puppet.shadow, puppet.beam):
                if path is not None:
                    path.remove_node()


@cache
def _shape(category: Category, look: int) -> Body:
    return body(category, look)


def _show(path: NodePath | None, visible: bool) -> None:
    if path is not None:
        path.show() if visible else path.hide()


def _planar(x: float, y: float, yaw: float, length: float) -> Array:
    """The pose on the ground of the point half a `length` ahead of (x, y)."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    ahead = length / 2
    return np.array(
        [[cosine, -sine, 0, x + ahead * cosine], [sine, cosine, 0, y + ahead * sine], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]
    )


def _swung(scaled: Array, pivot: Array, angle: float) -> Array:
    """The scaled shape, turned by `angle` about the y axis through `pivot`."""
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.eye(4)
    turn[:3, :3] = [[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]]
    turn[:3, 3] = pivot - turn[:3, :3] @ pivot
    return turn @ scaled


def _soft_shadow(opacity: float) -> Mesh:
    """A dark unit rectangle that fades out beyond its edge."""
    inner = np.array([[-0.47, -0.45, 0], [0.47, -0.45, 0], [0.47, 0.45, 0], [-0.47, 0.45, 0]])
    outer = inner * [1 + SHADOW_EDGE * 0.5, 1 + SHADOW_EDGE, 1]
    dark, clear = [0.02, 0.02, 0.04, opacity], [0.02, 0.02, 0.04, 0.0]
    core = quads(inner[None], np.array([dark]), emission=1.0)
    following = np.roll(np.arange(4), -1)
    rim = np.stack([outer, outer[following], inner[following], inner], axis=1)
    return merge([core, quads(rim, np.tile([clear, clear, dark, dark], (4, 1, 1)), emission=1.0)])


def _beam_mesh() -> Mesh:
    """Light of headlamps on the road ahead of x = 0: a fan of triangles around its brightest spot."""
    middle = (7.0, 0.0, 0.0)
    rim = [
        (0.3, -0.9, 0),
        (7.0, -2.6, 0),
        (18.0, -3.6, 0),
        (28.0, 0.0, 0),
        (18.0, 3.6, 0),
        (7.0, 2.6, 0),
        (0.3, 0.9, 0),
    ]
    corners = [(middle, start, end, end) for start, end in zip(rim, [*rim[1:], rim[0]], strict=True)]
    bright, dark = [1.0, 0.94, 0.74, BEAM_OPACITY], [1.0, 0.94, 0.74, 0.0]
    return quads(np.array(corners), np.tile([bright, dark, dark, dark], (len(rim), 1, 1)), emission=1.0)
