"""Objectives: what is learned, one file each. Rows of ids and chance in, a batch out; pure functions of seed and step.

`common.py` (special ids, chance, padding), `causal.py` (GPT; conversations), `masked.py` (BERT), `spans.py` (T5),
`infilling.py` (BART), `translation.py`, `classification.py`. Which encoder of `data/` makes their rows, packed how:

    CausalLanguageModel      Text, packed as Blocks or Windows; Chat, as Documents or Fitted
    MaskedLanguageModel      Text(special=True), as Blocks, Fitted or Documents
    SpanCorruption           Text, as Blocks or Documents
    TextInfilling            Text(special=True), as Documents
    SequenceToSequence       Translation, as Documents
    SequenceClassification   Labelled or Scored, as Documents
    TokenClassification      Tagged, as Documents
"""
