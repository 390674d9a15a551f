"""Fills every generated table of the README and of docs/ from the kept results, or checks that they are what those give.

    python benchmarks/pages.py [--check]

A table, or what a command printed, stands between `<!-- results:begin NAME -->` and `<!-- results:end NAME -->`, and ends with
the command that measured it, the machine and the date. `TABLES` says which results a table is made of; a new measurement replaces
its file in `benchmarks/results/`, then this is run. `results_table.py` has the tables themselves, and keeps results of runs.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import tables_of
from results_table import body_of
from rival_tables import rivals
from robustness import table as robustness
from tables import RESULTS, replace_section

ROOT = Path(__file__).resolve().parent.parent
MACHINE = "AMD EPYC, 2 cores"
"""Where results were measured that do not say so themselves."""
MARKER = re.compile(r"^<!-- results:begin (\w+) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Measured:
    """What a table is made of: files or folders of `benchmarks/results`, the command, and the day unless the results tell it."""

    sources: tuple[str, ...]
    command: str
    date: str = ""
    published: str = ""
    """What others published of the like, and what differs; stands below the table."""


_CROSSCHECKS = (
    "python benchmarks/crosschecks.py --sst2 data/SST-2 --sts data/STS-B --names data/msra --text data/enwiki.txt "
    "--words vocab/uncased.txt --characters vocab/chinese.txt --out runs/crosschecks"
)
_RIVAL_JOBS = ("huggingface_loop.json", "huggingface_loop_base.json", "huggingface_loop_chinese.json")
TABLES = {
    "demo": Measured(("demo.json",), "make demo", "2026-11-21"),
    "sst2": Measured(
        ("sst2",), "python benchmarks/all_methods.py --data data/SST-2 --encoder models/encoder --out runs/sst2", "2026-11-21"
    ),
    "sst2_mpnet": Measured(
        ("sst2_mpnet.json",),
        "python benchmarks/all_methods.py --data data/SST-2 --encoder models/mpnet --out runs/sst2_mpnet --layers 6,4,3 "
        "--small runs/general/student --methods finetune,kd,pkd,theseus,minilm,tinybert_td --epochs 2 --batch-size 32 "
        "--evaluate-every 500 --teacher-set task.limit.train=12000 --teacher-set stages.0.train.epochs=1 "
        "--teacher-set stages.0.train.learning_rate=3e-5 --student-set task.limit.train=4000 "
        "--student-set teacher_cache.use=always",
        published="Published: BERT-of-Theseus keeps 98.4% of its teacher's GLUE average on dev with 6 of BERT-base's 12 layers "
        "(Xu et al. 2020), TinyBERT 96.8% on test with 4 layers x 312 (Jiao et al. 2020); on SST-2's dev, 3 layers have 85.9 "
        "fine-tuned and 87.2 by Theseus, of a teacher of 91.5 (Xu et al.). They train on all 67,349 texts for several epochs, "
        "TinyBERT after a general distillation of all Wikipedia and with augmented texts; here students saw 4,000 texts twice, "
        "of another teacher and on one task.",
    ),
    "sst2_narrow": Measured(
        ("sst2_narrow.json",),
        "python benchmarks/all_methods.py --data data/SST-2 --encoder models/mpnet --out runs/sst2_narrow --small random "
        "--methods finetune,kd --epochs 1 --batch-size 64 --evaluate-every 1053 --teacher-set task.limit.train=12000 "
        "--teacher-set stages.0.train.batch_size=32 --teacher-set stages.0.train.learning_rate=3e-5 "
        "--student-set stages.0.train.learning_rate=5e-4 --student-set teacher_cache.use=always",
    ),
    "waimai": Measured(
        ("waimai.json",),
        "python benchmarks/all_methods.py --data data/waimai --encoder models/chinese --out runs/waimai --layers 3 "
        "--methods finetune,kd,pkd,theseus,minilm,tinybert_td --epochs 2 --batch-size 16 --evaluate-every 1000 "
        "--set task.name=waimai --set task.text=text_a --set task.label=label --teacher-set stages.0.train.epochs=3 "
        "--teacher-set stages.0.train.batch_size=32 --teacher-set stages.0.train.learning_rate=5e-5 "
        "--student-set task.limit.train=4000 --student-set teacher_cache.use=always",
    ),
    "cosmetics": Measured(
        ("cosmetics.json",),
        "python benchmarks/all_methods.py --data data/cosmetics --encoder models/chinese --out runs/cosmetics --layers 3 "
        "--methods finetune,kd,pkd,theseus,minilm,tinybert_td --epochs 2 --batch-size 16 --evaluate-every 1000 "
        "--set task.name=cosmetics --set task.text=opinion_term --set task.text_pair=text_a --set task.label=polarity "
        "--teacher-set stages.0.train.epochs=3 --teacher-set stages.0.train.batch_size=32 "
        "--teacher-set stages.0.train.learning_rate=5e-5 --student-set task.limit.train=4000 "
        "--student-set teacher_cache.use=always",
    ),
    "msra": Measured(
        ("msra.json",),
        "python benchmarks/all_methods.py --data data/msra --encoder models/chinese --out runs/msra --layers 4,3 "
        "--methods ner-alone,ner,ner_layers --epochs 2 --batch-size 16 --evaluate-every 3000 --set task.limit.dev=2000 "
        "--set task.tokens.stray=begin --teacher-set task.limit.train=24000 --teacher-set stages.0.train.learning_rate=3e-4 "
        "--student-set task.limit.train=10000 --student-set stages.0.train.learning_rate=4e-4 "
        "--student-set teacher_cache.use=always",
        published="Published: TextBrewer's Electra-base 95.14, distilled into Electra-small 93.48 (its README), of all the data "
        "for 30 to 60 epochs, with Chinese encoders; here teacher and students saw 24,000 and 10,000 sentences twice.",
    ),
    "rerankers": Measured(
        ("rerankers.json", "rerankers_vectors.json"),
        "python benchmarks/rerankers.py --articles data/enwiki.txt --encoder models/minilm --out runs/rerankers --train 640 "
        "--dev 256 --vectors --teacher-set stages.0.train.epochs=2",
        published="Published, on MS MARCO and so not comparable: MRR@10 39.01 of cross-encoder/ms-marco-MiniLM-L6-v2, 32.56 of "
        "ms-marco-TinyBERT-L2-v2 (their model cards).",
    ),
    "english_names": Measured(
        ("english_names.json",),
        "python benchmarks/all_methods.py --data data/english_names --encoder models/minilm --out runs/english_names "
        "--layers 4,3 --methods ner-alone,ner --epochs 8 --batch-size 16 --evaluate-every 1000 "
        "--student-set teacher_cache.use=always",
    ),
    "speed": Measured(
        _RIVAL_JOBS,
        "python benchmarks/huggingface_loop.py --model-folder models/minilm --data data/SST-2 --steps 3 --rounds 5 --clock cpu "
        "--threads 1 --systems 'crossdistil;sorted;exact;same;crossdistil, known teacher;same, known teacher'`, without `exact` "
        "with `--shape 12x768 --batch-size 32 --steps 1 --rounds 21`, and with `--model-folder models/chinese --data "
        "data/waimai --task waimai --text text_a --label label --batch-size 32 --steps 1",
        "2026-11-30",
    ),
    "speed_two_threads": Measured(
        ("huggingface_loop_two_threads.json", "huggingface_loop_base_two_threads.json"),
        "python benchmarks/huggingface_loop.py --model-folder models/minilm --data data/SST-2 --steps 3 --rounds 9 --threads 2 "
        "--systems 'crossdistil;sorted;same'`, and with `--shape 12x768 --batch-size 32 --steps 1",
        "2026-11-30",
    ),
    "speed_rivals": Measured(_RIVAL_JOBS, "python benchmarks/huggingface_loop.py", "2026-11-30"),
    "speed_of_backends": Measured(
        ("backends_step_time.json",),
        "python benchmarks/backends_step_time.py --model-folder models/minilm --data data/SST-2 --steps 4 --rounds 5 --clock cpu "
        "--threads 1",
        "2026-11-30",
    ),
    "step_profile": Measured(
        ("step_profile.json",),
        "python benchmarks/step_profile.py --version VERSION --model-folder models/minilm --data data/SST-2",
        "2026-11-29",
    ),
    "step_profile_mindspore": Measured(
        ("step_profile_mindspore.json",),
        "python benchmarks/step_profile.py --backend mindspore --batch 32 --steps 2 --version VERSION --model-folder "
        "models/minilm --data data/SST-2",
        "2026-11-30",
    ),
    "step_profile_oneflow": Measured(
        ("step_profile_oneflow.json",),
        "python benchmarks/step_profile.py --backend oneflow --batch 32 --steps 2 --version VERSION --model-folder "
        "models/minilm --data data/SST-2",
        "2026-11-30",
    ),
    "oneflow_kernels": Measured(
        ("oneflow_kernels.json",),
        "python benchmarks/oneflow_kernels.py --model-folder models/minilm --data data/SST-2 --threads 1 --rounds 5",
        "2026-11-30",
    ),
    "textbrewer": Measured(
        ("textbrewer.json",),
        "python benchmarks/textbrewer_job.py --data data/reviews --vocabulary vocab.txt --rows 192 --bf16",
    ),
    "crosscheck": Measured(
        ("crosscheck.json",),
        f"{_CROSSCHECKS} --checks kd --steps 100 --results runs/hundred",
        published="With the small models of [every recipe](#every-recipe), below.",
    ),
    "crosschecks": Measured(
        ("crosschecks",),
        _CROSSCHECKS,
        "2026-11-30",
        published="Each row is `crossdistil crosscheck RECIPE --backends torch,oneflow,mindspore --steps 50` with small models: "
        "teachers of 4 layers x 128, trained for some hundred steps on the same data, students of 2 layers. `answers`, "
        "`questions` and `rankings` are made of Wikipedia's sentences. What each check set beside data and models is kept with "
        "its figures, in `benchmarks/results/crosschecks`.",
    ),
    "bert_base_shapes": Measured(("bert_base_shapes.json",), "python benchmarks/bert_base_shapes.py", "2026-11-21"),
    "epoch": Measured(("epoch",), "crossdistil run kd --backend BACKEND --set stages.0.train.epochs=1", "2026-11-20"),
    "from_text": Measured(
        ("from_text.json",),
        "python benchmarks/from_text.py --text data/enwiki --task data/SST-2 --encoder models/encoder --out runs/from_text",
        "2026-11-21",
    ),
    "vocabulary_memory": Measured(("vocabulary_memory.json",), "python benchmarks/vocabulary_memory.py", "2026-11-21"),
    "mlm_data": Measured(
        ("mlm_data.json",),
        "python benchmarks/mlm_data.py --text enwiki_sample.txt uncased.txt pieces "
        "--text peopledaily_train.txt chinese.txt chinese",
        "2026-11-21",
    ),
    "conversion_matrix": Measured(
        ("conversion_matrix.json",), "python benchmarks/conversion_matrix.py --encoder models/encoder", "2026-11-21"
    ),
    "conversion_speed": Measured(("conversion_speed.json",), "python benchmarks/conversion_speed.py", "2026-11-21"),
    "conversion_referees": Measured(("conversion_referees.json",), "python benchmarks/conversion_referees.py", "2026-11-28"),
    "real_models": Measured(
        ("real_models.json",),
        "python benchmarks/real_models.py --tokens --model MODEL --texts TEXTS --backend NAME PYTHON",
        "2026-11-29",
    ),
    "sentence_embeddings": Measured(
        ("sentence_embeddings.json",),
        "OMP_NUM_THREADS=1 python benchmarks/sentence_embeddings.py --texts data/enwiki.txt data/SST-2/train.tsv "
        "--scored data/STS-B --teacher models/minilm --count 4000 --epochs 2 --set stages.0.train.batch_size=16 "
        "--set stages.0.train.learning_rate=3e-4 --out runs/embeddings",
    ),
    "labelled_files": Measured(
        ("labelled_files.json",),
        "python benchmarks/labelled_files.py --data data/SST-2 --cache runs/answers/teacher --encoder models/minilm "
        "--sides 'gold,probabilities,one vote,three votes' --set stages.0.train.learning_rate=1e-4 --out runs/labelled",
    ),
    "exports": Measured(
        ("exports.json",), "python benchmarks/exports.py --data data/SST-2 --models runs/minilm runs/tinybert runs/bilstm"
    ),
    "service_load": Measured(("service_load.json",), "python benchmarks/service_load.py exported/onnx --data data/SST-2"),
    "starting": Measured(
        ("starting.json",),
        "taskset -c 1 python benchmarks/starting.py --model models/minilm --before ../before/crossdistil "
        "--python mindspore .venv/bin/python --python oneflow .venv-oneflow/bin/python --rounds 4",
    ),
    "scaling": Measured(("scaling_measured.json",), "python benchmarks/scaling.py --measure"),
    "crosschecks_processes": Measured(
        ("processes",), "crossdistil crosscheck METHOD --backends torch,oneflow,mindspore --devices 1,2", "2026-11-29"
    ),
    "processes": Measured(("processes.json",), "python benchmarks/processes.py proof", "2026-11-29"),
    "processes_speed": Measured(("processes.json",), "python benchmarks/processes.py speed", "2026-11-29"),
    "printed_compare": Measured(("printed_compare.json",), "python benchmarks/printed.py compare"),
    "printed_search": Measured(("printed_search.json",), "python benchmarks/printed.py search"),
    "printed_serve": Measured(("printed_serve.json",), "python benchmarks/printed.py serve"),
    "printed_trim": Measured(
        ("printed_trim.json",),
        "python benchmarks/printed.py trim --model models/multilingual --data data/waimai --data data/cosmetics",
    ),
    "robustness": Measured((), "the drivers in the table", ""),
}
"""Name of a table -> what it is made of."""


def about(name: str, result: dict[str, Any]) -> str:
    """The last line of a table: how, where and when its figures were measured."""
    measured = TABLES[name]
    machine = result.get("machine", {})
    where = f"{machine['cpu']}, {machine['cores']} cores" if isinstance(machine, dict) and "cores" in machine else MACHINE
    return f"Measured by `{measured.command}`; {where}; {result.get('date', measured.date)}."


def body(name: str) -> str:
    """A table with all that is to be said of it; where its results are not kept yet, a line that says so."""
    if name == "robustness":
        return robustness.table()
    paths = [RESULTS / source for source in TABLES[name].sources]
    if not all(path.exists() for path in paths):
        return f"Not measured yet; `{TABLES[name].command}` does it."
    result = json.loads(paths[0].read_text(encoding="utf-8")) if paths[0].is_file() else {}
    if result.get("benchmark") == "printed":
        text = "\n".join(["```text", f"$ {result['command']}", *result["lines"], "```"])
    elif name in ("processes", "processes_speed"):
        text = tables_of(result)[name]
    elif name == "speed_rivals":
        text = rivals([json.loads(path.read_text(encoding="utf-8")) for path in paths])
    else:
        text = body_of(paths, RESULTS / "latency.json")
    published = f"{TABLES[name].published}\n\n" if TABLES[name].published else ""
    return f"{text}\n\n{published}{about(name, result)}"


def pages() -> Iterator[Path]:
    """The READMEs and the pages of docs/."""
    yield from sorted(ROOT.glob("README*.md"))
    yield from sorted((ROOT / "docs").rglob("*.md"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page differs")
    options = parser.parse_args()
    differing = []
    for page in pages():
        before = text = page.read_text(encoding="utf-8")
        for name in MARKER.findall(text):
            if name not in TABLES:
                sys.exit(f"{page}: there is no table '{name}'; there are {', '.join(TABLES)}")
            text = replace_section(text, name, body(name))
        if text != before:
            differing.append(str(page.relative_to(ROOT)))
            if not options.check:
                page.write_text(text, encoding="utf-8")
    if options.check and differing:
        sys.exit(f"{', '.join(differing)}: not what the kept results give; python benchmarks/pages.py writes them")
    print(f"written: {', '.join(differing) or 'nothing, all tables are up to date'}" if not options.check else "up to date")


if __name__ == "__main__":
    main()
