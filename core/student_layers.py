"""What a student takes from the model that it starts from: which layers, under which names, and what does not fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .checkpoint import Model
from .losses.layers import even_layers
from .model_sections import AFRESH, StudentSection
from .models.architectures import Config, head_names, is_encoder, layer_sources, model_type, shares_layers, tensor_shapes
from .models.parts import LAYER
from .models.tree import encoder_sizes


def chosen_layers(
    section: StudentSection, source: Config, config: Config, assumed: bool = False
) -> tuple[tuple[int, ...], list[str]]:
    """The layers that the student takes, and what is wrong with them; of an `assumed` source it may be all."""
    available, wanted = source.num_hidden_layers, config.num_hidden_layers
    layers = section.init.layers
    if shares_layers(config):
        return (), shared_layers_problems(layers)
    if layers is None and (assumed or wanted == available):
        return tuple(range(available)), []
    return layers or (), layer_problems(layers, available, wanted)


def layer_problems(layers: tuple[int, ...] | None, available: int, wanted: int) -> list[str]:
    """What does not fit between the layers that a student of `wanted` layers starts from and a source that has `available`."""
    if layers is None:
        name = f", so name {wanted} of 0 to {available - 1} (counted from 0)" if wanted <= available else ""
        problems = [f"student.init.layers: missing; the source has {available} layers and the student {wanted}{name}"]
    else:
        problems = [
            f"student.init.layers: layer {layer} does not exist; the source has layers 0 to {available - 1} (counted from 0)"
            for layer in layers
            if not 0 <= layer < available
        ]
        if len(layers) != wanted:
            problems.append(f"student.init.layers: {len(layers)} layers for a student with num_hidden_layers {wanted}")
    if problems:
        # A student that is deeper than its source can only be made less deep.
        fewer = wanted if wanted < available else max(1, available // 2)
        settings = [f"--set 'student.init.layers={even_layers(available, fewer)}'"]
        settings += [f"--set student.architecture.num_hidden_layers={fewer}"] if fewer != wanted else []
        problems[-1] += f"; for example {' '.join(settings)}"
    return problems


def layer_notes(source: Config, config: Config, layers: tuple[int, ...]) -> list[str]:
    """What to know of the layers that a student takes: all are low ones, or one has a part that its own lacks, or lacks one."""
    notes = _shallow_notes(source.num_hidden_layers, layers)
    if source.family is not config.family:
        return notes
    for own, taken in enumerate(layers):
        parts = {part.name: (part.is_there(config, own), part.is_there(source, taken)) for part in config.family.at(LAYER)}
        for name, (wanted, given) in parts.items():
            if wanted != given:
                what = f"which has no {name}: it is left out" if given else f"whose {name} it has not: it is drawn anew"
                notes.append(f"student.init.layers: layer {taken} of the source becomes the student's layer {own}, {what}")
    return notes


def _shallow_notes(available: int, layers: tuple[int, ...]) -> list[str]:
    """Layers of the lower half alone: mostly those of a recipe that was written for a source of fewer layers."""
    if not layers or 2 * (max(layers) + 1) > available or list(layers) == (even := even_layers(available, len(layers))):
        return []
    spread = f"--set 'student.init.layers={even}'"
    which = f"{list(layers)}: all of the lower half of the source's {available} layers (counted from 0)"
    return [f"student.init.layers: {which}; spread over all of them: {spread}"]


def other_architecture(source: Config, student: Config) -> str:
    """The problem of a student that should start from the weights of another kind of model."""
    return (
        f"student.architecture.model_type: {model_type(student)}, but the weights of student.init.from are of another "
        f"architecture, {model_type(source)}; new ones: {AFRESH}"
    )


def shared_layers_problems(layers: tuple[int, ...] | None) -> list[str]:
    """Why layers cannot be chosen where all of them are the same one; their number may differ."""
    if layers is None:
        return []
    told = "the layers of an ALBERT are shared, so there is none to choose; leave out layers (null beside a preset that has some)"
    return [f"student.init.layers: {told}"]


def size_problems(section: StudentSection, source: Config, config: Config) -> list[str]:
    if not is_encoder(config):
        return []
    keys = (*encoder_sizes(config), "num_hidden_groups", "inner_group_num")
    # Own key -> the size here and in the source; a GPT-2 leaves its n_inner open, which is a size all the same.
    sizes = {
        own: (getattr(config, key, getattr(config, own, None)), getattr(source, key, None))
        for own, key in ((config.own_key(key), key) for key in keys)
        if hasattr(config, own)
    }
    differing = {own: pair for own, pair in sizes.items() if pair[0] != pair[1]}
    problems = [
        f"student.architecture.{own}: {here}, but the weights of student.init.from "
        f"('{section.init.source}') have {'none' if there is None else there}; for another size: {AFRESH}"
        for own, (here, there) in differing.items()
        if own in type(config).model_fields
    ]
    # Sizes that follow from several keys, which tell of a difference first where they are sizes themselves.
    return problems or [
        f"student.architecture: its {own} is {here}, but the weights of student.init.from "
        f"('{section.init.source}') have {there}; for another size: {AFRESH}"
        for own, (here, there) in differing.items()
        if there is not None
    ]


def copied(
    source: Model, parameters: Mapping[str, np.ndarray], config: Config, layers: tuple[int, ...], keep_head: bool
) -> dict[str, np.ndarray]:
    """The source's tensors under the student's names: student layer i is source layer `layers[i]`."""
    own = layer_sources(config, source.config, layers)
    head, copied = head_names(config), {}
    for name in tensor_shapes(config, 1, source.words):
        prefix = next((p for p in own if name.startswith(p)), None)
        taken = name if prefix is None else own[prefix] + name.removeprefix(prefix)
        if taken in parameters and (keep_head or name not in head):
            copied[name] = parameters[taken]
    return copied
