"""The command that shows where a model looked."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from headstart.commands.options import AsJson, make_reporter, print_json
from headstart.tasks.progress import plain_console

app = typer.Typer()


@app.command()
def explain(
    model: Annotated[
        Path,
        typer.Argument(help="A run's folder, or any .keras classifier.", show_default=False),
    ],
    images: Annotated[
        list[Path], typer.Argument(help="Image files and folders.", show_default=False)
    ],
    layer: Annotated[
        str | None,
        typer.Option(
            help="Layer to explain; by default the last one whose output is a feature map."
        ),
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="Class to explain, by default the most likely one of each image; for a model that "
            "predicts numbers, the number to explain, by default the first.",
        ),
    ] = None,
    method: Annotated[
        Literal["grad-cam", "grad-cam++"], typer.Option(help="Formula for the heatmap.")
    ] = "grad-cam",
    image_size: Annotated[
        int | None,
        typer.Option(
            min=8, help="Width and height in pixels, for a model that takes images of any size."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the pictures.")] = Path(
        "explanation"
    ),
    as_json: AsJson = False,
) -> None:
    """Show where in each image a model finds evidence for its prediction, as heatmaps."""
    from headstart.tasks.running.tensorflow import import_tensorflow

    import_tensorflow()
    from headstart.tasks.dataset.printable import printable
    from headstart.tasks.explanation.explain import SHEET_FILE, explain_images
    from headstart.tasks.explanation.subject import load_subject
    from headstart.tasks.progress import use_reporter

    errors = plain_console(stderr=True, soft_wrap=True)
    bad: list[dict[str, str]] = []

    def on_bad(path: str, reason: str) -> None:
        bad.append({"path": printable(path), "error": reason})
        errors.print(f"skipped {printable(path)}: {reason}")

    with use_reporter(make_reporter(as_json)):
        subject = load_subject(model, image_size)
        if not subject.is_ours:
            errors.print(
                "not exported by headstart: it is given RGB values of 0 to 255, and its classes "
                "are numbered"
            )
        made = explain_images(subject, images, out, layer, class_name, method, on_bad)
    sheet = str(out / SHEET_FILE)
    if as_json:
        fields = [explanation.model_dump(mode="json") for explanation in made]
        print_json({"sheet": sheet, "explanations": fields, "bad": bad})
        return
    for explanation in made:
        name = printable(explanation.path)
        print(f"{name}: {printable(explanation.said)}  {explanation.overlay}")
    print(f"layer {made[0].layer}; all on one sheet: {sheet}")
