"""Other formats: files that hold the same models as Hugging Face folders, in another order and under other names.

A reader gives config keys and tensor names as the family's Hugging Face files have them, so that the family's own
tables do the rest. What a header claims is checked against the file before anything is allocated.

    parts.py       tensors under their Hugging Face names, made when they are asked for
    torch_bin.py   pytorch_model.bin, whole or in shards: pickles, read only when asked to
    meta.py        consolidated.*.pth and params.json, as Meta gives Llama out
    llama2c.py     llama2.c's .bin, versions 0, 1 and 2, and tokenizer.bin
    gguf_file.py   a GGUF file: metadata and tensors
    gguf_rows.py   what they are called, architecture by architecture
    gguf.py        both, read by these rows
"""
