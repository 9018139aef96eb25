"""The alert rules, their promtool tests, and rules that are broken on purpose."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parents[2] / "config/prometheus"

Rule = Mapping[str, Any]


@cache
def rules() -> dict[str, Rule]:
    """All rules by the name of their alert."""
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


@cache
def cases() -> dict[str, Any]:
    """The promtool tests."""
    read: dict[str, Any] = yaml.safe_load((FOLDER / "rules.test.yml").read_text(encoding="utf-8"))
    return read


def alert_of(case: Mapping[str, Any]) -> str:
    """The one alert that a case is about."""
    (alert,) = {each["alertname"] for each in case["alert_rule_test"]}
    return str(alert)


def passing(folder: Path, variants: Mapping[str, Rule]) -> set[str]:
    """The names of those variants of rules whose tests all pass; each is run alone, with the tests of its alert only.

    The files are JSON, which is YAML too, and written in a tenth of the time.
    """
    files = {}
    for name, rule in variants.items():
        own = folder / f"{name}.rules.yml"
        own.write_text(json.dumps({"groups": [{"name": "one", "rules": [dict(rule)]}]}))
        tests = [case for case in cases()["tests"] if alert_of(case) == rule["alert"]]
        test = folder / f"{name}.test.yml"
        test.write_text(json.dumps(cases() | {"rule_files": [own.name], "tests": tests}))
        files[str(test)] = name
    done = subprocess.run(["promtool", "test", "rules", *files], capture_output=True, text=True, check=False)
    verdicts = re.split(r"^Unit Testing: +", done.stdout, flags=re.MULTILINE)[1:]
    assert len(verdicts) == len(files), done.stderr
    return {files[told.split("\n", 1)[0]] for told in verdicts if re.search(r"^ *SUCCESS$", told, re.MULTILINE)}


_OPERATORS: Final = {" > ": " < ", " < ": " > ", " == ": " != ", " != ": " == ", ") / ": ") * "}


def broken(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """Each way to break a rule: never, always, another comparison, number, label, time to wait, a condition less."""
    expression = " ".join(rule["expr"].split())
    yield "never", {**rule, "expr": f"({expression}) < -Inf"}
    for found in re.finditer(r" (>|<|==|!=) ", expression):
        begin, end = found.span()
        yield f"at-{begin}-turned", {**rule, "expr": expression[:begin] + _OPERATORS[found[0]] + expression[end:]}
    for found in re.finditer(r"(?<![\w.\[])\d+(\.\d+)?(?![\w.\]])", expression):
        for what, other in (("more", f"({found[0]} * 1.5 + 1)"), ("less", f"({found[0]} / 1.5 - 1)")):
            begin, end = found.span()
            yield f"at-{begin}-{what}", {**rule, "expr": expression[:begin] + other + expression[end:]}
    for found in re.finditer(r"\{[^}]*\}", expression):
        begin, end = found.span()
        yield f"at-{begin}-any", {**rule, "expr": expression[:begin] + expression[end:]}
    parts = expression.split(" and ")
    for number in range(len(parts)) if len(parts) > 1 else ():
        rest = [part for other, part in enumerate(parts) if other != number]
        yield f"without-{number}", {**rule, "expr": re.sub(r"^on \([^)]*\) ", "", " and ".join(rest))}
    if "for" in rule:
        yield "at-once", {key: value for key, value in rule.items() if key != "for"}
        yield "later", {**rule, "for": re.sub(r"\d+", lambda found: str(int(found[0]) + 1), rule["for"])}
