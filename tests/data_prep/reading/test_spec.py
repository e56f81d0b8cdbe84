import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import UserError
from data_prep.reading.intensity import RULES, parse_intensity
from data_prep.reading.spec import Reading, merge, parse_reading

readings = st.builds(
    Reading,
    page=st.one_of(st.none(), st.integers(0, 99), st.just("stack")),
    axes=st.sampled_from(["", "HW", "HWC", "CHW", "NHW", "NCHW", "WH"]),
    array=st.sampled_from(["", "/a/b c", "1", "SCI"]),
    offset=st.integers(0, 99),
    nan=st.sampled_from(["", "min", "zero", "median"]),
    intensity=st.one_of(st.none(), st.sampled_from(RULES).map(parse_intensity)),
)


@given(reading=readings, raw=st.booleans())
def test_text_form_comes_back(reading: Reading, raw: bool) -> None:
    text = str(reading) + ";shape=5,7,2;dtype=>uint16" * raw
    parsed = parse_reading(text)
    assert parse_reading(str(parsed)) == parsed
    assert parsed.shape == ((5, 7, 2) if raw else ())
    if not raw:
        assert parsed == reading


def test_nothing_declared_is_an_empty_text() -> None:
    assert str(Reading()) == ""
    assert parse_reading("") == Reading()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour=red", "must be one of page, axes"),
        ("page", "with ="),
        ("page=0;page=1", "once"),
        ("page=-1", "must be a number from 0"),
        ("axes=HH", "must be such as"),
        ("axes=HC", "must be such as"),
        ("axes=HWX", "must be such as"),
        ("shape=5,7", "both shape and dtype"),
        ("shape=5,0;dtype=uint8", "whole numbers"),
        ("shape=5,7;dtype=complex64", "must be such as uint8"),
        ("shape=5,7;dtype=O", "must be such as uint8"),
        ("offset=x", "whole number"),
        ("nan=max", "must be one of min"),
        ("intensity=log", "must be one of none"),
    ],
)
def test_bad_readings_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_reading(text)
    assert "\n" not in str(caught.value)


def merged(own: str, declared: str) -> str:
    return str(merge(parse_reading(own), parse_reading(declared)))


def test_records_are_completed_by_what_is_declared() -> None:
    assert merged("", "axes=CHW;nan=min") == "axes=CHW;nan=min"
    assert merged("axes=CHW", "nan=min") == "axes=CHW;nan=min"
    assert merged("nan=min", "nan=min") == "nan=min"
    assert merged("intensity=sqrt", "") == "intensity=sqrt(0,100)"


def test_a_rule_takes_its_limits_from_the_same_rule() -> None:
    known = "intensity=sqrt(0,100)@1,9"
    assert merged("intensity=sqrt@set", known) == known
    for own in ("intensity=sqrt@2,9", "intensity=minmax@set", "intensity=sqrt"):
        with pytest.raises(UserError, match="let them agree"):
            merged(own, known)


def test_contradictions_are_refused() -> None:
    with pytest.raises(UserError, match=r"says axes=CHW, .* axes=HWC"):
        merged("axes=CHW", "axes=HWC")
