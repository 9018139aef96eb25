"""`opsd config`: where each value comes from."""

from tests.support.command_line import Desk


def test_show_tells_for_each_key_which_line_of_which_file_set_it(desk: Desk) -> None:
    desk = desk.configured("a.b: {files: {paths: [/a]}}")
    file = desk.variables()["OPSD_CONFIG"]
    lines = desk.ok("config", "show", "--origin").text.splitlines()
    assert any(line.startswith(f"sources.a.b.files.paths: [/a]  # {file}:") for line in lines)
    assert "retention.keep_daily: 30  # default" in lines
    told = desk.ok("config", "show", "--origin", "--json").json
    assert told["origins"]["sources.a.b.files.paths"].startswith(f"{file}:")
    assert desk.ok("config", "show", "--json").json == {"yaml": told["yaml"]}
