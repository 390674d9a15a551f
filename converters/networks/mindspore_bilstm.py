# SPDX-License-Identifier: Apache-2.0
"""BiLSTM in MindSpore. (This line and the constants below are replaced when the file is written beside converted weights.)"""

import argparse
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from .shared import check, read_settings, tell, unreadable
from .shared_bilstm import features, problem_of, stored_shapes

# --- what the weights beside this file are
WEIGHTS = "model.ckpt"
HEADS = {"logits": 2}
TASK = "sentences"
PAIRS = False
KEYS = {}
# --- end


def tanh(x):
    """By the sigmoid: MindSpore's own tanh is off by up to 1e-4 on a CPU."""
    return 2.0 * ops.sigmoid(2.0 * x) - 1.0


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
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        stored = ms.load_checkpoint(str(path), format="safetensors" if path.suffix == ".safetensors" else "ckpt")
    except Exception as error:
        raise unreadable(path, error) from error
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
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("ids", nargs="+", type=int, help="word ids")
    parser.add_argument("--second", nargs="+", type=int, help="those of the second text of a pair")
    parser.add_argument("--folder", type=Path, help="where the weights and config.json lie; default: beside this file")
    given = parser.parse_args()
    try:
        network = load(given.folder)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    problem = problem_of(network.config, given.ids, given.second)
    if problem:
        parser.error(problem)
    inputs = []
    for row in (given.ids, given.second) if PAIRS else (given.ids,):
        ids = np.array([row], np.int32)
        inputs += [ms.Tensor(ids), ms.Tensor(np.ones_like(ids))]
    tell(network.config, [network(*inputs).asnumpy()])


if __name__ == "__main__":
    main()
