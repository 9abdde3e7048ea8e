"""Annotations in all formats and with all headings: each entry gives rows or a reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zipfile
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import openpyxl
import pytest

from vasevqa.dataset import workbooks
from vasevqa.dataset.annotations import Problem, Record, read_annotations
from vasevqa.dataset.asked import attribute_of
from vasevqa.dataset.columns import Columns, read_columns
from vasevqa.dataset.params import BuildParams
from vasevqa.errors import ConfigError
from vasevqa.runtime.flags import argv, validate
from vasevqa.stages import build_dataset

ROWS = [["1836.2", "amphora", "c. 550, Athens"], ["1836.3", "kylix", "490 BCE"], ["1836.4", "hydria", "450 BCE"]]
HEAD = ["vase_id", "shape", "date"]
OBJECTS = [dict(zip(HEAD, row, strict=True)) for row in ROWS]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], delimiter: str = ",") -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows([head, *rows])
    return stream.getvalue()


def read(
    folder: Path, data: bytes | str, name: str = "a.csv", columns: Columns | None = None, records: str | None = None
) -> tuple[list[Record], list[Problem]]:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    told = read_annotations(path, columns, records)
    return told.records, told.problems


def workbook(**sheets: Sequence[Sequence[object]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        made = book.create_sheet(title)
        for row in rows:
            made.append(list(row))
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def spoiled(data: bytes, part: str, text: str) -> bytes:
    """Return the workbook `data` with `text` in front of one of its parts."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as book, zipfile.ZipFile(stream, "w") as other:
        for name in book.namelist():
            other.writestr(name, (text.encode() if name == part else b"") + book.read(name))
    return stream.getvalue()


COMMA, SEMICOLON, TAB = (table(HEAD, ROWS, delimiter) for delimiter in ",;\t")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("\ufeffsep=;\r\n" + SEMICOLON, "excel.csv"),
        (TAB.encode("utf-16"), "unicode.csv"),
        (SEMICOLON.encode("utf-16-be"), "unmarked.csv"),
        (COMMA.replace("\r\n", "\r"), "mac.csv"),
        (gzip.compress(COMMA.encode()), "packed.csv"),
        (TAB, "tabs.txt"),
        (table([*HEAD, "", ""], [[*row, "", ""] for row in ROWS], ";"), "trailing.csv"),
        (COMMA, "table.json"),
        ("\n".join(map(json.dumps, OBJECTS)), "lines.json"),
        ("\n".join(json.dumps(one, indent=1) for one in OBJECTS), "joined.json"),
        (json.dumps({"info": {"date": "today"}, "response": {"docs": OBJECTS}}), "envelope.json"),
        (json.dumps(OBJECTS), "list.csv"),
    ],
)
def test_the_content_decides_the_format(data: bytes | str, name: str, tmp_path: Path) -> None:
    records, problems = read(tmp_path, data, name)
    assert problems == []
    assert [(one.vase, dict(one.attributes)) for one in records] == [
        (row[0], {"shape": row[1], "date": row[2]}) for row in ROWS
    ]


def test_the_right_sheet_of_a_workbook_is_read(tmp_path: Path) -> None:
    data = workbook(
        About=[["Read me"]], Vases=[["vase_id", "", "shape"], [10023, None, "kylix"], [], ["10024", "", "#N/A"]]
    )
    records, problems = read(tmp_path, data, "a.xlsx")
    assert [(one.vase, dict(one.attributes)) for one in records] == [("10023", {"shape": "kylix"})]
    assert ("sheet not read", "a.xlsx, sheet About") in [(one.kind, one.where) for one in problems]
    assert "a.xlsx, sheet Vases, row 4" in [one.where for one in problems]
    _, problems = read(tmp_path, data[:800], "cut.xlsx")
    assert "not a complete workbook" in problems[0].what
    _, problems = read(tmp_path, spoiled(data, "xl/workbook.xml", '<!DOCTYPE a [<!ENTITY a "b">]>'), "bomb.xlsx")
    assert "declares XML entities" in problems[0].what
    _, problems = read(tmp_path, spoiled(data, "xl/workbook.xml", "<broken"), "broken.xlsx")
    assert "not a complete workbook" in problems[0].what


