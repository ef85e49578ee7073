"""One step of perception's training: short scenes, frame by frame as a vehicle sees them, to losses.

What a frame hands to the next is decided by the labels, not by scores: a query follows the object it was matched to
for as long as that is there (UniAD, arXiv 2212.10156, after MOTR, arXiv 2105.03247). Beside those go the queries that
driving would take for objects, though they are none: a decoder that never met a wrong track would never drop one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from opendrivevla_ros.language.model import Features
from opendrivevla_ros.perception.config import MAP_CLASSES
from opendrivevla_ros.perception.ego_query import EgoView
from opendrivevla_ros.perception.map_head import MapHead
from opendrivevla_ros.perception.network import EgoMotion, PerceptionFrame, PerceptionNetwork
from opendrivevla_ros.perception.track_head import TrackDecoding, TrackHead
from opendrivevla_ros.perception.tracker import LidarPose, Tracker
from opendrivevla_ros.perception.tracks import EGO, UNTRACKED, Tracks, fresh_tracks
from opendrivevla_ros.perception.transforms import inverse_sigmoid
from opendrivevla_ros.training.dense_head import DenseHead
from opendrivevla_ros.training.initialisation import moved_queries
from opendrivevla_ros.training.labels import BoxLabels, MapLabels, PlanLabel
from opendrivevla_ros.training.losses import (
    map_query_losses,
    mask_loss,
    track_losses,
)
from opendrivevla_ros.training.matching import Matching
from opendrivevla_ros.training.token_reader import TokenReader, future_loss, proposal_losses

FUTURE_WEIGHT = 0.25  # of a metre that an agent's future is off
GHOST = 2**62  # the id of a track that follows nothing; no label has it
PLAN_WEIGHT = 4.0  # of ten metres that the plan is off: it is one number beside many


@dataclass(frozen=True)
class LabelledFrame:
    """A frame and what is there."""

    frame: PerceptionFrame
    boxes: BoxLabels
    map_elements: MapLabels
    plan: PlanLabel

    def to(self, device: torch.device | str) -> "LabelledFrame":
        """The same on a device."""
        labels = (self.boxes.to(device), self.map_elements.to(device), self.plan.to(device))
        return LabelledFrame(move_frame(self.frame, device), *labels)


def move_frame(frame: PerceptionFrame, device: torch.device | str) -> PerceptionFrame:
    """The frame on a device, but for its CAN bus, whose numbers the network reads one by one."""
    return replace(
        frame,
        images=frame.images.to(device),
        lidar_to_image=frame.lidar_to_image.to(device),
        lidar_to_global_rotation=frame.lidar_to_global_rotation.to(device),
        lidar_to_global_translation=frame.lidar_to_global_translation.to(device),
        ego=None if frame.ego is None else frame.ego.to(device),
    )


class PerceptionLosses(nn.Module):
    """Perception and the heads that only training has, which say how well it does."""

    def __init__(self, perception: PerceptionNetwork) -> None:
        super().__init__()
        self.perception = perception
        self.dense = DenseHead(perception.config)
        self.reader = TokenReader(perception.config)

    def losses_and_tokens(self, scenes: Sequence[Sequence[LabelledFrame]]) -> tuple[dict[str, Tensor], list[Features]]:
        """The losses by name, mean over all frames, and each frame's tokens as a language model reads them.

        The backbone sees the pictures of all frames at once, so that normalisation learns from more than one scene.
        """
        network = self.perception
        images = torch.cat([labelled.frame.images for frames in scenes for labelled in frames])
        with torch.autocast(images.device.type, torch.bfloat16):
            pyramid = network.img_neck(network.img_backbone(images))
        pyramids = iter(_by_frame([level.float() for level in pyramid], network.config.cameras))
        found: list[dict[str, Tensor]] = []
        views: list[EgoView] = []
        for frames in scenes:
            scene = _Scene(network)
            for labelled in frames:
                losses, seen = self._losses(scene, next(pyramids), labelled)
                found.append(losses)
                views.append(seen)
        means = {name: torch.stack([losses[name] for losses in found]).mean() for name in found[0]}
        tokens = [Features(view.scene, view.agents, view.map_elements) for view in views]
        query = network.ego_query
        if query is None:
            return means, tokens
        answer = query(views)
        proposing = proposal_losses(answer, [labelled.plan for frames in scenes for labelled in frames])
        led = zip(tokens, answer.tokens, answer.paths, strict=True)
        tokens = [seen.led_by(ego[None], path) for seen, ego, path in led]
        return {**means, **proposing, "plan": PLAN_WEIGHT * proposing["plan"]}, tokens

    def _losses(
        self, scene: "_Scene", pyramid: list[Tensor], labelled: LabelledFrame
    ) -> tuple[dict[str, Tensor], EgoView]:
        boxes, elements, config = labelled.boxes, labelled.map_elements, self.perception.config
        bev = scene.encode(pyramid, labelled.frame)
        dense, peaks = self.dense(bev, boxes, occupied(elements))
        tracked = scene.track(bev, labelled.frame, boxes)
        hidden = tracked.hidden[tracked.matching.queries]
        followed = boxes.rows(tracked.matching.labels)
        trajectories = self.perception.pts_bbox_head.trajectories(hidden)[:, config.past_steps :]
        mapped, map_tokens = map_losses(self.perception.seg_head, self.reader, bev, elements)
        losses = {
            **dense,
            **peak_losses(self.perception, bev, peaks, boxes),
            **tracked.losses,
            "track_future": FUTURE_WEIGHT * future_loss(trajectories, followed),
            "track_state": self.reader.state_loss(hidden, followed),
            **mapped,
        }
        agents = tracked.hidden[tracked.shown]
        network = self.perception
        scene_tokens, ahead = network.sample_scene(pyramid[-1]), network.ahead(bev)
        return losses, EgoView(scene_tokens, agents, map_tokens, labelled.plan.ego, ahead)


class PerceptionTraining(PerceptionLosses):
    """What the loop trains in the perception stage: a list of scenes, each some frames in a row, to the losses."""

    def forward(self, scenes: Sequence[Sequence[LabelledFrame]]) -> dict[str, Tensor]:
        """The losses by name, mean over all frames."""
        return self.losses_and_tokens(scenes)[0]


@dataclass(frozen=True)
class _Tracked:
    """A frame's track losses, Q queries' last state [Q, C], their matching, and which tokens a planner would get [Q].

    Shown are the queries that were matched, and those that are sure of something.
    """

    losses: dict[str, Tensor]
    hidden: Tensor
    matching: Matching
    shown: Tensor


class _Scene:
    """The state that passes from frame to frame: the previous BEV, the pose, and the tracks."""

    def __init__(self, network: PerceptionNetwork) -> None:
        self._network = network
        self._tracker = Tracker(network.config)
        self._ego_motion = EgoMotion(difference_at_first=network.config.quirks.first_frame_delta)
        self._previous_bev: Tensor | None = None

    def encode(self, pyramid: list[Tensor], frame: PerceptionFrame) -> Tensor:
        """BEV features [S, C]. No gradient flows back to the frame before through the BEV."""
        can_bus = self._ego_motion.difference(frame.can_bus)
        head = self._network.pts_bbox_head
        bev = head.encode_bev(pyramid, frame.lidar_to_image, can_bus, self._previous_bev)
        self._previous_bev = bev.detach()
        return bev

    def track(self, bev: Tensor, frame: PerceptionFrame, labels: BoxLabels) -> _Tracked:
        """The frame's tracks; those with an object go on to the next frame under its id, others as a GHOST."""
        network, config = self._network, self._network.config
        queries = network.query_embedding.weight
        fresh = fresh_tracks(queries, network.reference_points(queries[:, : config.embed_dim]), config)
        pose = LidarPose(frame.lidar_to_global_rotation, frame.lidar_to_global_translation, frame.timestamp_s)
        tracks = self._tracker.begin(fresh, pose, network.reference_points)
        decoding = network.pts_bbox_head.decode(bev, tracks.query, tracks.reference)
        logits, codes = every_layer(network.pts_bbox_head, decoding)
        losses, matching = track_losses(logits, codes, tracks.ids, labels)
        ids = tracks.ids.where(tracks.ids == EGO, UNTRACKED)
        ids[matching.queries] = labels.ids[matching.labels]
        sure = decoding.logits.detach().sigmoid().amax(1) >= config.birth_score
        ids = ids.masked_fill(sure & (ids == UNTRACKED), GHOST)
        self._hand_over(replace(tracks, ids=ids), decoding)
        return _Tracked(losses, decoding.hidden[-1], matching, ids >= 0)

    def _hand_over(self, tracks: Tracks, decoding: TrackDecoding) -> None:
        network = self._network
        seen = replace(
            tracks,
            embedding=decoding.hidden[-1],
            logits=decoding.logits,
            boxes=decoding.boxes,
            scores=decoding.logits.sigmoid().amax(1),
            reference=decoding.last_reference,
        )
        self._tracker.carry(network.query_interact(network.memory_bank(seen)))


