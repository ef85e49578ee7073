"""`odv evaluate`: how well a policy drives, part by part; parts that are there with the same settings are kept."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markdown import Markdown

from opendrivevla_ros.cli.console import (
    CommandError,
    console,
    one_sentence_errors,
    package_version,
    packages_of_the_world,
    progress_bar,
)
from opendrivevla_ros.cli.evaluate_bag import bag
from opendrivevla_ros.cli.evaluate_nuscenes import nuscenes
from opendrivevla_ros.core.files import write_whole
from opendrivevla_ros.policies.registry import BASELINES, BLIND, SHIPPED, described, kind_of

app = typer.Typer(help="Evaluate a policy.", no_args_is_help=True)

# around what an evaluation writes in a Markdown file
MARKS = ("<!-- evaluation -->", "<!-- end of evaluation -->")  # all tables, as in a card
SUMMARY_MARKS = ("<!-- evaluation summary -->", "<!-- end of evaluation summary -->")  # one, as in a README


@dataclass(frozen=True)
class Figures:
    """What a part comes to. results: ready for JSON. markdown: its tables."""

    results: dict[str, Any]
    markdown: str


@dataclass(frozen=True)
class Part:
    """One part of an evaluation.

    settings: everything that its figures depend on, ready for JSON. run: evaluates; it is given an empty folder for
    pictures and a function to tell the share that is done.
    """

    name: str
    settings: Mapping[str, Any]
    run: Callable[[Path, Callable[[float], None]], Figures]


WriteOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Markdown file that gets the tables (a card) or a summary (a README) between its marks; may be repeated."
    ),
]
ProcessesOption = Annotated[int, typer.Option(min=1, help="Scenarios driven at the same time.")]

app.command()(bag)
app.command()(nuscenes)


@app.callback()
def evaluate() -> None:
    """Evaluate a policy."""


@app.command()
def world(
    checkpoint: Annotated[
        str | None, typer.Option(help="Name or checkpoint folder of the policy; default: the shipped one.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for results.json, results.md and pictures.")] = Path(
        "evaluation_output"
    ),
    scenes: Annotated[int, typer.Option(min=1, help="Scenes of the open-loop and text parts.")] = 112,
    scenarios: Annotated[int, typer.Option(min=1, help="Closed-loop scenarios of each family.")] = 10,
    family: Annotated[list[str] | None, typer.Option(help="Only this family; may be repeated.")] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(help="Another policy beside it, name or folder; may be repeated. Blind baselines always are."),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this part; may be repeated.")] = None,
    processes: ProcessesOption = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or int8.")] = "float32",
    write: WriteOption = None,
) -> None:
    """Evaluate a policy in the driving world, on test seeds: it drives, beside the expert and blind baselines."""
    with one_sentence_errors(), sentences():
        from opendrivevla_ros.evaluation.summary import summary

        require_writable(output)
        for path in write or ():
            section_of(path, MARKS, SUMMARY_MARKS)
        policy = checkpoint or SHIPPED
        others = (*BLIND, *(beside or ()))
        closed_loop = closed_loop_part(
            policy,
            beside=others,
            families=tuple(dict.fromkeys(family or ())),
            scenarios=scenarios,
            processes=processes,
            device=device,
            precision=precision,
        )
        expert_driven = expert_driven_parts(
            policy, beside=others, scenes=scenes, processes=processes, device=device, precision=precision
        )
        parts = [closed_loop, *expert_driven]
        figures = run_parts(parts, output, only or ())
        tables = "\n".join(of_part.markdown for of_part in figures.values())
        shortened = summary({name: of_part.results for name, of_part in figures.items()})
        for path in write or ():
            write_section(path, tables, shortened)
    console.print(Markdown(tables))
    console.print(f"figures in {output}/results.json, tables in {output}/results.md", soft_wrap=True)


@app.command()
def faults(
    output: Annotated[Path, typer.Option(help="Folder for results.json and results.md.")] = Path("fault_output"),
    scenarios: Annotated[int, typer.Option(min=1, help="Scenarios that each fault comes in.")] = 40,
    fault: Annotated[list[str] | None, typer.Option(help="Only this fault; may be repeated.")] = None,
    processes: ProcessesOption = 2,
    write: WriteOption = None,
) -> None:
    """Break things while the guard drives in the driving world, on test seeds, and see what it makes of them."""
    with one_sentence_errors(), sentences():
        from opendrivevla_ros.evaluation.fault_report import FaultSettings, markdown, run_faults

        default = FaultSettings()
        settings = FaultSettings(scenarios, tuple(dict.fromkeys(fault or default.faults)))

        def run(folder: Path, progress: Callable[[float], None]) -> Figures:
            results = run_faults(settings, processes=processes, progress=lambda done, total: progress(done / total))
            return Figures(results, markdown(results))

        given = {**asdict(settings), "split": settings.split.name.lower()}
        _evaluate_alone(Part("faults", given, run), output, write or ())


@app.command()
def modes(
    checkpoint: Annotated[str, typer.Argument(help="Name or checkpoint folder of a model that thinks.")],
    output: Annotated[Path, typer.Option(help="Folder for results.json and results.md.")] = Path("modes_output"),
    beside: Annotated[
        list[str] | None,
        typer.Option(help="Another model, such as the one before reinforcement, beside it; may be repeated."),
    ] = None,
    scenarios: Annotated[int, typer.Option(min=1, help="Scenarios, families by turns.")] = 70,
    processes: ProcessesOption = 2,
    write: WriteOption = None,
) -> None:
    """Have a model drive fast, slow and as it finds right, on test seeds: driver score, collisions, time, thoughts."""
    with one_sentence_errors(), sentences():
        from opendrivevla_ros.evaluation.figures import json_text
        from opendrivevla_ros.evaluation.modes import compare_modes, thinking_models

        sources = (checkpoint, *(beside or ()))

        def run(folder: Path, progress: Callable[[float], None]) -> Figures:
            results = compare_modes(
                sources,
                scenarios=scenarios,
                processes=processes,
                progress=lambda done, total: progress(done / total),
            )
            return Figures(json.loads(json_text(results)), results.markdown())

        given = {"models": thinking_models(sources), "scenarios": scenarios}
        _evaluate_alone(Part("modes", given, run), output, write or ())


def _evaluate_alone(part: Part, output: Path, write: Sequence[Path]) -> None:
    """Evaluates one part into a folder, shows its tables, and puts them into the files that have a place for them."""
    require_writable(output)
    for path in write:
        section_of(path, MARKS)
    tables = run_parts([part], output)[part.name].markdown
    for path in write:
        write_section(path, tables)
    console.print(Markdown(tables))
    console.print(f"figures in {output}/results.json, tables in {output}/results.md", soft_wrap=True)


def section_of(path: Path, *marks: tuple[str, str]) -> tuple[str, tuple[str, str], str]:
    """What stands before and after the first of these marks in a Markdown file, and between them those marks.

    A mark has a line of its own; one inside a sentence is a word about it. Raises CommandError where there is none.
    """
    content = path.read_text(encoding="utf-8")
    for pair in marks:
        opening, closing = (re.search(f"^{re.escape(mark)}$", content, re.MULTILINE) for mark in pair)
        if opening and closing and opening.end() < closing.start():
            return content[: opening.start()], pair, content[closing.end() :]
    first = marks[0]
    raise CommandError(f"{path} has no place for the tables; write {first[0]} and {first[1]} where they belong")


def write_section(path: Path, tables: str, shortened: str | None = None) -> None:
    """Puts tables between the marks of a Markdown file, or, where there is one, the summary between its own."""
    marks = (MARKS,) if shortened is None else (MARKS, SUMMARY_MARKS)
    before, pair, after = section_of(path, *marks)
    text = tables if pair == MARKS or shortened is None else shortened
    _write(path, f"{before}{pair[0]}\n{text.strip()}\n{pair[1]}{after}")


def closed_loop_part(
    policy: str,
    *,
    beside: tuple[str, ...],
    families: tuple[str, ...],
    scenarios: int,
    processes: int,
    device: str,
    precision: str,
) -> Part:
    """The policy drives the world; families: all of them where none is named.

    Raises EvaluationError for an unknown family and CheckpointError for a policy that cannot be loaded.
    """
    from opendrivevla_ros.evaluation.closed_loop_pictures import draw_all
    from opendrivevla_ros.evaluation.closed_loop_report import markdown, results_of
    from opendrivevla_ros.evaluation.closed_loop_runs import ClosedLoopSettings, policy_infos, run_closed_loop
    from opendrivevla_ros.world.families import FAMILIES

    settings = ClosedLoopSettings(
        policy,
        beside=beside,
        families=families or FAMILIES,
        scenarios=scenarios,
        device=device,
        precision=precision,
    )
    infos = policy_infos(settings)

    def run(folder: Path, progress: Callable[[float], None]) -> Figures:
        ran = run_closed_loop(
            settings, infos, processes=processes, progress=lambda done, total: progress(done / total)
        )
        draw_all(ran.drives, settings.drivers[0].name, folder)
        results = results_of(ran)
        return Figures(results, markdown(results))

    hashes = {source: info.weights_hash for source, info in infos.items()}
    files = {source: described(source) for source in infos}
    given = {**asdict(settings), "split": settings.split.name.lower(), "weights": hashes, "files": files}
    return Part("closed-loop", given, run)


def expert_driven_parts(
    policy: str, *, beside: tuple[str, ...], scenes: int, processes: int, device: str, precision: str
) -> list[Part]:
    """Plans and perception against the truth, and, for a policy with language, text and confidence; the expert drives.

    Raises CheckpointError for a policy that cannot be loaded.
    """
    from opendrivevla_ros.evaluation.confidence import evaluate_confidence
    from opendrivevla_ros.evaluation.text_metrics import evaluate_text
    from opendrivevla_ros.evaluation.world_open_loop import evaluate_open_loop
    from opendrivevla_ros.evaluation.world_scenes import Loading, load_greedy

    loading = Loading(device, precision)
    hashes = {source: load_greedy(source, **vars(loading)).info.weights_hash for source in (policy, *beside)}

    def open_loop(folder: Path, progress: Callable[[float], None]) -> Figures:
        result = evaluate_open_loop(
            policy,
            baselines=beside,
            scenes=scenes,
            loading=loading,
            processes=processes,
            progress=lambda done, total: progress(done / total),
            pictures=folder,
        )
        return Figures(json.loads(result.to_json()), result.markdown())

    def text(folder: Path, progress: Callable[[float], None]) -> Figures:
        result = evaluate_text(
            policy,
            scenes=scenes,
            loading=loading,
            processes=processes,
            progress=lambda done, total: progress(done / total),
        )
        return Figures(json.loads(result.to_json()), result.markdown())

    def confidence(folder: Path, progress: Callable[[float], None]) -> Figures:
        result = evaluate_confidence(
            policy,
            scenes=scenes,
            loading=loading,
            processes=processes,
            progress=lambda done, total: progress(done / total),
        )
        return Figures(json.loads(result.to_json()), result.markdown())

    given = {"policy": policy, "scenes": scenes, **vars(loading)}
    files = {source: described(source) for source in (policy, *beside)}
    parts = [Part("open-loop", {**given, "weights": hashes, "files": files}, open_loop)]
    if kind_of(policy) not in BASELINES:
        of_policy = {**given, "weights": hashes[policy], "files": files[policy]}
        parts += [Part("text", of_policy, text), Part("confidence", of_policy, confidence)]
    return parts


def run_parts(parts: Sequence[Part], output: Path, only: Sequence[str] = ()) -> dict[str, Figures]:
    """The figures of each part by name: of its file in `output` where that has the same settings, else evaluated.

    only: names of parts to evaluate; of the others there is what is in the folder already. Writes PART.json and the
    folder PART of pictures as each part ends, and results.json and results.md of all parts at the end; each is whole
    or not there. Raises CommandError for a name that no part has.
    """
    names = [part.name for part in parts]
    for name in only:
        if name not in names:
            raise CommandError(f"no part {name!r} of the evaluation; choose from {', '.join(names)}")
    figures = {}
    for part in parts:
        kept = _kept(part, output)
        if kept is None and (not only or part.name in only):
            kept = _evaluated(part, output)
        if kept is not None:
            figures[part.name] = kept
    results = {name: of_part.results for name, of_part in figures.items()}
    _write(output / "results.json", json.dumps(results, indent=1) + "\n")
    _write(output / "results.md", "\n".join(of_part.markdown for of_part in figures.values()))
    return figures


def _kept(part: Part, output: Path) -> Figures | None:
    """What the part's file holds; None where there is none, or of other settings."""
    path = output / f"{part.name}.json"
    try:
        content = json.loads(path.read_text())
        if content["settings"] != _settings(part):
            return None
        figures = Figures(content["results"], content["markdown"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    console.print(f"{part.name}: kept from {path}; remove that file to evaluate again", soft_wrap=True)
    return figures


def _evaluated(part: Part, output: Path) -> Figures:
    with progress_bar() as bar, _replaced_folder(output / part.name) as folder:
        task = bar.add_task(part.name, total=1.0)
        figures = part.run(folder, lambda share: bar.update(task, completed=share))
    content = {"settings": _settings(part), **asdict(figures)}
    _write(output / f"{part.name}.json", json.dumps(content, indent=1) + "\n")
    return figures


def _settings(part: Part) -> dict[str, Any]:
    """As JSON gives them back, with the version of this package."""
    return json.loads(json.dumps({**part.settings, "version": package_version()}))


def _write(path: Path, text: str) -> None:
    write_whole(path, text.encode())


@contextmanager
def _replaced_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` when all went well."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        filled = Path(temporary) / folder.name
        filled.mkdir()
        yield filled
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(filled, folder)


def require_writable(output: Path) -> None:
    """Makes the output folder. Raises CommandError where nothing can be written to it."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        raise CommandError(f"cannot write to {output}: {error.strerror}; choose another --output") from None


@contextmanager
def sentences() -> Iterator[None]:
    """What stops the evaluation, as a CommandError."""
    with packages_of_the_world():
        from opendrivevla_ros.evaluation.world_scenes import EvaluationError
    try:
        yield
    except EvaluationError as error:
        raise CommandError(str(error)) from None
