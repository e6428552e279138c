"""The list of what is refused names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.attacks.credentials import CREDENTIALS, Refused

TESTS = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("refused", [pytest.param(each, id=each.what) for each in CREDENTIALS])
def test_a_line_of_the_list_is_a_test(refused: Refused) -> None:
    path, _, name = refused.test.partition("::")
    text = (TESTS / path).read_text("utf-8")
    assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE)
    # The code that the list promises is one that the test looks for, here or in a helper.
    for code in re.findall(r"`([a-z_]+)`", refused.answer):
        assert code in text or code == "unauthorized"
