# SPDX-License-Identifier: Apache-2.0
"""BiLSTM in OneFlow. (This line and the constants below are replaced when the file is written beside converted weights.)"""

from pathlib import Path

import oneflow as flow
from oneflow import nn

from .shared import check, command_line, loaded, read_settings, respond
from .shared_bilstm import ASKED, features, problem_of, stored_shapes
from .shared_oneflow import answers, read_weights

# --- what the weights beside this file are
WEIGHTS = "weights"
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
        self.config, self.hidden = config, config["hidden_size"]
        self.embeddings = nn.Embedding(config["vocab_size"], config["embedding_size"])
        # What the gates take from the words and from the state before, of both directions. The steps are written out here:
        # nn.LSTM runs on over padding.
        self.of_words = nn.ModuleList([nn.Linear(config["embedding_size"], 4 * self.hidden) for _ in range(2)])
        self.of_state = nn.ModuleList([nn.Linear(self.hidden, 4 * self.hidden) for _ in range(2)])
        self.fully_connected = nn.Linear(features(config), config["fully_connected_size"])
        self.classifier = nn.Linear(config["fully_connected_size"], HEADS["logits"])

    def end(self, direction, words, mask):
        """The state of one direction when it has seen all words: (batch, hidden)."""
        given, size, length = self.of_words[direction](words), self.hidden, words.shape[1]
        state = cell = flow.zeros(words.shape[0], size, device=words.device)
        for place in reversed(range(length)) if direction else range(length):
            gates = given[:, place] + self.of_state[direction](state)
            enter, forget = flow.sigmoid(gates[:, :size]), flow.sigmoid(gates[:, size : 2 * size])
            moved = forget * cell + enter * flow.tanh(gates[:, 2 * size : 3 * size])
            real = mask[:, place].reshape(-1, 1)  # padding leaves the state as it was
            state = real * flow.sigmoid(gates[:, 3 * size :]) * flow.tanh(moved) + (1.0 - real) * state
            cell = real * moved + (1.0 - real) * cell
        return state

    def encode(self, ids, mask=None):
        """The forward state after the last word and the backward one after the first: (batch, 2 hidden)."""
        mask = (flow.ones_like(ids) if mask is None else mask).to(flow.float32)
        words = self.embeddings(ids)
        return flow.cat([self.end(0, words, mask), self.end(1, words, mask)], dim=1)

    def forward(self, input_ids, attention_mask=None, second_ids=None, second_mask=None):
        x = self.encode(input_ids, attention_mask)
        if PAIRS:
            second = self.encode(second_ids, second_mask)
            x = flow.cat([x, second, flow.abs(x - second), x * second], dim=1)
        x = flow.relu(self.fully_connected(x))
        return self.classifier(nn.functional.dropout(x, self.config["dropout"], self.training))


def load(folder=None):
    """The network with the weights of a folder, ready to answer. Raises ValueError where a tensor is missing, unexpected or of
    another shape."""
    folder = Path(folder or Path(__file__).parent)
    config = read_settings(folder)
    network, path = Network(config), folder / WEIGHTS
    stored = read_weights(path)
    check(path, stored_shapes(config), {name: tuple(tensor.shape) for name, tensor in stored.items()})
    own = {name: tensor.to(flow.float32) for name, tensor in stored.items() if not name.startswith("lstm.")}
    for name, layers in (("input", "of_words"), ("hidden", "of_state")):
        for part in ("weight", "bias"):
            both = stored[f"lstm.{name}_{part}"].to(flow.float32)
            own |= {f"{layers}.{number}.{part}": both[number] for number in range(2)}
    network.load_state_dict(own)
    return network.eval()


def main():
    """Print what the network answers for the word ids of one text, or of a pair."""
    parser = command_line(ASKED)
    given = parser.parse_args()
    respond(parser, given, loaded(load, given.folder), problem_of, answers)


if __name__ == "__main__":
    main()
