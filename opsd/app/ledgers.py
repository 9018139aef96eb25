"""Show, sign, verify and mend the ledger of this host, and verify one that was exported elsewhere.

Promise: an export that verifies has every entry as it was written, in order, none put in between and none cut from its end.
"""

from collections.abc import Sequence
from dataclasses import field
from datetime import UTC

from opsd.app.recording import draft
from opsd.app.session import Session
from opsd.app.vouching import Vouched, vouched
from opsd.clock import local
from opsd.errors import IntegrityError, KeyMissing
from opsd.monitor.ledger import (
    ACCEPTED,
    BadLine,
    Entry,
    Gap,
    Review,
    disagreement,
    parse,
    review,
    signature_of,
    signed_head,
)
from opsd.monitor.ledger_file import LedgerFile
from opsd.repository.local import HostState
from opsd.repository.opening import repository_id
from opsd.repository.signing import PublicKey, SigningKey
from opsd.repository.witness import Witness
from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a verification found. `problems`: altered, missing or unsigned; `notices`: gaps that a person has accepted.

    `vouchers` are who vouches for a head of it, `signed` when it was signed (ISO 8601).
    """

    entries: tuple[Entry, ...]
    problems: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    vouchers: tuple[str, ...] = ()
    signed: str | None = None

    @property
    def exit_code(self) -> int:
        """4 where there is a problem, 3 where something that is missing was accepted."""
        return 4 if self.problems else 3 if self.notices else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Findings:
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def read(session: Session) -> Review:
    """The ledger of this host, checked by itself."""
    return review(LedgerFile(session.settings.state).lines())


def signing_key(session: Session) -> SigningKey:
    """The key with which this host signs.

    Raises:
        KeyMissing: it has none: it never wrote to the repository, or only pulls.
    """
    hint = "a host that only pulls has none; elsewhere 'opsd key enrol' makes one"
    if session.settings.repository:
        ring = HostState(session.settings.state).read_keys(repository_id(session.store))
        key = ring and (ring.writer or ring.maintainer)
        if key:
            return key
    raise KeyMissing("this host has no key to sign with", hint=hint)


def export(session: Session) -> tuple[bytes, ...]:
    """The lines of the ledger as they stand, the last with a signed head.

    Raises:
        KeyMissing: nothing to sign with. IntegrityError: there is nothing, or no last entry that could be signed.
    """
    *lines, last = LedgerFile(session.settings.state).lines() or (b"",)
    try:
        line = parse(last)
    except BadLine:
        line = None
    if line is None or not line.is_whole:
        raise IntegrityError("the ledger has no last entry that could be signed", hint="see 'opsd ledger verify'")
    key = signing_key(session)
    time = local(session.clock.now(), UTC).isoformat(timespec="microseconds")
    signed = signed_head(line.entry.head, time, key.sign, key.public().id)
    return (*lines, line.entry.line(signed_head=signed))


def verify_own(session: Session, *, elsewhere: bool = True) -> Verdict:
    """The chain, against what this host remembers; with `elsewhere`, what the newest snapshots here and in every copy vouch for as well."""
    ledger = LedgerFile(session.settings.state)
    # Heads first: what is appended meanwhile is more than they know, never less.
    own = Vouched(place="the state folder", snapshot="", head=ledger.remembered())
    heads = [own] if own.head.number else []
    heads += vouched(session) if elsewhere else []
    found = review(ledger.lines())
    findings = _findings(found)
    findings.problems.extend(_disagreements(found, heads))
    if torn := ledger.torn():
        findings.notices.append(f"the last entry was not finished ({torn} bytes); the next one says so")
    return _verdict(found, findings, vouchers=tuple(dict.fromkeys(each.place for each in heads)))


def verify_export(content: bytes, keys: Sequence[PublicKey]) -> Verdict:
    """An exported ledger, by its lines and the signature at its end alone; the newline at the very end may have got lost."""
    findings = _Findings()
    found = review(content.removesuffix(b"\n").split(b"\n") if content else ())
    chain = _findings(found)
    findings.problems.extend(chain.problems)
    findings.notices.extend(chain.notices)
    signed = None
    if found.signed is None:
        findings.problems.append("the last line has no signed head: it is no whole export, or was cut")
    else:
        try:
            identity, message, signature = signature_of(found.signed, found.head)
            key = next((key for key in keys if key.id == identity), None)
            if key is None:
                findings.problems.append(f"it was signed with another key, {identity.hex()}")
            elif not key.verify(message, signature):
                findings.problems.append("the signature does not hold")
            else:
                signed = str(found.signed["time"])
        except BadLine as error:
            findings.problems.append(str(error))
    return _verdict(found, findings, signed=signed)


def known_keys(session: Session) -> tuple[PublicKey, ...]:
    """The keys of everybody who writes to the configured repository."""
    ring = HostState(session.settings.state).read_keys(repository_id(session.store))
    settings = Witness.of(session.store, ring.owner_public.id if ring else b"").settings
    return tuple(each.key for each in (*settings.writers, *settings.maintainers))


def accept(session: Session, reason: str) -> tuple[Gap, ...]:
    """State that a person knows why entries are missing; what is damaged is put aside first. Returns what was missing."""
    entry = draft(session, ACCEPTED, reason=reason)
    return LedgerFile(session.settings.state).accept(entry, lambda: [each.head for each in vouched(session)])


def _verdict(
    found: Review, findings: _Findings, *, vouchers: tuple[str, ...] = (), signed: str | None = None
) -> Verdict:
    return Verdict(
        entries=found.entries,
        problems=tuple(findings.problems),
        notices=tuple(findings.notices),
        vouchers=vouchers,
        signed=signed,
    )


def _findings(found: Review) -> _Findings:
    """What the lines alone tell."""
    findings = _Findings(problems=list(found.faults))
    for gap in found.gaps:
        missing = f"{gap} {'is' if gap.first == gap.last else 'are'} missing"
        if gap.accepted:
            when, by = gap.accepted.time[:16].replace("T", " "), gap.accepted.who.login
            findings.notices.append(f"{missing}; {by} accepted that on {when} UTC: {gap.accepted.reason}")
        elif gap.rebuilt:
            findings.problems.append(
                f"{missing}: the file was cut, edited or lost before {gap.rebuilt.time[:16].replace('T', ' ')} UTC"
            )
        elif not all(number in found.numbers for number in range(gap.first, gap.last + 1)):
            findings.problems.append(f"{missing}, and no entry says why")
    return findings


def _disagreements(found: Review, heads: Sequence[Vouched]) -> list[str]:
    """Where the chain parts from what others vouch for: how far it was cut, and the first entry that is another."""
    told = [(each, text) for each in heads if (text := disagreement(found, each.head))]
    cut = max((pair for pair in told if pair[0].head.number > found.head.number), key=_number, default=None)
    other = min((pair for pair in told if pair[0].head.number <= found.head.number), key=_number, default=None)
    return [
        f"{text}: {_voucher(each)} vouches for entry {each.head.number}" for each, text in filter(None, (cut, other))
    ]


def _number(pair: tuple[Vouched, str]) -> int:
    return pair[0].head.number


def _voucher(each: Vouched) -> str:
    return f"snapshot {each.snapshot[:8]} in {each.place}" if each.snapshot else each.place
