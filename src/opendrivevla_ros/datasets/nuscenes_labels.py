"""The annotated road users of a nuScenes-format scene, followed over its keyframes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from opendrivevla_ros.core.geometry import Array, apply, invert, wrap_angle, yaw_of
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.datasets.driving_samples import AgentLabel, values_at
from opendrivevla_ros.datasets.nuscenes_tables import DETECTION_CLASSES, VISIBILITIES, Row, Tables

TABLE = "sample_annotation"
VELOCITY_SPAN_S = 1.5  # the devkit's limit for the velocity over one step; over two steps it is twice that


@dataclass(frozen=True)
class _Annotation:
    """A box at a keyframe. pose: [4, 4] in the map. size: [3] length, width, height."""

    keyframe: int
    pose: Array
    size: Array
    points: int
    visibility: int
    attribute: str


@dataclass
class _Track:
    """One instance: its class, and its boxes in order."""

    track_id: int
    label: str
    annotations: list[_Annotation] = field(default_factory=list)


class AgentTracks:
    """All instances of a scene that have a class of the detection task.

    annotations: the rows of each keyframe. stamps_ns: [N] of the keyframes.
    Raises DatasetError for a row with numbers that are not finite, a size that is not above 0, anything else that
    cannot be, or an instance with two boxes in one keyframe.
    """

    def __init__(self, tables: Tables, annotations: Sequence[Sequence[Row]], stamps_ns: Sequence[int]) -> None:
        self._tables = tables
        self._times = np.asarray(stamps_ns, dtype=np.int64) / 1e9
        self._tracks: dict[str, _Track] = {}
        for keyframe, rows in enumerate(annotations):
            for row in rows:
                self._add(keyframe, row)

    def at(self, keyframe: int, base_to_map: Array) -> tuple[AgentLabel, ...]:
        """The labels of a keyframe, in base_link."""
        map_to_base = invert(base_to_map)
        return tuple(
            self._label(track, place, map_to_base)
            for track in self._tracks.values()
            for place, annotation in enumerate(track.annotations)
            if annotation.keyframe == keyframe
        )

    def _add(self, keyframe: int, row: Row) -> None:
        tables = self._tables
        instance = tables.get("instance", tables.value(TABLE, row, "instance_token"))
        category = tables.get("category", tables.value("instance", instance, "category_token"))
        label = DETECTION_CLASSES.get(tables.text("category", category, "name"))
        annotation = self._checked(keyframe, row)
        if label is None:
            return
        track = self._tracks.setdefault(instance["token"], _Track(len(self._tracks), label))
        if track.annotations and track.annotations[-1].keyframe == keyframe:
            raise tables.broken(TABLE, f"has two rows of the instance {instance['token']!r} in one sample")
        track.annotations.append(annotation)

    def _checked(self, keyframe: int, row: Row) -> _Annotation:
        tables = self._tables
        width, length, height = tables.numbers(TABLE, row, "size", 3)
        if not min(width, length, height) > 0:
            raise tables.broken(TABLE, f"has size {row['size']} in the row {row['token']!r}, which must be above 0")
        attributes = row.get("attribute_tokens", [])
        if not isinstance(attributes, list):
            raise tables.broken(TABLE, f"has attribute_tokens {attributes!r} in the row {row['token']!r}: no list")
        named = [tables.text("attribute", tables.get("attribute", name), "name") for name in attributes]
        visibility = str(row.get("visibility_token", ""))
        return _Annotation(
            keyframe=keyframe,
            pose=tables.pose(TABLE, row),
            size=np.array([length, width, height]),
            points=sum(tables.whole(TABLE, row, column) for column in ("num_lidar_pts", "num_radar_pts")),
            visibility=int(visibility) if visibility in VISIBILITIES else 0,
            attribute=named[0] if named else "",
        )

    def _label(self, track: _Track, place: int, map_to_base: Array) -> AgentLabel:
        """The label of a track at its `place`-th annotation."""
        now, *later = track.annotations[place:]
        pose = map_to_base @ now.pose
        velocity = self._velocity(track, place)
        times = self._times[[one.keyframe for one in (now, *later)]] - self._times[now.keyframe]
        centres = apply(map_to_base, np.stack([one.pose for one in (now, *later)])[:, :3, 3])[:, :2]
        future, future_mask = values_at(times, centres, FUTURE_TIMES_S)
        return AgentLabel(
            track_id=track.track_id,
            label=track.label,
            position=pose[:3, 3],
            size=now.size,
            yaw=float(wrap_angle(yaw_of(pose))),
            velocity=np.zeros(2) if velocity is None else (map_to_base[:3, :3] @ velocity)[:2],
            velocity_known=velocity is not None,
            future=future,
            future_mask=future_mask,
            points=now.points,
            visibility=now.visibility,
            attribute=now.attribute,
        )

    def _velocity(self, track: _Track, place: int) -> Array | None:
        """[3] m/s in the map's frame between the annotations before and after, as the devkit has it."""
        first, last = max(place - 1, 0), min(place + 1, len(track.annotations) - 1)
        before, after = track.annotations[first], track.annotations[last]
        seconds = float(self._times[after.keyframe] - self._times[before.keyframe])
        if first == last or seconds > VELOCITY_SPAN_S * (last - first):
            return None
        return np.asarray((after.pose - before.pose)[:3, 3] / seconds)
