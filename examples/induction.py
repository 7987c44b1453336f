"""Induction. Train two layers to go on with what they read before, find the head that does it, and take it out.

    python examples/induction.py        (20 seconds on one core)

Random tokens are read twice: only the first copy tells how the second goes on. A head that looks from a token to what
followed it before is an induction head (Elhage et al. 2021; Olsson et al. 2022).
"""

import torch
import torch.nn.functional as F

from clearhead.lens.roles import induction
from clearhead.lens.whatif import silence
from clearhead.model.config import ALiBi, AttentionConfig, FeedForwardConfig, LanguageModel, ModelConfig, StackConfig
from clearhead.model.transformer import Decoder

VOCABULARY, LONGEST = 32, 20


def model() -> Decoder:
    """Two layers of three heads, 64 wide; that nearer tokens are read more is all it knows of places."""
    attention, feedforward = AttentionConfig(n_heads=3, d_head=24), FeedForwardConfig(d_ff=16)
    layers = StackConfig(n_layers=2, attention=attention, feedforward=feedforward, position=ALiBi())
    return Decoder(ModelConfig(vocab_size=VOCABULARY, d_model=64, context=128, decoder=layers, head=LanguageModel()))


def twice(texts: int, n: int) -> torch.Tensor:
    """So many texts of n different random tokens, read twice."""
    once = torch.rand(texts, VOCABULARY).argsort(-1)[:, :n]
    return torch.cat((once, once), dim=1)


def train(lm: Decoder, steps: int = 700) -> None:
    optimiser = torch.optim.AdamW(lm.parameters(), lr=3e-3, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        ids = twice(64, n := int(torch.randint(4, LONGEST + 1, ())))
        loss = F.cross_entropy(lm(ids).logits[:, n:-1].flatten(0, 1), ids[:, n + 1 :].flatten())
        loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()


@torch.inference_mode()
def accuracy(lm: Decoder, n: int = 16) -> float:
    ids = twice(128, n)
    return float((lm(ids).logits[:, n:-1].argmax(-1) == ids[:, n + 1 :]).float().mean())


if __name__ == "__main__":
    torch.manual_seed(0)
    train(lm := model())
    scores = induction(lm.eval())
    layer, head = scores.best
    print(f"head {layer}.{head} reads what came next the first time: {float(scores.values[layer, head]):.2f}")
    print(f"right in the second half: {accuracy(lm):.2f}")
    with silence(lm, [(layer, head)]):
        print(f"without that head: {accuracy(lm):.2f}")
