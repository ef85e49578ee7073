"""`odv`, the command line of opendrivevla_ros."""

import typer

from opendrivevla_ros.cli import (
    bench,
    calibrate,
    checkpoint,
    codebook,
    demo,
    doctor,
    evaluate,
    finetune,
    play,
    replay,
    report,
    train,
    world,
)

app = typer.Typer(
    name="odv",
    help="Vision-language-action driving on ROS 2: six cameras and odometry in, plans out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(demo.demo)
app.command()(replay.replay)
app.command()(play.play)
app.command()(doctor.doctor)
app.command()(train.train)
app.command()(finetune.finetune)
app.command()(calibrate.calibrate)
app.command()(report.report)
app.command()(codebook.codebook)
app.command()(bench.bench)
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(world.app, name="world")


def main() -> None:
    """Entry point of the `odv` script."""
    app()


if __name__ == "__main__":
    main()
