"""Hatchling's build hook: makes the tables of the rule language's parser.

They go beside the grammar: into the wheel, and for an editable install into the source tree.
grammar.py is loaded by its path, because at build time the package cannot be imported: what it
needs is not installed.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import (  # type: ignore[import-not-found,unused-ignore]
    BuildHookInterface,
)

GRAMMAR = "mdaflow/lang/flow/grammar.py"


class GrammarTables(BuildHookInterface):  # type: ignore[misc,type-arg,unused-ignore]
    """Runs before every wheel; an sdist takes no tables, it is built from again."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the tables; what `save_tables` raises ends the build."""
        if self.target_name != "wheel":
            return
        spec = importlib.util.spec_from_file_location("grammar", Path(self.root, GRAMMAR))
        assert spec is not None
        assert spec.loader is not None
        grammar = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = grammar  # dataclasses look there for their module
        spec.loader.exec_module(grammar)
        grammar.save_tables()
