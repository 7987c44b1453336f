"""What T5 and mT5 have in common: their choices, how they tie and scale a head, and encoders alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from clearhead.checkpoint.common import ACTIVATIONS
from clearhead.checkpoint.config_rules import ConfigRow, Convert, Foreign, shown
from clearhead.checkpoint.heads_rule import UNNAMED, Architecture, Heads
from clearhead.checkpoint.places import Places, get
from clearhead.errors import UnknownKeyError
from clearhead.model.config import (
    AttentionConfig,
    Biases,
    FeedForwardConfig,
    LanguageModel,
    ModelConfig,
    RMSNorm,
    SentenceEmbedding,
    SequenceClassification,
    StackConfig,
    T5Bias,
    T5Init,
    TokenClassification,
)

_ATTENTION = AttentionConfig(n_heads=8, d_head=64, scale=1.0, bias=Biases.none())
_STACK = StackConfig(
    n_layers=6,
    attention=_ATTENTION,
    feedforward=FeedForwardConfig(d_ff=2048, activation="relu", bias=False),
    position=T5Bias(),
    norm=RMSNorm(),
)
T5_TEMPLATE = ModelConfig(
    vocab_size=32_128,
    d_model=512,
    context=512,
    encoder=_STACK,
    decoder=replace(_STACK, cross_attention=_ATTENTION),
    init=T5Init(),
)
"""What both have: scores are q·k as it is, norms take no mean, and nothing has a bias but the scores."""

ENCODERS = ("EncoderModel", "ForTokenClassification")
"""How the names of the classes end that are an encoder alone."""
_SCALE = "scale_decoder_outputs"


def encoder_alone(foreign: Foreign) -> bool:
    """Whether the config's class is an encoder alone."""
    names = foreign.get("architectures")
    classes = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return bool(classes) and classes[0].endswith(ENCODERS)


def in_each(place: str) -> tuple[str, str]:
    """The place in either stack; there may be no decoder."""
    return f"encoder.{place}", f"decoder.{place}?"


def in_attentions(place: str) -> tuple[str, ...]:
    """The place in every attention."""
    return *in_each(f"attention.{place}"), f"decoder.cross_attention.{place}?"


