"""Keys that every family's config.json may have, whatever the model: said once here, for all tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearhead.checkpoint.config_rules import ConfigRow, Convert, Foreign, Ignored, Only, Value, optional_whole
from clearhead.checkpoint.places import Places, get
from clearhead.errors import CheckpointError
from clearhead.model.config import Activation, AttentionConfig, ModelConfig

ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python": "gelu",
    "relu": "relu",
    "relu2": "relu_squared",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}

CODE_BEARING = ("auto_map", "custom_pipelines", "trust_remote_code", "custom_generate", "_implementation")
"""A key with one of these in it names code (or a kernel to fetch): never run, never written back (CVE-2026-4372)."""

_DECODING = "it tells generation what to do, not the model what to compute"
_OUTPUT = "it chooses what a call returns, not what is computed"
_TRAINING = "it speaks of training or of files, not of what is computed"

_GENERATION = (
    *("max_length", "min_length", "max_new_tokens", "do_sample", "early_stopping", "num_beams", "num_beam_groups"),
    *("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "diversity_penalty"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "prefix"),
    *("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "output_scores"),
    *("remove_invalid_values", "exponential_decay_length_penalty", "return_dict_in_generate", "use_cache"),
    "task_specific_params",
)
_RETURNS = ("output_hidden_states", "output_attentions", "return_dict")
_FILES = (
    *("transformers_version", "_name_or_path", "name_or_path", "_commit_hash", "finetuning_task", "tokenizer_class"),
    *("gradient_checkpointing", "torchscript", "use_bfloat16", "tf_legacy_loss", "problem_type"),
    *("sep_token_id", "unk_token_id", "mask_token_id", "cls_token_id"),
)

COMMON: tuple[ConfigRow, ...] = (
    Ignored("model_type", "it chose the table that reads the rest", keep=False),
    *(Ignored(key, _DECODING) for key in _GENERATION),
    *(Ignored(key, _OUTPUT) for key in _RETURNS),
    *(Ignored(key, _TRAINING) for key in _FILES),
    Ignored("dtype", "the weights' own dtype decides", keep=False),
    Ignored("torch_dtype", "the weights' own dtype decides", keep=False),
    Ignored("chunk_size_feed_forward", "the feed-forward computes the same in one piece"),
    Ignored("initializer_cutoff_factor", _TRAINING),
    Ignored("label2id", "id2label says the same"),
    Only("pruned_heads", ({}, None), "models with pruned heads are not read"),
    Only("per_layer_config", (None,), "layers that override the config are not read"),
    Only("quantization_config", (None,), "quantised weights are not read; use the original checkpoint"),
    Only("tie_last_hidden_states", (None, True), "hidden states end with the final norm here"),
    Only("tie_encoder_decoder", (False,), "encoder and decoder have weights of their own here"),
    Only("cross_attention_hidden_size", (None,), "cross-attention reads an encoder as wide as the decoder"),
)


def one_stack(*, decoder: bool) -> tuple[ConfigRow, ...]:
    """Rows of a family that is one stack: the flags by which old classes became half of an encoder-decoder."""
    half = "the model would be half of an encoder-decoder"
    return (
        Only("is_encoder_decoder", (False,), half),
        Only("add_cross_attention", (False,), half),
        Ignored("is_decoder", "it is one already")
        if decoder
        else Only("is_decoder", (False,), "it would make the encoder read one way only"),
    )


def special_tokens(
    *, pad: int | None = None, bos: int | None = None, eos: int | None = None, start: int | None = None
) -> tuple[ConfigRow, ...]:
    """The rows of the special ids, with the family's defaults."""

    def read_eos(foreign: Foreign, key: str) -> tuple[int, ...]:
        value = foreign.get(key, eos)
        several = value if isinstance(value, list) else [] if value is None else [value]
        if any(not isinstance(one, int) or isinstance(one, bool) for one in several):
            raise foreign.bad(key, "an id or a list of ids")
        return tuple(several)

    def write_eos(value: tuple[int, ...]) -> int | list[int] | None:
        return None if not value else value[0] if len(value) == 1 else list(value)

    return (
        optional_whole("pad_token_id", "tokens.pad", default=pad),
        optional_whole("bos_token_id", "tokens.bos", default=bos),
        Value(("eos_token_id",), ("tokens.eos",), read_eos, write_eos),
        optional_whole("decoder_start_token_id", "tokens.decoder_start", default=start, omit_null=start is None),
    )


def layers(key: str, default: int, *stacks: str) -> ConfigRow:
    """How many layers the stacks have; bounded, since other rows make a value for each."""
    places = tuple(f"{stack}.n_layers" for stack in stacks)
    return Value((key,), places, lambda foreign, name: foreign.whole(name, default, at_most=4096))


def grouped_heads(place: str, *, default: int, head_dim: int | None = None, even: bool = False) -> ConfigRow:
    """The row of heads, key/value heads and head width; each is written out, whatever it could be left to.

    even: transformers refuses widths that the heads do not divide, though the head width is given.
    """

    def read(foreign: Foreign) -> Places:
        return {
            f"{place}.n_heads": foreign.whole("num_attention_heads", default),
            f"{place}.n_kv_heads": foreign.optional_whole("num_key_value_heads"),
            f"{place}.d_head": foreign.optional_whole("head_dim", head_dim),
        }

    def write(config: ModelConfig) -> dict[str, Any]:
        attention = get(config, place)
        attention = attention[0] if isinstance(attention, tuple) else attention
        if not isinstance(attention, AttentionConfig):
            return {}
        if even and config.d_model % attention.n_heads:
            raise CheckpointError(
                f"transformers refuses d_model={config.d_model} with {attention.n_heads} heads; "
                f"choose a multiple of {attention.n_heads}."
            )
        return {
            "num_attention_heads": attention.n_heads,
            "num_key_value_heads": attention.kv_heads,
            "head_dim": attention.head_width(config.d_model),
        }

    return Convert(("num_attention_heads", "num_key_value_heads", "head_dim"), read, write)
