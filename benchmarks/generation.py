"""Plan text: this package's constrained generation against the same weights driven by `transformers`' generate.

`python benchmarks/generation.py [--model small|base] [--threads N]` prints a table per model. The published code asks
for up to 512 new tokens without a grammar. Random weights never end their text, so that row is what an untrained or
derailed model costs; the row below stops `transformers` after as many tokens as one clean plan has, which is what a
trained model costs. Every row runs in a process of its own, which is what its peak memory is the peak of.
"""

import argparse
import multiprocessing
import os
import resource
import time
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LogitsProcessor

from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.generation import TrajectoryGenerator
from opendrivevla_ros.language.grammar import trajectory_grammar
from opendrivevla_ros.language.model import DrivingLanguageModel, Features, LanguageConfig
from opendrivevla_ros.language.prompt import PromptFields, chat_prompt, text_prefix, tokenize_prompt, user_message
from opendrivevla_ros.language.small_tokenizer import VOCABULARY_SIZE, build_small_tokenizer
from opendrivevla_ros.language.system_text import SYSTEM_TEXT

PROMPT_POSITIONS = 600
PUBLISHED_NEW_TOKENS = 512
SCENE_TOKENS, MAP_TOKENS = 90, 13


@dataclass(frozen=True)
class Setting:
    """A model, its precision, how often each row runs (the median counts), and the ratio that is asked for."""

    config: LanguageConfig
    dtype: torch.dtype
    runs: int
    wanted_ratio: float


SETTINGS = {
    "small": Setting(
        LanguageConfig(
            vocabulary_size=VOCABULARY_SIZE,
            hidden_size=128,
            intermediate_size=512,
            layers=4,
            heads=4,
            key_value_heads=2,
        ),
        torch.float32,
        runs=5,
        wanted_ratio=3.0,
    ),
    "base": Setting(LanguageConfig(), torch.bfloat16, runs=1, wanted_ratio=2.0),
}


@dataclass(frozen=True)
class Row:
    """Seconds of each stage, tokens written, forwards of the decode, and the process's peak memory in bytes."""

    embed_s: float
    prefill_s: float
    decode_s: float
    tokens: int
    forwards: int
    peak_memory: int

    @property
    def total_s(self) -> float:
        return self.embed_s + self.prefill_s + self.decode_s


