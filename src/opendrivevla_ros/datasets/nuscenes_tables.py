"""The tables of a nuScenes-format data set: their names, vocabulary, tokens, and a reader that says what is broken.

The schema is nuScenes' own (docs/schema_nuscenes.md of nuscenes-devkit): quaternions are (w, x, y, z), sizes are
(width, length, height), stamps are microseconds, poses are in the map's frame.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from opendrivevla_ros.core.geometry import Array, quaternion, transform

TABLES = (
    "category",
    "attribute",
    "visibility",
    "instance",
    "sensor",
    "calibrated_sensor",
    "ego_pose",
    "log",
    "scene",
    "sample",
    "sample_data",
    "sample_annotation",
    "map",
)
# nuScenes' 23 categories, with the class of its detection benchmark where there is one.
DETECTION_CLASSES = {
    "animal": None,
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.personal_mobility": None,
    "human.pedestrian.police_officer": "pedestrian",
    "human.pedestrian.stroller": None,
    "human.pedestrian.wheelchair": None,
    "movable_object.barrier": "barrier",
    "movable_object.debris": None,
    "movable_object.pushable_pullable": None,
    "movable_object.trafficcone": "traffic_cone",
    "static_object.bicycle_rack": None,
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.emergency.ambulance": None,
    "vehicle.emergency.police": None,
    "vehicle.motorcycle": "motorcycle",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
}
ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.moving",
    "pedestrian.standing",
    "pedestrian.sitting_lying_down",
)
VISIBILITIES = {"1": "v0-40", "2": "v40-60", "3": "v60-80", "4": "v80-100"}  # per cent of the box in all pictures
LIDAR_CHANNEL = "LIDAR_TOP"
LARGEST_WHOLE = 2**53  # microseconds of 285 years
GRAVITY = 9.81  # m/s^2; the CAN bus's acceleration holds it, EgoState's does not

Row = dict[str, Any]


class DatasetError(ValueError):
    """A data set that cannot be read or written: one sentence that names the file, what is wrong, and the remedy."""


def token(*parts: object) -> str:
    """A token of 32 hexadecimal digits that is the same for the same parts."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:32]


def pose_columns(matrix: Array) -> Row:
    """The columns `translation` and `rotation` of a 4x4 transform."""
    x, y, z, w = quaternion(matrix).tolist()
    return {"translation": matrix[:3, 3].tolist(), "rotation": [w, x, y, z]}


def read_json(path: Path, remedy: str) -> Any:
    """The content of a JSON file. Raises DatasetError, which ends in `remedy`."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not whole JSON ({error}); {remedy}") from None


class Tables:
    """The rows of a data set's tables by token, keyframes only where a table has others too.

    root: the folder that holds `samples/`, `maps/` and the folder of tables, which is named `version`.
    Raises DatasetError for a table that is missing, is not JSON, or is not a list of rows.
    """

    def __init__(self, root: str | Path, version: str) -> None:
        self.root, self.version = Path(root), version
        # Sweeps are nine tenths of nuScenes' largest tables, and nothing here reads them.
        data = [row for row in self._read("sample_data") if row.get("is_key_frame")]
        poses = {str(row.get("ego_pose_token")) for row in data}
        kept = {"sample_data": data, "ego_pose": [row for row in self._read("ego_pose") if row["token"] in poses]}
        rows = {table: kept[table] if table in kept else self._read(table) for table in TABLES}
        self._rows = {table: {row["token"]: row for row in rows[table]} for table in TABLES}

    def path(self, table: str) -> Path:
        """The file of a table."""
        return self.root / self.version / f"{table}.json"

    def all(self, table: str) -> Iterable[Row]:
        """The rows of a table in the order of the file."""
        return self._rows[table].values()

    def get(self, table: str, row_token: str) -> Row:
        """The row with a token. Raises DatasetError where another table names a row that is not there."""
        try:
            return self._rows[table][row_token]
        except (KeyError, TypeError):  # a token that is a list is no key
            raise self.broken(table, f"lacks the row {row_token!r}, which another table names") from None

    def value(self, table: str, row: Row, column: str) -> Any:
        """A column of a row. Raises DatasetError where the row lacks it."""
        try:
            return row[column]
        except KeyError:
            raise self.broken(table, f"has the row {row.get('token')!r} without {column!r}") from None

    def text(self, table: str, row: Row, column: str) -> str:
        """A column of words. Raises DatasetError where it is anything else."""
        value = self.value(table, row, column)
        if not isinstance(value, str):
            raise self.broken(table, f"has {column} {value!r} in the row {row.get('token')!r} where words belong")
        return value

    def whole(self, table: str, row: Row, column: str) -> int:
        """A column that holds a whole number from 0 on. Raises DatasetError where it is anything else."""
        value = self.value(table, row, column)
        if not isinstance(value, int) or not 0 <= value <= LARGEST_WHOLE:
            where = f"in the row {row.get('token')!r} where a whole number from 0 on belongs"
            raise self.broken(table, f"has {column} {value!r} {where}")
        return value

    def numbers(self, table: str, row: Row, column: str, *shape: int) -> Array:
        """A column of finite numbers of a shape. Raises DatasetError where it is anything else."""
        value = self.value(table, row, column)
        try:
            numbers = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            numbers = np.zeros(())
        if numbers.shape != shape or not np.isfinite(numbers).all():
            expected = f"{' x '.join(map(str, shape))} finite numbers belong"
            raise self.broken(table, f"has {column} {value} in the row {row.get('token')!r} where {expected}")
        return numbers

    def pose(self, table: str, row: Row) -> Array:
        """The 4x4 transform of a row's translation and rotation. Raises DatasetError."""
        w, x, y, z = self.numbers(table, row, "rotation", 4)
        translation = self.numbers(table, row, "translation", 3)
        if not 0.5 < float(np.linalg.norm([w, x, y, z])) < 2.0:
            raise self.broken(table, f"has the rotation {[w, x, y, z]} in the row {row.get('token')!r}: no rotation")
        return transform(translation, (x, y, z, w))

    def broken(self, table: str, what: str) -> DatasetError:
        """The error of a table: `what` begins with a verb."""
        return DatasetError(f"{self.path(table)} {what}; {self._remedy}")

    @property
    def _remedy(self) -> str:
        return f"download or export {self.version} again"

    def _read(self, table: str) -> list[Row]:
        rows = read_json(
            self.path(table), f"is {self.root} the folder that holds {self.version}/? else {self._remedy}"
        )
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and isinstance(row.get("token"), str) for row in rows
        ):
            raise self.broken(table, "is not a list of rows with a token each")
        return rows
