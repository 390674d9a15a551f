"""Machine code that AOTInductor compiles for words, spans and embeddings answers as NumPy does in float64: `largest_difference`
of the tests, at their sizes. They compile a classifier alone, since a C++ compiler takes long for each.

    python benchmarks/export_heads.py [HEAD ...]

The result is the section `heads` of what `exports.py` has written (`--out`), under whose table it is told.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tables import NEW_RESULTS, machine, write_json

KINDS = {"tokens": "labels of words", "spans": "answers in texts", "embedding": "embeddings"}
"""Head -> what it is for."""


def measured(head: str) -> dict[str, Any]:
    """The largest difference of an output, relative to the largest one where that is above 1."""
    import torch._inductor.config

    from crossdistil.core.app.export_targets import TARGETS
    from crossdistil.tests.test_export_frameworks import OTHER_ANSWERS, largest_difference

    config = OTHER_ANSWERS[list(KINDS).index(head)]
    with torch._inductor.config.patch({"cpp.vec_isa_ok": True}), tempfile.TemporaryDirectory() as folder:
        difference = largest_difference(TARGETS["aoti"], config, Path(folder))
    about = {"torch": torch.__version__, "machine": machine(), "date": datetime.date.today().isoformat()}
    return {"difference": float(difference), **about}


def line(heads: dict[str, dict[str, Any]]) -> str:
    """What the page says under the table of exports."""
    each = ", ".join(f"{KINDS[head]} {found['difference']:.1e}" for head, found in heads.items())
    last = max(heads.values(), key=lambda found: found["date"])
    return (
        f"The other heads as `aoti`, a model of one layer, largest difference of an output from NumPy's in float64: {each} "
        f"({last['machine']['cpu']}; torch {last['torch'].split('+')[0]}; {last['date']})."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", nargs="*", metavar="HEAD", help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "exports.json", help="what exports.py has written")
    options = parser.parse_args()
    if unknown := [head for head in options.heads if head not in KINDS]:
        sys.exit(f"{unknown[0]}: no head; there are {', '.join(KINDS)}")
    if not options.out.is_file():
        sys.exit(f"{options.out}: there is no such file; python benchmarks/exports.py writes it")
    for head in options.heads or KINDS:
        found = measured(head)
        print(head, found, flush=True)
        result = json.loads(options.out.read_text())
        write_json(options.out, result | {"heads": result.get("heads", {}) | {head: found}})


if __name__ == "__main__":
    main()
