"""Listings: what stood where, in hunks whose borders depend on the folders' own paths.

Promise: an unchanged part of a tree gives the same hunk again, and one path is found without reading all hunks.
docs/format.md, Listings.
"""

import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import msgpack

from opsd.errors import ObjectDamaged
from opsd.model import Content, Entry, EntryType, Folder
from opsd.repository.format import pack_map, unpack_map
from opsd.repository.references import as_content
from opsd.values import dataclass

#: A hunk ends after a folder whose path's CRC is a multiple of `_EVERY` once it holds `_LEAST` entries, and at `_MOST` at the latest.
_LEAST: Final = 128
_MOST: Final = 2048
_EVERY: Final = 4
#: A folder of more entries is written in parts, cut after names whose CRC is a multiple of `_PART_EVERY`.
_PART_EVERY: Final = 512

_TYPES: Final = {int(each): each for each in EntryType}

#: How MessagePack begins an array of an entry's nine items, and of the eight without its name.
_NINE: Final = b"\x99"

PathParts = tuple[bytes, ...]


def path_parts(path: bytes) -> PathParts:
    """A path's parts, which is what folders are ordered by: `/` gives none."""
    return tuple(part for part in path.split(b"/") if part)


def ends_hunk(path: bytes, entries: int) -> bool:
    """Whether a hunk ends after this folder, with so many entries in the hunk by then."""
    return entries >= _MOST or (entries >= _LEAST and zlib.crc32(path) % _EVERY == 0)


