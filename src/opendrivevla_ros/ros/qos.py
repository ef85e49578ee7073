"""Quality of service of every endpoint, open to overrides from parameters, and what went wrong with it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks,
        QoSOfferedIncompatibleQoSInfo,
        QoSRequestedIncompatibleQoSInfo,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )
except ImportError:  # Humble
    from rclpy.qos_event import (
        PublisherEventCallbacks,
        QoSOfferedIncompatibleQoSInfo,
        QoSRequestedIncompatibleQoSInfo,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )


def best_effort(depth: int) -> QoSProfile:
    """For inputs: a reader that asks for best effort matches every writer."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def reliable(depth: int) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def latched(depth: int = 1) -> QoSProfile:
    """Reliable, and kept for readers that come late."""
    profile = reliable(depth)
    profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return profile


@dataclass
class Endpoints:
    """Makes publishers and subscriptions of one node, keeps those it made, and notes incompatible QoS by topic."""

    node: Node
    incompatible: dict[str, str] = field(default_factory=dict)
    _publishers: list[Publisher] = field(default_factory=list)
    _subscriptions: list[Subscription] = field(default_factory=list)

    def publisher(self, message_type: type, topic: str, profile: QoSProfile) -> Publisher:
        def on_incompatible(event: QoSOfferedIncompatibleQoSInfo) -> None:
            self._note(topic, "a reader asks for", event.last_policy_kind)

        publisher = self._with_events(
            lambda **events: self.node.create_publisher(
                message_type,
                topic,
                profile,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                **events,
            ),
            PublisherEventCallbacks(incompatible_qos=on_incompatible),
        )
        self._publishers.append(publisher)
        return publisher

    def subscription(
        self, message_type: type, topic: str, profile: QoSProfile, callback: Callable[[Any], None]
    ) -> Subscription:
        def on_incompatible(event: QoSRequestedIncompatibleQoSInfo) -> None:
            self._note(topic, "a writer offers", event.last_policy_kind)

        subscription = self._with_events(
            lambda **events: self.node.create_subscription(
                message_type,
                topic,
                callback,
                profile,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                **events,
            ),
            SubscriptionEventCallbacks(incompatible_qos=on_incompatible),
        )
        self._subscriptions.append(subscription)
        return subscription

    def destroy(self) -> None:
        """Removes all that it made."""
        for subscription in self._subscriptions:
            self.node.destroy_subscription(subscription)
        for publisher in self._publishers:
            self.node.destroy_publisher(publisher)
        self._subscriptions.clear()
        self._publishers.clear()
        self.incompatible.clear()

    def _note(self, topic: str, who: str, policy_kind: Any) -> None:
        policy = qos_policy_name_from_kind(policy_kind)
        text = f"{topic}: {who} incompatible QoS, policy {policy}; nothing flows there until both sides agree"
        self.incompatible[topic] = text
        self.node.get_logger().error(text)

    @staticmethod
    def _with_events(make: Callable[..., Any], callbacks: Any) -> Any:
        try:
            return make(event_callbacks=callbacks)
        except UnsupportedEventTypeError:  # a middleware without these events
            return make()
