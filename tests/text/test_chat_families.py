"""Chat templates of the families' shapes, each with its family's tokenizer, beside transformers: text and ids."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("jinja2", reason="chat templates need jinja2, which is not installed")
pytest.importorskip("sentencepiece", reason="the sentencepiece package, which trains the folders, is not installed")

from clearhead.text import Tokenizer
from tests.text.published import NEWER, OLDER, write
from tests.text.test_families import auto

pytestmark = pytest.mark.filterwarnings("ignore:::transformers")

CHATML = """{%- for m in messages -%}
{%- if loop.first and m.role != 'system' -%}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{%- endif -%}
{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"""
LLAMA_3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}
{%- if tools is not none and tools is defined %}{{- 'Tools: ' + tools | map(attribute='name') | join(', ') + '\n' }}
{%- endif %}
{{- 'Today is ' ~ strftime_now('%Y') ~ '\n\n' ~ system_message ~ '<|eot_id|>' }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"""
MISTRAL = """{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('roles must alternate') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.last and system_message is defined %}
            {{- '[INST] ' + system_message + '\n\n' + message['content'] + '[/INST]' }}
        {%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}
    {%- else %}{{- ' ' + message['content'] + eos_token }}{%- endif %}
{%- endfor %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}
{%- set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}
{%- for message in messages -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') + message['content'] | trim + '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"""
PHI_3 = """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}
{{- '<|system|>\n' + message['content'] + '<|end|>\n' }}{% elif message['role'] == 'user' %}
{{- '<|user|>\n' + message['content'] + '<|end|>\n' }}{% elif message['role'] == 'assistant' %}
{{- '<|assistant|>\n' + message['content'] + '<|end|>\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""

TALKS = {
    "one question": [{"role": "user", "content": " Why did it cross the street? "}],
    "told before": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "naïve 🙂 <hello> & 'it'"},
        {"role": "assistant", "content": "It was too tired."},
        {"role": "user", "content": "1, 2\n\nthen 345?"},
    ],
}
SHAPES = {
    ("llama 3", True): LLAMA_3,
    ("smollm3", True): LLAMA_3,
    ("mistral", True): MISTRAL,
    ("llama 2", True): MISTRAL,
    ("qwen2", False): CHATML,
    ("qwen3", True): CHATML,
    ("olmo2", True): CHATML,
    ("gemma", False): GEMMA,
    ("gemma 2", True): GEMMA,
    ("phi3", True): PHI_3,
}
ADDED = {"phi3": ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]}


def with_template(folder, name, newer, template, *, beside):
    """The folder with its template in the config or in the file beside, and the family's turns among its tokens."""
    write(folder, name, newer=newer)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    size = Tokenizer.load(folder).vocab_size
    for number, token in enumerate(ADDED.get(name, [])):
        added = {"content": token, "special": True, "normalized": False, "rstrip": True, "lstrip": False}
        config.setdefault("added_tokens_decoder", {})[str(size + number)] = added | {"single_word": False}
    if beside:
        (folder / "chat_template.jinja").write_text(template)
    else:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("name", "newer"), SHAPES)
@pytest.mark.parametrize("beside", [False, True])
def test_a_conversation_is_what_transformers_makes_of_it(name, newer, beside, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert name in (NEWER if newer else OLDER)
    folder = with_template(tmp_path / "a", name, newer, SHAPES[name, newer], beside=beside)
    ours = Tokenizer.load(folder)
    ours.save(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_bytes((folder / "config.json").read_bytes())
    for theirs in (auto(folder), auto(tmp_path / "b")):
        for talk in TALKS.values():
            for prompt in (True, False):
                options = {"add_generation_prompt": prompt}
                text = ours.chat(talk, **options)
                assert text == theirs.apply_chat_template(talk, tokenize=False, **options)
                made = theirs.apply_chat_template(talk, tokenize=True, return_dict=True, **options)
                assert ours.encode(text, special=False).ids == made["input_ids"]


def test_tools_reach_the_template(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = with_template(tmp_path, "llama 3", True, LLAMA_3, beside=False)
    tools = [{"name": "look"}, {"name": "fill"}]
    talk = TALKS["told before"]
    text = Tokenizer.load(folder).chat(talk, tools=tools, add_generation_prompt=False)
    assert "Tools: look, fill" in text
    assert text == auto(folder).apply_chat_template(talk, tools=tools, tokenize=False)
