"""Make a vocabulary from the RDF data of Kerameikos.org.

The user downloads the data, which has the Open Database License. This project contains none of it. The data is in the
format SKOS (https://www.w3.org/TR/skos-reference/). For each concept, it gives labels by language, wider concepts, and
links to other data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vasevqa.errors import ConfigError, DataError
from vasevqa.reward.vocabulary import FOLDER, Concept, read
from vasevqa.reward.words import words
from vasevqa.storage import refuse_failed

KON = "https://kerameikos.org/ontology#"
SKOS = "http://www.w3.org/2004/02/skos/core#"
CLASSES = {"shape": f"{KON}Shape", "technique": f"{KON}Technique"}


@dataclass
class Published:
    """A published concept: labels by language (the preferred label first), and the ids of wider concepts."""

    id: str
    labels: dict[str, list[str]] = field(default_factory=dict)
    broader: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The English label, or the last part of the id."""
        return self.labels.get("en", [self.id.rpartition("/")[2].replace("_", " ")])[0]


def published(folder: Path) -> dict[str, list[Published]]:
    """Return the published concepts of each class in `CLASSES` from the .rdf files below `folder`.

    Raise ConfigError if the package rdflib is missing. Raise DataError if there is no .rdf file or a file can't be
    read.
    """
    try:
        from rdflib import RDF, Graph, URIRef
    except ImportError:
        raise ConfigError(
            "Reading RDF needs the package rdflib; install vasevqa with the extra `vocabulary`."
        ) from None
    files = sorted(folder.rglob("*.rdf"))
    if not files:
        raise DataError(
            f"{folder} holds no .rdf file; give the folder of Kerameikos.org's RDF, such as ceramic-ids/id."
        )
    graph = Graph()
    for file in files:
        try:
            graph.parse(file, format="xml")
        except Exception as error:  # rdflib and its parsers raise many kinds of error
            refuse_failed(error, file)
            raise DataError(f"{file} is not RDF/XML ({type(error).__name__}); download it again.") from None
    return {
        kind: [_concept(graph, subject) for subject in sorted(graph.subjects(RDF.type, URIRef(name)))]
        for kind, name in CLASSES.items()
    }


def _concept(graph: Any, subject: Any) -> Published:
    from rdflib import URIRef

    concept = Published(str(subject))
    for label in ("prefLabel", "altLabel"):
        for value in sorted(graph.objects(subject, URIRef(SKOS + label))):
            concept.labels.setdefault(value.language or "en", []).append(str(value))
    concept.broader = sorted(str(other) for other in graph.objects(subject, URIRef(f"{SKOS}broader")))
    return concept


def vocabulary(kind: str, concepts: list[Published]) -> dict[str, dict[str, object]]:
    """Return the content of a vocabulary file with the published concepts.

    If a published concept is also in this project's vocabulary, it gets this project's name and wider concept, and this
    project's labels are added to the published labels. For example, Kerameikos.org has "black figure" below "incised".
    In this project, "incised" is a way of making and not a kind of technique.
    """
    ours = read(FOLDER / f"{kind}.yaml")
    names = _names(concepts, ours)
    tree: dict[str, dict[str, object]] = {}
    for concept in concepts:
        name, own = names[concept.id], ours.get(names[concept.id])
        entry: dict[str, object] = {"uri": concept.id}
        above = own.above if own else next((names[other] for other in concept.broader if other in names), "")
        if above and above != name:
            entry["broader"] = above
        if own:
            entry |= {key: value for key, value in (("use", own.use), ("parts", list(own.parts))) if value}
            entry |= {"extra": "true"} if own.extra else {}
        labels = {language: list(dict.fromkeys(texts)) for language, texts in sorted(concept.labels.items())}
        if own:
            known = {" ".join(words(text)) for other in concepts for texts in other.labels.values() for text in texts}
            labels["en"] = [*labels.get("en", []), *(label for label in own.labels if label not in known)]
        tree[name] = {**entry, **{language: texts for language, texts in labels.items() if all(map(words, texts))}}
    return tree


def _names(concepts: list[Published], ours: Mapping[str, Concept]) -> dict[str, str]:
    """Return the name of each concept.

    If this project's vocabulary has a concept with the same English label, the name of that concept is used. Otherwise
    the name is the English label in lower case. If another concept already has this name, the last part of the
    published concept's id is added in brackets. Two published concepts therefore never get the same name.
    """
    by_label = {label: concept.name for concept in ours.values() for label in concept.labels}
    names: dict[str, str] = {}
    # Match concepts by the name of our concept first, and then by its further labels.
    for exact in (True, False):
        for concept in concepts:
            labels = [" ".join(words(label)) for label in concept.labels.get("en", [])]
            known = [by_label[label] for label in labels if label in by_label]
            fitting = [name for name in known if not exact or " ".join(words(name)) in labels]
            free = next((name for name in fitting if name not in names.values()), None)
            if concept.id not in names and free:
                names[concept.id] = free
    for concept in concepts:
        name = concept.name.lower()
        if concept.id not in names:
            taken = name in names.values() or name in ours
            names[concept.id] = f"{name} ({concept.id.rpartition('/')[2]})" if taken else name
    return names
