"""`vasevqa sample`: generate the inputs of the demo and the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vasevqa.runtime.progress import StageProgress


@click.command()
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option("--vases", type=click.IntRange(1), default=170, show_default=True, help="vases to photograph")
@click.option("--views", type=click.IntRange(1, 6), default=3, show_default=True, help="photographs per vase")
@click.option(
    "--quality-vases",
    type=click.IntRange(10),
    default=80,
    show_default=True,
    help="labelled vases per class, for train-classifier",
)
@click.option("--seed", type=int, default=0, show_default=True, help="random seed; each seed draws different vases")
@click.option(
    "--size",
    type=click.IntRange(96, 2048),
    default=288,
    show_default=True,
    help="side length of each photograph in pixels",
)
@click.option("--models", is_flag=True, help="also train a tiny CLIP and a tiny Qwen2.5-VL (about seven minutes, once)")
def sample(output: Path, vases: int, views: int, quality_vases: int, seed: int, size: int, models: bool) -> None:
    """Draw synthetic vases into OUTPUT: photos/, quality/, annotations.json, questions.yaml, truth.json (and models/).

    Existing files are kept. Example: vasevqa sample demo/inputs --models
    """
    from vasevqa.runtime.progress import make_progress
    from vasevqa.sample.dataset import Settings, draw_sample

    with make_progress("sample") as progress:
        drawn = draw_sample(output, Settings(vases, views, quality_vases, seed, size), _shown(progress, "drawing"))
        progress.summary(
            f"{'drew' if drawn else 'found'} {vases} vases in {output / 'photos'} and {2 * quality_vases} labelled"
            f" vases in {output / 'quality'}"
        )
        if models:
            from vasevqa.sample.tiny_clip import train_tiny_clip

            where = output / "models/tiny-clip"
            trained = train_tiny_clip(where, seed, on_progress=_shown(progress, "tiny CLIP"))
            progress.summary(f"{'trained' if trained else 'found'} the tiny CLIP in {where}")
            from vasevqa.sample.teaching import teach_tiny_qwen

            where = output / "models/tiny-qwen"
            taught = teach_tiny_qwen(where, seed, on_progress=_shown(progress, "tiny Qwen2.5-VL"))
            progress.summary(f"{'taught' if taught else 'found'} the tiny Qwen2.5-VL in {where}")


def _shown(progress: StageProgress, title: str) -> Callable[[str, int, int], None]:
    phase = ""

    def show(what: str, done: int, total: int) -> None:
        nonlocal phase
        if what != phase:
            progress.start(
                title if what in title else f"{title}: {what}", total, "images" if what == "drawing" else "steps"
            )
            phase = what
        progress.advance()

    return show
