"""Models inside others: the prefix of their names is found, and the model that is read computes what the source's module does.

The modules are those of PyTorch and transformers, wrapped as training code wraps them."""

from __future__ import annotations

import json
import random
import re
import string
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import crossdistil
from crossdistil.converters.canonical import ReadOptions, read_canonical
from crossdistil.converters.reading import renamed
from crossdistil.converters.recognise import recognise
from crossdistil.core.checkpoint import load_model
from crossdistil.core.errors import CheckpointError, CrossdistilError
from crossdistil.core.models.encoder import make_forward
from crossdistil.core.models.outputs import output_name
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests.real_names import GOOGLE, of, shaped

SIZES = dict(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
             max_position_embeddings=24)  # fmt: skip
IDS = np.arange(20, dtype=np.int64).reshape(2, 10) + 3


@pytest.fixture(scope="module")
def classes():
    """(torch, transformers), whose models are small and random."""
    import torch
    import transformers

    torch.manual_seed(0)
    return torch, transformers


def write_config(folder: Path, config) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_diff_dict() | {"model_type": config.model_type}))


def source_hidden(torch, encoder) -> np.ndarray:
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        return encoder.eval()(torch.from_numpy(IDS)).last_hidden_state.numpy()


def read_hidden(folder: Path) -> np.ndarray:
    model = load_model(folder)
    name = output_name("hidden", model.config.num_hidden_layers)
    batch = {"input_ids": IDS.astype(np.int32), "token_type_ids": np.zeros_like(IDS, np.int32)}
    batch["attention_mask"] = np.ones(IDS.shape, np.float32)
    wide = {key: array.astype(np.float64) for key, array in model.parameters.items()}
    return make_forward(model.config.without_dropout(), frozenset({name}))(ReferenceOps(), wide, batch)[name]


def wrapped(torch, transformers, how: str):
    """(module whose state is saved, its encoder, the prefix that is told) as training code makes them."""
    nn = torch.nn
    config = transformers.BertConfig(**SIZES)
    classifier = transformers.BertForSequenceClassification(config)
    encoder = transformers.BertModel(config)

    class Module(nn.Module):
        """As a Lightning module, with a loss that has a weight."""

        def __init__(self, **parts):
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

    if how == "data parallel":
        return nn.DataParallel(classifier), classifier.bert, ""
    if how == "compiled":
        return torch.compile(classifier), classifier.bert, ""
    if how == "compiled inside":
        classifier.bert.encoder = torch.compile(classifier.bert.encoder)
        classifier.bert.encoder.layer[1].attention = torch.compile(classifier.bert.encoder.layer[1].attention)
        return nn.DataParallel(classifier), classifier.bert, ""
    if how == "parallel inside":
        classifier.bert = nn.DataParallel(classifier.bert)
        return classifier, classifier.bert.module, ""
    if how == "lightning":
        return Module(model=classifier), classifier.bert, "model."
    if how == "deep":
        return Module(net=nn.DataParallel(Module(student=torch.compile(classifier)))), classifier.bert, "net.student."
    if how == "bert in bert":
        return Module(bert=classifier), classifier.bert, "bert."
    if how == "bare":
        return Module(encoder=encoder), encoder, "encoder."
    if how == "sentence transformers":
        return nn.Sequential(Module(auto_model=encoder), nn.Identity()), encoder, "0.auto_model."
    if how == "electra as bert":
        electra = transformers.ElectraModel(transformers.ElectraConfig(**SIZES, embedding_size=16))
        return Module(bert=electra), electra, "bert."
    if how == "roberta as bert":
        roberta = transformers.RobertaModel(transformers.RobertaConfig(**SIZES, type_vocab_size=1))
        return Module(bert=roberta), roberta, "bert."
    distilbert = transformers.DistilBertForSequenceClassification(
        transformers.DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=24)
    )
    return Module(backbone=distilbert), distilbert.distilbert, "backbone."


