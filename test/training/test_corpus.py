"""The corpus of the small tokenizer: the world's own words, the same every time, from training seeds."""

import pytest

from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.training import corpus
from opendrivevla_ros.training.corpus import world_corpus
from opendrivevla_ros.world import families
from opendrivevla_ros.world.narration import CAPTION_QUESTIONS
from opendrivevla_ros.world.seeds import Split, split_of


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(world_corpus(scenarios=1))


def test_the_corpus_is_the_same_every_time(texts: list[str]) -> None:
    assert texts == list(world_corpus(scenarios=1))


def test_the_corpus_holds_all_that_is_asked_and_answered(texts: list[str]) -> None:
    assert set(CAPTION_QUESTIONS.values()) <= set(texts)
    for part in ("Where will the car at", "How many", "The best action is to", "Yes."):
        assert any(part in text for text in texts), part


def test_only_training_seeds_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def recorded(family: str, seed: int):
        seeds.append(seed)
        return families.make_scenario(family, seed)

    monkeypatch.setattr(corpus, "FAMILIES", ("free_road",))
    monkeypatch.setattr(corpus, "make_scenario", recorded)
    assert list(world_corpus(scenarios=10))
    assert len(set(seeds)) == 10
    assert {split_of(seed) for seed in seeds} == {Split.TRAIN}


def test_a_tokenizer_of_the_corpus_says_most_words_whole(texts: list[str]) -> None:
    tokenizer = build_small_tokenizer(texts)
    assert len(tokenizer) <= 1024
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    pieces = sum(len(split(text)) for text in texts)  # words, digits and punctuation, before they are cut further
    assert sum(len(tokenizer.tokenize(text)) for text in texts) / pieces < 1.05
