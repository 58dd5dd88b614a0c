"""Studies as parts of a page: what was found, in words, pictures and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from servegen_gpu.errors import OptionError
from servegen_gpu.reporting.page import Section
from servegen_gpu.reporting.parts import paragraph
from servegen_gpu.reporting.parts import table as table_of
from servegen_gpu.studies.settings import assumed_in_words

if TYPE_CHECKING:
    import pandas as pd

LONGEST_SETTING = 400
SHOWN_ELSEWHERE = ("bins", "server", "assumed")
"""Settings that are data for pictures, or have a table of their own."""


def study_sections(kind: str, settings: Mapping[str, Any], table: pd.DataFrame) -> list[Section]:
    """What `read_study` gives, as sections of a page.

    Parameters
    ----------
    kind : {"montecarlo", "sensitivity", "provision"}
    settings : mapping
    table : DataFrame

    Raises
    ------
    OptionError
        For another kind, a study without results, or if matplotlib is not installed.
    """
    if not len(table):
        raise OptionError("a study with results", "a table without rows", "let it go on: run the same command again")
    made = _found(kind, settings, table)
    if settings.get("assumed"):
        made.append(Section("Measured and assumed", _assumed(settings)))
    return [*made, Section("How it was made", settings_table(settings))]


def _found(kind: str, settings: Mapping[str, Any], table: pd.DataFrame) -> list[Section]:
    if kind == "montecarlo":
        from servegen_gpu.reporting.replicas import replica_sections

        return replica_sections(settings, table)
    if kind == "sensitivity":
        from servegen_gpu.reporting.effects import effect_sections

        return effect_sections(settings, table)
    if kind == "provision":
        from servegen_gpu.reporting.decision import decision_sections

        return decision_sections(settings, table)
    raise OptionError("a study of kind montecarlo, sensitivity or provision", repr(kind)[:60], "give another file")


def _assumed(settings: Mapping[str, Any]) -> str:
    """What figures of service rest on: a server, and where its numbers are from."""
    from servegen_gpu.reporting.decision import origins

    return paragraph(" ".join(assumed_in_words(settings))) + origins({"server": settings["assumed"]["server"]})


def settings_table(settings: Mapping[str, Any]) -> str:
    """All settings of a study but those that pictures show."""
    rows = [[name, _plain(value)] for name, value in settings.items() if name not in SHOWN_ELSEWHERE]
    return table_of(("setting", "value"), rows, caption="Settings of the study", long=1)


def _plain(value: Any) -> str:
    """A setting on one line, cut where it is long."""
    text = _words(value)
    return text if len(text) <= LONGEST_SETTING else text[: LONGEST_SETTING - 1] + "…"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return f"{value:,.10g}" if isinstance(value, float) else str(value)
