"""What a thinking OpenDriveVLA writes before its plan.

The published model answers with the plan alone. Both ways to begin are as AutoVLA's (arXiv 2506.13757) and shorter:
what stands before every plan costs time at every plan.
"""

from opendrivevla_ros.language.thinking import ThinkingTemplate

TEMPLATE = ThinkingTemplate(
    fast="<think>\nThis is straightforward.\n</think>\n",
    slow="<think>\nThis is complex.\n",
    end="</think>",
    answer="\n",
)


def words_before_plan(thought: str | None) -> str:
    """What is written before a plan: fixed words around a thought, or those in place of one."""
    return TEMPLATE.fast if thought is None else f"{TEMPLATE.slow}{thought}\n{TEMPLATE.end}{TEMPLATE.answer}"
