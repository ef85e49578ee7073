"""Draws what the six cameras see of a world state, with panda3d's software renderer: no window, no GPU, no display."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from panda3d.core import (
    Camera,
    CullBinManager,
    DisplayRegion,
    FrameBufferProperties,
    GeomNode,
    GraphicsEngine,
    GraphicsOutput,
    GraphicsPipe,
    GraphicsPipeSelection,
    NodePath,
    Texture,
    TransparencyAttrib,
    WindowProperties,
    load_prc_file_data,
)

from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.world.appearance import Palette, palette
from opendrivevla_ros.world.image_effects import ImageEffects, exposure_table
from opendrivevla_ros.world.mesh import Mesh, merge, quads, tiles
from opendrivevla_ros.world.panda_geometry import (
    add_geometry,
    camera_pose,
    matrix,
    node,
    pinhole_lens,
    repeating_texture,
)
from opendrivevla_ros.world.paving import paving_layers
from opendrivevla_ros.world.road_users import RoadUsers
from opendrivevla_ros.world.scenery import Prop, build_scenery
from opendrivevla_ros.world.sky import RADIUS, haze_shells, sky_dome
from opendrivevla_ros.world.state import Appearance, RoadMap, WorldState
from opendrivevla_ros.world.textures import build_textures

Image = NDArray[np.uint8]

SCENERY_TILE, PAVING_TILE = 40.0, 60.0  # metres: what is in one tile is drawn, or left out of a view, together
NO_EFFECTS = ImageEffects()


class Renderer:
    """Six (or any number of) pinhole cameras on the ego vehicle. Make one in the process that uses it, and keep it.

    rig: intrinsics and extrinsics as they are, principal points off the middle included. image_size: (width, height)
    of the pictures, by default each camera's own (which must then be one for all). antialiasing: every pixel is the
    mean of so many by so many. Raises ValueError for sizes that cannot be drawn.
    """

    def __init__(self, rig: CameraRig, *, image_size: tuple[int, int] | None = None, antialiasing: int = 2) -> None:
        sizes = {(camera.width, camera.height) for camera in rig.cameras}
        if image_size is None and len(sizes) != 1:
            raise ValueError(f"the rig's cameras have sizes {sorted(sizes)}; give one image_size for all of them")
        self.image_size = image_size or next(iter(sizes))
        if min(self.image_size) < 1 or antialiasing < 1:
            raise ValueError(
                f"image size {self.image_size} at antialiasing {antialiasing}; give whole numbers above 0"
            )
        self.rig = rig
        self._drawn = (self.image_size[0] * antialiasing, self.image_size[1] * antialiasing)
        self._root = NodePath("world")
        self._ego = self._root.attach_new_node("ego")
        self._picture = Texture()
        self._regions: list[DisplayRegion] = []
        self._buffer = self._make_buffer()
        self._stage: _Stage | None = None

    def render(self, state: WorldState, effects: ImageEffects = NO_EFFECTS) -> tuple[Image, ...]:
        """One uint8 BGR picture [height, width, 3] a camera, in the rig's order.

        What stands still is built again only when the state's road or appearance is another than before. The same
        state gives the same bytes in every process.
        """
        return self._render(state, effects, range(len(self.rig.cameras)))

    def render_one(self, camera: str, state: WorldState, effects: ImageEffects = NO_EFFECTS) -> Image:
        """The picture of one camera alone, the same bytes as `render` gives for it."""
        names = [one.name for one in self.rig.cameras]
        return self._render(state, effects, [names.index(camera)])[0]

    def close(self) -> None:
        """Gives the picture memory back; the renderer must not be used afterwards."""
        if self._stage is not None:
            self._stage.remove()
        _engine().remove_window(self._buffer)
        self._root.remove_node()

    def _render(self, state: WorldState, effects: ImageEffects, cameras: Sequence[int]) -> tuple[Image, ...]:
        stage = self._stage
        if stage is None or stage.road is not state.road or stage.appearance != state.appearance:
            if stage is not None:
                stage.remove()
            stage = self._stage = _Stage(self._root, state.road, state.appearance)
        self._ego.set_mat(matrix(state.ego.base_to_world))
        stage.surroundings.set_pos(state.ego.x, state.ego.y, 0.0)
        stage.users.place(state.actors, state.ego, state.time_ns)
        for index, region in enumerate(self._regions):
            region.set_active(index in cameras)
        self._buffer.set_active(True)
        _engine().render_frame()
        self._buffer.set_active(False)
        return tuple(self._read(index, stage, state, effects) for index in cameras)

    def _make_buffer(self) -> GraphicsOutput:
        """One tall off-screen picture with the cameras' views below one another."""
        width, height = self._drawn
        count = len(self.rig.cameras)
        properties = FrameBufferProperties()
        properties.set_rgb_color(True)
        properties.set_depth_bits(24)
        size = WindowProperties.size(width, height * count)
        flags = GraphicsPipe.BF_refuse_window
        buffer = _engine().make_output(_pipe(), "cameras", 0, properties, size, flags)
        if buffer is None:
            raise ValueError(f"panda3d cannot draw {count} views of {width}x{height}; give a smaller image size")
        buffer.add_render_texture(self._picture, GraphicsOutput.RTM_copy_ram)
        for index, camera in enumerate(self.rig.cameras):
            path = self._ego.attach_new_node(Camera(camera.name, pinhole_lens(camera, width, height)))
            path.set_mat(matrix(camera_pose(camera)))
            region = buffer.make_display_region(0, 1, 1 - (index + 1) / count, 1 - index / count)
            region.set_camera(path)
            self._regions.append(region)
        buffer.set_active(False)
        return buffer

    def _read(self, index: int, stage: "_Stage", state: WorldState, effects: ImageEffects) -> Image:
        """The picture of a camera that has just been drawn."""
        width, height = self._drawn
        count = len(self.rig.cameras)
        raw = np.frombuffer(self._picture.get_ram_image(), np.uint8).reshape(count, height, width, 4)
        view = raw[count - 1 - index]  # panda3d's rows run from the bottom
        if self._drawn != self.image_size:
            view = cv2.resize(view, self.image_size, interpolation=cv2.INTER_AREA)
        image = cv2.cvtColor(cv2.flip(view, 0), cv2.COLOR_BGRA2BGR)
        image = cv2.LUT(image, stage.exposure)
        return effects.applied(image, (state.appearance.seed, state.time_ns, index))


