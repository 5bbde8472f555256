"""Kinds of files by their first bytes, as far as they matter for what is dangerous.

A short table of our own: it answers in a microsecond, needs no library, and sees what an account's
process may not ask anybody about. `attachment.type` is libmagic's (magic.py). No I/O.
"""

from __future__ import annotations

import re

# Bytes | where they are | the kind. The first that fits.
_SIGNS: tuple[tuple[bytes, int, str], ...] = (
    (b"MZ", 0, "mz"), (b"\x7fELF", 0, "elf"),
    (b"\xfe\xed\xfa\xce", 0, "mach"), (b"\xfe\xed\xfa\xcf", 0, "mach"),
    (b"\xce\xfa\xed\xfe", 0, "mach"), (b"\xcf\xfa\xed\xfe", 0, "mach"),
    (b"\xca\xfe\xba\xbe", 0, "java"), (b"dex\n", 0, "dex"), (b"#!", 0, "script"),
    (b"L\0\0\0\1\x14\2\0", 0, "lnk"), (b"ITSF", 0, "chm"),
    (b"PK\3\4", 0, "zip"), (b"PK\1\2", 0, "zip"), (b"PK\5\6", 0, "zip"), (b"PK00PK", 0, "zip"),
    (b"PK\7\x08", 0, "zip"),
    (b"\x1f\x8b", 0, "gzip"), (b"BZh", 0, "bzip2"), (b"\xfd7zXZ\0", 0, "xz"),
    (b"ustar", 257, "tar"),
    (b"Rar!\x1a\x07", 0, "rar"), (b"7z\xbc\xaf\x27\x1c", 0, "7z"), (b"MSCF", 0, "cab"),
    (b"MSWIM\0", 0, "wim"), (b"**ACE**", 7, "ace"), (b"\x60\xea", 0, "arj"),
    (b"-lh", 2, "lzh"), (b"-lz", 2, "lzh"), (b"\x28\xb5\x2f\xfd", 0, "zstd"),
    (b"\x1f\x9d", 0, "compress"), (b"\x1f\xa0", 0, "compress"), (b"LZIP", 0, "lzip"),
    (b"\x04\x22\x4d\x18", 0, "lz4"), (b"xar!", 0, "xar"), (b"CD001", 0x8001, "iso"),
    (b"\x5d\0\0", 0, "lzma"), (b"\x78\x9f\x3e\x22", 0, "tnef"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0, "ole"), (b"%PDF-", 0, "pdf"), (b"{\\rt", 0, "rtf"),
    (b"\x89PNG", 0, "image"), (b"GIF8", 0, "image"), (b"\xff\xd8\xff", 0, "image"),
    (b"II*\0", 0, "image"), (b"MM\0*", 0, "image"), (b"RIFF", 0, "media"), (b"ID3", 0, "media"),
    (b"OggS", 0, "media"), (b"ftyp", 4, "media"),
)  # fmt: skip
PROGRAMS = frozenset({"mz", "elf", "mach", "java", "dex", "script", "lnk", "chm"})
CLOSED = frozenset(
    ("rar", "7z", "cab", "ace", "wim", "arj", "lzh", "zstd", "compress", "lzip", "lz4", "xar",
     "iso", "lzma", "tnef")
)  # fmt: skip
"""Archives that nobody here opens."""
_HTML = re.compile(
    rb"\s*(?:<!--[^>]*>\s*)?<(?:!doctype\s+html|html|head|script|hta:)", re.IGNORECASE
)
_BOM = b"\xef\xbb\xbf"


def kind(content: bytes) -> str:
    """The kind of a content, one of the table or `html`; empty when it is another one."""
    for sign, at, found in _SIGNS:
        if content.startswith(sign, at):
            return found if _fits(found, content) else ""
    if _HTML.match(content[:1024].removeprefix(_BOM)):
        return "html"
    return "pdf" if b"%PDF-" in content[:1024] else ""  # readers look so far


def _fits(found: str, content: bytes) -> bool:
    """Text may begin with the same letters."""
    match found:
        case "mz":
            return b"\0" in content[:64] or len(content) < 64
        case "java":
            return len(content) > 8 and content[4:6] == b"\0\0"
        case "lzma":
            return content[5:13] == b"\xff" * 8 or content[12:13] == b"\0"
        case "lzh":
            return content[6:7] == b"-"
        case "bzip2":
            return content[3:4].isdigit()
        case "script":
            return b"/" in content[:64]
    return True


_UTF16 = "utf-16-le"
_MACROS = tuple(word.encode(_UTF16) for word in ("_VBA_PROJECT", "VBA\0", "Macros\0"))
_ENCRYPTED = tuple(word.encode(_UTF16) for word in ("EncryptedPackage", "EncryptionInfo"))
_FILEPASS = re.compile(rb"\x09\x08.{2}\x00\x06\x05\x00.{12}\x2f\x00", re.DOTALL)  # [MS-XLS] 2.4.117


def ole(content: bytes) -> frozenset[str]:
    """What a compound file is known for: `macros`, `encrypted`, `program` for an installer."""
    found = {"macros"} if any(sign in content for sign in _MACROS) else set()
    if any(sign in content for sign in _ENCRYPTED) or _FILEPASS.search(content[: 1 << 20]):
        found.add("encrypted")
    if _MSI in content[:4096] or _MSI in content[-65536:]:
        found.add("program")
    return frozenset(found)


_MSI = bytes.fromhex("84100c0000000000c000000000000046")


def locked(of: str, content: bytes) -> bool:
    """Is this archive or document encrypted, as far as it says so openly?"""
    match of:
        case "pdf":
            return b"/Encrypt" in content
        case "rar":  # the flags of the main header, RAR 4; the type of the first block, RAR 5
            flags = content[10:12] if content[6:7] == b"\0" else b""
            return bool(flags and flags[0] & 0x80) or content[12:13] == b"\4"
        case "7z":
            return b"\x06\xf1\x07\x01" in content[-65536:]  # the coder of AES
    return False


def of_entry(name: str) -> frozenset[str]:
    """What the name of a file in an archive says of the archive."""
    low = name.lower().replace("\\", "/")
    macros = low.endswith("vbaproject.bin") or low.startswith("basic/") or "xl/macrosheets/" in low
    return frozenset({"macros"}) if macros else frozenset()
