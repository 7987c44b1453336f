"""What tables share, said once: the keys that every config.json may have, and the rows of decoders like Llama."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from clearhead.checkpoint.config_rules import (
    ConfigRow,
    Convert,
    Foreign,
    Ignored,
    Only,
    Value,
    choice,
    number,
    optional_whole,
    whole,
)
from clearhead.checkpoint.heads_rule import UNNAMED, Architecture, Heads
from clearhead.checkpoint.places import Places, get
from clearhead.checkpoint.rules import Copy, IgnoredTensor, Row, Same, Split, both, kv_heads, with_head
from clearhead.errors import CheckpointError
from clearhead.model.config import (
    Activation,
    AttentionConfig,
    LanguageModel,
    ModelConfig,
    NormalInit,
    SequenceClassification,
    TokenClassification,
)
from clearhead.model.config.checks import LARGEST

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
NOT_CODE = ("cache_implementation",)
"""What looks like one of them and is a word of generation's."""

_DECODING = "it tells generation what to do, not the model what to compute"
_OUTPUT = "it chooses what a call returns, not what is computed"
_TRAINING = "it speaks of training or of files, not of what is computed"

GENERATION_KEYS = (
    *("max_length", "min_length", "max_new_tokens", "do_sample", "early_stopping", "num_beams", "num_beam_groups"),
    *("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "diversity_penalty"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "prefix"),
    *("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "output_scores"),
    *("remove_invalid_values", "exponential_decay_length_penalty", "return_dict_in_generate", "use_cache"),
    *("task_specific_params", "cache_implementation"),
)
SCORES_KEYS = ("sentence_transformers", "sbert_ce_default_activation_function")
_RETURNS = ("output_hidden_states", "output_attentions", "return_dict", "output_past")
_FILES = (
    *("transformers_version", "_name_or_path", "name_or_path", "_commit_hash", "finetuning_task", "tokenizer_class"),
    *("gradient_checkpointing", "torchscript", "use_bfloat16", "tf_legacy_loss", "problem_type"),
    *("sep_token_id", "unk_token_id", "mask_token_id", "cls_token_id"),
    *("transformers.js_config", "unsloth_version", "unsloth_fixed"),
)

COMMON: tuple[ConfigRow, ...] = (
    Ignored("model_type", "it chose the table that reads the rest", keep=False),
    *(Ignored(key, _DECODING) for key in GENERATION_KEYS),
    *(Ignored(key, _OUTPUT) for key in _RETURNS),
    *(Ignored(key, _TRAINING) for key in _FILES),
    *(Ignored(key, "it says how scores are shown; `classify` reads it") for key in SCORES_KEYS),
    Ignored("dtype", "the weights' own dtype decides", keep=False),
    Ignored("torch_dtype", "the weights' own dtype decides", keep=False),
    Ignored("chunk_size_feed_forward", "the feed-forward computes the same in one piece"),
    Ignored("initializer_cutoff_factor", _TRAINING),
    *(Ignored(key, "id2label says the same") for key in ("label2id", "_num_labels")),
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
        if any(not isinstance(one, int) or isinstance(one, bool) or abs(one) > LARGEST for one in several):
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


def layers(key: str | tuple[str, ...], default: int, *stacks: str) -> ConfigRow:
    """How many layers the stacks have; bounded, since other rows make a value for each."""
    keys, places = (key,) if isinstance(key, str) else key, tuple(f"{stack}.n_layers" for stack in stacks)
    return Value(keys, places, lambda foreign, name: foreign.whole(name, default, at_most=4096))


def width(key: str | tuple[str, ...], default: int, *, inner: int = 4) -> ConfigRow:
    """The row of d_model in a family whose feed-forward is always `inner` times as wide."""
    alone = whole(key, "d_model", default=default)

    def read(foreign: Foreign) -> Places:
        d_model = alone.read(foreign)["d_model"]
        return {"d_model": d_model, "decoder.feedforward.d_ff": inner * d_model}

    return Convert(alone.keys, read, alone.write)


def grouped_heads(
    place: str,
    *,
    default: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    even: bool = False,
    widths: bool = True,
) -> ConfigRow:
    """The row of heads, key/value heads and head width, which is written where it is not left to be derived.

    even: transformers refuses widths that the heads do not divide, though the head width is given. widths: whether the
    family has a key for the head width at all.
    """
    keys = ("num_attention_heads", "num_key_value_heads", "head_dim")[: 3 if widths else 2]

    def read(foreign: Foreign) -> Places:
        return {
            f"{place}.n_heads": foreign.whole("num_attention_heads", default),
            f"{place}.n_kv_heads": foreign.optional_whole("num_key_value_heads", kv_heads),
            f"{place}.d_head": foreign.optional_whole("head_dim", head_dim) if widths else None,
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
        derived = attention.d_head is None and head_dim is None
        values = (attention.n_heads, attention.kv_heads, attention.head_width(config.d_model))
        return dict(zip(keys[: 2 if derived else 3], values, strict=False))

    return Convert(keys, read, write)


LOCAL, GLOBAL = "sliding_attention", "full_attention"


def local_layers(foreign: Foreign, n_layers: int, local: Callable[[int], bool]) -> tuple[bool, ...]:
    """Which layers read a window only: by `layer_types`, or by the family's own rule where the file has none."""
    count = foreign.whole("num_hidden_layers", n_layers, at_most=4096)
    types = foreign.get("layer_types")
    if types is None:
        return tuple(local(layer) for layer in range(count))
    if not isinstance(types, list) or len(types) != count or any(kind not in (LOCAL, GLOBAL) for kind in types):
        raise foreign.bad("layer_types", f"a list of {count} times {LOCAL} or {GLOBAL}")
    return tuple(kind == LOCAL for kind in types)


def layer_windows(
    *, n_layers: int, window: int, local: Callable[[Foreign, int], bool], keys: tuple[str, ...] = (), sides: int = 1
) -> ConfigRow:
    """The row of local and global layers: `local` says which, where the file does not; `keys` is what it looks at.

    n_layers, window: what a file means that says neither. sides: 2 where the file's number is that of tokens on both
    sides of one, half of which lies before it.
    """

    def read(foreign: Foreign) -> Places:
        width = foreign.optional_whole("sliding_window", window)
        kinds = local_layers(foreign, n_layers, lambda layer: local(foreign, layer))
        if width is None and any(kinds):
            raise foreign.bad("sliding_window", "a number of tokens, which local layers need")
        if width is not None and sides == 2:
            width = width // 2 + 1
        return {"decoder.attention[].window": tuple(width if kind else None for kind in kinds)}

    def write(config: ModelConfig) -> dict[str, Any]:
        if config.decoder is None:
            return {}
        windows = get(config, "decoder.attention[].window")
        widest = next((width if sides == 1 else 2 * (width - 1) for width in windows if width is not None), window)
        return {
            "layer_types": [GLOBAL if width is None else LOCAL for width in windows],
            "sliding_window": widest,
        }

    return Convert(("layer_types", "sliding_window", *keys), read, write)


BLOCK = "decoder.blocks.{layer}"
"""Our name of a decoder's block."""
LAYER = "layers.{layer}"
"""What Llama and its kin call it."""
ATTENTION_BIASES = tuple(f"decoder.attention.bias.{name}" for name in ("q", "k", "v", "out"))
"""The places of one flag for the biases of all four projections."""


def decoder_sizes(
    *,
    vocab_size: int,
    d_model: int,
    context: int,
    n_layers: int,
    d_ff: int,
    activation: str = "silu",
    activation_key: str | tuple[str, ...] = "hidden_act",
    activations: Mapping[str, Activation] = ACTIVATIONS,
    eps: float = 1e-6,
    eps_key: str = "rms_norm_eps",
    norms: tuple[str, ...] = ("decoder.norm",),
) -> tuple[ConfigRow, ...]:
    """The rows that Llama and its kin spell alike, with the family's defaults. norms: the places of every norm."""
    return (
        whole("vocab_size", "vocab_size", default=vocab_size),
        whole("hidden_size", "d_model", default=d_model),
        whole("max_position_embeddings", "context", default=context),
        layers("num_hidden_layers", n_layers, "decoder"),
        whole("intermediate_size", "decoder.feedforward.d_ff", default=d_ff),
        choice(activation_key, activations, "decoder.feedforward.activation", default=activation),
        number(eps_key, *(f"{norm}.eps" for norm in norms), default=eps),
        number("attention_dropout", "decoder.attention.dropout", default=0.0),
        number("initializer_range", "init.std", default=0.02),
        *one_stack(decoder=True),
    )


def with_decoder(base: ModelConfig, **choices: Any) -> ModelConfig:
    """A template like another whose decoder differs in these choices, drawn plainly."""
    assert base.decoder is not None
    return replace(base, decoder=replace(base.decoder, **choices), init=NormalInit())


def decoder_classes(
    name: str,
    *,
    tied: bool,
    tokens: bool = True,
    output: str = "lm_head.weight",
    table: str = "embed_tokens.weight",
    dropout_keys: tuple[str, ...] = ("classifier_dropout",),
    also: tuple[str, ...] = (),
) -> Heads:
    """The row of the four classes that a decoder has; `decoder_heads` are their tensors.

    tokens: it labels tokens too. also: other names of the language model.
    """
    last = SequenceClassification(labels=UNNAMED, pooling="last", bias=False)
    classes = {
        f"{name}ForCausalLM": Architecture(head=LanguageModel()),
        f"{name}Model": Architecture(),
        f"{name}ForSequenceClassification": Architecture(head=last, dropout=False),
    }
    if tokens:
        classes[f"{name}ForTokenClassification"] = Architecture(head=TokenClassification(labels=UNNAMED))
    classes |= dict.fromkeys(also, classes[f"{name}ForCausalLM"])
    return Heads(
        architectures=classes,
        default=f"{name}ForCausalLM",
        tied=tied,
        output=output,
        table=table,
        dropout_keys=dropout_keys,
    )


def decoder_heads(table: str, *, output: str = "lm_head.weight", labels: str = "classifier") -> tuple[Row, ...]:
    """The tensors of the heads of a decoder. labels: the one that labels tokens."""
    return (
        Same(output, "head.weight"),
        Copy(output, of=table),
        with_head(SequenceClassification, Same("score.weight", "head.classify.weight")),
        with_head(TokenClassification, *both(labels, "head.classify")),
    )


LLAMA_HEADS = decoder_heads("embed_tokens.weight", labels="score")
"""The tensors of the heads of Llama and its kin."""


def projections(
    theirs: str = f"{LAYER}.self_attn", ours: str = f"{BLOCK}.attention", *, out: str = "o_proj"
) -> tuple[Row, ...]:
    """q, k, v and the way out, a matrix each."""
    names = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", out: "o_proj"}
    return tuple(row for name, our in names.items() for row in both(f"{theirs}.{name}", f"{ours}.{our}"))


def fused_qkv(theirs: str, ours: str = f"{BLOCK}.attention") -> tuple[Row, ...]:
    """q, k and v in one tensor: for each key/value head its queries, then k, then v."""
    return tuple(
        Split(f"{theirs}.{part}", tuple(f"{ours}.{name}_proj.{part}" for name in "qkv"), groups=kv_heads)
        for part in ("weight", "bias")
    )


def qk_norms(theirs: str = f"{LAYER}.self_attn", ours: str = f"{BLOCK}.attention") -> tuple[Row, ...]:
    """The norms of q and k."""
    return tuple(row for name in "qk" for row in both(f"{theirs}.{name}_norm", f"{ours}.{name}_norm"))


def gated(theirs: str = f"{LAYER}.mlp", ours: str = f"{BLOCK}.feedforward") -> tuple[Row, ...]:
    """The gated feed-forward: gate, up, down."""
    names = ("gate", "up", "down")
    return tuple(row for name in names for row in both(f"{theirs}.{name}_proj", f"{ours}.{name}"))


def rotary_buffers(attention: str = f"{LAYER}.self_attn") -> tuple[Row, ...]:
    """What older files store of rotary positions, in each layer or once."""
    reason = "rotary frequencies, worked out from the config"
    names = (f"{attention}.rotary_emb.inv_freq", "rotary_emb.inv_freq")
    return tuple(IgnoredTensor(name, reason) for name in names)


LLAMA_WEIGHTS: tuple[Row, ...] = (
    Same("embed_tokens.weight", "decoder.embedding.tokens.weight"),
    Same(f"{LAYER}.input_layernorm.weight", f"{BLOCK}.attention_norm.before.weight"),
    *projections(),
    Same(f"{LAYER}.post_attention_layernorm.weight", f"{BLOCK}.feedforward_norm.before.weight"),
    *gated(),
    Same("norm.weight", "decoder.norm.weight"),
    *rotary_buffers(),
)
"""The tensors of the base model of Llama and its kin."""