def test_cells_of_a_workbook_are_read_as_displayed(tmp_path: Path) -> None:
    values = [[10023.0, date(2024, 5, 1), True], [0.5, datetime(2024, 5, 1, 12, 30), "1836,0224.127"]]
    (tmp_path / "a.xlsx").write_bytes(workbook(Vases=values))
    [(title, rows)] = workbooks.sheets(tmp_path / "a.xlsx")
    assert title == "Vases"
    assert [cells for _, cells in rows] == [
        ["10023", "2024-05-01", "true"],
        ["0.5", "2024-05-01 12:30:00", "1836,0224.127"],
    ]


def test_parquet_with_named_pictures_is_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"image": {"bytes": b"x", "path": "a.jpg"}, "shape": "kylix"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    told = read_annotations(tmp_path / "a.parquet")
    [record], problems = told.records, told.problems
    assert (record.images, dict(record.attributes), problems) == (("a.jpg",), {"shape": "kylix"}, [])


def test_captions_of_coco_and_of_an_image_folder_are_read(tmp_path: Path) -> None:
    coco = {
        "licenses": [{"id": 1, "name": "CC BY"}],
        "images": [{"id": 7, "file_name": "a.jpg", "license": 1}],
        "annotations": [{"id": 1, "image_id": 7, "caption": "A kylix."}],
    }
    [record], _ = read(tmp_path, json.dumps(coco), "coco.json")
    assert (record.images, record.attributes["caption"], record.rights) == (
        ("a.jpg",),
        "A kylix.",
        {"licence": "CC BY"},
    )
    [record], _ = read(tmp_path, "file_name,text\na.jpg,A kylix.\n", "metadata.csv")
    assert (record.images, record.attributes["caption"]) == (("a.jpg",), "A kylix.")


def test_conversations_in_parts_and_as_query_and_response_are_read(tmp_path: Path) -> None:
    parts = [{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "Which shape?"}]
    rows = [
        {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "Kylix."}]},
        {"images": ["a.jpg"], "system": "Be short.", "query": "When?", "response": "500 BCE", "history": [["A?", "B"]]},
    ]
    records, problems = read(tmp_path, json.dumps(rows), "a.json")
    assert problems == []
    assert records[0].turns == (("user", "<image>Which shape?"), ("assistant", "Kylix."))
    assert records[0].images == ("a.jpg",)
    assert [role for role, _ in records[1].turns] == ["system", "user", "assistant", "user", "assistant"]


@pytest.mark.parametrize(
    ("data", "name", "kind", "where", "kept"),
    [
        (COMMA.replace("kylix", '"kylix'), "a.csv", "lone quote", "a.csv, line 3", 2),
        (COMMA.replace("hydria", '"hydria'), "a.csv", "lone quote", "a.csv, line 4", 2),
        (f"[\n{json.dumps(OBJECTS[0])},\n" + '{"vase_id": "x",\n"shape": "a",\n"shape": "b"}]', "a.json",
         "key given twice", "a.json, line 5", 1),
        (f"[\n{json.dumps(OBJECTS[0])},\n" + '{"vase_id": "x", "shape": "a", "date": NaN}]', "a.json",
         "not a JSON value", "a.json, line 3", 2),
        ("Our vases\n\n" + COMMA, "a.csv", "line before the headings", "a.csv, line 1", 3),
        (COMMA.replace("kylix", "Gefäß").encode("cp1252"), "a.csv", "encoding guessed", "a.csv", 3),
        (json.dumps(OBJECTS[0]) + "\n" + "[" * 3000 + "\n", "a.json", "broken JSON", "a.json, line 2", 1),
        ("vase_id,shape," + ",".join(map(str, range(200_000))) + "\n", "a.csv", "unreadable file", "a.csv", 0),
        ('[{"vase_id": "a", "shape":' + "[" * 3000 + "]" * 3000 + "}]", "a.json", "unreadable file", "a.json", 0),
        (b"\xd0\xcf\x11\xe0", "a.csv", "unreadable file", "a.csv", 0),
        (gzip.compress(COMMA.encode())[:40], "a.csv.gz", "unreadable file", "a.csv.gz", 0),
    ],
)  # fmt: skip
def test_problems_are_reported_with_their_line(
    data: bytes | str, name: str, kind: str, where: str, kept: int, tmp_path: Path
) -> None:
    records, problems = read(tmp_path, data, name)
    assert [(one.kind, one.where) for one in problems] == [(kind, where)]
    assert len(records) == kept


