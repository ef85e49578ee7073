"""`odv checkpoint`: published weights into this package's folder, and what a folder holds."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from opendrivevla_ros.cli.console import CommandError, console, one_sentence_errors, progress_bar

app = typer.Typer(help="Import and inspect model checkpoints.", no_args_is_help=True)


@app.command("import")
def import_checkpoint(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR|FILE|HUB_ID",
            help="A published OpenDriveVLA folder, a UniAD stage-1 .pth, a Hugging Face id (owner/name; untested), or,"
            " with --codebook, a published AutoVLA file or a folder of Qwen2.5-VL.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the checkpoint.")],
    system_text: Annotated[
        Path | None,
        typer.Option(
            help="llava/conversation.py of the published repository (read, never run), or its text in a file."
        ),
    ] = None,
    perception_only: Annotated[bool, typer.Option(help="Leave the language model out.")] = False,
    codebook: Annotated[
        Path | None, typer.Option(help="Of AutoVLA: its action codebook, .npz of `odv codebook` or .npy of contours.")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Of AutoVLA: a folder with Qwen2.5-VL's tokenizer.")] = None,
) -> None:
    """Convert published weights to config.json, model.safetensors, tokenizer and card."""
    with one_sentence_errors():
        if codebook is None and tokenizer is None:
            from opendrivevla_ros.policies.opendrivevla.import_published import download, import_published

            path = Path(source) if Path(source).exists() else download(source)
            model_id = path.stem if path == Path(source) else source.split("/")[1]
            work = partial(
                import_published,
                path,
                output,
                system_text=system_text,
                perception_only=perception_only,
                model_id=model_id,
            )
        else:
            if codebook is None or tokenizer is None:
                raise CommandError("AutoVLA's weights mean nothing without both; give --codebook and --tokenizer")
            from opendrivevla_ros.policies.autovla.import_published import import_published as import_autovla

            work = partial(import_autovla, Path(source), output, tokenizer=tokenizer, codebook=codebook)
        with progress_bar() as bar:
            task = bar.add_task("importing")
            imported = work(progress=lambda done, total: bar.update(task, completed=done, total=total))
    for note in imported.notes:
        console.print(f"- {note}", soft_wrap=True)
    console.print(f"{imported.folder} is ready; SHA-256 {imported.weights_hash}", soft_wrap=True)


@app.command("inspect")
def inspect_checkpoint(folder: Annotated[Path, typer.Argument(help="A checkpoint folder.")]) -> None:
    """Print sizes, types, hash and what is missing; exit 1 if the folder cannot be loaded."""
    with one_sentence_errors():
        from opendrivevla_ros.policies.autovla.inspection import inspect as inspect_autovla
        from opendrivevla_ros.policies.opendrivevla.inspection import inspect as inspect_opendrivevla
        from opendrivevla_ros.policies.registry import kind_of

        found = (inspect_autovla if kind_of(folder) == "autovla" else inspect_opendrivevla)(folder)
    if found.config is not None:
        state = "trained" if found.config.trained else "NOT trained (random weights)"
        console.print(f"{found.config.model_id}: {state}", soft_wrap=True)
    console.print(_table("file", "bytes", found.files))
    console.print(_table("room", "parameters", found.parameters))
    console.print(_table("type", "parameters", found.dtypes))
    console.print(f"SHA-256 {found.weights_hash or 'unknown'}", soft_wrap=True)
    for problem in found.problems:
        console.print(f"[red]problem:[/red] {problem}", soft_wrap=True)
    if found.problems:
        raise typer.Exit(1)


def _table(name: str, amount: str, rows: dict[str, int]) -> Table:
    table = Table(name, amount)
    table.columns[1].justify = "right"
    for key, value in rows.items():
        table.add_row(key, f"{value:,}")
    return table
