"""Modified UTF-7: how IMAP and the disk spell the names of folders (RFC 3501 section 5.1.3)."""

from __future__ import annotations

import binascii
import re

_NOT_ASCII = re.compile(r"[^\x20-\x7e]+")
_SHIFTED = re.compile(r"&([A-Za-z0-9+,]*)-")


def modified_utf7(text: str) -> str:
    """A folder name as IMAP and the disk spell it."""
    return _NOT_ASCII.sub(_shift, text.replace("&", "&-"))


def from_modified_utf7(text: str) -> str:
    """A folder name on the disk as its user knows it; what cannot be read stays as it is."""
    return _SHIFTED.sub(_unshift, text)


def _shift(run: re.Match[str]) -> str:
    coded = binascii.b2a_base64(run[0].encode("utf-16-be"), newline=False)
    return f"&{coded.decode().rstrip('=').replace('/', ',')}-"


def _unshift(run: re.Match[str]) -> str:
    try:
        coded = run[1].replace(",", "/") + "=" * (-len(run[1]) % 4)
        return binascii.a2b_base64(coded).decode("utf-16-be") or "&"
    except ValueError:
        return run[0]
