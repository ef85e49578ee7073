"""From meshes, pictures and matrices in numpy to panda3d's nodes, textures and transforms."""

import numpy as np
from numpy.typing import NDArray
from panda3d.core import (
    Geom,
    GeomNode,
    GeomTriangles,
    GeomVertexData,
    GeomVertexFormat,
    LMatrix4,
    MatrixLens,
    RenderState,
    SamplerState,
    Texture,
    TextureAttrib,
)

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.rig import CameraCalibration
from opendrivevla_ros.world.appearance import Light
from opendrivevla_ros.world.mesh import Mesh

NEAR, FAR = 0.2, 320.0  # metres

# The software renderer cuts vertices to whole pixels and fills from there: on average a quarter of a pixel towards
# the upper left corner.
PIXEL_SHIFT = 0.25

VERTEX = np.dtype([("vertex", "<f4", 3), ("colour", "u1", 4), ("uv", "<f4", 2)])  # panda3d's v3c4t2


def matrix(transform: Array) -> LMatrix4:
    """panda3d's matrix, which multiplies rows from the right, of a 4x4 transform."""
    return LMatrix4(*transform.T.ravel().tolist())


def geometry(mesh: Mesh, light: Light) -> Geom:
    """A mesh with its shading under a light baked into the vertex colours."""
    vertices = np.empty(len(mesh.vertices), VERTEX)
    vertices["vertex"] = mesh.vertices
    vertices["colour"] = light.shade(mesh)
    vertices["uv"] = mesh.uv
    data = GeomVertexData("", GeomVertexFormat.get_v3c4t2(), Geom.UH_static)
    data.unclean_set_num_rows(len(vertices))
    memoryview(data.modify_array(0)).cast("B")[:] = vertices.tobytes()
    triangles = GeomTriangles(Geom.UH_static)
    triangles.set_index_type(Geom.NT_uint32)
    indices = triangles.modify_vertices()
    indices.unclean_set_num_rows(mesh.triangles.size)
    memoryview(indices).cast("B")[:] = mesh.triangles.astype(np.uint32).tobytes()
    geom = Geom(data)
    geom.add_primitive(triangles)
    return geom


def node(mesh: Mesh, light: Light, texture: Texture | None = None) -> GeomNode:
    """A node that shows one mesh."""
    result = GeomNode("")
    add_geometry(result, mesh, light, texture)
    return result


def add_geometry(target: GeomNode, mesh: Mesh, light: Light, texture: Texture | None) -> None:
    """Adds a mesh to a node; an empty one adds nothing."""
    if len(mesh.triangles) == 0:
        return
    state = RenderState.make_empty() if texture is None else RenderState.make(TextureAttrib.make(texture))
    target.add_geom(geometry(mesh, light), state)


def repeating_texture(picture: NDArray[np.uint8]) -> Texture:
    """A BGR picture [H, W, 3], sides powers of two, as a texture that repeats."""
    height, width = picture.shape[:2]
    texture = Texture()
    texture.setup_2d_texture(width, height, Texture.T_unsigned_byte, Texture.F_rgb)
    texture.set_ram_image(np.ascontiguousarray(picture[::-1]).tobytes())
    texture.set_wrap_u(SamplerState.WM_repeat)
    texture.set_wrap_v(SamplerState.WM_repeat)
    texture.set_minfilter(SamplerState.FT_linear_mipmap_nearest)
    texture.set_magfilter(SamplerState.FT_linear)
    return texture


def pinhole_lens(camera: CameraCalibration, width: int, height: int) -> MatrixLens:
    """The lens of a camera whose picture is drawn `width` x `height` pixels large.

    Looks along y with z up, as panda3d's cameras do. Pixel (u, v) covers [u, u + 1) x [v, v + 1) of the calibration's
    continuous pixel plane, scaled to the drawn size.
    """
    scale_x, scale_y = width / camera.width, height / camera.height
    k = camera.intrinsics
    focal_x, focal_y = k[0, 0] * scale_x, k[1, 1] * scale_y
    centre_x, centre_y = k[0, 2] * scale_x + PIXEL_SHIFT, k[1, 2] * scale_y + PIXEL_SHIFT
    projection = np.zeros((4, 4))  # columns: x right, y forward, z up, 1; rows: clip space of OpenGL
    projection[0] = [2 * focal_x / width, 2 * centre_x / width - 1, 0.0, 0.0]
    projection[1] = [0.0, 1 - 2 * centre_y / height, 2 * focal_y / height, 0.0]
    projection[2] = [0.0, (FAR + NEAR) / (FAR - NEAR), 0.0, -2 * FAR * NEAR / (FAR - NEAR)]
    projection[3] = [0.0, 1.0, 0.0, 0.0]
    lens = MatrixLens()
    lens.set_near_far(NEAR, FAR)
    lens.set_user_mat(matrix(projection))
    return lens


def camera_pose(camera: CameraCalibration) -> Array:
    """[4, 4]: from panda3d's camera axes (x right, y forward, z up) to base_link."""
    optical_from_panda = np.array([[1.0, 0, 0, 0], [0, 0, -1.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]])
    return camera.camera_to_base @ optical_from_panda
