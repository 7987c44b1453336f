"""Text: what stands between words and ids. No torch here; a tokenizer can be trained and used without it.

Read in this order: `tokenizer.py` (encode, decode) and `encoding.py` (what became of a text), `train.py` (how a
vocabulary is learned), `special.py` (tokens with a role), `languages.py` (those of translators), `stream.py` (text
while it is being written), `folder.py` and `readers.py` (the files of others), `classes.py` and `vocabularies.py` (what
their code did), `sentencepiece.py` and `protobuf.py` (one such file from its bytes), `layout.py` and `cut.py` (its
pieces under other numbers), `glass.py`, `ggml.py`, `llama2c.py` and `tiktoken.py` (other files), `chat.py` and
`sandbox.py` (a conversation as one text), `backend.py` (the library underneath).
"""

from typing import TYPE_CHECKING

from clearhead._lazy import attach

if TYPE_CHECKING:
    from clearhead.text.chat import render as render
    from clearhead.text.encoding import Encoding as Encoding
    from clearhead.text.glass import load_glass as load_glass
    from clearhead.text.stream import DetokenizeStream as DetokenizeStream
    from clearhead.text.tokenizer import Tokenizer as Tokenizer
    from clearhead.text.train import KINDS as KINDS

__getattr__, __dir__ = attach(
    __name__,
    {
        "DetokenizeStream": "clearhead.text.stream",
        "Encoding": "clearhead.text.encoding",
        "KINDS": "clearhead.text.train",
        "Tokenizer": "clearhead.text.tokenizer",
        "load_glass": "clearhead.text.glass",
        "render": "clearhead.text.chat",
    },
)
