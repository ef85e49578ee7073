"""Compares the language room with a folder of reference outputs: prompts, answers, projectors, splicing, Qwen2."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from benchmarks.golden_compare import Comparison, compare_exact, compare_tensor, load_module

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.language import system_text
from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.generation import generate_tokens
from opendrivevla_ros.language.model import DrivingLanguageModel, Features, LanguageConfig
from opendrivevla_ros.language.projectors import build_projector
from opendrivevla_ros.language.prompt import PLACEHOLDERS, PromptFields, chat_prompt, user_message
from opendrivevla_ros.language.trajectory_text import TrajectoryTextError, format_trajectory, parse_trajectory

# The tiny model behind vla.npz, as the folder's README describes it.
TINY = LanguageConfig(
    vocabulary_size=200,
    hidden_size=64,
    intermediate_size=128,
    layers=2,
    heads=4,
    key_value_heads=2,
)
END_TOKEN, MOST_TOKENS, TRUNCATED_LIMIT = 199, 16, 100
VISION_TOWER = "model.vision_tower."


def compare(folder: Path) -> list[Comparison]:
    """Every comparison that the folder has files for."""
    results: list[Comparison] = []
    if (folder / "prompts.json").is_file():
        results += compare_prompts(folder)
    if (folder / "vla.npz").is_file():
        results += compare_projectors(folder) + compare_language_model(folder)
    if (folder / "vla_keys.txt").is_file():
        results += compare_keys(folder)
    return results


def compare_prompts(folder: Path) -> list[Comparison]:
    """User messages, answers, chat layout, placeholder ids, and which answers are refused."""
    reference = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    header, placeholders = reference["system_text"], reference["placeholders"]
    results = [
        compare_exact("prompts", "placeholders", sorted(PLACEHOLDERS.items()), sorted(placeholders.items())),
        compare_exact("prompts", "system header", system_text.HEADER, header["header"]),
        compare_exact("prompts", "system sha256", system_text.PUBLISHED_SHA256, header["sha256_including_header"]),
    ]
    for index, state in enumerate(reference["ego_states"]):
        message = user_message(prompt_fields(state["inputs"]))
        future = state["cached_fields"]["gt_ego_fut_trajs"][1:]
        layout = "".join(reference["chat_layout"]).replace("{user_message}", state["user_message"])
        layout = layout.replace("{system_text_including_header}", header["header"] + "SYSTEM")
        # The published system text is not at hand, but its length is: the rest of the prompt has the right length.
        characters = len(chat_prompt("", message)) - len(header["header"]) + header["characters"]
        results += [
            compare_exact("prompts", f"user message {index}", message, state["user_message"]),
            compare_exact("prompts", f"answer {index}", format_trajectory(future), state["answer_for_future"]),
            compare_exact("prompts", f"layout {index}", chat_prompt("SYSTEM", message), layout),
            compare_exact("prompts", f"length {index}", characters, state["full_prompt_characters"]),
        ]
    for index, answer in enumerate(reference["answers"]):
        try:
            parsed = parse_trajectory(answer["text"]).tolist()
        except TrajectoryTextError:
            parsed = None
        expected = None if answer["refuse"] else answer["official"]
        results.append(compare_exact("answers", f"{index} {answer['kind']}", json.dumps(parsed), json.dumps(expected)))
    return results


def prompt_fields(inputs: dict) -> PromptFields:
    """The fields of an entry's physical inputs; right wins over left, left over forward."""
    right, left, _ = inputs["command_right_left_forward"]
    return PromptFields(
        velocity=tuple(inputs["velocity_xy_mps"]),
        yaw_rate=inputs["yaw_rate_radps"],
        history=np.array(inputs["history_xy_m"]),
        measured_acceleration=tuple(inputs["acceleration_xy_mps2"]),
        speed=inputs["longitudinal_speed_mps"],
        steering=inputs["steering"],
        command=Command.TURN_RIGHT if right else Command.TURN_LEFT if left else Command.KEEP_FORWARD,
    )


def compare_projectors(folder: Path) -> list[Comparison]:
    """Every projector type on the stored input."""
    stored, generate = np.load(folder / "vla.npz"), load_module(folder / "weights.py").generate
    results = []
    for key in stored.files:
        match = re.fullmatch(r"projector\.(?!x$)(\w+)", key)
        if match is None:
            continue
        projector = build_projector(match[1], TINY.feature_size, TINY.hidden_size)
        weights = {
            name: torch.from_numpy(generate(f"model.mm_projector_scene.{name}", value.shape))
            for name, value in projector.state_dict().items()
        }
        projector.load_state_dict(weights)
        with torch.inference_mode():
            output = projector(torch.from_numpy(stored["projector.x"]))
        results.append(compare_tensor("projector", match[1], output, stored, key, folder=folder))
    return results