def folder_parts(names: Sequence[bytes]) -> list[slice]:
    """Where the list of a folder's names is cut: one slice for most folders, several for a very large one."""
    if len(names) <= _MOST:
        return [slice(0, len(names))]
    cuts = [0]
    for place, name in enumerate(names, 1):
        length = place - cuts[-1]
        if length >= _MOST or (length >= _LEAST and zlib.crc32(name) % _PART_EVERY == 0):
            cuts.append(place)
    if cuts[-1] != len(names):
        cuts.append(len(names))
    return [slice(first, last) for first, last in pairwise(cuts)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HunkPlace:
    """A hunk as the listing's root names it; `files` and `size` are sums over its entries (size in bytes)."""

    path: bytes
    name: bytes
    content: Content
    entries: int
    files: int
    size: int


def encode_entry(entry: Entry) -> list[Any]:
    """An entry as the format's array."""
    more: dict[str, Any] = {}
    if entry.target is not None:
        more["target"] = entry.target
    if entry.xattrs:
        more["xattrs"] = dict(entry.xattrs)
    if entry.link is not None:
        more["link"] = entry.link
    if entry.extents is not None:
        more["extents"] = [list(extent) for extent in entry.extents]
    if entry.device is not None:
        more["device"] = list(entry.device)
    if entry.pages is not None:
        more["pages"] = entry.pages
    if entry.changed:
        more["changed"] = True
    head = [entry.name, int(entry.type), entry.mode, entry.uid, entry.gid, entry.mtime, entry.size]
    return [*head, entry.content, more or None]


def decode_entry(value: Sequence[Any]) -> Entry:
    """An entry from the format's array; TypeError, ValueError or KeyError if it is none."""
    name, kind, mode, uid, gid, mtime, size, content, more = value
    if not more and (content is None or isinstance(content, bytes)):  # As nearly all are, and there are very many.
        return Entry(name=name, type=_TYPES[kind], mode=mode, uid=uid, gid=gid, mtime=mtime, size=size, content=content)
    more = more or {}
    extents, device = more.get("extents"), more.get("device")
    return Entry(
        name=name,
        type=_TYPES[kind],
        mode=mode,
        uid=uid,
        gid=gid,
        mtime=mtime,
        size=size,
        content=as_content(content),
        target=more.get("target"),
        xattrs=more.get("xattrs", {}),
        link=more.get("link"),
        extents=None if extents is None else tuple((int(first), int(length)) for first, length in extents),
        device=None if device is None else (int(device[0]), int(device[1])),
        pages=as_content(more.get("pages")),
        changed=bool(more.get("changed")),
    )


def pack_tail(entry: Sequence[Any]) -> bytes:
    """An encoded entry but for its name, so that one who knows the name can put it in front again."""
    return pack_map(entry[1:])[1:]


def join_entries(names: Sequence[bytes], tails: Sequence[bytes]) -> bytes:
    """What `pack_map` makes of the entries."""
    packer = msgpack.Packer(use_bin_type=True)
    parts = [packer.pack_array_header(len(tails))]
    for name, tail in zip(names, tails, strict=True):
        parts += (_NINE, packer.pack(name), tail)
    return b"".join(parts)


def unpack_entries(names: Sequence[bytes], tails: Sequence[bytes]) -> list[list[Any]]:
    """The encoded entries, unpacked all at once: there are many, and one by one takes three times as long."""
    entries: list[list[Any]] = unpack_map("entries", join_entries(names, tails))
    return entries


def encode_hunk(
    users: Mapping[int, bytes], groups: Mapping[int, bytes], folders: Sequence[tuple[bytes, bytes]]
) -> bytes:
    """A hunk's bytes; each folder is its path and its encoded entries, packed as an array by `pack_map`."""
    packer = msgpack.Packer(use_bin_type=True)
    parts = [packer.pack_map_header(3)]
    for name, names in (("users", users), ("groups", groups)):
        parts += [packer.pack(name), packer.pack(dict(sorted(names.items())))]
    parts += [packer.pack("folders"), packer.pack_array_header(len(folders))]
    for path, entries in folders:
        parts += [packer.pack_array_header(2), packer.pack(path), entries]
    return b"".join(parts)


def decode_hunk(content: bytes) -> Iterator[Folder]:
    """The folders of a hunk.

    Raises:
        ObjectDamaged: it is no hunk.
    """
    value = unpack_map("a listing", content)
    try:
        users, groups = value["users"], value["groups"]
        for path, entries in value["folders"]:
            decoded = tuple(decode_entry(entry) for entry in entries)
            yield Folder(path=bytes(path), entries=decoded, users=users, groups=groups)
    except (KeyError, TypeError, ValueError) as error:
        raise ObjectDamaged("a listing", "a hunk of it can't be parsed") from error


def encode_root(hunks: Sequence[HunkPlace]) -> bytes:
    """A listing's root."""
    return pack_map([[hunk.path, hunk.name, hunk.content, hunk.entries, hunk.files, hunk.size] for hunk in hunks])


def decode_root(content: bytes) -> tuple[HunkPlace, ...]:
    """The hunks of a listing, in order.

    Raises:
        ObjectDamaged: it is no root.
    """
    try:
        return tuple(
            HunkPlace(path=path, name=name, content=_required(hunk), entries=entries, files=files, size=size)
            for path, name, hunk, entries, files, size in unpack_map("a listing's root", content)
        )
    except (TypeError, ValueError) as error:
        raise ObjectDamaged("a listing's root", "it can't be parsed") from error


def _required(value: Any) -> Content:
    content = as_content(value)
    if content is None:
        raise ValueError(value)
    return content


def hunks_for(hunks: Sequence[HunkPlace], under: bytes) -> list[HunkPlace]:
    """The hunks that hold a path: those on the way to it, itself, and all below it."""
    wanted = path_parts(under)
    if not wanted:
        return list(hunks)
    starts = [(path_parts(hunk.path), hunk.name) for hunk in hunks]
    places = {bisect_right(starts, (wanted[:depth], wanted[depth])) - 1 for depth in range(len(wanted))}
    first = bisect_right(starts, (wanted, b"")) - 1
    places.add(first)
    for place in range(max(first, 0) + 1, len(starts)):
        if starts[place][0][: len(wanted)] != wanted:
            break
        places.add(place)
    return [hunks[place] for place in sorted(places) if place >= 0]
