"""The families of models, one a module: configuration, tree of tensors, and what differs in its layers. A new one is a module
here, a line in this file, and a test (docs/families.md)."""

from __future__ import annotations

from ..spec import ModelConfig
from .albert import AlbertConfig
from .bert import BertConfig
from .bilstm import BiLstmConfig
from .deberta_v2 import DebertaV2Config
from .distilbert import DistilBertConfig
from .electra import ElectraConfig
from .ernie import ErnieConfig
from .gpt2 import Gpt2Config
from .modernbert import ModernBertConfig
from .mpnet import MPNetConfig
from .nomic_bert import NomicBertConfig
from .roberta import CamembertConfig, RobertaConfig, XlmRobertaConfig

CONFIGURATIONS: dict[str, type[ModelConfig]] = {
    chosen.family.model_type: chosen
    for chosen in (
        BertConfig,
        DistilBertConfig,
        AlbertConfig,
        ElectraConfig,
        RobertaConfig,
        XlmRobertaConfig,
        CamembertConfig,
        MPNetConfig,
        DebertaV2Config,
        ErnieConfig,
        ModernBertConfig,
        Gpt2Config,
        NomicBertConfig,
        BiLstmConfig,
    )
}
"""`model_type` of a config.json -> its configuration; plugins add theirs (`core.models.known_families`)."""
