"""Writes docs/configuration-keys.md: which keys of config.json each family reads, and what becomes of all others.

`python tools/configuration_keys.py`. The keys that a family reads are recorded while it composes the decoders of the
tests' cases.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration-keys.md"
START = """# The keys of config.json

Every key is used, known to change nothing, or refused by name where its value would change what the model computes.
A key that is in none of these lists gives a notice. `tools/configuration_keys.py` writes this page; a test compares the
lists with transformers' configuration class of each family.

"""


def page() -> str:
    """The page as it should be."""
    from drupe_model_builder.configuration import keys

    families = [f"| `{name}` | {_listed(read)} |" for name, read in sorted(_read_by_family().items())]
    limited = [f"| `{key}` | {limit.means} |" for key, limit in sorted(keys.LIMITED.items())]
    rope = [f"| `{key}` | {limit.means} |" for key, limit in sorted(keys.ROPE_LIMITED.items())]
    return START + "\n".join(
        [
            "## Used by each family",
            "",
            f"All families: {_listed(keys.READ_ELSEWHERE)}. "
            f"Inside `rope_parameters` or `rope_scaling`: {_listed(keys.ROPE_USED)}.",
            "",
            "| `model_type` | keys |",
            "| --- | --- |",
            *families,
            "",
            "## Refused where the family does not read them and they are set to something else than off",
            "",
            "| key | what it asks for |",
            "| --- | --- |",
            *limited,
            *rope,
            "",
            "## Without effect",
            "",
            f"{_listed(keys.NEUTRAL)}; inside `rope_parameters`: {_listed(keys.ROPE_NEUTRAL)}.",
            "",
        ]
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _read_by_family() -> dict[str, set[str]]:
    """The keys that each family has read, in any of its cases."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    import decoder_families

    from drupe_model_builder.configuration.keys import READ_ELSEWHERE
    from drupe_model_builder.configuration.recorded import RecordedConfiguration
    from drupe_model_builder.finding import own_family

    found: dict[str, set[str]] = {}
    for name, case in decoder_families.EVERY_CASE.items():
        family = decoder_families.model_type_of(name)
        recorded = RecordedConfiguration(Path("config.json"), _configuration(case))
        own_family(family)(recorded)
        found.setdefault(family, set()).update(recorded.keys_read - READ_ELSEWHERE)
    return found


def _configuration(case: Any) -> dict[str, Any]:
    """What transformers saves as config.json for a case."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(case.family, **{**case.sizes, **case.settings})
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        saved: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    return saved if case.told_as is None else case.told_as(saved, {})[0]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
