"""The tables of `bag_evaluation.bag_results`."""

from collections.abc import Mapping
from typing import Any

from opendrivevla_ros.evaluation.bag_evaluation import EVENT_METRES
from opendrivevla_ros.evaluation.figures import markdown_table

SHOWN_EVENTS = 10


def bag_markdown(results: Mapping[str, Any]) -> str:
    """Errors by speed and turn, bags, comfort, and the events to look at."""
    kinds = {"all": results["all"], **results["by_speed"], **results["by_turn"]}
    errors = markdown_table(
        (
            "",
            "plans",
            "L2 1 s",
            "2 s",
            "3 s",
            "average",
            "average to",
            *(name.replace("_", " ") for name in results["all"]["baselines"]),
            "lengthwise",
            "sideways",
            "heading",
        ),
        [(name, *_row(row)) for name, row in kinds.items()],
    )
    bags = markdown_table(
        ("bag", "plans", "without a whole future", "problem"),
        [(row["bag"], str(row["plans"]), str(row["unknown"]), row["problem"] or "-") for row in results["bags"]],
    )
    events = markdown_table(
        ("event", "at (s)", "off (m)", "ahead (m)", "left (m)", "speed (m/s)", "turn", "confidence"),
        [
            (
                event["bag"],
                f"{event['seek_s']:.1f}",
                f"{event['metres']:.1f}",
                f"{event['ahead']:+.1f}",
                f"{event['left']:+.1f}",
                f"{event['speed']:.1f}",
                event["turn"],
                f"{event['confidence']:.2f}",
            )
            for event in results["events"][:SHOWN_EVENTS]
        ],
    )
    failures = ", ".join(f"{count} {name}" for name, count in results["failures"].items()) or "none"
    confidence, latency, jitter = results["confidence"], results["latency_s"], results["jitter"]
    area = "-" if confidence["area"] is None else f"{confidence['area']:.3f}"
    jumps = "-" if jitter is None else f"{jitter['p50']:.2f} and {jitter['p95']:.2f} m"
    return "\n".join(
        [
            f"### Plans beside the human ({results['plans']} plans; without one: {failures})\n",
            "Metres from where the human then was, at each time and on average (UniAD), and over all points up to each"
            " time (ST-P3); lengthwise, sideways and heading (rad) at 3 s.\n",
            errors,
            f"Comfortable, driven by the tracker: {results['comfortable']:.0%} of the plans,"
            f" {results['human_comfortable']:.0%} of the human's ways. From plan to plan at equal times, p50 and p95:"
            f" {jumps}. A plan took {1000 * latency['p50']:.0f} and {1000 * latency['p95']:.0f} ms. Off by more than"
            f" 2 m at 3 s: {confidence['bad_share']:.0%}; expected calibration error"
            f" {confidence['calibration_error']:.3f}, area under the curve {area}.\n",
            bags,
            f"Events: moments more than {EVENT_METRES:.0f} m apart, together where they follow one another, worst"
            f" first; {len(results['events'])} in all.\n",
            events,
        ]
    )


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    metres = [*row["l2"].values(), row["uniad"], row["stp3"]]
    metres += [baseline["uniad"] for baseline in row["baselines"].values()]
    return (
        str(row["plans"]),
        *(f"{value:.2f}" for value in metres),
        f"{row['lengthwise']:.2f}",
        f"{row['sideways']:.2f}",
        f"{row['heading']:.2f}",
    )