def test_a_quoted_text_may_have_several_lines(tmp_path: Path) -> None:
    records, problems = read(tmp_path, table([*HEAD, "caption"], [[*ROWS[0], 'One,\ntwo "three"\nfour, five']]))
    assert problems == []
    assert records[0].attributes["caption"] == 'One, two "three" four, five'


def test_headings_in_german_and_of_the_beazley_archive_are_read(tmp_path: Path) -> None:
    text = "Inv.-Nr.;Gattung;Technik;Form;Fundort;Datierung;Höhe (cm);Maler\n7;Attisch;rf;Kylix;Vulci;500;32,5;Duris\n"
    columns = Columns()
    [record], _ = read(tmp_path, text, columns=columns)
    assert record.vase == "7"
    assert set(record.attributes) == {"fabric", "technique", "shape", "provenance", "date", "attribution"}
    assert list(columns.unused) == ["Höhe (cm)"]
    text = "Vase Number,Technique,Sub Technique,Attributed To\n7,BLACK-FIGURE,WHITE GROUND,LYDOS\n"
    [record], _ = read(tmp_path, text)
    assert dict(record.attributes) == {"technique": "BLACK-FIGURE, WHITE GROUND", "attribution": "LYDOS"}


def test_the_metropolitan_museums_headings_are_suggested_then_mapped(tmp_path: Path) -> None:
    text = "Object Number,Is Public Domain,Object Name,Object Date,Credit Line\n06.1,True,Kylix,500 BCE,Rogers Fund\n"
    columns = Columns()
    [record], _ = read(tmp_path, text, columns=columns)
    assert record.rights == {"licence": "public domain", "credit_line": "Rogers Fund"}
    assert any("'Object Name'" in note and 'shape="Object Name"' in note for note in columns.notes())
    [record], _ = read(tmp_path, text, columns=Columns(read_columns(['shape="Object Name"'])))
    assert dict(record.attributes) == {"shape": "Kylix", "date": "500 BCE"}
    _, [problem] = read(tmp_path, "Objekt,Titel\n1,Kylix\n")
    assert "'Objekt', 'Titel'" in problem.what
    assert 'vase_id="Objekt",shape="Titel"' in problem.what


def test_missing_columns_and_records_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no table has the column 'Name'"):
        read(tmp_path, COMMA, columns=Columns({"shape": "Name"}))
    with pytest.raises(ConfigError, match=r"no key 'recrods'.*Did you mean 'records'"):
        read(tmp_path, json.dumps({"records": OBJECTS}), "a.json", records="recrods")
    _, [problem] = read(tmp_path, json.dumps({"one": OBJECTS, "two": OBJECTS}), "a.json")
    assert "several lists (one, two)" in problem.what
    for wrong in ("shap=Name", "shape", 'shape=""', "shape=A,shape=B"):
        with pytest.raises(ConfigError, match="columns: "):
            read_columns([wrong])


def test_columns_on_the_command_line_are_read_correctly() -> None:
    given = ("shape=\"Name, long\",date='Object Date'", 'fabric="So-called ""ware"""')
    params = validate(BuildParams, {"columns": given})
    assert params.columns == {"shape": "Name, long", "date": "Object Date", "fabric": 'So-called "ware"'}
    words = argv(build_dataset.STAGE, params, build_dataset.BuildOptions(), {}, "out")
    [word] = [word for word in words if word.startswith("--columns=")]
    assert validate(BuildParams, {"columns": (word.removeprefix("--columns="),)}) == params


def test_the_attribute_of_a_question_is_recognised() -> None:
    asked = {"provenance": ("From which grave?",)}
    assert attribute_of("<image>From which  grave", asked) == "provenance"
    assert attribute_of("<image>Which shape has this vessel?", asked) == "shape"
    assert attribute_of("When was this vase made?", asked) == "date"
    assert attribute_of("What are its date and shape?", asked) == ""
    assert attribute_of("What is this?", asked) == ""


def test_columns_as_json_are_checked_like_other_columns() -> None:
    with pytest.raises(ConfigError, match="there is no field 'shap'"):
        BuildParams(columns='{"shap": "Object Name"}')


def test_two_possible_lists_of_records_are_refused(tmp_path: Path) -> None:
    text = json.dumps({"items": OBJECTS, "results": OBJECTS[:1]})
    _, [problem] = read(tmp_path, text, "a.json")
    assert problem.what == "it holds several lists (items, results); choose one with --records"
    records, problems = read(tmp_path, text, "a.json", records="results")
    assert (len(records), problems) == (1, [])


