"""What if? What a head would read under another rule, and what a model would say without a head, a link, a word.

`layer.py` answers exactly for one head from what was kept of it: q, k and log-sum-exp. The rest runs the model again
with its kernels swapped (decision 2), and what follows downstream is the answer. `silencing.py` and `rerun.py` are the
`with` blocks, `experiments.py` says them in the text's words, `effect.py` compares, `sweeping.py` tries every head.

    from clearhead.lens.whatif import Silence, sweep, whatif

    whatif(lm, "The dog ran", Silence([(5, 11)])).losses()
    sweep(lm, "The dog ran").strongest(3)
"""

from typing import TYPE_CHECKING

from clearhead._lazy import attach

if TYPE_CHECKING:
    from clearhead.lens.whatif.effect import Change as Change
    from clearhead.lens.whatif.effect import Effect as Effect
    from clearhead.lens.whatif.effect import whatif as whatif
    from clearhead.lens.whatif.experiments import Cut as Cut
    from clearhead.lens.whatif.experiments import Delete as Delete
    from clearhead.lens.whatif.experiments import Experiment as Experiment
    from clearhead.lens.whatif.experiments import Patch as Patch
    from clearhead.lens.whatif.experiments import Rescore as Rescore
    from clearhead.lens.whatif.experiments import Silence as Silence
    from clearhead.lens.whatif.layer import at_temperature as at_temperature
    from clearhead.lens.whatif.layer import output as output
    from clearhead.lens.whatif.layer import without_edges as without_edges
    from clearhead.lens.whatif.layer import without_keys as without_keys
    from clearhead.lens.whatif.layer import without_mask as without_mask
    from clearhead.lens.whatif.layer import without_scale as without_scale
    from clearhead.lens.whatif.layer import without_sinks as without_sinks
    from clearhead.lens.whatif.outcome import ClassLogit as ClassLogit
    from clearhead.lens.whatif.outcome import Divergence as Divergence
    from clearhead.lens.whatif.outcome import LogProbability as LogProbability
    from clearhead.lens.whatif.outcome import Measure as Measure
    from clearhead.lens.whatif.outcome import Turn as Turn
    from clearhead.lens.whatif.rerun import Outputs as Outputs
    from clearhead.lens.whatif.rerun import cut as cut
    from clearhead.lens.whatif.rerun import patch as patch
    from clearhead.lens.whatif.rerun import rescore as rescore
    from clearhead.lens.whatif.rescoring import AtTemperature as AtTemperature
    from clearhead.lens.whatif.rescoring import WithoutMask as WithoutMask
    from clearhead.lens.whatif.rescoring import WithoutScale as WithoutScale
    from clearhead.lens.whatif.rescoring import WithoutSinks as WithoutSinks
    from clearhead.lens.whatif.silencing import Means as Means
    from clearhead.lens.whatif.silencing import silence as silence
    from clearhead.lens.whatif.sweeping import HeadEffect as HeadEffect
    from clearhead.lens.whatif.sweeping import Sweep as Sweep
    from clearhead.lens.whatif.sweeping import sweep as sweep

_PLACES = {
    "effect": ("Change", "Effect", "whatif"),
    "experiments": ("Cut", "Delete", "Experiment", "Patch", "Rescore", "Silence"),
    "layer": (
        "at_temperature",
        "output",
        "without_edges",
        "without_keys",
        "without_mask",
        "without_scale",
        "without_sinks",
    ),
    "outcome": ("ClassLogit", "Divergence", "LogProbability", "Measure", "Turn"),
    "rerun": ("Outputs", "cut", "patch", "rescore"),
    "rescoring": ("AtTemperature", "WithoutMask", "WithoutScale", "WithoutSinks"),
    "silencing": ("Means", "silence"),
    "sweeping": ("HeadEffect", "Sweep", "sweep"),
}

__getattr__, __dir__ = attach(
    __name__, {name: f"clearhead.lens.whatif.{module}" for module, names in _PLACES.items() for name in names}
)
