"""Tiny models of transformers, one a family, every parameter random, and what each is called with."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import transformers
from torch import Tensor

transformers.utils.logging.set_verbosity_error()

TOKENS: dict[str, Any] = {"vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
PLAIN: dict[str, Any] = {
    **TOKENS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}
GROUPED: dict[str, Any] = {**PLAIN, "num_key_value_heads": 2}
BART: dict[str, Any] = {
    **TOKENS,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 32,
    "decoder_start_token_id": 2,
}
T5: dict[str, Any] = {
    "vocab_size": 60,
    "d_model": 32,
    "num_layers": 2,
    "num_heads": 4,
    "d_kv": 8,
    "d_ff": 64,
    "decoder_start_token_id": 0,
}

Shape = Literal["encoder", "decoder", "pair", "audio", "image"]


@dataclass(frozen=True)
class Family:
    """A class of transformers, its config, and what it reads.

    plain: what runs by default, whose outputs a watched model's are held to: "sdpa", or "eager" where sdpa cannot.
    spread: of the random weights; T5 does not scale its scores, and large ones round more than 1e-6 in float32.
    """

    cls: str
    config: str
    change: dict[str, Any] = field(default_factory=dict)
    reads: Shape = "decoder"
    plain: str = "sdpa"
    spread: float = 0.2


FAMILIES: dict[str, Family] = {
    "bert": Family("BertForMaskedLM", "BertConfig", PLAIN, "encoder"),
    "roberta": Family("RobertaForMaskedLM", "RobertaConfig", {**PLAIN, "max_position_embeddings": 40}, "encoder"),
    "distilbert": Family(
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 32},
        "encoder",
    ),
    "albert": Family(
        "AlbertModel", "AlbertConfig", {**PLAIN, "embedding_size": 16, "num_hidden_layers": 3}, "encoder"
    ),
    "electra": Family("ElectraModel", "ElectraConfig", {**PLAIN, "embedding_size": 16}, "encoder"),
    "modernbert": Family(
        "ModernBertModel",
        "ModernBertConfig",
        {**PLAIN, "local_attention": 4, "global_attn_every_n_layers": 2, "cls_token_id": 1, "sep_token_id": 2},
        "encoder",
    ),
    "gpt2": Family(
        "GPT2LMHeadModel",
        "GPT2Config",
        {**TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "scale_attn_by_inverse_layer_idx": True},
    ),
    "gpt_neox": Family("GPTNeoXForCausalLM", "GPTNeoXConfig", PLAIN),
    "opt": Family(
        "OPTForCausalLM",
        "OPTConfig",
        {**TOKENS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64,
         "word_embed_proj_dim": 32, "max_position_embeddings": 32},
    ),
    "llama": Family("LlamaForCausalLM", "LlamaConfig", GROUPED),
    "mistral": Family("MistralForCausalLM", "MistralConfig", {**GROUPED, "sliding_window": 4}),
    "qwen2": Family("Qwen2ForCausalLM", "Qwen2Config", GROUPED),
    "qwen3": Family("Qwen3ForCausalLM", "Qwen3Config", {**GROUPED, "head_dim": 16}),
    "gemma": Family("GemmaForCausalLM", "GemmaConfig", {**GROUPED, "head_dim": 16}),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**GROUPED, "head_dim": 16, "sliding_window": 4, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 20},
        plain="eager",
    ),
    "gemma3": Family(
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**GROUPED, "head_dim": 16, "sliding_window": 4, "query_pre_attn_scalar": 20,
         "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "phi": Family("PhiForCausalLM", "PhiConfig", GROUPED),
    "phi3": Family("Phi3ForCausalLM", "Phi3Config", {**GROUPED, "sliding_window": 4}),
    "gpt_oss": Family(
        "GptOssForCausalLM",
        "GptOssConfig",
        {**GROUPED, "head_dim": 16, "sliding_window": 4, "num_local_experts": 2, "num_experts_per_tok": 1},
        plain="eager",
        spread=0.1,
    ),
    "t5": Family("T5ForConditionalGeneration", "T5Config", T5, "pair", spread=0.1),
    "mt5": Family("MT5ForConditionalGeneration", "MT5Config", T5, "pair", spread=0.1),
    "bart": Family("BartForConditionalGeneration", "BartConfig", BART, "pair"),
    "mbart": Family("MBartForConditionalGeneration", "MBartConfig", BART, "pair"),
    "marian": Family("MarianMTModel", "MarianConfig", BART, "pair"),
    "pegasus": Family("PegasusForConditionalGeneration", "PegasusConfig", BART, "pair"),
    "whisper": Family(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {**BART, "num_mel_bins": 8, "max_source_positions": 12, "max_target_positions": 32,
         "begin_suppress_tokens": None, "suppress_tokens": None},
        "audio",
    ),
    "vit": Family(
        "ViTModel",
        "ViTConfig",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
         "image_size": 12, "patch_size": 4},
        "image",
    ),
}  # fmt: skip
TEXTS = tuple(name for name, family in FAMILIES.items() if family.reads in ("encoder", "decoder", "pair"))


def build(name: str, implementation: str | None = None) -> Any:
    """A tiny model of this family, every parameter random."""
    family = FAMILIES[name]
    config = getattr(transformers, family.config)(**family.change)
    cls = getattr(transformers, family.cls)
    model = cls._from_config(config, attn_implementation=implementation or family.plain).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            elif parameter.requires_grad:
                parameter.normal_(0, family.spread)
    return model


def twins(name: str) -> tuple[Any, Any]:
    """The same random weights twice: as it runs by default, and eager, which writes its weights out."""
    model = build(name)
    config = copy.deepcopy(model.config)
    eager = type(model)._from_config(config, attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    return model, eager


def inputs(name: str, padding: str = "none", length: int = 9) -> dict[str, Tensor]:
    """Two texts (pictures, sounds), the first of them padded on that side."""
    reads = FAMILIES[name].reads
    if reads == "image":
        return {"pixel_values": torch.randn(2, 3, 12, 12)}
    ids = torch.randint(3, 60, (2, length))
    if reads == "audio":
        return {"input_features": torch.randn(2, 8, 24), "decoder_input_ids": ids[:, :5]}
    given = {"input_ids": ids}
    if padding != "none":
        real = torch.ones_like(ids)
        real[0, slice(length - 3, None) if padding == "right" else slice(0, 3)] = 0
        given["attention_mask"] = real
    if reads == "pair":
        given["decoder_input_ids"] = torch.randint(3, 60, (2, 5))
    return given


def told(eager: Any, given: dict[str, Tensor]) -> dict[str, tuple[Tensor, ...]]:
    """What eager says that it weighed: kind → a tensor (B, H, Tq, Tk) for each layer."""
    output = eager(**given, output_attentions=True)
    alone = output.get("attentions")
    by_kind = {
        "encoder": output.get("encoder_attentions") or alone,
        "decoder": output.get("decoder_attentions") or alone,
        "cross": output.get("cross_attentions"),
    }
    return {kind: layers for kind, layers in by_kind.items() if layers is not None}
