"""`opsd init`: the repository, and its recovery kit on paper."""

from typing import Any

from opsd.app.creating import initialise
from opsd.app.recording import recorded
from opsd.cli import output
from opsd.cli.key_domain import keep_safe
from opsd.cli.options import described, session

_KIT = """
  RECOVERY KIT of repository {repository}

      {first}
      {second}
      {third}

  Print this now and keep it off this machine. It opens the repository when
  passphrase, configuration and host are gone:

      opsd restore --repository URL --kit --to DIR

  Whoever holds it reads everything. It is shown only this once and stored
  nowhere; 'opsd key add --new-kit' makes another.
"""


@described(
    "init",
    "Create the repository that the configuration names and print its recovery kit. The passphrase comes from the configuration, "
    "OPSD_PASSPHRASE_FILE, or is asked for twice.",
    """{"repository": id in hex, "path": text, "host": text, "kit": text}""",
    "opsd init",
    "OPSD_REPOSITORY=/mnt/backup OPSD_STATE=~/.opsd opsd init --json",
)
def command(**given: Any) -> int:
    """Create the repository."""
    with session(given) as (opened, listener):
        with recorded(opened, "init") as record:
            created = initialise(opened)
            identity, kit = created.ring.repository.hex(), created.kit.text()
            code = record.ended(repository=identity)
        settings = opened.settings
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit({"repository": identity, "path": settings.repository, "host": settings.host, "kit": kit})
        return code
    output.line(f"created repository {identity[:16]} in {settings.repository}")
    for each in kit_text(identity, kit).splitlines():
        output.line(each)
    for name, folder in settings.slot_folders.items():
        keep_safe(name, folder)
    output.line("next: opsd backup")
    return code


def kit_text(repository: str, kit: str) -> str:
    """A kit as it is printed."""
    groups = kit.split("-")
    rows = ("-".join(groups[start : start + 4]) for start in (0, 4, 8))
    return _KIT.format(repository=repository[:16], **dict(zip(("first", "second", "third"), rows, strict=True)))
