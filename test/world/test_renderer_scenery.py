"""What stands still: meshes face outwards, houses and trees keep off the road, markings lie where the map has them."""

import numpy as np
import pytest
from world.scenes import crossroads

from opendrivevla_ros.world.mesh import Mesh, ball, box, cylinder, simplified, tiles
from opendrivevla_ros.world.paving import FOOTPATH_WIDTH, paving_layers
from opendrivevla_ros.world.road_queries import RoadQueries
from opendrivevla_ros.world.scenery import build_scenery
from opendrivevla_ros.world.textures import build_textures

LOW, HIGH = 0.3, 4.0  # metres above ground between which nothing may reach over the road


def triangle_normals(mesh: Mesh) -> np.ndarray:
    a, b, c = np.moveaxis(mesh.vertices[mesh.triangles], 1, 0)
    return np.cross(b - a, c - a)


@pytest.mark.parametrize(
    "mesh",
    [
        box((-1, -2, -3), (1, 2, 3), (1, 1, 1), closed=True),
        box((-1, -2, -3), (1, 2, 3), (1, 1, 1), taper=0.5),
        cylinder((0, 0, -1), (0, 0, 1), (1.0, 0.5), (1, 1, 1), cap=(1, 1, 1)),
        cylinder((-1, 0, 0), (1, 0, 0), 1.0, (1, 1, 1), cap=(1, 1, 1)),
        ball((0, 0, 0), (1, 2, 3), (1, 1, 1)),
    ],
)
def test_solids_face_outwards(mesh: Mesh) -> None:
    middles = mesh.vertices[mesh.triangles].mean(axis=1)
    normals = triangle_normals(mesh)
    assert ((normals * middles).sum(axis=1) > 0).all()
    assert (np.linalg.norm(normals, axis=1) > 1e-9).all()
    given = mesh.normals[mesh.triangles].mean(axis=1)
    assert ((normals * given).sum(axis=1) > 0).all()


def test_level_surfaces_face_up() -> None:
    for layer in paving_layers(crossroads(), wet=False):
        normals = triangle_normals(layer.mesh)
        level = np.abs(normals[:, 2]) > 1e-6
        assert (normals[level, 2] >= 0).mean() > 0.98  # strips fold over at the tightest kerb corners


@pytest.mark.parametrize("seed", range(4))
def test_nothing_stands_on_a_road_or_a_footpath(seed: int) -> None:
    road = crossroads()
    queries = RoadQueries(road)
    props = build_scenery(road, seed, lamps=True)
    assert len(props) > 40
    for prop in props:
        for _, mesh in prop.parts:
            near_ground = mesh.vertices[(mesh.vertices[:, 2] < 0.2)]
            if len(near_ground):
                assert not queries.on_road(near_ground[:, :2]).any()
            body = mesh.vertices[(mesh.vertices[:, 2] > LOW) & (mesh.vertices[:, 2] < HIGH)]
            if len(body):
                assert not queries.on_road(body[:, :2]).any()
    houses = [prop for prop in props if any(name and name.startswith("facade") for name, _ in prop.parts)]
    assert houses
    for house in houses:
        corners = np.concatenate([mesh.vertices[:, :2] for name, mesh in house.parts if name])
        assert queries.edge_distance(corners).max() < -FOOTPATH_WIDTH + 1.5


def test_scenery_is_the_same_for_the_same_seed_only() -> None:
    road = crossroads()
    first, again, other = (build_scenery(road, seed, lamps=False) for seed in (3, 3, 4))
    assert [prop.place for prop in first] == [prop.place for prop in again]
    assert [prop.place for prop in first] != [prop.place for prop in other]


def test_tiles_keep_every_triangle() -> None:
    mesh = box((-3, -3, 0), (3, 3, 1), (1, 1, 1), closed=True)
    parts = tiles(mesh, 2.0)
    assert sum(len(part.triangles) for part in parts.values()) == len(mesh.triangles)
    areas = sum(np.linalg.norm(triangle_normals(part), axis=1).sum() for part in parts.values())
    assert areas == pytest.approx(np.linalg.norm(triangle_normals(mesh), axis=1).sum())


def test_a_simplified_line_stays_close_and_is_shorter() -> None:
    angle = np.linspace(0, np.pi / 2, 120)
    line = 30 * np.column_stack([np.cos(angle), np.sin(angle)])
    fewer = simplified(line)
    assert len(fewer) < len(line) / 2
    radii = np.hypot(*((fewer[1:] + fewer[:-1]) / 2).T)
    assert np.abs(radii - 30).max() < 0.05
    assert (fewer[[0, -1]] == line[[0, -1]]).all()


def test_textures_are_bright_and_natural_ones_repeat_without_a_seam() -> None:
    for name, picture in build_textures().items():
        assert 90 < picture.mean() < 250, name
        if name in ("asphalt", "grass", "leaves"):
            inner = np.abs(np.diff(picture.astype(int), axis=1)).mean()
            seam = np.abs(picture[:, 0].astype(int) - picture[:, -1]).mean()
            assert seam < 4 * inner + 12, name
