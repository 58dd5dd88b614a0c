"""Which programs are known, and what each demands.

Read in their sources or seen when they ran: AIPerf 0.13.0, ai-dynamo 1.3.1, GuideLLM 0.8.1, vLLM 0.33.0, SGLang 0.5.23,
Vidur 0.0.26, inference-perf 0.7.0; of AIBrix, BLIS, LLMServingSim and LMCache the published schema.
"""

from __future__ import annotations

from collections.abc import Iterable

from servegen_gpu.errors import unknown
from servegen_gpu.validating import peculiar
from servegen_gpu.validating.pieces import Head
from servegen_gpu.validating.report import SILENT, SUSPICIOUS
from servegen_gpu.validating.rules import Facts, Ids, Program, Sessions, Time, Tokens

MS, US, NS = 1e-3, 1e-6, 1e-9
ZERO_INPUT = "the program makes it one"
MAYBE = "the server may refuse it"
NO_PROMPT = "the program sends one prompt of no tokens"


def _num_prompts(facts: Facts) -> list[str]:
    """The benchmarks of vLLM and SGLang send a thousand requests unless told otherwise."""
    return [f"pass --num-prompts {facts.rows}; by default 1000 are sent"] if facts.rows != 1000 else []


def _blocks(option: str, default: int, facts: Facts) -> list[str]:
    differ = facts.block_tokens not in (0, default)
    return [f"pass {option} {facts.block_tokens}; the default is {default}"] if differ else []


_MOONCAKE_TIME = Time("timestamp", MS)
_AIPERF_IDS = Ids(
    option="--isl-block-size",
    short=SILENT,
    cut="the rest of the prompt is new text that no cache has",
    long="refused by the program",
    two_sizes="refused by the program",
)
_DYNAMO = Program(
    "dynamo",
    "replay of ai-dynamo, whole inputs",
    time=Time("timestamp", MS, None),
    input=Tokens("input_length", needed=SUSPICIOUS),
    output=Tokens("output_length"),
    ids=Ids(
        option="--trace-block-size",
        needed="refused by the program",
        short=SILENT,
        cut="the input is cut to so many blocks",
        long=SUSPICIOUS,
        negative="refused by the program",
        bits=32,
    ),
    sessions=Sessions(first="refused by the program"),
    checks=(peculiar.time_or_delay,),
    also=("delay",),
    notes=lambda facts: _blocks("--trace-block-size", 512, facts),
)

