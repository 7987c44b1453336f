"""clearhead: the Transformer, small and exact. Train it, run it, and see what every attention head reads.

    lm = clearhead.load("minilm")
    seen = clearhead.look(lm, "The animal didn't cross the street because it was too tired")
    seen.ask("it", "animal")                  # every head of every layer, ranked by this link
    seen.map(layer=5, head=11)[10]            # what token 10 reads, in that head

`load` gives a model, its tokenizer and its config; `look` runs it over a text and keeps what every head reads; `watch`
does so for any model while a `with` block lasts; `finetune` trains a model further on your data, and `evaluate` says
how good it is; `export` writes a folder that transformers reads. Everything that can go wrong is a `ClearheadError`.
Importing this package imports nothing heavy: torch comes with the first use.
"""

from clearhead._lazy import attach

TYPE_CHECKING = False  # type checkers read it as True; importing typing would be most of this package's import

if TYPE_CHECKING:
    from clearhead.api import Loaded as Loaded
    from clearhead.api import export as export
    from clearhead.api import load as load
    from clearhead.api.evaluate import evaluate as evaluate
    from clearhead.api.finetune import finetune as finetune
    from clearhead.errors import ClearheadError as ClearheadError
    from clearhead.lens.look import look as look
    from clearhead.lens.maps.attention_map import AttentionMap as AttentionMap
    from clearhead.lens.watch import watch as watch
    from clearhead.lens.whatif.effect import whatif as whatif
    from clearhead.text.tokenizer import Tokenizer as Tokenizer

__version__ = "0.1.0"

__getattr__, __dir__ = attach(
    __name__,
    {
        "AttentionMap": "clearhead.lens.maps.attention_map",
        "ClearheadError": "clearhead.errors",
        "Loaded": "clearhead.api",
        "Tokenizer": "clearhead.text.tokenizer",
        "evaluate": "clearhead.api.evaluate",
        "export": "clearhead.api",
        "finetune": "clearhead.api.finetune",
        "load": "clearhead.api",
        "look": "clearhead.lens.look",
        "watch": "clearhead.lens.watch",
        "whatif": "clearhead.lens.whatif.effect",
    },
)
