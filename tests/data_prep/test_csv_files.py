import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.csv_files import csv_line, csv_text, read_csv, read_rows, read_written, write_csv
from data_prep.errors import UserError

# What a UTF-8 file can hold, but for zero bytes.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NASTY = st.text(st.sampled_from("'=+-@\t\r\n,;\" a1"), max_size=8)
TABLES = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(TEXT | NASTY, min_size=width, max_size=width), min_size=1, max_size=5
    )
)


@settings(max_examples=300, deadline=None)
@given(rows=TABLES)
def test_any_text_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    file = tmp_path_factory.getbasetemp() / "round.csv"
    header = [f"column {number}" for number in range(len(rows[0]))]
    write_csv(file, [header, *rows])
    assert read_written(file) == (header, rows)


@settings(max_examples=300, deadline=None)
@given(text=TEXT | NASTY)
def test_no_cell_begins_like_a_formula(text: str) -> None:
    # Read by another program, with any of the separators that spreadsheets take.
    line = csv_line([text, "x"])
    ((cell, _),) = csv.reader(io.StringIO(line, newline=""))
    start = cell.lstrip(" ")
    if start[:1] in tuple("=+-@\t\r\n"):
        float(cell)  # a number, which is harmless
    assert len(next(csv.reader(io.StringIO(line, newline=""), delimiter=";"))) == 1


@pytest.mark.parametrize("text", ["-0.5", "+1", "-1e-05", "-inf", "-nan", "1.5", "-7"])
def test_numbers_stay_numbers(text: str) -> None:
    assert csv_line([text, float(text)]).startswith(f"{text},")


def test_formulas_are_protected() -> None:
    written = csv_text([["=1+1", "@x", "-x", "a=b", "'=1", None, -0.5, True]])
    assert written == "'=1+1,'@x,'-x,a=b,''=1,,-0.5,True\n"


def read(tmp_path: Path, content: str | bytes, **options: object):
    file = tmp_path / "list.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_csv(file, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [
        "path,label\na.png,q\nb.png,f\n",
        "path;label\na.png;q\nb.png;f\n",
        "path\tlabel\r\na.png\tq\r\nb.png\tf\r\n",
        "path,label\ra.png,q\rb.png,f",
        "sep=;\r\npath;label\r\na.png;q\r\nb.png;f\r\n",
        '"sep=\t"\npath\tlabel\na.png\tq\nb.png\tf\n',
        "\n\npath,label,,\n\na.png,q,,\n\nb.png,f,,\n,,,\n",
        "\ufeffpath,label\na.png,q\nb.png,f\n",
        "path,label\na.png,q\nb.png,f\n".encode("utf-16"),
        "\ufeffpath,label\na.png,q\nb.png,f\n".encode("utf-16-be"),
        "path,label\na.png,q\nb.png,f\n".encode("utf-16-le"),
        "\ufeffPATH\u00a0, Label\u200b\n'a.png,q\nb.png,f\n".replace("'", ""),
    ],
)
def test_tables_of_all_programs_are_read(tmp_path: Path, content: str | bytes) -> None:
    table = read(tmp_path, content)
    assert table.texts("path") == ["a.png", "b.png"]
    assert table.texts("label") == ["q", "f"]
    assert table.texts("split") is None


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    table = read(tmp_path, 'sep=,\npath,note\n\na.png,"two\nlines"\nb.png,x\n')
    assert table.lines == [4, 6]
    assert table.texts("note") == ["two\nlines", "x"]
    assert table.place(1).endswith("list.csv, line 6")


def test_a_line_without_any_value_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read(tmp_path, "path,label\na.png,q\n,\n").texts("path") == ["a.png"]
    assert "1 lines without any value are left out (line 3)" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file;label\n", ""),
        ("picture,label\na.png,q\n", "needs a column 'path' .*its first line is 'picture,label'"),
        (
            "path,label\na.png\n",
            "line 2: has 1 cell, the first line 2; add what is missing, or ','",
        ),
        ("path,label\na.png,q, r\n", "line 2: has 3 cells, the first line 2; put .* quotation"),
        ('path,label\nb.png,q\na.png,"q\nb.png,f\n', "line 3: .* a quotation mark is not closed"),
        ('path,label\na.png,"q"r\n', "line 2: .* not doubled"),
        ("path,label\na.png,sch\u00f6n\n".encode("latin-1"), "line 2: .* UTF-8 .*0xf6.*save it as"),
        (b"PK\x03\x04....", "is a spreadsheet, not a CSV file; save it as"),
        ("path,label\na\0.png,q\n", "line 2: .*zero byte"),
        ("", "needs a column 'path'"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    if not message:
        assert read(tmp_path, content).rows == []
        return
    with pytest.raises(UserError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize(
    "header", ["path,label,label", "path,label,Label", "path,label,label\u200b"]
)
def test_two_columns_of_one_name_are_refused(tmp_path: Path, header: str) -> None:
    table = read(tmp_path, f"{header}\na.png,q,f\n")
    with pytest.raises(UserError, match=r"line 1: there are 2 columns 'label' .*2. and 3..*rename"):
        table.texts("label")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--join=.*: not found"):
        read_csv(tmp_path / "none.csv", source="--join=none.csv")


def test_own_files_keep_titles_that_differ_by_case(tmp_path: Path) -> None:
    file = tmp_path / "predictions.csv"
    write_csv(file, [["path", "score_Q", "score_q"], ["=a", 0.25, -1.0], ["", "", ""]])
    assert read_rows(file) == [
        {"path": "=a", "score_Q": "0.25", "score_q": "-1.0"},
        {"path": "", "score_Q": "", "score_q": ""},
    ]