WAYS = ["data parallel", "compiled", "compiled inside", "parallel inside", "lightning", "deep", "bert in bert", "bare",
        "sentence transformers", "electra as bert", "roberta as bert", "distilbert"]  # fmt: skip


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("how", WAYS)
def test_a_wrapped_module_is_read_as_itself(classes, tmp_path, how):
    torch, transformers = classes
    module, encoder, prefix = wrapped(torch, transformers, how)
    write_config(tmp_path, encoder.config)
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, tmp_path / "last.ckpt")
    done = crossdistil.convert(tmp_path / "last.ckpt", tmp_path / "out", to="pytorch")
    told = [note for note in done["notes"] if "names start with" in note]
    assert told == ([f"the model's names start with '{prefix}', which is left out"] if prefix else [])
    expected, got = source_hidden(torch, encoder), read_hidden(tmp_path / "out")
    assert np.abs(expected - got).max() < 1e-5


@pytest.mark.only_backend("torch")
def test_what_lies_beside_a_model_is_extra_and_a_head_can_be_renamed(classes, tmp_path):
    torch, transformers = classes
    config = transformers.BertConfig(**SIZES)
    module = torch.nn.Module()
    module.model = transformers.BertForSequenceClassification(config)
    module.fc, module.criterion = torch.nn.Linear(16, 3), torch.nn.CrossEntropyLoss(torch.ones(2))
    del module.model.classifier
    write_config(tmp_path, config)
    path = tmp_path / "last.pth"
    torch.save(module.state_dict(), path)
    with pytest.raises(CheckpointError) as refused:
        read_canonical(path)
    text = str(refused.value)
    assert "unknown tensor fc.weight" in text and "whose names start with 'model.'" in text and "--rename" in text
    options = ReadOptions(allow_extra=("criterion.*",), rename=("fc.*=classifier.*",))
    found = read_canonical(path, options)
    assert (found.outputs, found.left_out) == (3, ["criterion.weight"])
    assert np.array_equal(found.tensors["classifier.weight"].load(), module.fc.weight.detach().numpy())
    assert read_canonical(path, ReadOptions(allow_extra=("criterion.*",), rename=("fc.*=model.classifier.*",))).outputs == 3
    for rename, problem in (
        ("fd.*=classifier.*", "--rename fd.*=classifier.*: no tensor has a name like fd.*"),
        ("fc.*", "expected PATTERN=NAME"),
        ("fc.weight=*", "NAME has more * than PATTERN"),
        ("fc.*=classifier.weight", "fc.weight and fc.bias would both be classifier.weight"),
    ):
        with pytest.raises(CheckpointError) as refused:
            read_canonical(path, ReadOptions(rename=(rename,)))
        assert problem in str(refused.value)


@pytest.mark.only_backend("torch")
def test_two_models_in_a_file_are_told_and_one_of_them_is_read(classes, tmp_path):
    torch, transformers = classes
    small, large = transformers.BertConfig(**SIZES), transformers.BertConfig(**SIZES | {"num_hidden_layers": 3})
    module = torch.nn.Module()
    module.teacher, module.student = (transformers.BertForSequenceClassification(config) for config in (large, small))
    module.projection = torch.nn.Linear(16, 16)
    write_config(tmp_path, small)
    path = tmp_path / "both.pt"
    torch.save(module.state_dict(), path)
    with pytest.raises(CheckpointError, match="it holds 2 models, whose names start with 'teacher.' and 'student.'; --prefix"):
        read_canonical(path)
    for prefix in ("student.", "student"):
        found = read_canonical(path, ReadOptions(prefix=prefix, allow_extra=("projection.*",)))
        assert found.dropped_by_reason["of another model, under 'teacher.'"] == len(module.teacher.state_dict())
        own = module.student.bert.embeddings.word_embeddings.weight
        assert np.array_equal(found.tensors["bert.embeddings.word_embeddings.weight"].load(), own.detach().numpy())
    left = read_canonical(path, ReadOptions(allow_extra=("teacher.*", "projection.*"), prefix="student."))
    assert left.tensors.keys() == found.tensors.keys()
    with pytest.raises(CheckpointError, match="no tensor has a name that is known behind --prefix 'pupil.'"):
        read_canonical(path, ReadOptions(prefix="pupil."))
    pair = torch.nn.ModuleList([module.student, transformers.BertForSequenceClassification(small)])
    torch.save(pair.state_dict(), path)
    with pytest.raises(CheckpointError, match="whose names start with '0.' and '1.'"):
        read_canonical(path)


