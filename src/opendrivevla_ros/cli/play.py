"""`odv play`: publishes a bag over DDS."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from opendrivevla_ros.cli.console import console, errors, one_sentence_errors, progress_bar
from opendrivevla_ros.datasets.bag_topics import find_input_topics, read_topic_map
from opendrivevla_ros.datasets.bags import BagReader
from opendrivevla_ros.ros.bag_player import BagPlayer
from opendrivevla_ros.ros.command_node import ros_node

NODE = "odv_play"
DETECT = "auto"


def published_names(bag: BagReader, topics: str | None, node: str) -> dict[str, str]:
    """Under which name each topic of a bag is published.

    topics: None: all topics, as recorded; "auto": the node's inputs, found by type and name, under the node's names
    for them; else the path of a topic map that says which they are.
    """
    if topics is None:
        return {topic: topic for topic in bag.topics if topic != "/clock"}
    topic_map = None if topics == DETECT else read_topic_map(topics)
    return find_input_topics(bag, topic_map).node_topics(node)


def play(
    bag: Annotated[Path, typer.Argument(help="A bag's folder, or its .mcap or .db3 file.")],
    rate: Annotated[float, typer.Option(min=0.001, help="Times real time.")] = 1.0,
    loop: Annotated[bool, typer.Option(help="Start again at the end, until Ctrl-C.")] = False,
    start_offset: Annotated[float, typer.Option(min=0.0, help="Seconds of the bag to leave out at its start.")] = 0.0,
    clock: Annotated[float, typer.Option(min=0.0, help="Rate of /clock in Hz of bag time; 0: no /clock.")] = 100.0,
    topics: Annotated[
        str | None, typer.Option(help="auto, or a topic map: publish the node's inputs under its names for them.")
    ] = None,
    node: Annotated[str, typer.Option(help="Name of the node for --topics.")] = "/vla_node",
    wait: Annotated[
        float, typer.Option(min=0.0, help="Wait so many seconds at most for subscribers of all topics.")
    ] = 0.0,
    clock_readers: Annotated[int, typer.Option(min=0, help="With --wait: so many subscribers of /clock too.")] = 0,
) -> None:
    """Publish a bag over DDS, with /clock; Ctrl-C ends it."""
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: stop.append(number))
    with one_sentence_errors(), BagReader(bag) as reader, ros_node(NODE) as this_node:
        player = BagPlayer(this_node, reader, published_names(reader, topics, node), clock_hz=clock)
        for topic in player.skipped:
            errors.print(f"[yellow]warning:[/yellow] not played: {topic}", soft_wrap=True)
        alone = player.wait_for_subscribers(wait, lambda: bool(stop), clock_readers=clock_readers) if wait else []
        if alone:
            errors.print(f"[yellow]warning:[/yellow] too few listen to {', '.join(alone)}", soft_wrap=True)
        with progress_bar() as bar:
            task = bar.add_task("play", total=1.0)
            result = player.play(
                rate=rate,
                loop=loop,
                start_offset_s=start_offset,
                stopped=lambda: bool(stop),
                progress=lambda fraction: bar.update(task, completed=fraction),
            )
        player.flush()
    for warning in reader.warnings:
        errors.print(f"[yellow]warning:[/yellow] {warning}", soft_wrap=True)
    count = sum(result.counts.values())
    late = f"{result.latest_s * 1e3:.1f} ms late at worst"
    console.print(f"published {count} messages on {len(result.counts)} topics, {late}", soft_wrap=True)
