"""The language room against reference outputs of the published network (benchmarks/golden.py runs the same)."""

from pathlib import Path

import pytest
from benchmarks import golden_language


@pytest.mark.parametrize(
    ("part", "least"),
    [
        (golden_language.compare_prompts, 40),
        (golden_language.compare_projectors, 5),
        (golden_language.compare_language_model, 30),
        (golden_language.compare_keys, 3),
    ],
)
def test_every_comparison_is_within_its_limit(golden_folder: Path, part, least: int) -> None:
    comparisons = part(golden_folder)
    assert len(comparisons) >= least
    assert [comparison for comparison in comparisons if not comparison.passed] == []
