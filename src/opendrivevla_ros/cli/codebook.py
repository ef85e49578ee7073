"""`odv codebook`: action tokens from how your drivers drove, or from what a vehicle can do."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from opendrivevla_ros.cli.console import CommandError, console, one_sentence_errors
from opendrivevla_ros.cli.replay import TopicsOption
from opendrivevla_ros.datasets.bag_topics import match_inputs, read_topic_map
from opendrivevla_ros.datasets.bag_tracks import BagTracks
from opendrivevla_ros.datasets.bags import BagReader
from opendrivevla_ros.language.action_lattice import TOKEN_S, lattice
from opendrivevla_ros.language.k_disk import k_disk


def codebook(
    bags: Annotated[
        list[Path] | None,
        typer.Argument(help="Bags with odometry: folders, or .mcap or .db3 files; none for a vehicle's limits."),
    ] = None,
    output: Annotated[Path, typer.Option(help="The .npz file to write.")] = Path("action_codebook.npz"),
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens.")] = 2048,
    seed: Annotated[int, typer.Option(help="Of the draws; the same seed gives the same codebook.")] = 0,
    topics: TopicsOption = None,
) -> None:
    """Cluster driven motions of half a second into action tokens (K-disk); without bags, lay them out by limits."""
    if not bags:
        with one_sentence_errors():
            laid_out = lattice()
            laid_out.save(output)
        console.print(f"{output}: {len(laid_out)} tokens of what a vehicle can do", soft_wrap=True)
        return
    with one_sentence_errors():
        topic_map = read_topic_map(topics) if topics else None
        motions = []
        for path in bags:
            with BagReader(path) as bag:
                inputs, _ = match_inputs(bag.topics, str(path), topic_map)
                if "odometry" not in inputs.by_input:
                    raise CommandError(f"{path} has no odometry; record nav_msgs/Odometry of base_link")
                motions.append(BagTracks(bag, inputs.by_input["odometry"].name).motions(TOKEN_S))
        try:
            found = k_disk(np.concatenate(motions), tokens=tokens, seed=seed)
        except ValueError as error:
            raise CommandError(str(error)) from None
        found.codebook.save(output)
    console.print(
        f"{output}: {len(found.codebook)} tokens of {found.motions} motions; {found.infeasible} of those led"
        " backwards or were none that a vehicle makes, and were left out;"
        f" {found.covered:.1%} of the rest are in a token's disk",
        soft_wrap=True,
    )
