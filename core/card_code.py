"""The Python in a model card that asks the model about a text: whole programs, which run as they stand in the model's folder and
need nothing of crossdistil."""

from __future__ import annotations

from .checkpoint import Model
from .model_inputs import inputs_of, takes_pairs, trained_length
from .models.answer_heads import EMBEDDINGS
from .models.architectures import is_encoder

_RUNTIMES = {
    "onnx": (
        "import onnxruntime",
        'session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])\n'
        'logits = session.run(["logits"], inputs)[0][0]',
    ),
    "openvino": (
        "import openvino",
        'settings = {{"INFERENCE_PRECISION_HINT": "{hint}"}}\n'
        'program = openvino.Core().compile_model("openvino_model.xml", "CPU", settings)\n'
        "logits = program(inputs)[program.output(0)][0]",
    ),
    "pt2": (
        "import torch",
        'program = torch.export.load("model.pt2").module()\n'
        "with torch.no_grad():\n"
        '    logits = program(*map(torch.from_numpy, inputs.values()))["logits"][0].numpy()',
    ),
    "aoti": (
        "import torch",
        'program = torch._inductor.aoti_load_package("model.aoti.pt2")\n'
        "with torch.no_grad():\n"
        '    logits = program(*map(torch.from_numpy, inputs.values()))["logits"][0].numpy()',
    ),
}
"""Format -> what is imported, and the lines from `inputs` to `logits`."""
_LABELS = """with open("config.json", encoding="utf-8") as file:
    labels = json.load(file)["id2label"]"""


def is_of_pairs(model: Model) -> bool:
    """Whether the model was trained on pairs of texts, as far as is known."""
    task = model.about.get("task")
    return bool(getattr(model.config, "pairs", False)) or (isinstance(task, dict) and takes_pairs(task))


def exported_code(model: Model, format: str, precision: str) -> str:
    """A program for an exported classifier, by its own runtime; an empty string for a format that has none here."""
    if format not in _RUNTIMES:
        return ""
    package, run = _RUNTIMES[format]
    run = run.format(hint="bf16" if precision == "bf16" else "f32") if format == "openvino" else run
    shares = "" if model.kind.own_losses else model.kind.values_code  # whose logits only its plugin reads
    parts = [*(["import json\n"] if shares else []), f"import numpy as np\n{package}"]
    parts += ["from tokenizers import Tokenizer\n", _tokens(model), run]
    end = [shares, _LABELS, f"{model.kind.shown_code}\n"] if shares else ["print(logits[0])\n"]
    return "\n".join([*parts, *end])


def _tokens(model: Model) -> str:
    """The lines from a text to `inputs`, in the graph's order."""
    apart = getattr(model.config, "pairs", False)  # a BiLSTM's second text is an input of its own
    texts = '"a text", "another"' if is_of_pairs(model) and is_encoder(model.config) else '"a text"'
    lines = ['tokenizer = Tokenizer.from_file("tokenizer.json")', f"tokenizer.enable_truncation({trained_length(model)})"]
    if apart:  # both have one length in the graph
        lines += ["tokenizer.enable_padding()", 'tokens, second = tokenizer.encode_batch(["a text", "another"])']
    else:
        lines.append(f"tokens = tokenizer.encode({texts})")
    values = {
        "input_ids": "[tokens.ids]",
        "attention_mask": "[tokens.attention_mask]",
        "token_type_ids": "[tokens.type_ids]",
        "second_ids": "[second.ids]",
        "second_mask": "[second.attention_mask]",
    }
    inputs = {name: dtype.__name__ for name, (dtype, _) in inputs_of(model.config).items()}
    lines.append("inputs = {")
    lines += [f'    "{name}": np.array({values[name]}, np.{dtype}),' for name, dtype in inputs.items()]
    return "\n".join([*lines, "}"])


def transformers_code(model: Model) -> str:
    """A program for a model that transformers loads, or sentence-transformers where it embeds texts or ranks them."""
    if model.head == EMBEDDINGS:
        return (
            "from sentence_transformers import SentenceTransformer\n\n"
            'model = SentenceTransformer("FOLDER")\nvectors = model.encode(["a text", "another"])\n'
            "print(model.similarity(vectors, vectors))\n"
        )
    if model.kind.ranks:
        return (
            "from sentence_transformers import CrossEncoder\n\n"
            'model = CrossEncoder("FOLDER")\nprint(model.rank("a query", ["a candidate", "another"]))\n'
        )
    kind = model.head.class_name
    texts = '"a text", "another"' if is_of_pairs(model) else '"a text"'
    options = f'truncation=True, max_length={trained_length(model)}, return_tensors="pt"'
    if "token_type_ids" not in inputs_of(model.config):
        options += ", return_token_type_ids=False"
    shown = "logits" if model.head.output else "last_hidden_state"
    return (
        f"from transformers import AutoTokenizer, {kind}\n\n"
        f'model = {kind}.from_pretrained("FOLDER")\ntokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
        f"tokens = tokenizer({texts}, {options})\nprint(model(**tokens).{shown})\n"
    )
