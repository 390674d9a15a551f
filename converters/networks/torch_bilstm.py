# SPDX-License-Identifier: Apache-2.0
"""BiLSTM in PyTorch. (This line and the constants below are replaced when the file is written beside converted weights.)"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from .shared import check, command_line, loaded, read_settings, respond
from .shared_bilstm import ASKED, features, problem_of, stored_shapes
from .shared_torch import answers, read_weights

# --- what the weights beside this file are
WEIGHTS = "model.safetensors"
HEADS = {"logits": 2}
TASK = "sentences"
PAIRS = False
KEYS = {}
# --- end


class Network(nn.Module):
    """Words, one bidirectional LSTM, and a classifier with a hidden layer (Tang et al. 2019).

    `network(input_ids, attention_mask)`, each (batch, length), padded on the right; without a mask, all are words. Where PAIRS
    is true, `network(input_ids, attention_mask, second_ids, second_mask)`. Returns the logits (batch, classes).
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embeddings = nn.Embedding(config["vocab_size"], config["embedding_size"])
        self.lstm = nn.LSTM(config["embedding_size"], config["hidden_size"], batch_first=True, bidirectional=True)
        self.fully_connected = nn.Linear(features(config), config["fully_connected_size"])
        self.classifier = nn.Linear(config["fully_connected_size"], HEADS["logits"])

    def encode(self, ids, mask=None):
        """The forward state after the last word and the backward one after the first: (batch, 2 hidden)."""
        lengths = (torch.ones_like(ids) if mask is None else mask).sum(1)
        # A text of no word has zeros, and cannot be packed.
        words = pack_padded_sequence(self.embeddings(ids), lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        _, (ends, _) = self.lstm(words)
        return torch.cat([ends[0], ends[1]], 1) * (lengths > 0).unsqueeze(1)

    def forward(self, input_ids, attention_mask=None, second_ids=None, second_mask=None):
        x = self.encode(input_ids, attention_mask)
        if PAIRS:
            second = self.encode(second_ids, second_mask)
            x = torch.cat([x, second, (x - second).abs(), x * second], 1)
        x = functional.relu(self.fully_connected(x))
        return self.classifier(functional.dropout(x, self.config["dropout"], self.training))


def load(folder=None):
    """The network with the weights of a folder, ready to answer. Raises ValueError where a tensor is missing, unexpected or of
    another shape."""
    folder = Path(folder or Path(__file__).parent)
    config = read_settings(folder)
    network, path = Network(config), folder / WEIGHTS
    stored = read_weights(path)
    check(path, stored_shapes(config), {name: tuple(tensor.shape) for name, tensor in stored.items()})
    own = {name: tensor.float() for name, tensor in stored.items() if not name.startswith("lstm.")}
    for name, stem in (("input", "ih"), ("hidden", "hh")):
        for part in ("weight", "bias"):
            forward, backward = stored[f"lstm.{name}_{part}"].float()
            own |= {f"lstm.{part}_{stem}_l0": forward, f"lstm.{part}_{stem}_l0_reverse": backward}
    network.load_state_dict(own)
    return network.eval()


def main():
    """Print what the network answers for the word ids of one text, or of a pair."""
    parser = command_line(ASKED)
    given = parser.parse_args()
    respond(parser, given, loaded(load, given.folder), problem_of, answers)


if __name__ == "__main__":
    main()
