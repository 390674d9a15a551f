# SPDX-License-Identifier: Apache-2.0
"""What the networks of TensorFlow share. It is copied into each that is written, from the mark on, after what those of its
architecture share."""

from pathlib import Path

import tensorflow as tf

from .shared import command_line, each_of, loaded, opened, respond

# --- copied from here on


def read_weights(path):
    """Name in the checkpoint -> array. Raises FileNotFoundError where there is none, and ValueError where it is damaged."""
    if not path.with_name(path.name + ".index").is_file():
        raise FileNotFoundError(f"{path}.index: no such file")

    def read(path):
        stored = tf.train.load_checkpoint(str(path))
        return {name: stored.get_tensor(name) for name in stored.get_variable_to_shape_map()}

    return opened(path, read)


def answers(network, ids, more):
    """Arrays that the network answers for one text, and its types or a second text."""
    found = network(tf.constant([ids]), None, None if more is None else tf.constant([more]))
    return [each.numpy() for each in each_of(found)]


def respond_or_save(asked, load, problem_of, save):
    """The command line: print what the network answers, or have `save(network, folder)` write it as a SavedModel."""
    parser = command_line(asked, "*", ", or write it as a SavedModel")
    parser.add_argument("--saved-model", type=Path, metavar="DIR", help="write a SavedModel here")
    given = parser.parse_args()
    if not given.ids and given.saved_model is None:
        parser.error(f"expected {asked[1].partition(',')[0]}, or --saved-model DIR")
    network = loaded(load, given.folder)
    if given.saved_model is not None:
        save(network, given.saved_model)
    if given.ids:
        respond(parser, given, network, problem_of, answers)
