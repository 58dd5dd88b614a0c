"""Usual names of columns, for files of no known format, and the units that names tell."""

from __future__ import annotations

import re


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


USUAL: dict[str, tuple[str, ...]] = {
    "time": _words(
        "arrival arrival_time arrived_at arrival_timestamp timestamp request_time request_timestamp start_time "
        "started_at start submit_time submitted_at send_time sent_at created_at created received_at time_created "
        "event_time date_time datetime time ts date when at t"
    ),
    "input_tokens": _words(
        "input_tokens prompt_tokens context_tokens request_tokens num_input_tokens num_prompt_tokens "
        "num_prefill_tokens prefill_tokens input_length prompt_length input_len prompt_len prompt_size input_size "
        "input_toks prompt_toks input_token_count prompt_token_count n_input_tokens n_prompt_tokens tokens_in "
        "in_tokens isl input prompt in"
    ),
    "output_tokens": _words(
        "output_tokens completion_tokens generated_tokens response_tokens num_output_tokens num_completion_tokens "
        "num_decode_tokens num_generated_tokens decode_tokens output_length completion_length response_length "
        "output_len completion_len token_size output_size output_toks output_token_count completion_token_count "
        "n_output_tokens generation_tokens tokens_out out_tokens osl output completion response out"
    ),
    "client": _words(
        "client client_id user user_id tenant tenant_id customer customer_id account account_id api_key api_key_id"
    ),
    "session": _words("session session_id conversation conversation_id chat_id thread_id dialogue_id conv_id"),
    "reason_tokens": _words("reason_tokens reasoning_tokens reasoning_output_tokens thinking_tokens"),
    "hash_ids": _words("hash_ids block_hashes block_ids"),
}
"""Names by what they mean, the more telling first."""

UNITS = {
    "s": ("s", "sec", "secs", "second", "seconds"),
    "ms": ("ms", "msec", "millis", "milliseconds"),
    "us": ("us", "µs", "usec", "micros", "microseconds"),
    "ns": ("ns", "nsec", "nanos", "nanoseconds"),
}
_WORDS = {word: unit for unit, words in UNITS.items() for word in words}


def normal(name: str) -> str:
    """A name without case, blanks and signs."""
    return re.sub(r"[\W_]+", "", name).casefold()


def split_unit(name: str) -> tuple[str, str | None]:
    """A name without the unit that it ends in, such as ``arrival_us``, ``Time (s)`` or ``ts-ms``; and the unit."""
    words = [word for word in re.split(r"[\W_]+", name) if word]
    if len(words) > 1 and (unit := _WORDS.get(words[-1].casefold())):
        return " ".join(words[:-1]), unit
    if match := re.fullmatch(r"(.*[a-z])(Ms|Us|Ns|MS|US|NS|Sec|Seconds|Millis|Micros|Nanos)", name):
        return match[1], _WORDS[match[2].casefold()]
    return name, None


def find(columns: tuple[str, ...], names: tuple[str, ...]) -> str | None:
    """The first column that has one of the names, the names in order; spelled exactly like it before others."""
    for name in names:
        if name in columns:
            return name
        for column in columns:
            if normal(column) == normal(name):
                return column
    return None


def usual(columns: tuple[str, ...], meaning: str) -> list[str]:
    """All columns with a usual name of this meaning, the more telling first; times may end in their unit.

    Fields of objects in an object, such as ``usage.prompt_tokens``, come last.
    """
    bare = {column: column.rsplit(".", 1)[-1] for column in columns}
    if meaning == "time":
        bare = {column: split_unit(name)[0] for column, name in bare.items()}
    found: list[str] = []
    for inner in (False, True):
        for name in USUAL[meaning]:
            alike = [column for column in columns if ("." in column) == inner and normal(bare[column]) == normal(name)]
            found += [column for column in alike if column not in found]
    return found
