"""Modified UTF-7: any name can be written, and read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.deliver.spelling import from_modified_utf7, modified_utf7


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_modified_utf7_can_be_read_back(text: str) -> None:
    """Python's decoder of UTF-7, given the two differences, reads what we write."""
    coded = modified_utf7(text)
    outside = [part.partition("-") for part in coded.split("&")[1:]]
    read = coded.split("&")[0].encode()
    for inside, _, after in outside:
        # in UTF-7 the shift is "+", "+" itself is "+-", and "/" is not replaced by ","
        run = f"+{inside.replace(',', '/')}-".encode().decode("utf-7") if inside else "&"
        read += (run + after).encode()
    assert read.decode() == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_modified_utf7_comes_back(text: str) -> None:
    """A folder's name on the disk is shown as its user wrote it."""
    assert from_modified_utf7(modified_utf7(text)) == text


@pytest.mark.parametrize("text", ["&", "a&b", "&A-", "&2AA-", "&AAAA", "&!-", "&=-"])
def test_broken_modified_utf7_stays(text: str) -> None:
    """What nobody can read is shown as it is."""
    assert from_modified_utf7(text) == text
