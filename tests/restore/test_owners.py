"""Owners go by name, then by number; ACLs name the same people as before."""

import os
import pwd

from opsd.restore.owners import Owners
from tests.restore.conftest import ACL, NO_ID, USER, acl

ME = pwd.getpwuid(os.geteuid())


def test_a_name_that_is_known_here_decides() -> None:
    owners = Owners(numeric=False)
    assert owners.user(54321, {54321: os.fsencode(ME.pw_name)}) == ME.pw_uid
    assert owners.group(54321, {}) == 54321


def test_a_name_that_is_unknown_or_none_keeps_its_number() -> None:
    owners = Owners(numeric=False)
    assert [owners.user(7, {7: name}) for name in (b"no-such-user", b"\xff\xfe", b"nul\0", b"")] == [7, 7, 7, 7]


def test_numbers_alone_count_when_asked_for() -> None:
    assert Owners(numeric=True).user(54321, {54321: os.fsencode(ME.pw_name)}) == 54321


def test_one_number_with_two_names_in_two_hunks_is_two_owners() -> None:
    owners = Owners(numeric=False)
    assert owners.user(54321, {54321: b"no-such-user"}) == 54321
    assert owners.user(54321, {54321: os.fsencode(ME.pw_name)}) == ME.pw_uid


def test_people_named_in_an_acl_go_by_name_too() -> None:
    owners = Owners(numeric=False)
    names = {1234: os.fsencode(ME.pw_name), NO_ID: b"root"}
    found = owners.acl(ACL, names, names)
    assert found == ACL.replace(acl((USER, 4, 1234))[4:], acl((USER, 4, ME.pw_uid))[4:])
    assert Owners(numeric=True).acl(ACL, names, names) == ACL


def test_an_acl_of_an_unknown_form_stays_as_it_is() -> None:
    assert Owners(numeric=False).acl(b"odd", {}, {}) == b"odd"