class _Stage:
    """All nodes of one road map in one appearance: what stands still, what moves, and what goes with the viewer."""

    def __init__(self, root: NodePath, road: RoadMap, appearance: Appearance) -> None:
        self.road, self.appearance = road, appearance
        look = palette(appearance)
        self.exposure = exposure_table(look)
        self._path = root.attach_new_node("stage")
        self._path.set_bin("unsorted", 0)  # in the order of making: the same in every process
        self.surroundings = self._path.attach_new_node("surroundings")
        self._add_surroundings(look, appearance.seed)
        props = build_scenery(road, appearance.seed, look.lamps)
        self._add_paving(road, props, look)
        self._add_scenery(props, look)
        self.users = RoadUsers(self._path, look)

    def remove(self) -> None:
        self._path.remove_node()

    def _add_surroundings(self, look: Palette, seed: int) -> None:
        for part in tiles(sky_dome(look, seed), 1.0).values():
            dome = self.surroundings.attach_new_node(node(part, look.light))
            dome.set_scale(RADIUS)
            _lay_flat(dome, 0)
        for order, shell in enumerate(haze_shells(look)):
            path = self.surroundings.attach_new_node(node(shell, look.light))
            path.set_bin(_haze_bin(), order)
            path.set_depth_write(False)
            path.set_transparency(TransparencyAttrib.M_alpha)

    def _add_paving(self, road: RoadMap, props: Sequence[Prop], look: Palette) -> None:
        for order, layer in enumerate(paving_layers(road, look.wet), start=1):
            texture = _textures()[layer.texture] if layer.texture else None
            for tile in tiles(layer.mesh, PAVING_TILE).values():
                _lay_flat(self._path.attach_new_node(node(tile, look.light, texture)), order)
        if look.lamps:
            pools = [_pool(prop.light) for prop in props if prop.light is not None]
            path = self._path.attach_new_node(node(merge(pools), look.light))
            _lay_flat(path, 10)
            path.set_transparency(TransparencyAttrib.M_alpha)

    def _add_scenery(self, props: Sequence[Prop], look: Palette) -> None:
        groups: dict[tuple[int, int], dict[str | None, list[Mesh]]] = {}
        for prop in props:
            group = groups.setdefault((int(prop.place[0] // SCENERY_TILE), int(prop.place[1] // SCENERY_TILE)), {})
            for texture, mesh in prop.parts:
                group.setdefault(texture, []).append(mesh)
        for group in groups.values():
            geometry = GeomNode("tile")
            for texture, meshes in group.items():
                add_geometry(geometry, merge(meshes), look.light, _textures()[texture] if texture else None)
            self._path.attach_new_node(geometry)


def _lay_flat(path: NodePath, order: int) -> None:
    """Draws a node before everything that stands, in the given order, hiding and hidden by nothing."""
    path.set_bin("background", order)
    path.set_depth_test(False)
    path.set_depth_write(False)


def _pool(place: tuple[float, float]) -> Mesh:
    """The light of a street lamp on the ground."""
    angles = 2 * np.pi * np.arange(13) / 12
    rim = np.column_stack([place[0] + 7.0 * np.cos(angles), place[1] + 7.0 * np.sin(angles), np.zeros(13)])
    middle = np.tile([*place, 0.0], (12, 1))
    corners = np.stack([middle, rim[:-1], rim[1:], rim[1:]], axis=1)
    bright, dark = [1.0, 0.86, 0.56, 0.30], [1.0, 0.86, 0.56, 0.0]
    return quads(corners, np.tile([bright, dark, dark, dark], (12, 1, 1)), emission=1.0)


@lru_cache(maxsize=1)
def _pipe() -> GraphicsPipe:
    load_prc_file_data("", "notify-level error")
    pipe = GraphicsPipeSelection.get_global_ptr().make_pipe("TinyOffscreenGraphicsPipe", "p3tinydisplay")
    if pipe is None:
        raise RuntimeError("panda3d's software renderer p3tinydisplay does not load; install panda3d from PyPI")
    return pipe


@lru_cache(maxsize=1)
def _engine() -> GraphicsEngine:
    return GraphicsEngine(_pipe())


@lru_cache(maxsize=1)
def _textures() -> dict[str, Texture]:
    return {name: repeating_texture(picture) for name, picture in build_textures().items()}


@lru_cache(maxsize=1)
def _haze_bin() -> str:
    """The name of a bin that is drawn after all others."""
    CullBinManager.get_global_ptr().add_bin("haze", CullBinManager.BT_fixed, 60)
    return "haze"
