# SPDX-License-Identifier: Apache-2.0
"""BiLSTM in MindSpore. (This line and the constants below are replaced when the file is written beside converted weights.)"""

from pathlib import Path

import mindspore as ms
from mindspore import nn, ops

from .shared import check, command_line, loaded, read_settings, respond
from .shared_bilstm import ASKED, features, problem_of, stored_shapes
from .shared_mindspore import answers, read_weights, tanh

# --- what the weights beside this file are
WEIGHTS = "model.ckpt"
HEADS = {"logits": 2}
TASK = "sentences"
PAIRS = False
KEYS = {}
# --- end


class Network(nn.Cell):
    """Words, one bidirectional LSTM, and a classifier with a hidden layer (Tang et al. 2019).

    `network(input_ids, attention_mask)`, each (batch, length), padded on the right; without a mask, all are words. Where PAIRS
    is true, `network(input_ids, attention_mask, second_ids, second_mask)`. Returns the logits (batch, classes).
    """

    def __init__(self, config):
        super().__init__()
        self.config, self.hidden, self.pairs = config, config["hidden_size"], PAIRS
        self.embeddings = nn.Embedding(config["vocab_size"], config["embedding_size"])
        # What the gates take from the words and from the state before, of both directions. The steps are written out here:
        # nn.LSTM runs on over padding.
        self.of_words = nn.CellList([nn.Dense(config["embedding_size"], 4 * self.hidden) for _ in range(2)])
        self.of_state = nn.CellList([nn.Dense(self.hidden, 4 * self.hidden) for _ in range(2)])
        self.fully_connected = nn.Dense(features(config), config["fully_connected_size"])
        self.dropout = nn.Dropout(p=config["dropout"])
        self.classifier = nn.Dense(config["fully_connected_size"], HEADS["logits"])

    def end(self, direction, words, mask):
        """The state of one direction when it has seen all words: (batch, hidden)."""
        given, size, length = self.of_words[direction](words), self.hidden, words.shape[1]
        state = cell = ops.zeros((words.shape[0], size), ms.float32)
        for step in range(length):
            place = length - 1 - step if direction else step
            gates = given[:, place] + self.of_state[direction](state)
            enter, forget = ops.sigmoid(gates[:, :size]), ops.sigmoid(gates[:, size : 2 * size])
            moved = forget * cell + enter * tanh(gates[:, 2 * size : 3 * size])
            real = mask[:, place].reshape(-1, 1)  # padding leaves the state as it was
            state = real * ops.sigmoid(gates[:, 3 * size :]) * tanh(moved) + (1.0 - real) * state
            cell = real * moved + (1.0 - real) * cell
        return state

    def encode(self, ids, mask):
        """The forward state after the last word and the backward one after the first: (batch, 2 hidden)."""
        mask = ops.ones_like(ids).astype(ms.float32) if mask is None else mask.astype(ms.float32)
        words = self.embeddings(ids)
        return ops.cat((self.end(0, words, mask), self.end(1, words, mask)), 1)

    def construct(self, input_ids, attention_mask=None, second_ids=None, second_mask=None):
        x = self.encode(input_ids, attention_mask)
        if self.pairs:
            second = self.encode(second_ids, second_mask)
            x = ops.cat((x, second, ops.abs(x - second), x * second), 1)
        return self.classifier(self.dropout(ops.relu(self.fully_connected(x))))


def load(folder=None):
    """The network with the weights of a folder, ready to answer. Raises ValueError where a tensor is missing, unexpected or of
    another shape."""
    folder = Path(folder or Path(__file__).parent)
    config = read_settings(folder)
    network, path = Network(config), folder / WEIGHTS
    stored = read_weights(path)
    check(path, stored_shapes(config), {name: tuple(value.shape) for name, value in stored.items()})
    stored = {name: ms.Tensor(value).astype(ms.float32) for name, value in stored.items()}
    network.embeddings.embedding_table.set_data(stored["embeddings.weight"])
    for number in range(2):
        for name, layers in (("input", network.of_words), ("hidden", network.of_state)):
            layers[number].weight.set_data(stored[f"lstm.{name}_weight"][number])
            layers[number].bias.set_data(stored[f"lstm.{name}_bias"][number])
    for name, layer in (("fully_connected", network.fully_connected), ("classifier", network.classifier)):
        layer.weight.set_data(stored[f"{name}.weight"])
        layer.bias.set_data(stored[f"{name}.bias"])
    return network.set_train(False)


def main():
    """Print what the network answers for the word ids of one text, or of a pair."""
    parser = command_line(ASKED)
    given = parser.parse_args()
    respond(parser, given, loaded(load, given.folder), problem_of, answers)


if __name__ == "__main__":
    main()
