"""`vasevqa vocabulary`: check your own vocabulary, or make one from published data."""

from __future__ import annotations

from pathlib import Path

import click
import yaml

from vasevqa import files
from vasevqa.errors import ConfigError, DataError
from vasevqa.reward import vocabulary as words


@click.group()
def vocabulary() -> None:
    """Check or make the words that the reward knows: shapes, techniques, fabrics, places and figures.

    A recipe's input `vocabulary:` names a folder with files such as shape.yaml. A concept in such a file replaces the
    project's concept of the same name. Other concepts are added to the project's concepts.
    """


@vocabulary.command()
@click.argument("path", type=click.Path(path_type=Path))
def check(path: Path) -> None:
    """Check the vocabulary file PATH, or all vocabulary files in the folder PATH.

    \b
    Example:
      vasevqa vocabulary check my-words/shape.yaml
    """
    paths = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    if not paths:
        raise ConfigError(f"{path} holds no .yaml file; name each file after its kind ({', '.join(words.KINDS)}).")
    wrong = []
    for file in paths:
        if file.stem not in words.KINDS:
            raise ConfigError(
                f"{file}: there is no kind '{file.stem}'; name the file after one of {', '.join(words.KINDS)}."
            )
        theirs = words.read(file)
        merged = words.merged(words.read(words.FOLDER / file.name), theirs)
        wrong += [f"{file}: {problem}" for problem in words.problems(merged)]
        click.echo(f"{file}: {len(theirs)} concepts, {sum(len(one.labels) for one in theirs.values())} labels")
        for line in words.shared_labels(merged):
            click.echo(f"  note: {line}")
    for problem in wrong:
        click.echo(f"  {problem}", err=True)
    if wrong:
        raise DataError(f"{len(wrong)} problems in {path}; correct the lines above.")


@vocabulary.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), default="vocabulary", help="folder for the files"
)
def build(folder: Path, output: Path) -> None:
    """Make shape.yaml and technique.yaml from Kerameikos.org's RDF files in FOLDER.

    Download the files first. The data is under the Open Database License: name the source if you publish results.

    \b
    Example:
      vasevqa vocabulary build ceramic-ids/id --output my-words
    """
    from vasevqa.reward import kerameikos

    for kind, concepts in kerameikos.published(folder).items():
        if not concepts:
            raise DataError(f"{folder} holds no {kind} of Kerameikos.org; give the folder of all its .rdf files.")
        tree = kerameikos.vocabulary(kind, concepts)
        head = "# From Kerameikos.org (https://kerameikos.org), Open Database License. Edit freely.\n"
        path = output / f"{kind}.yaml"
        files.write_text(path, head + yaml.safe_dump(tree, allow_unicode=True, sort_keys=False, width=120))
        labels = sum(len(texts) for entry in tree.values() for texts in entry.values() if isinstance(texts, list))
        click.echo(f"{path}: {len(tree)} concepts, {labels} labels")
