"""The lab: claims about Transformers, each measured. One file a claim; `examples/` runs them."""