class _FirstToken(LogitsProcessor):
    """Notes when the prompt has been read."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.at = self.at or time.perf_counter()
        return scores


class Subject:
    """A random model with a prompt of PROMPT_POSITIONS positions, features included."""

    def __init__(self, setting: Setting) -> None:
        torch.manual_seed(0)
        default = torch.get_default_dtype()
        torch.set_default_dtype(setting.dtype)
        self.model = DrivingLanguageModel(setting.config).eval()
        torch.set_default_dtype(default)
        self.tokenizer = build_small_tokenizer()
        history = np.array([[0.3, -24.1], [0.2, -18.2], [0.1, -12.2], [0.0, -6.1]])
        fields = PromptFields((0.02, 12.4), 0.01, history, (0.3, -0.1), 12.5, 0.1)
        self.ids = tokenize_prompt(chat_prompt(SYSTEM_TEXT, user_message(fields)), self.tokenizer)
        words = sum(token >= 0 for token in self.ids)
        counts = (SCENE_TOKENS, PROMPT_POSITIONS - words - SCENE_TOKENS - MAP_TOKENS, MAP_TOKENS)
        self.features = Features(*(torch.randn(count, setting.config.feature_size) for count in counts))

    @torch.inference_mode()
    def transformers(self, new_tokens: int) -> Row:
        """One plan as the published code runs it."""
        started = time.perf_counter()
        embeddings = self.model.embed_prompt(self.ids, self.features)[None]
        embedded, first = time.perf_counter(), _FirstToken()
        output = self.model.generate(
            inputs_embeds=embeddings,
            attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long),
            max_new_tokens=new_tokens,
            do_sample=False,
            logits_processor=[first],
            pad_token_id=0,
        )
        ended, tokens = time.perf_counter(), output.shape[1]
        return Row(embedded - started, first.at - embedded, ended - first.at, tokens, tokens - 1, peak_memory())

    @torch.inference_mode()
    def package(self, generator: TrajectoryGenerator, keep_prefix: bool) -> Row:
        """One plan as this package runs it; keep_prefix: the system text was read for an earlier plan."""
        if not keep_prefix:
            generator.decoder.prefill(generator.decoder.embed([0]))  # takes its place
        started = time.perf_counter()
        embeddings = self.model.embed_prompt(self.ids, self.features)
        embedded = time.perf_counter()
        plan = generator.generate(embeddings, prefix=text_prefix(self.ids))
        counts = plan.token_counts
        written = counts["generated"] + counts["forced"]
        return Row(embedded - started, plan.prefill_s, plan.decode_s, written, counts["forwards"], peak_memory())


def peak_memory() -> int:
    """This process's largest resident set so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, row: str, new_tokens: int, threads: int) -> Row:
    """The median run (by total) of a row, in this process."""
    torch.set_num_threads(threads)
    setting = SETTINGS[name]
    subject = Subject(setting)
    if row.startswith("transformers"):
        subject.transformers(2)  # the first call sets things up
        runs = [subject.transformers(new_tokens) for _ in range(setting.runs)]
    else:
        decoder = Decoder(subject.model, max_length=PROMPT_POSITIONS + 128)
        generator = TrajectoryGenerator(decoder, trajectory_grammar(subject.tokenizer))
        subject.package(generator, keep_prefix=False)
        runs = [subject.package(generator, keep_prefix="later" in row) for _ in range(setting.runs)]
    return sorted(runs, key=lambda run: run.total_s)[(len(runs) - 1) // 2]


def compare(name: str, threads: int) -> dict[str, Row]:
    """All rows of a model, each in a process of its own."""
    context = multiprocessing.get_context("spawn")

    def apart(row: str, new_tokens: int = 0) -> Row:
        with context.Pool(1) as pool:
            return pool.apply(measure, (name, row, new_tokens, threads))

    rows = {row: apart(row) for row in ("this package, first plan", "this package, later plans")}
    clean = rows["this package, first plan"].tokens + 1  # and the token that ends the text
    published = {
        "transformers, as published": apart("transformers", PUBLISHED_NEW_TOKENS),
        f"transformers, {clean} tokens": apart("transformers", clean),
    }
    return published | rows


def report(name: str, rows: dict[str, Row], threads: int) -> str:
    """A table with ratios against both ways of running `transformers`."""
    setting = SETTINGS[name]
    published, clean = list(rows.values())[:2]
    head = f"{'':28}{'embed':>8}{'prefill':>9}{'decode':>9}{'total':>9}{'tokens':>8}{'forwards':>10}{'peak':>10}"
    unit = f"{'':28}{'ms':>8}{'ms':>9}{'ms':>9}{'ms':>9}{'':>8}{'':>10}{'MiB':>10}   times faster"
    precision = str(setting.dtype).removeprefix("torch.")
    lines = [f"{name}: {precision}, {PROMPT_POSITIONS} prompt positions, {threads} threads", head, unit]
    for label, row in rows.items():
        stages = f"{row.embed_s * 1e3:8.1f}{row.prefill_s * 1e3:9.1f}{row.decode_s * 1e3:9.1f}{row.total_s * 1e3:9.1f}"
        faster = f"{published.total_s / row.total_s:6.1f} / {clean.total_s / row.total_s:.1f}"
        lines.append(f"{label:28}{stages}{row.tokens:8}{row.forwards:10}{row.peak_memory / 2**20:10.0f}   {faster}")
    own = rows["this package, later plans"].total_s
    verdict = f"{published.total_s / own:.1f} times the published way (wanted: {setting.wanted_ratio:.0f})"
    lines.append(f"{verdict}, {clean.total_s / own:.1f} times with the same number of tokens")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(SETTINGS), help="only this model")
    threads = max(1, (os.cpu_count() or 1) - 1)  # as a loaded policy has
    parser.add_argument("--threads", type=int, default=threads)
    arguments = parser.parse_args()
    for name in [arguments.model] if arguments.model else list(SETTINGS):
        print(report(name, compare(name, arguments.threads), arguments.threads), flush=True)


if __name__ == "__main__":
    main()
