"""Tables as csv files that read back the same."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfpi.results.recorded.csv_files import CsvError, read_csv, read_header, write_csv, write_rows
from nfpi.runtime.files import write_atomically

COLUMNS = {"name": "str", "value": "float64", "count": "Int64", "index": "int64", "best": "bool"}
ROWS = [
    {"name": 'NA, "quoted"', "value": 1 / 3, "count": 3, "index": 0, "best": True},
    {"name": "null", "value": math.nan, "count": None, "index": -1, "best": False},
    {"name": "", "value": 1e-7, "count": 0, "index": 2, "best": False},
]


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS).astype(COLUMNS)


def test_a_table_is_read_back_with_its_types(frame, tmp_path):
    write_csv(frame, tmp_path / "table.csv")
    pd.testing.assert_frame_equal(read_csv(tmp_path / "table.csv", COLUMNS), frame, check_exact=True)
    assert read_header(tmp_path / "table.csv") == list(COLUMNS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,value\na,1\n", "expected column count"),
        ("name,value,count,index,best\na,1,1,x,True\n", "column index"),
        ("name,value,count,index,best\na,1,1,1,yes\n", "column best"),
        ("name,value,count,index,best\na,nan,1,1,True\n", "column value"),
        ("name,value,count,index,best\na,1e999,1,1,True\n", "column value"),
        ("name,value,count,index,best\na,1,1,1\n", "cells in each row"),
        ('name,value\n"a,1\n', "expected a table"),
        (b"seconds\n\x00\xff\n", "expected a table"),
        ("", "expected a table"),
    ],
)
def test_another_table_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "table.csv"
    write_atomically(path, text)
    with pytest.raises(CsvError, match=message) as error:
        read_csv(path, COLUMNS)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_are_written_as_a_table_is(tmp_path):
    write_csv(pd.DataFrame(ROWS).astype(COLUMNS), tmp_path / "table.csv")
    write_rows(tmp_path / "rows.csv", list(COLUMNS), ROWS)
    assert (tmp_path / "rows.csv").read_bytes() == (tmp_path / "table.csv").read_bytes()
    write_rows(tmp_path / "rows.csv", list(COLUMNS), [])
    assert (tmp_path / "rows.csv").read_text() == ",".join(COLUMNS) + "\n"


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_every_float_is_read_back(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    write_rows(path, ["x"], [{"x": value} for value in values])
    assert read_csv(path, {"x": "float64"})["x"].tolist() == values
    assert path.read_text() == pd.DataFrame({"x": values}).to_csv(index=False, lineterminator="\n")


def test_no_spreadsheet_computes_a_label(tmp_path):
    frame = pd.DataFrame({"label": ["=cmd|' /C calc'!A0", "@SUM(1)", "λ = 0", "-9"], "value": [-1.0, 2.0, 3.0, 4.0]})
    write_csv(frame, tmp_path / "table.csv")
    shown = pd.read_csv(tmp_path / "table.csv")
    assert shown["label"].tolist() == ["'=cmd|' /C calc'!A0", "'@SUM(1)", "λ = 0", "'-9"]
    assert shown["value"].tolist() == frame["value"].tolist()
