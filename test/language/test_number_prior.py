"""What a proposal says of a plan's digits: probabilities of numbers, digit by digit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.generation import TrajectoryGenerator
from opendrivevla_ros.language.grammar import trajectory_grammar
from opendrivevla_ros.language.model import LanguageConfig
from opendrivevla_ros.language.number_prior import MODEL_WEIGHT, NumberPlace, NumberPrior

DIGITS = [*"0123456789", "-", "."]
PATH = np.array([[0.0, 2.34], [-0.1, 9.96], [0.1, 10.04], [-0.32, 14.0], [-1.08, 19.97], [-2.5, 25.0]])


def after(written: str) -> NumberPlace:
    place = NumberPlace()
    for character in written:
        place.add(character)
    return place


def prior(path: np.ndarray = PATH, scale: float = 0.3) -> NumberPrior:
    return NumberPrior(path, np.full((6, 2), scale), decimals=1)


@given(centre=st.floats(-40, 40), scale=st.floats(0.01, 2.0), off=st.floats(-3, 3))
def test_digit_by_digit_a_number_is_as_likely_as_it_is_near(centre: float, scale: float, off: float):
    told = prior(np.full((6, 2), centre), scale)
    value = round(round((centre + off * scale) / 0.1) * 0.1, 1) + 0.0
    text, written, log_probability = f"{value:.2f}", "<traj_start>[(1.00,", 0.0
    for character in text:
        shares = np.exp(told.log_shares(after(written), DIGITS))
        assert shares.sum() == pytest.approx(1.0, abs=1e-3)
        log_probability += np.log(shares[DIGITS.index(character)])
        written += character
    grid = np.arange(-60_000, 60_001) / 10
    densities = np.exp(-np.abs(grid - centre) / scale)
    expected = np.exp(-abs(value - centre) / scale) / densities.sum()
    assert np.exp(log_probability) == pytest.approx(expected, rel=0.05, abs=1e-4)


def test_every_number_has_its_own_place():
    written = "<traj_start>["
    for point, (x, y) in enumerate(np.round(PATH, 1) + 0.0):
        for opening, value in (("(", x), (",", y)):
            written += opening
            text = f"{value:.2f}"
            likeliest = DIGITS[int(prior(scale=0.02).log_shares(after(written), DIGITS).argmax())]
            assert likeliest == text[0], (point, value)
            written += text
        written += ")," if point < 5 else ")]"


def test_out_of_reach_it_says_nothing():
    assert (prior().log_shares(after("<traj_start>[(0.00,77."), DIGITS) == 0).all()


def test_what_it_thinks_impossible_may_still_be_said():
    assert np.isfinite(prior(scale=0.01).log_shares(after("<traj_start>[("), DIGITS)).all()


def test_who_knows_nothing_writes_the_proposal(any_tokenizer: PreTrainedTokenizerFast, random_model):
    config = LanguageConfig(
        vocabulary_size=len(any_tokenizer), hidden_size=64, intermediate_size=96, layers=2, heads=4, key_value_heads=1
    )
    model = random_model(config)
    generator = TrajectoryGenerator(Decoder(model, max_length=256), trajectory_grammar(any_tokenizer, decimals=1))
    generator._head.zero_()
    embeddings = model.model.embed_tokens.weight[:20].detach()
    if "10" in any_tokenizer.get_vocab():
        with pytest.raises(ValueError, match="one token a digit"):
            generator.generate(embeddings, prior=prior())
        return
    plan = generator.generate(embeddings, prior=prior(np.abs(PATH), scale=0.01)).waypoints[0]
    np.testing.assert_allclose(plan, np.round(np.abs(PATH), 1))
    assert np.abs(generator.generate(embeddings).waypoints[0] - PATH).max() > 1.0


def test_the_model_and_the_prior_are_weighed(small_model, small_tokenizer: PreTrainedTokenizerFast):
    decoder = Decoder(small_model, max_length=256, rows=64)
    generator = TrajectoryGenerator(decoder, trajectory_grammar(small_tokenizer))
    embeddings = small_model.model.embed_tokens.weight[:20].detach()
    opening = "<traj_start>[("

    def said(told: NumberPrior | None) -> dict[str, float]:
        """Log probabilities of the digits that plans were seen to begin with."""
        drawn = generator.generate(
            embeddings, prior=told, samples=63, temperature=3.0, generator=torch.Generator().manual_seed(0)
        )
        rows = zip(drawn.texts, drawn.log_probabilities, strict=True)
        return {text.removeprefix(opening)[0]: float(scores[0]) for text, scores in rows}

    told = NumberPrior(np.full((6, 2), 4.6), np.full((6, 2), 1.0), decimals=2)
    alone, both = said(None), said(told)
    seen = [digit for digit in alone if digit in both]
    assert len(seen) >= 4
    shares = told.log_shares(after(opening), seen)
    for digit, share in zip(seen[1:], shares[1:], strict=True):
        assert both[digit] - both[seen[0]] == pytest.approx(
            MODEL_WEIGHT * (alone[digit] - alone[seen[0]]) + share - shares[0], abs=1e-3
        )


def test_scales_that_are_none_are_refused():
    with pytest.raises(ValueError, match="scales above 0"):
        NumberPrior(PATH, np.zeros((6, 2)), decimals=1)