def every_layer(head: TrackHead, decoding: TrackDecoding) -> tuple[Tensor, Tensor]:
    """Logits [layers, Q, classes] and box codes [layers, Q, 10] (metres, lidar frame) of all decoder layers."""
    logits = [branch(hidden) for branch, hidden in zip(head.cls_branches, decoding.hidden, strict=True)]
    code = torch.stack([branch(hidden) for branch, hidden in zip(head.reg_branches, decoding.hidden, strict=True)])
    lowest, highest = decoding.references.new_tensor(head.range_metres).split(3)
    centre, code = decoding.references * (highest - lowest) + lowest, code.float()
    return (
        torch.stack(logits).float(),
        torch.cat([centre[..., :2], code[..., 2:4], centre[..., 2:], code[..., 5:]], dim=-1),
    )


def peak_losses(network: PerceptionNetwork, bev: Tensor, peaks: Tensor, labels: BoxLabels) -> dict[str, Tensor]:
    """Class and box losses of a second group of queries: learned ones, moved to where the BEV [S, C] shows objects.

    peaks: [P, 2] x, y in metres. Spread over the ground, few queries start near an object, and a decoder that they
    alone teach learns slowly (Group DETR, arXiv 2207.13085, for groups; DN-DETR, arXiv 2203.01305, for why).
    """
    config = network.config
    lowest, highest = peaks.new_tensor(config.range_metres).split(3)
    places = inverse_sigmoid((peaks - lowest[:2]) / (highest - lowest)[:2])
    query = moved_queries(network, places)
    reference = network.reference_points(query[:, : config.embed_dim])
    logits, codes = every_layer(network.pts_bbox_head, network.pts_bbox_head.decode(bev, query, reference))
    untracked = torch.full((len(peaks),), UNTRACKED, device=peaks.device)
    losses, _ = track_losses(logits, codes, untracked, labels)
    return {name.replace("track", "peak"): loss for name, loss in losses.items()}


