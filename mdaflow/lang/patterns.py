"""Regular expressions and globs: RE2 patterns over UTF-8 bytes.

RE2 takes time linear in the text, whatever the pattern. It has no look-around and no
back-references.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

RE2_MEMORY = 2 << 20
"""Bytes that one compiled pattern may take."""


@cache
def _options(flags: str) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = RE2_MEMORY
    options.case_sensitive = "c" in flags
    options.dot_nl = "s" in flags
    return options


def compile_regex(pattern: str, flags: str = "") -> Any:
    """An RE2 pattern over UTF-8 bytes; raises ValueError with RE2's words when it is none."""
    import re2

    prefix = "(?m)" if "m" in flags else ""
    try:
        return re2.compile(prefix + pattern, _options(flags))
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(reason.decode() if isinstance(reason, bytes) else str(reason)) from None


def wildcards(glob: str) -> list[re.Match[str]]:
    """The `*` and `?` of a glob; a backslash before one takes its meaning away."""
    return [m for m in re.finditer(r"\\.|[*?]", glob, re.DOTALL) if len(m[0]) == 1]


def glob_pattern(glob: str) -> str:
    """A glob as a regular expression over the whole value: `*` as little as it can."""
    import re2

    out, at = [r"\A"], 0
    for wild in wildcards(glob):
        out += [re2.escape(_unescaped(glob[at : wild.start()]))]
        out += ["(.*?)" if wild[0] == "*" else "(.)"]
        at = wild.end()
    return "".join([*out, re2.escape(_unescaped(glob[at:])), r"\z"])


@lru_cache(512)
def compile_glob(glob: str, exact: bool) -> Any:
    """A glob, compiled. Raises ValueError when it is too large."""
    return compile_regex(glob_pattern(glob), "sc" if exact else "s")


def _unescaped(literal: str) -> str:
    return re.sub(r"\\([\\*?])", r"\1", literal)
