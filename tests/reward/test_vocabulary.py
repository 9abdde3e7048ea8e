"""The vocabulary: it is consistent, a user's folder replaces and adds concepts, and published RDF can be converted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from vasevqa.cli import cli
from vasevqa.errors import ConfigError, DataError
from vasevqa.reward import vocabulary
from vasevqa.reward.score import score


@pytest.fixture(autouse=True)
def _ours() -> Iterator[None]:
    yield
    vocabulary.use(None)


@pytest.mark.parametrize("kind", vocabulary.KINDS)
def test_the_vocabulary_of_the_project_is_consistent(kind: str) -> None:
    concepts = vocabulary.read(vocabulary.FOLDER / f"{kind}.yaml")
    assert vocabulary.problems(concepts) == []
    assert vocabulary.shared_labels(concepts) == []
    terms = vocabulary.load(kind)
    assert [name for name, concept in concepts.items() if terms.find(concept.labels[0]) != [name]] == []


NAMED_IN_THE_REQUIREMENT = (
    "kyathos mastos plaque mug nestoris epinetron exaleiptron loutrophoros rhyton askos pyxis plemochoe alabastron"
    " aryballos phiale dinos"
)


@pytest.mark.parametrize("shape", [*NAMED_IN_THE_REQUIREMENT.split(), "lebes gamikos", "head vase"])
def test_shapes_of_vases_are_known(shape: str) -> None:
    assert vocabulary.load("shape").find(shape.upper()) == [shape]


def test_a_users_folder_replaces_and_adds_concepts(tmp_path: Path) -> None:
    (tmp_path / "shape.yaml").write_text(
        "bucket: {use: pouring, en: [bucket, pail]}\nkylix: {use: drinking, en: [kylix, chalice of Athens]}\n"
    )
    assert score("a pail", "bucket", "shape").value < 1
    vocabulary.use(tmp_path)
    assert score("a pail", "bucket", "shape").value == 1
    assert score("chalice of Athens", "kylix", "shape").value == 1
    assert vocabulary.load("shape").find("cup") == []
    assert score("crater", "krater", "shape").value == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- kylix\n", "is not a mapping"),
        ("kylix: cup\n", "line 1: 'kylix' is not a mapping"),
        ("kylix:\n  en: [cup]\n  broder: x\n", "line 3: 'broder' is neither a language"),
        ("kylix: {en: ['']}\n", "the labels of 'kylix' are not a list of texts"),
        ("kylix: {en: [cup], broader: drinking vessel}\n", "kylix: there is no concept 'drinking vessel'"),
        ("kylix:\n  en: [cup]\n  broader: [vessel, cup]\n", "line 3: `broader` of 'kylix' is not a text"),
        ("kylix: {en: [cup], use: {a: b}}\n", "line 1: `use` of 'kylix' is not a text"),
        ("kylix: {en: [cup], uri: [x]}\n", "line 1: `uri` of 'kylix' is not a text"),
        ("kylix: {en: [cup], parts: [[x]]}\n", "line 1: `parts` is not a list of concepts"),
        ("kylix: {en: [cup], extra: perhaps}\n", "line 1: `extra` of 'kylix' is neither true nor false"),
        ("kylix: {en: [cup], common: [true]}\n", "line 1: `common` of 'kylix' is neither true nor false"),
        ("a: {en: [a1], broader: b}\nb: {en: [b1], broader: a}\n", "its wider concepts form a cycle through"),
        ("kylix: {en: [cup]}\nkylix: {en: [x]}\n", "line 2: 'kylix' appears a second time"),
    ],
)
def test_a_wrong_vocabulary_is_reported_in_one_sentence(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "shape.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"shape\.yaml") as caught:
        vocabulary.use(tmp_path)
    assert says in str(caught.value)
    result = CliRunner().invoke(cli, ["vocabulary", "check", str(tmp_path / "shape.yaml")])
    assert isinstance(result.exception, ConfigError | DataError)
    assert says in result.output + str(result.exception)


@pytest.mark.parametrize("written", ["true", "True", "TRUE"])
def test_true_is_read_in_every_spelling(written: str, tmp_path: Path) -> None:
    (tmp_path / "technique.yaml").write_text(f"gilding: {{en: [gilding], extra: {written}, common: {written}}}\n")
    concept = vocabulary.read(tmp_path / "technique.yaml")["gilding"]
    assert (concept.extra, concept.common) == (True, True)


def test_a_path_without_a_vocabulary_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds none of shape\.yaml"):
        vocabulary.use(tmp_path)
    (tmp_path / "colours.yaml").write_text("red: {en: [red]}\n")
    result = CliRunner().invoke(cli, ["vocabulary", "check", str(tmp_path)])
    assert "there is no kind 'colours'" in str(result.exception)


RDF = """<?xml version="1.0" encoding="utf-8"?>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:skos="http://www.w3.org/2004/02/skos/core#"
         xmlns:kon="https://kerameikos.org/ontology#">
  <kon:{kind} rdf:about="https://kerameikos.org/id/{name}">
    <skos:prefLabel xml:lang="en">{en}</skos:prefLabel>
    <skos:prefLabel xml:lang="de">{de}</skos:prefLabel>
    {more}
  </kon:{kind}>
