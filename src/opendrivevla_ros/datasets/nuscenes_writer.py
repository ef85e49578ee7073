"""The files of a nuScenes-format data set on their way to the disk: rows by table, and bytes by name."""

import errno
import json
from pathlib import Path
from typing import Any

from opendrivevla_ros.datasets.nuscenes_tables import (
    ATTRIBUTES,
    DETECTION_CLASSES,
    TABLES,
    VISIBILITIES,
    DatasetError,
    Row,
    token,
)


def write_error(path: Path, error: OSError) -> DatasetError:
    """The error of a path that could not be written."""
    remedy = "free space or choose another disk" if error.errno == errno.ENOSPC else "check the folder and its rights"
    return DatasetError(f"{path} cannot be written ({error.strerror or error}); {remedy}, then write the whole anew")


class TableWriter:
    """Collects rows, which `finish` writes, and writes other files at once.

    root: the folder to fill. version: the name of the folder of tables in it. Raises DatasetError.
    """

    def __init__(self, root: Path, version: str) -> None:
        self._root, self._version = root, version
        self._tables: dict[str, list[Row]] = {table: [] for table in TABLES}
        self._tokens: set[str] = set()
        for name in DETECTION_CLASSES:
            self.row("category", name, name=name, description="")
        for name in ATTRIBUTES:
            self.row("attribute", name, name=name, description="")
        for level, name in VISIBILITIES.items():
            description = f"{name[1:]} % of the box is seen in the pictures"
            self._tables["visibility"].append({"token": level, "level": name, "description": description})

    def row(self, table: str, *parts: object, **columns: Any) -> Row:
        """Adds a row whose token follows from the table and `parts`; columns may still be set on what comes back."""
        row = {"token": token(table, *parts), **columns}
        self._tables[table].append(row)
        return row

    def row_once(self, table: str, *parts: object, **columns: Any) -> str:
        """The token of a row that many share: the first call with these parts adds it."""
        name = token(table, *parts)
        if name not in self._tokens:
            self._tokens.add(name)
            self.row(table, *parts, **columns)
        return name

    def write(self, filename: str, data: bytes) -> None:
        """Writes a file, given by its name below the root."""
        path = self._root / filename
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise write_error(path, error) from error

    def write_json(self, filename: str, content: Any) -> None:
        """Writes a JSON file, given by its name below the root."""
        self.write(filename, json.dumps(content, separators=(",", ":"), allow_nan=False).encode())

    def finish(self, **extras: Any) -> None:
        """Writes the tables, and beside them a JSON file for each of `extras`."""
        for name, content in {**self._tables, **extras}.items():
            self.write_json(f"{self._version}/{name}.json", content)