PROGRAMS: tuple[Program, ...] = (
    Program(
        "aiperf:mooncake_trace",
        "AIPerf, Mooncake's lines; later turns of a session have new tokens only",
        lenient=True,
        time=Time("timestamp", MS, None),
        input=Tokens("input_length", below=SUSPICIOUS, means=ZERO_INPUT, needed=None),
        output=Tokens("output_length", needed=None),
        ids=_AIPERF_IDS,
        sessions=Sessions(history="appended", order=SILENT, first=SUSPICIOUS),
        checks=(peculiar.one_input, peculiar.fixed_schedule),
        also=("text_input", "messages", "payload", "tools", "delay"),
        notes=lambda facts: _blocks("--isl-block-size", 512, facts),
    ),
    Program(
        "aiperf:bailian_trace",
        "AIPerf, Bailian's lines",
        told_by=("chat_id",),
        lenient=True,
        time=Time("timestamp", 1.0),
        input=Tokens("input_length", below=SUSPICIOUS, means=ZERO_INPUT),
        output=Tokens("output_length"),
        ids=Ids(
            block_tokens=16,
            option="--isl-block-size",
            short=SILENT,
            cut="the rest of the prompt is new text that no cache has",
            long="refused by the program",
            two_sizes="refused by the program",
        ),
        sessions=Sessions("chat_id", "appended", text=False, parent="parent_chat_id", order=SILENT),
        notes=lambda facts: _blocks("--isl-block-size", 16, facts),
    ),
    Program(
        "aiperf:burst_gpt_trace",
        "AIPerf, BurstGPT's table",
        reads=("csv",),
        told_by=("Request tokens",),
        time=Time("Timestamp", 1.0, SILENT),
        input=Tokens("Request tokens", 1, SUSPICIOUS, ZERO_INPUT, SILENT, SILENT),
        output=Tokens("Response tokens", 1, needed=SILENT, wrong=SILENT),
    ),
    Program(
        "aiperf:multi_turn",
        "AIPerf, a session a line with its text",
        told_by=("turns",),
        lenient=True,
        nested="turns",
        time=Time("timestamp", MS, None),
        output=Tokens("output_length", needed=None),
        outer=(peculiar.session_is_text, peculiar.session_time),
        checks=(peculiar.text_of_turn, peculiar.not_both),
        also=("text", "texts", "image", "images", "audio", "audios", "video", "videos", "delay", "session_id"),
    ),
    _DYNAMO,
    peculiar.changed(
        _DYNAMO,
        name="dynamo-delta",
        what="replay of ai-dynamo, new tokens in later turns of a session",
        sessions=Sessions(history="appended", first="refused by the program"),
    ),
    Program(
        "guidellm:mooncake",
        "GuideLLM, times, lengths and ids",
        reads=("jsonl", "csv", "parquet"),
        told_by=("hash_ids", "input_length"),
        suffixes=(".jsonl", ".json", ".csv", ".parquet"),
        time=Time("timestamp", 1.0, option='"time_scale":0.001'),
        input=Tokens("input_length", 0, None),
        output=Tokens("output_length", 0, None),
        ids=Ids(
            option='"hash_id_block_size":N',
            needed="refused by the program",
            short="refused by the program",
            long="refused by the program",
            negative="refused by the program",
            two_sizes=SILENT,
        ),
        sessions=Sessions(text=False),
        notes=lambda facts: _blocks("hash_id_block_size", 512, facts),
    ),
    Program(
        "guidellm:trace_synthetic",
        "GuideLLM, times and lengths",
        reads=("jsonl", "csv", "parquet"),
        told_by=(),
        suffixes=(".jsonl", ".json", ".csv", ".parquet"),
        time=Time("timestamp", 1.0, option='"time_scale":0.001'),
        input=Tokens("input_length", 0, None),
        output=Tokens("output_length", 0, None),
        sessions=Sessions(text=False),
    ),
    Program(
        "guidellm:servegen",
        "GuideLLM, a file of this package under the names of its own columns",
        reads=("jsonl", "csv", "parquet"),
        told_by=("arrival_us",),
        suffixes=(".jsonl", ".json", ".csv", ".parquet"),
        time=Time("arrival_us", US),
        input=Tokens("input_tokens", 0, None),
        output=Tokens("output_tokens", 0, None),
        notes=lambda _: [
            'pass "timestamp_column":"arrival_us","time_scale":1e-6,"prompt_tokens_column":"input_tokens",'
            '"output_tokens_column":"output_tokens"'
        ],
    ),
    Program(
        "vllm:timed_trace",
        "vllm bench serve, Mooncake's lines in seconds",
        blank="refused by the program",
        time=Time("timestamp", 1.0, order=SILENT, late=SILENT, option="--timed-trace-sec-multiplier 0.001"),
        input=Tokens("input_length", below=SILENT, means=NO_PROMPT),
        output=Tokens("output_length", 0, None),
        ids=Ids(
            block_tokens=16,
            option="--timed-trace-chunk-hash-size",
            needed=SILENT,
            without="its prompt is empty",
            short=SILENT,
            cut="the prompt is cut to so many blocks",
            long=SUSPICIOUS,
        ),
        sessions=Sessions(text=False),
        notes=lambda facts: [*_blocks("--timed-trace-chunk-hash-size", 16, facts), *_num_prompts(facts)],
    ),
    Program(
        "vllm:custom",
        "vllm bench serve, prompts",
        told_by=("prompt",),
        suffixes=(".jsonl",),
        marked=None,
        output=Tokens("output_tokens", 1, SUSPICIOUS, MAYBE, SUSPICIOUS),
        checks=(peculiar.prompt_is_text,),
        also=("prompt",),
        notes=lambda facts: ["pass --custom-output-len -1 --disable-shuffle", *_num_prompts(facts)],
    ),
    Program(
        "vllm:burstgpt",
        "vllm bench serve, BurstGPT's table",
        reads=("csv",),
        told_by=("Response tokens",),
        columns=("Model",),
        places={2: "Request tokens", 3: "Response tokens"},
        lenient=True,
        marked=None,
        input=Tokens("Request tokens", 1, SILENT, NO_PROMPT),
        output=Tokens("Response tokens", 1, SILENT, "the program leaves the row out"),
        checks=(peculiar.gpt_4,),
        also=("Model",),
        notes=lambda facts: ["times are ignored", *_num_prompts(facts)],
    ),
    Program(
        "sglang",
        "sglang.bench_serving, Mooncake's lines",
        time=_MOONCAKE_TIME,
        output=Tokens("output_length", 0, None, needed=SILENT),
        ids=Ids(needed=SILENT, without="its prompt is one sentence"),
        notes=lambda facts: ["prompts are as long as ids are many; input_length is not read", *_num_prompts(facts)],
    ),
    Program(
        "vidur:Time",
        "Vidur, four columns",
        reads=("csv",),
        told_by=("PromptTokenCount",),
        columns=("Date",),
        lenient=True,
        marked=None,
        time=Time("Time", 1.0),
        input=Tokens("PromptTokenCount", 1, SUSPICIOUS, ZERO_INPUT),
        output=Tokens("CompletionTokenCount", 1, SUSPICIOUS, ZERO_INPUT),
        checks=(peculiar.date_of_vidur,),
        also=("Date",),
        max_tokens=4096,
        too_long=SILENT,
        notes=lambda _: [
            "pass factors of 1 (--trace_request_generator_config_prefill_scale_factor 1, decode, time) and max_tokens"
        ],
    ),
    Program(
        "vidur:arrived_at",
        "Vidur, three columns",
        reads=("csv",),
        told_by=("arrived_at",),
        lenient=True,
        marked=None,
        time=Time("arrived_at", 1.0),
        input=Tokens("num_prefill_tokens", 1, SUSPICIOUS, ZERO_INPUT),
        output=Tokens("num_decode_tokens", 1, SUSPICIOUS, ZERO_INPUT),
    ),
    Program(
        "inference-perf",
        "inference-perf, Azure's table",
        reads=("csv",),
        places={0: "TIMESTAMP", 1: "ContextTokens", 2: "GeneratedTokens"},
        broken=SILENT,
        time=Time("TIMESTAMP", 1.0, SILENT, order=SILENT, date=True),
        input=Tokens("ContextTokens", 1, SUSPICIOUS, MAYBE, SILENT, SILENT),
        output=Tokens("GeneratedTokens", 1, SUSPICIOUS, MAYBE, SILENT, SILENT),
    ),
    Program(
        "aibrix",
        "AIBrix, the requests of a moment a line",
        nested="requests",
        time=Time("timestamp", MS, order=SUSPICIOUS),
        input=Tokens("prompt_length", 1, SUSPICIOUS, MAYBE, None),
        output=Tokens("output_length", 1, SUSPICIOUS, MAYBE, None),
        checks=(peculiar.prompt_or_length,),
        also=("prompt", "Prompt Length"),
    ),
    Program(
        "blis",
        "BLIS, the table of TraceV2",
        reads=("csv",),
        columns=("request_id",),
        time=Time("arrival_time_us", US, order=SUSPICIOUS),
        input=Tokens("input_tokens", 1, SUSPICIOUS, MAYBE),
        output=Tokens("output_tokens", 1, SUSPICIOUS, MAYBE),
        checks=(peculiar.slo_classes, peculiar.think_times),
        also=("slo_class", "think_time_us"),
    ),
    Program(
        "llmservingsim:flat",
        "LLMServingSim, a request a line",
        time=Time("arrival_time_ns", NS, order=SUSPICIOUS),
        input=Tokens("input_toks", 1, SUSPICIOUS, MAYBE),
        output=Tokens("output_toks", 1, SUSPICIOUS, MAYBE),
        checks=(peculiar.token_ids,),
        also=("input_tok_ids", "output_tok_ids"),
        notes=lambda _: ["rows without input_tok_ids hit no prefix cache"],
    ),
    Program(
        "llmservingsim:sessions",
        "LLMServingSim, a session a line",
        told_by=("sub_requests",),
        nested="sub_requests",
        time=Time("arrival_time_ns", NS),
        input=Tokens("input_toks", 1, SUSPICIOUS, MAYBE),
        output=Tokens("output_toks", 1, SUSPICIOUS, MAYBE),
        checks=(peculiar.token_ids,),
        also=("input_tok_ids", "output_tok_ids"),
        notes=lambda _: ["rows without input_tok_ids hit no prefix cache"],
    ),
    Program(
        "lmcache",
        "LMCache's trace_replayer, Mooncake's lines",
        time=Time("timestamp", MS, order=SUSPICIOUS),
        input=Tokens("input_length", 1, SUSPICIOUS, MAYBE),
        output=Tokens("output_length", 1, SUSPICIOUS, MAYBE),
        ids=Ids(
            needed=SUSPICIOUS,
            without="no cache is hit",
            short=SUSPICIOUS,
            cut="the program cannot know the rest",
            long=SUSPICIOUS,
        ),
        sessions=Sessions(text=False),
    ),
)
OWN = "servegen-gpu"
NAMES = tuple(dict.fromkeys([program.name.split(":")[0] for program in PROGRAMS] + [OWN]))
"""What ``--for`` takes; ``PROGRAM:KIND`` where a program has several kinds."""


def of_name(name: str) -> tuple[Program, ...]:
    """The kinds of files that a name may mean.

    Raises
    ------
    OptionError
        If the name is unknown.
    """
    spelled = {
        "inference-perf:azure": "inference-perf",
        "lmcache:trace_replayer": "lmcache",
        "sglang:mooncake": "sglang",
    }
    name = spelled.get(name, name)
    found = tuple(program for program in PROGRAMS if name in (program.name, program.name.split(":")[0]))
    short = tuple(program for program in PROGRAMS if program.name == f"{name}_trace")
    if found or short:
        return found or short
    known = [*NAMES, *(program.name for program in PROGRAMS if ":" in program.name)]
    raise unknown("a program", name, known)


def chosen(kinds: Iterable[Program], head: Head) -> Program:
    """The kind that a file looks like most; the first one if like none."""
    kinds = list(kinds)
    fitting = [program for program in kinds if program.fits(head)]
    return max(fitting, key=lambda program: len(program.told_by)) if fitting else kinds[0]