</rdf:RDF>
"""
BROADER = '<skos:broader rdf:resource="https://kerameikos.org/id/{}"/>'


@pytest.fixture
def published(tmp_path: Path) -> Path:
    folder = tmp_path / "id"
    folder.mkdir()
    for kind, name, en, de, more in (
        ("Shape", "krater", "Krater", "Mischgefäß", ""),
        ("Shape", "column_krater", "Column Krater", "Kolonettenkrater", BROADER.format("krater")),
        ("Shape", "bucket", "Bucket", "Eimer", BROADER.format("krater")),
        ("Shape", "bucket_two", "Bucket", "Kübel", ""),
        ("Technique", "incised", "Incised", "geritzt", ""),
        ("Technique", "black_figure", "Black Figure", "schwarzfigurig", BROADER.format("incised")),
    ):
        text = RDF.format(kind=kind, name=name, en=en, de=de, more=more)
        (folder / f"{name}.rdf").write_text(text, encoding="utf-8")
    return folder


def test_published_rdf_is_converted_to_a_vocabulary(published: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["vocabulary", "build", str(published), "--output", str(tmp_path / "mine")])
    assert result.exit_code == 0, result.output
    assert "4 concepts" in result.output
    assert CliRunner().invoke(cli, ["vocabulary", "check", str(tmp_path / "mine")]).exit_code == 0
    vocabulary.use(tmp_path / "mine")
    shapes = vocabulary.load("shape")
    assert shapes.find("Kolonettenkrater") == ["column-krater"]
    assert shapes.concepts["column-krater"].uri == "https://kerameikos.org/id/column_krater"
    assert shapes.wider("bucket") == ["krater"]
    assert {shapes.find("Eimer")[0], shapes.find("Kübel")[0]} == {"bucket", "bucket (bucket_two)"}
    # The project's concept of black figure stays: the RDF puts black figure under a production technique.
    assert vocabulary.load("technique").wider("black-figure") == []
    assert score("incised", "black-figure", "technique").value == 0


def test_a_file_that_is_no_rdf_is_reported(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["vocabulary", "build", str(tmp_path)])
    assert isinstance(result.exception, DataError)
    assert "holds no .rdf file" in str(result.exception)
    (tmp_path / "x.rdf").write_text("no xml")
    result = CliRunner().invoke(cli, ["vocabulary", "build", str(tmp_path)])
    assert "is not RDF/XML" in str(result.exception)


def test_the_article_a_is_not_read_as_type_a() -> None:
    shapes = vocabulary.load("shape")
    assert [shapes.find(text) for text in ("a cup", "a kylix", "an amphora")] == [["kylix"], ["kylix"], ["amphora"]]
    assert [shapes.find(text) for text in ("cup A", "CUP A", "type A cup", "amphora, type B")] == [
        ["cup A"],
        ["cup A"],
        ["cup A"],
        ["amphora B"],
    ]
    assert score("a kylix", "kylix", "shape").value == 1
    assert score("not a kylix but a skyphos", "kylix", "shape").value == 0


def test_two_shapes_in_a_list_are_two_shapes() -> None:
    shapes = vocabulary.load("shape")
    assert shapes.find("hydria, loutrophoros") == ["hydria", "loutrophoros"]
    assert shapes.find("loutrophoros-hydria") == ["loutrophoros-hydria"]
    assert shapes.find("KRATER, COLUMN") == ["column-krater"]


@pytest.mark.parametrize(
    ("greek", "record"),
    [
        ("πυξίς", "PYXIS"),
        ("κύλιξ", "CUP"),
        ("λήκυθος", "LEKYTHOS"),
        ("κύαθος", "KYATHOS"),
        ("λέβης γαμικός", "LEBES GAMIKOS"),
    ],
)
def test_shapes_are_read_in_greek_letters(greek: str, record: str) -> None:
    assert score(greek, record, "shape").value >= 0.9


@pytest.mark.parametrize("kind", vocabulary.KINDS)
def test_every_label_is_read_as_its_own_concept(kind: str) -> None:
    terms = vocabulary.load(kind)
    labels = [(name, label) for name, concept in terms.concepts.items() for label in concept.labels]
    assert [(name, label) for name, label in labels if terms.find(label) != [name]] == []


@pytest.mark.parametrize(
    ("said", "shape"),
    [
        ("coppa a occhioni", "cup A"),
        ("Schale des Typus B", "cup B"),
        ("coupe de Cassel", "cassel cup"),
        ("amphore à col", "neck-amphora"),
        ("anfora panatenaica", "panathenaic amphora"),
        ("crátera de campana", "bell-krater"),
        ("ελικωτός κρατήρας", "volute-krater"),
        ("kelebe", "column-krater"),
        ("OINOCHOE, 5A", "oinochoe 5A"),
        ("Oinochoe Form 3", "chous"),
        ("Œnochoé", "oinochoe"),
        ("lekythos, chimney", "chimney lekythos"),
        ("nuptial lebes, type 2", "lebes gamikos 2"),
        ("pisside di tipo D", "pyxis D"),
        ("skyphos, type A", "skyphos A"),
        ("CUP, LITTLE MASTER LIP", "lip-cup"),
    ],
)
def test_shapes_are_known_as_scholars_write_them(said: str, shape: str) -> None:
    assert vocabulary.load("shape").find(said) == [shape]


@pytest.mark.parametrize("said", ["kylix a figure rosse", "kylix à figures rouges", "kylix a vernice nera"])
def test_an_italian_or_french_preposition_is_no_type(said: str) -> None:
    assert vocabulary.load("shape").find(said) == ["kylix"]


@pytest.mark.parametrize(
    ("kind", "said", "concept"),
    [
        ("technique", "céramique attique à figures noires", "black-figure"),
        ("technique", "ερυθρόμορφη κύλικα", "red-figure"),
        ("technique", "Attic r.f.", "red-figure"),
        ("technique", "bianco sovraddipinto", "added white"),
        ("technique", "Saint-Valentin", "saint-valentin"),
        ("technique", "Westabhang-Keramik", "west slope"),
        ("technique", "protogéométrique", "protogeometric"),
        ("fabric", "céramique attique", "attic"),
        ("fabric", "κορινθιακός αρύβαλλος", "corinthian"),
        ("fabric", "apulio", "apulian"),
        ("fabric", "Grèce de l'Est", "east greek"),
        ("fabric", "etrusco-corinzio", "italo-corinthian"),
        ("fabric", "peuketisch", "peucetian"),
    ],
)
def test_techniques_and_fabrics_are_known_in_six_languages(kind: str, said: str, concept: str) -> None:
    assert vocabulary.load(kind).find(said) == [concept]


@pytest.mark.parametrize(
    ("said", "chain"),
    [
        ("Chypre", ["Cyprus"]),
        ("Κύπρος", ["Cyprus"]),
        ("Sant'Agata de' Goti", ["Sant'Agata dei Goti", "Campania", "Italy"]),
        ("Locres Épizéphyrienne", ["Locri", "Calabria", "Italy"]),
        ("ITALY, SICILY, NAXOS", ["Naxos in Sicily", "Sicily", "Italy"]),
        ("Naxos", ["Naxos", "Cyclades", "Greece"]),
        ("Gnathia", ["Egnazia", "Apulia", "Italy"]),
        ("Argive Heraeum", ["Argos Heraion", "Argolid", "Peloponnese", "Greece"]),
        ("Panticapaeum", ["Kerch", "Crimea", "Ukraine"]),
        ("Troja", ["Troy", "Turkey"]),
        ("Karthago", ["Carthage", "Tunisia"]),
    ],
)
def test_places_are_known_in_six_languages(said: str, chain: list[str]) -> None:
    places = vocabulary.load("place")
    name = places.find(said)[-1]
    assert [name, *places.wider(name)] == chain


@pytest.mark.parametrize(
    ("said", "record"),
    [
        ("Thésée et le Minotaure", "THESEUS AND MINOTAUR"),
        ("σάτυρος και μαινάδα", "SATYR AND MAENAD"),
        ("Jüngling und Frau", "YOUTH AND WOMAN"),
        ("Eracle e il leone", "HERAKLES AND LION"),
        ("guerreros", "WARRIORS"),
        ("Parisurteil", "JUDGEMENT OF PARIS"),
    ],
)
def test_scenes_are_read_in_six_languages(said: str, record: str) -> None:
    assert score(said, record, "decoration").value >= 0.9


def test_only_adjectives_of_fabrics_and_techniques_are_inflected(tmp_path: Path) -> None:
    (tmp_path / "fabric.yaml").write_text("samian: {en: [Samo], it: [samio], de: [samisch]}\n")
    (tmp_path / "shape.yaml").write_text("bucket: {it: [secchio]}\n")
    vocabulary.use(tmp_path)
    fabrics, shapes = vocabulary.load("fabric"), vocabulary.load("shape")
    assert [fabrics.find(text) for text in ("ceramica samia", "samischer Krater")] == [["samian"], ["samian"]]
    assert [fabrics.find("sama"), shapes.find("secchia")] == [[], []]  # an English label, and another vessel