@pytest.mark.parametrize("between", ["\n", "\n\n", " "])
def test_the_named_list_is_read_from_each_json_text(between: str, tmp_path: Path) -> None:
    pages = between.join(json.dumps({"page": number, "data": [row]}) for number, row in enumerate(OBJECTS))
    for name in ("a.json", "a.jsonl") if "\n" in between else ("a.json",):
        records, problems = read(tmp_path, pages, name, records="data")
        assert ([record.vase for record in records], problems) == ([row["vase_id"] for row in OBJECTS], [])


def test_whole_numbers_have_no_decimal_point(tmp_path: Path) -> None:
    rows = [{"vase_id": 10023.0, "shape": "kylix", "date": -450.0, "caption": [480.0, "or later"]}]
    [record], _ = read(tmp_path, json.dumps(rows), "a.json")
    assert (record.vase, record.attributes["date"], record.attributes["caption"]) == ("10023", "-450", "480, or later")


@pytest.mark.parametrize("written", ["-", "\u2014", "n/a", "unknown", "  "])
def test_a_placeholder_is_not_read_as_a_vase(written: str, tmp_path: Path) -> None:
    [record], _ = read(tmp_path, json.dumps([{"vase_id": written, "id": "B 12", "shape": "kylix"}]), "a.json")
    assert record.vase == "b 12"
    _, [problem] = read(tmp_path, json.dumps([{"vase_id": written, "shape": "kylix"}]), "a.json")
    assert problem.kind == "row without an image"


def test_a_second_system_turn_is_reported_or_not_added(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "Which shape?"}, {"from": "gpt", "value": "a kylix"}]
    system = {"from": "system", "value": "You are a curator."}
    rows = [{"image": "a.jpg", "system": "Be short.", "conversations": [system, *talk]}]
    [record], problems = read(tmp_path, json.dumps(rows), "a.json")
    assert ([role for role, _ in record.turns], problems) == (["system", "user", "assistant"], [])
    _, problems = read(tmp_path, json.dumps([{"image": "a.jpg", "conversations": [*talk, system, *talk]}]), "a.json")
    assert "a system turn after the first turn" in problems[0].what


def test_only_entries_without_a_record_are_counted_as_unread(tmp_path: Path) -> None:
    rows = [
        {"vase_id": "1", "shape": "kylix", "date": {"from": 1}, "fabric": "<image>"},  # a record with two broken values
        {"vase_id": "2", "shape": {"name": "kylix"}, "conversations": "none"},  # no record, three problems
        ["no object"],
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    told = read_annotations(tmp_path / "a.json")
    assert (len(told.records), told.unread) == (1, 2)
    assert [problem.kind for problem in told.problems].count("broken value") == 3


def test_names_that_utf8_cannot_encode_are_printed_with_escapes(tmp_path: Path) -> None:
    folder = tmp_path / "annotations"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.json")).write_text("{")
    (folder / "b.json").write_text('[{"\\ud800": 1, "b": 2}]')
    (folder / "c.json").write_text('{"\\ud800": 1, "\\ud800": 2}')
    told = read_annotations(folder)
    texts = [f"{problem.where} {problem.what}" for problem in told.problems]
    assert len(texts) >= 3
    assert "".join(texts).encode()
    assert any("caf\\udce9.json" in text for text in texts)


def test_a_workbook_with_a_damaged_part_is_reported_in_one_sentence(tmp_path: Path) -> None:
    data = bytearray(workbook(one=[HEAD, *ROWS]))
    at = data.index(b"xl/workbook.xml") + len(b"xl/workbook.xml")
    data[at : at + 200] = bytes(200)
    _, [problem] = read(tmp_path, bytes(data), "a.xlsx")
    assert problem.kind == "unreadable file"
    assert "workbook" in problem.what or "packed" in problem.what


def test_problems_in_a_long_list_have_the_right_lines(tmp_path: Path) -> None:
    entries = [f'{{"vase_id": "{number}", "shape": NaN}}' for number in range(50)]
    _, problems = read(tmp_path, "[\n" + ",\n".join(entries) + "\n]", "a.json")
    lines = [problem.where for problem in problems if problem.kind == "not a JSON value"]
    assert lines == [f"a.json, line {number}" for number in range(2, 52)]