@dataclass(frozen=True, kw_only=True)
class T5Heads(Heads):
    """The row of the classes, which of them are an encoder alone, and how the language model's head is scaled.

    The weights say whether that head is tied, in transformers 5 as here, whatever `tie_word_embeddings` says: there
    the flag says whether the head's input is scaled, until `scale_decoder_outputs` does. In transformers 4 it says
    both. So what is not tied and scaled is written as `false`, and a tied matrix is then stored a second time. What
    is scaled and not tied, transformers 4 has no words for.
    """

    scales: bool

    @property
    def keys(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of any head, and the scale's."""
        return *super().keys, _SCALE

    @property
    def base(self) -> str | None:
        """The class of an embedder: the encoder alone."""
        return self._encoder

    def read(self, foreign: Foreign) -> Places:
        """The head, and that there is no decoder where the class has none."""
        places = super().read(foreign)
        head, ours, evidence = places["head"], foreign.ours, foreign.evidence
        scaled = foreign.flag("tie_word_embeddings", True) if self.scales else False
        scaled = foreign.flag(_SCALE, scaled)
        if scaled and not self.scales:
            raise UnknownKeyError(f"{foreign.where}: {_SCALE}=True is not run by mT5; remove it.")
        if isinstance(head, LanguageModel):
            tied = not evidence.has(self.output) or evidence.same(self.output, self.table)
            if ours is not None and isinstance(ours.head, LanguageModel):
                tied = ours.head.tied
            scale = max(foreign.whole("d_model", 512), 1) ** -0.5
            places["head"] = replace(head, tied=tied, scale=scale if scaled else None)
        return places | ({"decoder": None} if encoder_alone(foreign) else {})

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The class, and how its head is tied and scaled."""
        says, head = super().write(config), config.head
        if isinstance(head, LanguageModel):
            scaled = head.scale is not None
            says["tie_word_embeddings"] = head.tied and scaled
            says |= {_SCALE: scaled} if self.scales else {}
        return says

    def respelled(self, written: Mapping[str, Any], original: Mapping[str, Any]) -> dict[str, Any]:
        """As the original says it, except for the head's tie and scale: one version or other reads them otherwise."""
        kept = super().respelled(written, original)
        if isinstance(self.architectures[written["architectures"][0]].head, LanguageModel):
            kept = {key: value for key, value in kept.items() if key not in ("tie_word_embeddings", _SCALE)}
        return kept

    def name_of(self, config: ModelConfig) -> str:
        """The class of this head, or of the encoder alone."""
        bare = config.head is None or isinstance(config.head, SentenceEmbedding)
        return self._encoder if bare and config.decoder is None else super().name_of(config)

    @property
    def _encoder(self) -> str:
        return next(name for name in self.architectures if name.endswith(ENCODERS[0]))


def t5_classes(name: str, *, scales: bool, old: tuple[str, ...] = ()) -> T5Heads:
    """The row of the classes. scales: whether a head may be scaled. old: older names of the language model's class."""
    by_eos = SequenceClassification(labels=UNNAMED, pooling="eos", hidden="tanh")
    writers = (f"{name}ForConditionalGeneration", *old)
    return T5Heads(
        architectures={
            **dict.fromkeys(writers, Architecture(head=LanguageModel())),
            f"{name}Model": Architecture(),
            f"{name}EncoderModel": Architecture(),
            f"{name}ForSequenceClassification": Architecture(head=by_eos),
            f"{name}ForTokenClassification": Architecture(head=TokenClassification(labels=UNNAMED)),
        },
        default=writers[0],
        tied=True,
        table="shared.weight",
        dropout=0.0,
        scales=scales,
    )


def t5_layers(n_layers: int) -> ConfigRow:
    """How many layers each stack has; as many as the other, where the decoder's are not counted."""

    def read(foreign: Foreign) -> Places:
        encoder = foreign.whole("num_layers", n_layers, at_most=4096)
        decoder = foreign.optional_whole("num_decoder_layers", at_most=4096)
        if encoder_alone(foreign):
            return {"encoder.n_layers": encoder}
        return {"encoder.n_layers": encoder, "decoder.n_layers?": encoder if decoder is None else decoder}

    def write(config: ModelConfig) -> dict[str, Any]:
        stacks = {"num_layers": config.encoder, "num_decoder_layers": config.decoder}
        return {key: stack.n_layers for key, stack in stacks.items() if stack is not None}

    return Convert(("num_layers", "num_decoder_layers"), read, write)


def t5_feedforward(default: str) -> ConfigRow:
    """The feed-forward: `gated-gelu` means the tanh kind. Of keys that disagree the later ones hold, as there."""
    names = {meaning: name for name, meaning in reversed(list(ACTIVATIONS.items()))}

    def read(foreign: Foreign) -> Places:
        kind = foreign.text("feed_forward_proj", default)
        name = "gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-")
        name = foreign.text("dense_act_fn", name)
        gated = foreign.flag("is_gated_act", kind.startswith("gated-"))
        if name not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UnknownKeyError(f"{foreign.where}: feed_forward_proj has {shown(name)}; we have {known}.")
        gates = dict.fromkeys(in_each("feedforward.gated"), gated)
        return gates | dict.fromkeys(in_each("feedforward.activation"), ACTIVATIONS[name])

    def write(config: ModelConfig) -> dict[str, Any]:
        gated, act = (get(config, f"encoder.feedforward.{one}") for one in ("gated", "activation"))
        name = "gelu_python" if gated and act == "gelu" else names[act]
        kind = "gelu" if gated and act == "gelu_tanh" else name
        kind = f"gated-{kind}" if gated else kind
        return {"feed_forward_proj": kind, "dense_act_fn": name, "is_gated_act": gated}

    return Convert(("feed_forward_proj", "dense_act_fn", "is_gated_act"), read, write)


_BUCKETS = ("relative_attention_num_buckets", "relative_attention_max_distance")


def _read_buckets(foreign: Foreign) -> Places:
    bias = T5Bias(buckets=foreign.whole(_BUCKETS[0], 32), max_distance=foreign.whole(_BUCKETS[1], 128))
    return dict.fromkeys(in_each("position"), bias)


def _write_buckets(config: ModelConfig) -> dict[str, Any]:
    bias = get(config, "encoder.position")
    return dict(zip(_BUCKETS, (bias.buckets, bias.max_distance), strict=True)) if isinstance(bias, T5Bias) else {}


T5_BUCKETS = Convert(_BUCKETS, _read_buckets, _write_buckets)
"""The distances that share a bias, in both stacks."""


def _read_half(foreign: Foreign) -> Places:
    if not foreign.flag("is_encoder_decoder", True) and not encoder_alone(foreign):
        raise UnknownKeyError(
            f"{foreign.where}: is_encoder_decoder=False cannot be run here; name a class that is an encoder alone."
        )
    return {}


def _write_half(config: ModelConfig) -> dict[str, Any]:
    return {"is_encoder_decoder": config.decoder is not None}


T5_HALF = Convert(("is_encoder_decoder",), _read_half, _write_half)
"""Whether there is a decoder is for the class to say: some encoders are written as if they had one."""
