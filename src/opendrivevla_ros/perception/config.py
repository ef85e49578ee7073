"""Every dimension and threshold of the perception network, and which of the published model's quirks it keeps."""

from dataclasses import dataclass, field, fields

AGENT_CLASSES = (
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
)
MAP_CLASSES = ("divider", "ped_crossing", "boundary", "drivable_area")  # three things, then the stuff class


@dataclass(frozen=True)
class PublishedQuirks:
    """Behaviours of the published code that a clean implementation would not have; True keeps one.

    first_frame_delta: the ego delta of a scene's first frame is taken against the last frame of any scene, or 0.
    keep_ids_across_scenes: track ids go on counting after a reset.
    misstrided_map_attention: map attention reads offsets made for four levels with the stride of one.
    shift_leaks: the ego-motion shift moves the reference points of both temporal streams.
    fixed_temporal_values: with a previous BEV, all encoder layers see the initial query as their second value.
    drop_last_track: the lowest-scoring active track gives no agent token.
    rank_as_query_index: accepted map ranks index the unsorted queries.
    divider_paints_nothing: divider pixels never count as occupied in the overlap test.
    stuff_position_in_residual: the stuff query carries its position through every block's residual.
    scalar_quaternion: can_bus[3:7] holds the quaternion's scalar part four times.
    """

    first_frame_delta: bool = True
    keep_ids_across_scenes: bool = True
    misstrided_map_attention: bool = True
    shift_leaks: bool = True
    fixed_temporal_values: bool = True
    drop_last_track: bool = True
    rank_as_query_index: bool = True
    divider_paints_nothing: bool = True
    stuff_position_in_residual: bool = True
    scalar_quaternion: bool = True

    @classmethod
    def as_evaluated(cls) -> "PublishedQuirks":
        """All of them: what the published evaluation computes, and the golden outputs hold."""
        return cls()

    @classmethod
    def as_trained(cls) -> "PublishedQuirks":
        """Those that training had too: right for a published checkpoint on a vehicle."""
        return cls(first_frame_delta=False, keep_ids_across_scenes=False)

    @classmethod
    def none(cls) -> "PublishedQuirks":
        """A clean network: for checkpoints that this package trains."""
        return cls(**{quirk.name: False for quirk in fields(cls)})


@dataclass(frozen=True)
class PerceptionConfig:
    """The defaults are the published model's; `small` gives smaller numbers to the same classes.

    Sizes are pixels (width, height), BEV cells and metres. Ranges are (x, y, z min, x, y, z max) in the lidar frame.
    same_object_metres: of two tracks of one class whose centres are nearer than this, one is dropped; 0 as published,
    where all are kept. ego_layers: of `EgoQuery`; 0 as published, where there is none. ego_window: (x, y min, x, y
    max), lidar frame, of the bird's-eye view that the ego's query looks into.
    """

    # pictures: resized to image_size, mean subtracted (BGR), zero-padded at the bottom and right to pad_multiple
    image_size: tuple[int, int] = (1600, 900)
    pad_multiple: int = 32
    mean_bgr: tuple[float, float, float] = (103.530, 116.280, 123.675)
    cameras: int = 6
    # backbone and pyramid
    resnet_blocks: tuple[int, int, int, int] = (3, 4, 23, 3)
    resnet_width: int = 64  # channels of the stem; stage k has width * 2^k, times 4 at its output
    deformable_stages: tuple[bool, bool, bool, bool] = (False, False, True, True)
    feature_levels: int = 4
    # transformer
    embed_dim: int = 256
    ffn_dim: int = 512
    heads: int = 8
    # bird's-eye view
    range_metres: tuple[float, float, float, float, float, float] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
    bev_size: int = 200
    encoder_layers: int = 6
    pillar_points: int = 4
    spatial_points: int = 8
    temporal_points: int = 4
    can_bus_dim: int = 18
    # tracks
    queries: int = 900
    decoder_layers: int = 6
    decoder_points: int = 4
    classes: int = len(AGENT_CLASSES)
    past_steps: int = 4
    future_steps: int = 4
    birth_score: float = 0.40
    keep_score: float = 0.35
    max_missed: int = 5
    max_tracks: int = 300
    same_object_metres: float = 0.0
    centre_range: tuple[float, float, float, float, float, float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    memory_length: int = 4
    memory_period: int = 3
    # map
    map_queries: int = 300
    map_layers: int = 6
    map_points: int = 4
    map_attention_levels: int = 4  # what the sampling offsets are made for; the map head has one level
    map_things: int = len(MAP_CLASSES) - 1
    map_masks: int = 100
    thing_blocks: int = 4
    stuff_blocks: int = 6
    mask_mlp_ratio: int = 4
    mask_score: float = 0.1
    mask_overlap: float = 0.4
    # scene tokens per camera: rows, columns
    scene_grid: tuple[int, int] = (3, 5)
    ego_layers: int = 0
    ego_window: tuple[float, float, float, float] = (-16.0, -4.0, 16.0, 40.0)
    quirks: PublishedQuirks = field(default_factory=PublishedQuirks)

    @property
    def padded_size(self) -> tuple[int, int]:
        """(width, height) after padding."""
        width, height = (-(-side // self.pad_multiple) * self.pad_multiple for side in self.image_size)
        return width, height

    @property
    def cell_metres(self) -> float:
        """Side of a BEV cell."""
        return (self.range_metres[3] - self.range_metres[0]) / self.bev_size

    @property
    def ego_cells(self) -> tuple[slice, slice]:
        """Rows and columns of the BEV within `ego_window`, as far as it reaches."""
        x_min, y_min, x_max, y_max = self.ego_window

        def cells(start: float, end: float, origin: float) -> slice:
            first, last = (round((metres - origin) / self.cell_metres) for metres in (start, end))
            return slice(max(first, 0), min(last, self.bev_size))

        return cells(y_min, y_max, self.range_metres[1]), cells(x_min, x_max, self.range_metres[0])