@pytest.mark.only_backend("torch")
def test_a_recipe_says_how_its_models_are_read(classes, tmp_path, monkeypatch):
    from crossdistil.core.app.recipe_models import found_models
    from crossdistil.core.recipe import load_recipe

    torch, transformers = classes
    monkeypatch.setenv("CROSSDISTIL_CACHE", str(tmp_path / "cache"))
    config = transformers.BertConfig(**SIZES)
    module = torch.nn.Module()
    module.teacher, module.student = (transformers.BertForSequenceClassification(config) for _ in range(2))
    module.criterion = torch.nn.CrossEntropyLoss(torch.ones(2))
    write_config(tmp_path / "both", config)
    torch.save(module.state_dict(), tmp_path / "both" / "pytorch_model.bin")
    folder = str(tmp_path / "both")
    settings = [f"teacher.model={folder}", f"student.init.from={folder}", "student.init.layers=null", f"task.data={folder}",
                "teacher.read={prefix: teacher., allow_extra: ['crit*']}", "student.architecture={}"]  # fmt: skip
    settings += ["student.init.read.prefix=student.", "student.init.read.allow_extra=['criterion.*']"]
    recipe = load_recipe("kd", settings)
    assert recipe.digest() != load_recipe("kd", [*settings[:-1], "student.init.read.allow_extra=['*']"]).digest()
    read = found_models(recipe).recipe
    for path, own in ((read.teacher.model, module.teacher), (Path(read.student.init.source), module.student)):
        words = load_file(path / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
        assert np.array_equal(words, own.bert.embeddings.word_embeddings.weight.detach().numpy())
    failures = found_models(load_recipe("kd", [*settings[:4], settings[5]])).failures
    assert re.match(r"teacher.model: .*it holds 2 models", str(failures["teacher.model"]))
    with pytest.raises(CrossdistilError, match="read is given, but from is 'random'"):
        load_recipe("kd", [*settings, "student.init.from=random"])


def test_renaming_is_by_place():
    names, touched = renamed(["a.1.b.2", "c"], ["a.*.b.*=x.*.y.*", "c=d"])
    assert (names, touched) == ({"a.1.b.2": "x.1.y.2", "c": "d"}, {"a.1.b.2", "c"})


def test_the_time_does_not_grow_faster_than_the_number_of_names():
    generator = random.Random(0)
    words = "bert module encoder layer embeddings word_embeddings weight cls classifier dense model 0 electra query".split()
    model = [f"model.{name}" for name in of("bert", "canonical").values()]

    def names(count: int) -> list[list[str]]:
        mixed = [separator.join(generator.choices(words, k=8)) for separator in "./-" for _ in range(count // 3)]
        prefixes = [f"{number}p.bert.embeddings.word_embeddings.weight" for number in range(count)]
        letters = ["".join(generator.choices(string.ascii_letters + "./-", k=60)) for _ in range(count)]
        return [list(dict.fromkeys(kind)) for kind in (mixed, prefixes, [*letters, *model], ["a." * 400 + x for x in letters])]

    def seconds(count: int) -> float:
        start = time.process_time()
        for kind in names(count):
            try:
                recognise(shaped(kind), None)
            except CheckpointError as error:
                assert len(str(error)) < 2000
        return time.process_time() - start

    recognise(shaped(GOOGLE), None)
    small = seconds(1000)
    assert seconds(8000) < 16 * small + 0.5


@pytest.mark.only_backend("torch")
def test_a_classifier_beside_the_model_is_read_as_its_hint_says(classes, tmp_path):
    torch, transformers = classes
    config = transformers.BertConfig(**SIZES)
    whole, module = transformers.BertForSequenceClassification(config), torch.nn.Module()
    module.backbone = torch.nn.Module()
    module.backbone.bert, module.classifier = whole.bert, whole.classifier
    write_config(tmp_path, config)
    path = tmp_path / "last.pth"
    torch.save(module.state_dict(), path)
    with pytest.raises(CheckpointError) as refused:
        read_canonical(path)
    [rename] = re.findall(r"--rename '([^']*)' reads them as parts of the model", str(refused.value))
    assert rename == "classifier.*=backbone.classifier.*"
    found = read_canonical(path, ReadOptions(rename=(rename,)))
    assert np.array_equal(found.tensors["classifier.weight"].load(), whole.classifier.weight.detach().numpy())
