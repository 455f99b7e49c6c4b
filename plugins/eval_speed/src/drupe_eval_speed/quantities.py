"""What is measured: the name of each quantity, its unit, the direction in which it improves, and what it is."""

from __future__ import annotations

from typing import Literal

from drupe.api import Record


class Quantity(Record):
    """Something that is measured. `evaluator` gives it as a metric of the same name; `title` is for tables.

    whole: whether it is of a package as a whole, and not of one case.
    """

    name: str
    title: str
    unit: str
    better: Literal["lower", "higher"]
    evaluator: str
    meaning: str
    whole: bool = False


LATENCY, THROUGHPUT, FOOTPRINT = "latency", "throughput", "footprint"

_QUANTITIES = (
    Quantity("size_on_disk", "size on disk", "bytes", "lower", FOOTPRINT, "all files of the package", True),
    Quantity("load_time", "load time", "ms", "lower", FOOTPRINT, "until the package is open in its runtime", True),
    Quantity(
        "peak_memory", "peak memory", "bytes", "lower", FOOTPRINT, "of the process that runs all cases, resident", True
    ),
    Quantity("time_to_first_token", "time to first token", "ms", "lower", LATENCY, "until the prompt is read"),
    Quantity("inter_token_mean", "between tokens, mean", "ms", "lower", LATENCY, "time between two tokens of a row"),
    Quantity("inter_token_p50", "between tokens, p50", "ms", "lower", LATENCY, "the median of these times"),
    Quantity("inter_token_p90", "between tokens, p90", "ms", "lower", LATENCY, "90 of 100 tokens come faster"),
    Quantity("inter_token_p99", "between tokens, p99", "ms", "lower", LATENCY, "99 of 100 tokens come faster"),
    Quantity("run_mean", "a run, mean", "ms", "lower", LATENCY, "time of a run of the model"),
    Quantity("run_p50", "a run, p50", "ms", "lower", LATENCY, "the median of these times"),
    Quantity("run_p90", "a run, p90", "ms", "lower", LATENCY, "90 of 100 runs are faster"),
    Quantity("run_p99", "a run, p99", "ms", "lower", LATENCY, "99 of 100 runs are faster"),
    Quantity("prefill_rate", "prefill rate", "tokens/s", "higher", THROUGHPUT, "prompt tokens of all rows"),
    Quantity("decode_rate", "decode rate", "tokens/s", "higher", THROUGHPUT, "new tokens of all rows after the first"),
    Quantity("run_rate", "run rate", "runs/s", "higher", THROUGHPUT, "runs, of a model without an axis of rows"),
    Quantity("row_rate", "row rate", "rows/s", "higher", THROUGHPUT, "rows of all runs"),
    Quantity("token_rate", "token rate", "tokens/s", "higher", THROUGHPUT, "tokens of all rows of all runs"),
    Quantity("energy", "energy", "J", "lower", FOOTPRINT, "of a new token, its share of the prompt, or of a run"),
)
QUANTITIES = {each.name: each for each in _QUANTITIES}