def map_losses(head: MapHead, reader: TokenReader, bev: Tensor, labels: MapLabels) -> tuple[dict[str, Tensor], Tensor]:
    """The losses of map queries, of the masks and tokens of those that were matched, and of the drivable area's mask.

    With them, the map tokens [M, C].
    """
    decoding = head(bev)
    logits = [branch(hidden) for branch, hidden in zip(head.cls_branches, decoding.hidden, strict=True)]
    losses, matching = map_query_losses(torch.stack(logits).float(), torch.stack(decoding.references[1:]), labels)
    things, masks = head.things_mask_head(decoding.hidden[-1][matching.queries], decoding.memory)
    masked = {
        "map_mask": mask_loss(masks, labels.masks[matching.labels].flatten(1)),
        "map_line": reader.line_loss(things, labels.lines[matching.labels]),
        "drivable_mask": mask_loss(decoding.stuff_mask.flatten()[None], labels.drivable.flatten()[None]),
    }
    return {**losses, **masked}, decoding.tokens


def occupied(labels: MapLabels) -> Tensor:
    """bool [map classes, n, n]: the cells of each class, in the order of MAP_CLASSES."""
    things = [labels.masks[labels.classes == index].any(0) for index in range(len(MAP_CLASSES) - 1)]
    return torch.stack([*things, labels.drivable])


def _by_frame(pyramid: Sequence[Tensor], cameras: int) -> list[list[Tensor]]:
    """Levels [frames * cameras, C, h, w] as one pyramid a frame."""
    return [list(levels) for levels in zip(*(level.split(cameras) for level in pyramid), strict=True)]
