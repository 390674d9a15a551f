"""What the encoder families call their parts, and the few places where they compute differently.

DistilBERT (Sanh et al. 2019), ALBERT (Lan et al. 2020) and ELECTRA (Clark et al. 2020) are BERT's encoder under other names:
what is told here is all that the one forward pass (`core.models.bert`) must know of them beside their sizes. Names are those
of Hugging Face's *ForSequenceClassification.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """A family. A part's tensors are its name with `.weight` and `.bias`; those of a layer follow the layer's prefix."""

    model_type: str
    """As config.json has it."""
    title: str
    """What transformers' classes start with."""
    layer: str
    """Prefix of a layer, with `{layer}`, or with `{group}` and `{inner}` where layers are shared."""
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    intermediate: str = "intermediate.dense"
    output: str = "output.dense"
    output_norm: str = "output.LayerNorm"
    output_dropout: bool = True
    """Whether the feed-forward output is dropped out; ALBERT's code has the layer and does not use it."""
    projection: str | None = None
    """The linear map from embeddings to hidden states, where embeddings may be of another width."""
    always_projects: bool = False
    """Whether the projection is there also where the two widths are equal."""
    pooler: str = "pooler"
    """The classifier's hidden map of the first token."""
    pooler_in_encoder: bool = True
    """Whether the pooler belongs to an encoder without a classifier."""
    pooler_activation: str = "tanh"
    pooler_dropout: bool = False
    """Whether there is a dropout before the pooler too."""
    classifier: str = "classifier"

    @property
    def root(self) -> str:
        """What the encoder's names start with."""
        return f"{self.model_type}."

    @property
    def embeddings(self) -> str:
        """What the embeddings' names start with."""
        return f"{self.model_type}.embeddings."


BERT = Names("bert", "Bert", "bert.encoder.layer.{layer}.", pooler="bert.pooler.dense")

DISTILBERT = Names(
    "distilbert",
    "DistilBert",
    "distilbert.transformer.layer.{layer}.",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    intermediate="ffn.lin1",
    output="ffn.lin2",
    output_norm="output_layer_norm",
    pooler="pre_classifier",
    pooler_in_encoder=False,
    pooler_activation="relu",
)

ALBERT = Names(
    "albert",
    "Albert",
    "albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}.",
    query="attention.query",
    key="attention.key",
    value="attention.value",
    attention_output="attention.dense",
    attention_norm="attention.LayerNorm",
    intermediate="ffn",
    output="ffn_output",
    output_norm="full_layer_layer_norm",
    output_dropout=False,
    projection="albert.encoder.embedding_hidden_mapping_in",
    always_projects=True,
    pooler="albert.pooler",
)

ELECTRA = Names(
    "electra",
    "Electra",
    "electra.encoder.layer.{layer}.",
    projection="electra.embeddings_project",
    pooler="classifier.dense",
    pooler_in_encoder=False,
    pooler_activation="gelu",
    pooler_dropout=True,
    classifier="classifier.out_proj",
)
