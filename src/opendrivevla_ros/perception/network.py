"""The whole perception network, one frame at a time: pictures to scene, agent and map tokens.

OpenDriveVLA (arXiv 2503.23463, section 3.1) on UniAD's track and map stages (arXiv 2212.10156). The attribute names
are those of the published checkpoint.
"""

import time
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.ego_query import EgoQuery, EgoView, Proposal
from opendrivevla_ros.perception.fpn import FeaturePyramid
from opendrivevla_ros.perception.map_head import MapHead, MapResult
from opendrivevla_ros.perception.memory import MemoryBank, QueryInteraction
from opendrivevla_ros.perception.resnet import ResNet
from opendrivevla_ros.perception.track_head import TrackHead
from opendrivevla_ros.perception.tracker import LidarPose, Tracker, TrackResult, agent_tokens, detections
from opendrivevla_ros.perception.tracks import fresh_tracks


@dataclass(frozen=True)
class PerceptionFrame:
    """The input of one frame.

    images: float32 [cameras, 3, H, W] from `preprocess`.
    lidar_to_image: float64 [cameras, 4, 4], lidar point to (u * depth, v * depth, depth), pixels of `image_size`.
    can_bus: float64 [18], absolute: position (0-2), rotation (3-6), acceleration (7-9), rotation rate (10-12),
        velocity (13-15), heading in radians (16) and in degrees (17).
    lidar_to_global_rotation, lidar_to_global_translation: float32 [3, 3], [3]; p_global = p_lidar @ rotation +
        translation.
    timestamp_s: seconds, on any clock that does not jump within a scene.
    ego: float32 [EGO_NUMBERS], for a network that has an `EgoQuery`.
    """

    images: Tensor
    lidar_to_image: Tensor
    can_bus: Tensor
    lidar_to_global_rotation: Tensor
    lidar_to_global_translation: Tensor
    timestamp_s: float
    ego: Tensor | None = None


@dataclass(frozen=True)
class PerceptionOutput:
    """What one frame shows.

    scene_tokens: [cameras * rows * columns, C], by camera, then row by row. agent_tokens: [A, C], by falling track
    score. map_tokens: [M, C], accepted elements, then the drivable area. ego_tokens: [1, C], or [0, C] where the
    network has no `EgoQuery`. proposal: the path that this proposes. ahead: what it looks
    into, see `PerceptionNetwork.ahead`. detections: see `tracker.detections`. stage_times: seconds by stage, in order.
    """

    scene_tokens: Tensor
    agent_tokens: Tensor
    map_tokens: Tensor
    ego_tokens: Tensor
    proposal: Proposal | None
    ahead: Tensor | None
    tracks: TrackResult
    detections: TrackResult
    map: MapResult
    stage_times: dict[str, float] = field(default_factory=dict)

    @property
    def path(self) -> Tensor | None:
        """[6, 2], that of the proposal, if there is one."""
        return None if self.proposal is None else self.proposal.path


class EgoMotion:
    """Turns absolute CAN bus vectors into differences to the previous frame."""

    def __init__(self, *, difference_at_first: bool) -> None:
        self._difference_at_first = difference_at_first
        self._position, self._degrees = torch.zeros(3, dtype=torch.float64), 0.0
        self._first = True

    def reset(self) -> None:
        """Starts a new scene. The pose stays, for the published quirk alone reads it again."""
        self._first = True

    def difference(self, can_bus: Tensor) -> Tensor:
        """can_bus float64 [18], absolute -> the same with position and degrees as differences.

        At a scene's first frame they are zero. The published code misses that case and takes the difference to
        the last frame of any scene, or to 0 (T2). The angle is not wrapped, as in training.
        """
        relative = can_bus.clone()
        if self._first and not self._difference_at_first:
            relative[:3], relative[17] = 0.0, 0.0
        else:
            relative[:3] -= self._position
            relative[17] -= self._degrees
        self._position, self._degrees, self._first = can_bus[:3].clone(), float(can_bus[17]), False
        return relative


