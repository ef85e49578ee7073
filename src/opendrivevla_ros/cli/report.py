"""`odv report`: what evaluations found, as one page to read, keep and pass on."""

from pathlib import Path
from typing import Annotated

import typer

from opendrivevla_ros.cli.console import (
    CommandError,
    console,
    one_sentence_errors,
    package_version,
    packages_of_the_world,
)
from opendrivevla_ros.core.files import write_whole


def report(
    results: Annotated[
        list[Path], typer.Argument(help="Output folders of `odv evaluate`; two of one kind: compared.")
    ],
    output: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
) -> None:
    """One self-contained HTML page of results: tables, plots, the worst moments as pictures; two runs side by side."""
    with one_sentence_errors(), packages_of_the_world():
        from opendrivevla_ros.evaluation.moments import ResultsError
        from opendrivevla_ros.evaluation.report import gather_report
        from opendrivevla_ros.evaluation.report_page import page

        try:
            written = page(gather_report(results, package_version())).encode(errors="replace")
        except ResultsError as error:
            raise CommandError(str(error)) from None
        try:
            write_whole(output, written)
        except OSError as error:
            raise CommandError(f"cannot write {output}: {error.strerror}; choose another --output") from None
    console.print(f"{output}, {len(written) / 1e6:.1f} MB; open it in any browser", soft_wrap=True)
