"""What others have named can neither move the cursor nor forge a line, and what went wrong is told in lines of our own."""

from io import StringIO

import pytest

from opsd.cli import output
from opsd.cli.options import answer
from opsd.errors import ConfigurationError, RestoreError

EVIL = "a\x1b[2J\x1b[31mb\r\nopsd: all is well\x9b"
HARMLESS = r"a\x1b[2J\x1b[31mb\r\nopsd: all is well\x9b"


@pytest.mark.parametrize("text", [output.plain(EVIL), output.quoted(EVIL.encode()), output.paint(EVIL, "red")])
def test_names_are_escaped(text: str) -> None:
    assert text == HARMLESS


def test_a_line_keeps_our_colours_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    output.line("\x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07\nx")
    # click takes colours away where no terminal is.
    assert capsys.readouterr().out == "red " + r"\x1b[2J\x1b]0;title\x07\nx" + "\n"
    assert output.printable("\x1b[31mred\x1b[0m") == "\x1b[31mred\x1b[0m"


def test_a_note_and_an_error_keep_not_even_colours(capsys: pytest.CaptureFixture[str]) -> None:
    output.note(EVIL)
    output.error(RestoreError(EVIL, hint="look\nhere"))
    assert capsys.readouterr().err.splitlines() == [HARMLESS, f"opsd: {HARMLESS}", r"      look\nhere"]


def test_a_long_hint_is_broken_between_words_and_never_within_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    command = "'opsd restore latest --from disk --to /mnt/new'"
    output.problem("it is gone", f"is the disk mounted, the path right? nothing was written; {command} reads a copy")
    _, first, *rest = capsys.readouterr().err.splitlines()
    assert first == "      is the disk mounted, the path right? nothing was written;"
    assert rest == [f"      {command} reads a copy"]


def test_the_end_of_input_at_a_question_stops_as_ctrl_c_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO(""))
    with pytest.raises(KeyboardInterrupt):
        answer("The name of this host")


def test_each_mistake_of_a_configuration_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.error(ConfigurationError(("one", "two"), hint="see the example"))
    assert capsys.readouterr().err.splitlines() == ["opsd: one", "opsd: two", "      see the example"]