class LossWeights(nn.Module):
    """The published loss keeps its box code weights in the checkpoint: [10]. Never read at inference."""

    def __init__(self, code_weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("code_weights", code_weights)


class PerceptionNetwork(nn.Module):
    """Perception with its temporal state: the previous BEV, the carried tracks, and the last pose."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.img_backbone = ResNet(config)
        self.img_neck = FeaturePyramid(config)
        self.pts_bbox_head = TrackHead(config)
        self.query_embedding = nn.Embedding(config.queries + 1, 2 * dim)
        self.reference_points = nn.Linear(dim, 3)
        self.query_interact = QueryInteraction(config)
        self.memory_bank = MemoryBank(config)
        self.criterion = LossWeights(self.pts_bbox_head.code_weights.detach().clone())
        self.seg_head = MapHead(config)
        rows, columns = config.ego_cells
        ahead = rows.stop - rows.start, columns.stop - columns.start
        self.ego_query = EgoQuery(dim, config.ego_layers, ahead) if config.ego_layers else None
        self.tracker = Tracker(config)
        self.ego_motion = EgoMotion(difference_at_first=config.quirks.first_frame_delta)
        self._previous_bev: Tensor | None = None

    def reset(self) -> None:
        """Forgets the scene: no previous BEV, no tracks, no ego motion at the next frame."""
        self._previous_bev = None
        self.tracker.reset()
        self.ego_motion.reset()

    def forward(self, frame: PerceptionFrame) -> PerceptionOutput:
        """One frame, after the one before it (or after `reset`). Frames come in the order of time."""
        clock = _StageClock(frame.images.device)
        pyramid = self.img_neck(self.img_backbone(frame.images))
        clock.stop("backbone")
        bev = self._encode(pyramid, frame)
        clock.stop("bev_encoder")
        tracks, detected = self._track(bev, frame)
        clock.stop("track_head")
        map_decoding = self.seg_head(bev)
        clock.stop("map_head")
        scene, agents = self.sample_scene(pyramid[-1]), agent_tokens(tracks, self.config)
        ego, proposal, ahead = scene[:0], None, None
        if self.ego_query is not None:
            assert frame.ego is not None
            ahead = self.ahead(bev)
            answer = self.ego_query([EgoView(scene, agents, map_decoding.tokens, frame.ego, ahead)])
            ego, proposal = answer.tokens, Proposal(answer.paths[0], answer.errors[0])
            clock.stop("ego_query")
        return PerceptionOutput(
            scene_tokens=scene,
            agent_tokens=agents,
            map_tokens=map_decoding.tokens,
            ego_tokens=ego,
            proposal=proposal,
            ahead=ahead,
            tracks=tracks,
            detections=detected,
            map=map_decoding.result,
            stage_times=clock.times,
        )

    def _encode(self, pyramid: list[Tensor], frame: PerceptionFrame) -> Tensor:
        can_bus = self.ego_motion.difference(frame.can_bus)
        bev = self.pts_bbox_head.encode_bev(pyramid, frame.lidar_to_image, can_bus, self._previous_bev)
        self._previous_bev = bev.detach()
        return bev

    def _track(self, bev: Tensor, frame: PerceptionFrame) -> tuple[TrackResult, TrackResult]:
        """What is reported, and all that is detected."""
        queries = self.query_embedding.weight
        fresh = fresh_tracks(queries, self.reference_points(queries[:, : self.config.embed_dim]), self.config)
        pose = LidarPose(frame.lidar_to_global_rotation, frame.lidar_to_global_translation, frame.timestamp_s)
        tracks = self.tracker.begin(fresh, pose, self.reference_points)
        decoding = self.pts_bbox_head.decode(bev, tracks.query, tracks.reference)
        tracks = self.tracker.update(
            replace(
                tracks,
                embedding=decoding.hidden[-1],
                logits=decoding.logits,
                boxes=decoding.boxes,
                scores=decoding.logits.sigmoid().amax(1),
                reference=decoding.last_reference,
            )
        )
        # before the memory bank: the tokens hold what this frame shows, not what the memory makes of it
        result = self.tracker.report(tracks), detections(tracks, self.config)
        self.tracker.carry(self.query_interact(self.memory_bank(tracks)))
        return result

    def ahead(self, bev: Tensor) -> Tensor:
        """The cells of a BEV [S, C] that the ego's query looks into: [rows, columns, C], nearest row first."""
        rows, columns = self.config.ego_cells
        return bev.unflatten(0, (self.config.bev_size, self.config.bev_size))[rows, columns]

    def sample_scene(self, coarsest: Tensor) -> Tensor:
        """The coarsest pyramid level [cameras, C, h, w] -> [cameras * rows * columns, C]."""
        return F.adaptive_max_pool2d(coarsest, self.config.scene_grid).flatten(2).transpose(1, 2).flatten(0, 1)


class _StageClock:
    """Seconds per stage. On a GPU each stage is waited for, which costs microseconds."""

    def __init__(self, device: torch.device) -> None:
        self.times: dict[str, float] = {}
        self._device = device
        self._last = time.perf_counter()

    def stop(self, stage: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.times[stage] = now - self._last
        self._last = now
