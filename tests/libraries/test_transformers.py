"""BERT, GPT-2 and T5 of transformers, with random weights."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sparse_training import attach, check_sparse, library, sgd, train
from torch import Tensor, nn

import methods

transformers = library("transformers")
pytestmark = pytest.mark.slow
methods.register_layer(transformers.pytorch_utils.Conv1D, "weight", output_axis=1)
TOKENS = torch.randint(1, 60, (4, 12), generator=torch.Generator().manual_seed(0))


def bert() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=3
    )
    model: nn.Module = transformers.BertForSequenceClassification(config)
    return model


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    model: nn.Module = transformers.GPT2LMHeadModel(config)
    return model


def t5() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=64, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    model: nn.Module = transformers.T5ForConditionalGeneration(config)
    return model


def labels(model: nn.Module) -> Tensor:
    return torch.arange(4) % 3 if isinstance(model, transformers.BertForSequenceClassification) else TOKENS


def logits(model: nn.Module) -> Tensor:
    model.eval()
    with torch.no_grad():
        found: Tensor = model(input_ids=TOKENS, labels=labels(model)).logits
    return found


@pytest.mark.parametrize("build", [bert, gpt2, t5])
@pytest.mark.parametrize("method", ["set", "dst"])
def test_a_model_trains_and_is_saved(build: Callable[[], nn.Module], method: str, tmp_path: Path) -> None:
    model: Any = build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attached = attach(model, method)
    assert attached.coverage().share == 1.0
    losses = train(attached, sgd(attached), lambda: model(input_ids=TOKENS, labels=labels(model)).loss, steps=4)
    assert losses[-1] < losses[0]
    check_sparse(model, attached)
    expected, masks = logits(model), attached.masks()
    methods.finalize(model)
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0)
    assert not any(loaded.get_parameter(name)[~mask].any() for name, mask in masks.items())


UNREGISTERED = """
import warnings
from benchmark.data.torchvision_import import import_torchvision
import_torchvision()
import transformers, methods
sizes = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 16}
config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
model = transformers.GPT2ForSequenceClassification(config)
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    methods.attach(model, "set", total_steps=4, steps_per_epoch=2)
print(*[warning.message for warning in found])
"""


def test_gpt2_without_its_layer_registered_is_warned_of() -> None:
    """In a process of its own: the classes that are registered here stay registered."""
    done = subprocess.run([sys.executable, "-c", UNREGISTERED], capture_output=True, text=True, check=True)
    assert "only 0.2 % of 24,640 weights are maskable; dense: transformer.h.0.mlp.c_fc.weight (4,096)" in done.stdout
    assert "methods.register_layer" in done.stdout


@pytest.mark.parametrize(("build", "embedding"), [(gpt2, "transformer.wte.weight"), (t5, "shared.weight")])
def test_tied_embeddings_stay_dense(build: Callable[[], nn.Module], embedding: str) -> None:
    model = build()
    attached = attach(model, "set")
    assert attached.coverage().aside[embedding] == "embedding"
    assert "lm_head.weight" not in attached.masks()
    train(attached, sgd(attached), lambda: model(input_ids=TOKENS, labels=labels(model)).loss)
    assert model.get_submodule("lm_head").weight is model.get_parameter(embedding)
    assert bool(model.get_parameter(embedding).all())


@pytest.mark.parametrize("method", ["set", "dst"])
def test_gpt2_generates_while_attached(method: str) -> None:
    """Generation calls the model token by token, with a cache."""
    model: Any = gpt2()
    attached = attach(model, method)
    train(attached, sgd(attached), lambda: model(input_ids=TOKENS, labels=TOKENS).loss)
    model.eval()
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    generated = model.generate(TOKENS, attention_mask=torch.ones_like(TOKENS), **options)
    methods.finalize(model)
    assert torch.equal(model.generate(TOKENS, attention_mask=torch.ones_like(TOKENS), **options), generated)


@pytest.mark.parametrize("method", ["set", "dst"])
def test_a_checkpoint_of_the_attached_model_loads_dense_weights(method: str, tmp_path: Path) -> None:
    """save_pretrained of an attached model keeps what state_dict has; the finalized model is what to publish."""
    model: Any = bert()
    attached = attach(model, method)
    train(attached, sgd(attached), lambda: model(input_ids=TOKENS, labels=labels(model)).loss)
    model.save_pretrained(tmp_path)
    saved = library("safetensors.torch").load_file(tmp_path / "model.safetensors")
    assert set(saved) == set(model.state_dict())
    again: Any = bert()
    attached_again = attach(again, method)
    attached_again.load_state_dict(attached.state_dict())
    again.load_state_dict(saved)
    assert torch.equal(logits(again), logits(model))