def tiny_model(folder: Path, limit: int | None = None) -> DrivingLanguageModel:
    """The tiny model with the folder's generated weights, loaded strictly by the listed keys."""
    generate = load_module(folder / "weights.py").generate
    model = DrivingLanguageModel(replace(TINY, max_prompt_tokens=limit))
    listed = _listed_shapes(folder / "vla_tiny_keys.txt")
    del listed["lm_head.weight"]
    weights = {name: torch.from_numpy(generate(name, shape)) for name, shape in listed.items()}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, strict=True)
    model.tie_weights()
    return model.eval()


@torch.inference_mode()
def compare_language_model(folder: Path) -> list[Comparison]:
    """Pooling, projection, splicing, and greedy decoding by this package's decoder, case by case."""
    stored, inputs = np.load(folder / "vla.npz"), load_module(folder / "inputs.py")
    results = []
    for case in inputs.VLA_CASES:
        if f"{case}.greedy_ids" not in stored:
            continue
        model = tiny_model(folder, TRUNCATED_LIMIT if case == "truncated" else None)
        given = inputs.vla_case(case)
        scene = F.adaptive_max_pool2d(torch.from_numpy(given["img_feat"])[0], (3, 5)).flatten(2).mT.reshape(-1, 256)
        agents = None if given["agents"] is None else torch.from_numpy(given["agents"])
        elements = torch.from_numpy(np.concatenate([given["map_things"], given["map_stuff"]]))
        embeddings = model.embed_prompt(given["ids"].tolist(), Features(scene, agents, elements))
        tensors = {
            "scene_pooled": scene,
            "scene_proj": model.model.mm_projector_scene(scene),
            "map_proj": model.model.mm_projector_map(elements),
            "inputs_embeds": embeddings,
        }
        if agents is not None:
            tensors["agent_proj"] = model.model.mm_projector_track(agents)
        decoder = Decoder(model, max_length=256)
        expected = stored[f"{case}.greedy_ids"]
        hidden, logits = decoder.prefill(embeddings), []
        for token in expected.tolist():
            logits.append(F.linear(hidden, decoder.head)[0])
            hidden = decoder.step([[token]])
        tensors |= {"last_logits": logits[0], "step_logits": torch.stack(logits)}
        for name, value in tensors.items():
            results.append(
                compare_tensor("language", f"{case}.{name}", value, stored, f"{case}.{name}", folder=folder)
            )
        greedy = list(generate_tokens(decoder, embeddings, stop_tokens=frozenset({END_TOKEN}), max_tokens=MOST_TOKENS))
        if len(greedy) < MOST_TOKENS:
            greedy.append(END_TOKEN)
        results.append(compare_exact("language", f"{case}.greedy_ids", greedy, expected))
    return results


def compare_keys(folder: Path) -> list[Comparison]:
    """State keys and shapes at the published size, apart from the vision tower's, for every projector type listed."""
    lines = (folder / "vla_keys.txt").read_text(encoding="utf-8").splitlines()
    listed = {k: v for k, v in _listed_shapes(folder / "vla_keys.txt").items() if not k.startswith(VISION_TOWER)}
    variants: dict[str, dict[str, tuple[int, ...]]] = {"mlp2x_gelu": {}}
    kind = "mlp2x_gelu"
    for line in lines:
        if match := re.match(r"# with mm_projector_type=(\w+) ", line):
            kind = match[1]
            variants[kind] = {}
        elif line.startswith("#\t"):
            name, shape = line[2:].split("\t")[:2]
            variants[kind][name] = tuple(json.loads(shape))
    results = []
    for kind, projector_keys in variants.items():
        body = {name: shape for name, shape in listed.items() if not projector_keys or "mm_projector" not in name}
        with torch.device("meta"):
            model = DrivingLanguageModel(LanguageConfig(projector=kind))
        own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        expected = body | projector_keys
        results.append(compare_exact("keys", kind, sorted(map(str, own.items())), sorted(map(str, expected.items()))))
    return results


def _listed_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {name: tuple(json.loads(shape)) for name, shape, *_ in lines}
