"""predictions.csv: the output of classify can be read, and an error names the row."""

from __future__ import annotations

from pathlib import Path

import pytest

from vasevqa.curation import predictions
from vasevqa.curation.predictions import Prediction
from vasevqa.errors import DataError


def test_written_predictions_can_be_read(tmp_path: Path) -> None:
    given = [Prediction("a,b.jpg", 1, 0.75), Prediction('c"\n.jpg', 0, 0.125), Prediction("ä.jpg", 1)]
    with open(tmp_path / predictions.FILE, "w", encoding="utf-8") as stream:
        predictions.write(stream, given)
    assert list(predictions.read(tmp_path)) == given
    assert list(predictions.read(tmp_path / "elsewhere")) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("path,probability,class\nvase_ä.jpg,0.5,1\n".encode("cp1252"), "not UTF-8 text"),
        (b'path,probability,class\na.jpg,"0,5",1\n', "row 1: could not convert string to float: '0,5'"),
        (b"path;probability;class\na.jpg;0,5;1\n", "row 1 has no 'probability'"),
        (b"path,class\na.jpg,1\n", "row 1 has no 'probability'"),
        (b"path,probability,class\na.jpg,0.5,1\nb.jpg,0.5\n", "row 2 has no 'class'"),
        (b"path,probability,class\na.jpg,0.5,high\n", "row 1: the class is 'high', neither 0 nor 1"),
        (b"path,probability,class\n" + b"a" * 200_000 + b",0.5,1\n", "field larger than field limit"),
    ],
)
def test_an_invalid_predictions_file_is_reported_in_one_sentence(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / predictions.FILE).write_bytes(content)
    with pytest.raises(DataError) as error:
        list(predictions.read(tmp_path))
    assert says in str(error.value)
    assert str(tmp_path / predictions.FILE) in str(error.value)
    assert "run classify again" in str(error.value)
