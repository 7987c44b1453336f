"""Chat templates: what Hugging Face renders, in a room that strangers' programs cannot leave or wear out."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from clearhead.errors import MissingDependencyError, TokenizerError
from clearhead.text import Tokenizer, render
from clearhead.text.chat import LONGEST_TEMPLATE
from tests.text.corpus import LINES, unchecked

pytest.importorskip("jinja2", reason="chat templates need jinja2, which is not installed")

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hi & <hello>, naïve 🙂 "},
    {"role": "assistant", "content": "Hello!", "tool_calls": [{"name": "f", "arguments": {"x": 1, "é": None}}]},
    {"role": "user", "content": "Why?"},
]

TEMPLATES = {
    "chatml": """{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'
 + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
    "llama": """{%- set ns = namespace(system='') -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set ns.system = messages[0]['content'] | trim -%}{%- set messages = messages[1:] -%}
{%- endif -%}
{{- bos_token -}}
{%- for m in messages -%}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('roles must alternate') }}{%- endif -%}
    {%- if m.role == 'user' -%}
        {{ '[INST] ' ~ (ns.system ~ '\n\n' if loop.first and ns.system else '') ~ m.content.strip() ~ ' [/INST]' }}
    {%- else -%}
        {{ ' ' + m['content'] + eos_token }}
    {%- endif -%}
{%- endfor -%}""",
    "everything": """{% macro turn(m, width=2) -%}
{% generation %}{{ m.role | upper | replace('S', '$') }}: {{ m.content | trim | indent(width) }}{% endgeneration %}
{%- endmacro %}
{% for m in messages %}
{% if m.role == 'system' %}{% continue %}{% endif %}
{{ turn(m) }}
{% if m.tool_calls is defined %}{{ m.tool_calls | tojson }}{{ m.tool_calls | tojson(indent=2) }}{% endif %}
{% set names = messages | map(attribute='role') | list %}
{{ names | unique | join(', ') }} {{ names[::-1] }} {{ '%s-%03d' % (m.role, loop.index) }} {{ '{:>4}'.format('x') }}
{% for key, value in m | dictsort if value is string %}{{ key ~ '=' ~ value | length }};{% endfor %}
{% if loop.index > 2 %}{% break %}{% endif %}
{% endfor %}
{{ 'user' in names }} {{ range(3) | list }} {{ 2 ** 5 * 3 }} {{ [1, 2] + [3] }} {{ undefined_name }} {{ dict(a=1) }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ tools | default('no tools', true) }}""",
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.filterwarnings("ignore:::transformers")
def test_it_is_what_transformers_renders(name, prompt, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    ours = Tokenizer.train(LINES, kind="byte", special_tokens={"bos_token": "<s>", "eos_token": "</s>"})
    ours.chat_template = TEMPLATES[name]
    ours.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path))
    # transformers gives the assistant's turns extra names, which dictsort would show
    talk = TALK if name != "everything" else [{k: v for k, v in m.items() if isinstance(v, str)} for m in TALK]
    text = ours.chat(talk, add_generation_prompt=prompt)
    assert text == theirs.apply_chat_template(talk, tokenize=False, add_generation_prompt=prompt)
    ids = theirs.apply_chat_template(talk, tokenize=True, add_generation_prompt=prompt, return_dict=True)["input_ids"]
    assert ours.encode(text, special=False).ids == ids


def test_json_is_written_as_it_is():
    assert render("{{ messages[0].x | tojson }}", [{"x": "<é & 'ü'>"}]) == "\"<é & 'ü'>\""


def test_a_template_cannot_change_what_it_was_given():
    messages = [{"role": "user", "content": "x"}]
    with pytest.raises(TokenizerError):
        render("{{ messages.append(1) }}", messages)
    assert messages == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize("escape", [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ '' | attr('__class__') }}",
    "{{ messages | map(attribute='__class__') | list }}",
    "{{ '{0.__class__.__init__}'.format(1) }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ range.__globals__ }}",
    "{{ raise_exception.__globals__['__builtins__'] }}",
    "{{ strftime_now.__globals__ }}",
    "{{ namespace(__html__=raise_exception) | e }}",
    "{% set ns = namespace() %}{% set ns.__html__ = raise_exception %}{{ ns | e }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{{ self._TemplateReference__context }}",
    "{{ self.__init__ }}",
    "{{ joiner }}{{ lipsum.__globals__ }}",
])  # fmt: skip
def test_there_is_no_way_out(escape):
    try:
        text = render(escape, [{"role": "user", "content": "x"}])
    except TokenizerError as refused:
        assert "\n" not in str(refused)
    else:
        assert not any(word in text for word in ("class", "function", "module", "root:")), text


@pytest.mark.parametrize("greedy", [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "{% set x %}{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}{% endset %}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}",
    "{% for a in [1] recursive %}{{ loop([1]) }}{{ loop([1]) }}{% endfor %}",
    "{{ 'x' * 10**12 }}",
    "{{ 10**12 * 'x' }}",
    "{{ [0] * 10**11 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ range(10**12) | list }}",
    "{{ 'x'.ljust(10**12) }}",
    "{{ 'x' | center(10**12) }}",
    "{{ 'x' | indent(10**12, true) }}",
    "{{ messages | tojson(indent=10**12) }}",
    "{{ '%1000000000000d' % 1 }}",
    "{{ '%*d' % (10**12, 1) }}",
    "{{ '%1000000000000d' | format(1) }}",
    "{{ '{:1000000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 10**12) }}",
    "{{ (5).to_bytes(10**12, 'big') }}",
    "{% set ns = namespace(x='x') %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x='x') %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x='x') %}{% for a in range(99) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
    "{% set ns = namespace(x='xx') %}{% for a in range(99) %}{% set ns.x = ns.x | replace('x', ns.x) %}{% endfor %}",
    "{% set ns = namespace(x='xx') %}{% for a in range(99) %}{% set ns.x = ns.x.replace('', ns.x) %}{% endfor %}",
    "{% set ns = namespace(x='xx') %}{% for a in range(99) %}{% set ns.x = ns.x | join(ns.x) %}{% endfor %}",
    "{% set ns = namespace(x='xx') %}{% for a in range(99) %}{% set ns.x = ns.x.join(ns.x) %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x=99999) %}{% for a in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{{ [[1] * 1000] * 100000 | sum(start=[]) }}",
])  # fmt: skip
def test_greed_ends_soon_and_in_one_line(greedy):
    before = time.monotonic()
    with pytest.raises(TokenizerError) as refused:
        render(greedy, [{"role": "user", "content": "x"}], seconds=0.1, longest=100_000)
    assert time.monotonic() - before < 5
    assert "\n" not in str(refused.value)


def test_output_is_capped():
    with pytest.raises(TokenizerError, match="writes more than 10 characters"):
        render("{{ messages[0].content }}", [{"content": "x" * 11}], longest=10)
    assert render("{{ messages[0].content }}", [{"content": "x" * 10}], longest=10) == "x" * 10


def test_a_long_conversation_is_no_greed():
    talk = [{"role": ("user", "assistant")[n % 2], "content": "word " * 200} for n in range(200)]
    for name in ("chatml", "llama"):
        assert len(render(TEMPLATES[name], talk, bos_token="<s>", eos_token="</s>")) > 190_000


@pytest.mark.parametrize(("template", "messages", "message"), [
    ("{% for %}", [], "line 1"),
    ("{{ 'x' | nonsense }}", [], "nonsense"),
    ("{{ raise_exception('no system prompts,\nplease') }}", [], "no system prompts, please"),
    ("{{ 1 / 0 }}", [], "ZeroDivisionError"),
    ("{{ nothing.at.all }}", [], "undefined"),
    ("{{ tools | tojson }}", [], "not given"),
    ("", [], "no chat template"),
    (None, [], "no chat template"),
    ("x" * (LONGEST_TEMPLATE + 1), [], "characters"),
    ("{{ " + "(" * 5000 + ")" * 5000 + " }}", [], "chat template"),
    ("x", "hello", "messages should be"),
    ("x", ["hello"], "messages should be"),
    ("x", {"role": "user"}, "messages should be"),
    ("x", [{"content": object()}], "plain data"),
])  # fmt: skip
def test_what_cannot_be_rendered_is_one_line(template, messages, message):
    with pytest.raises(TokenizerError, match=message) as refused:
        unchecked(render)(template, messages)
    assert "\n" not in str(refused.value)


def test_a_tokenizer_without_a_template_says_so():
    with pytest.raises(TokenizerError, match="no chat template"):
        Tokenizer.train(LINES, kind="byte").chat([])


def test_jinja2_is_imported_when_used_and_missed_politely(monkeypatch):
    code = "import clearhead.text.tokenizer, sys; sys.exit('jinja2' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for name in list(sys.modules):
        if name == "jinja2" or name.startswith(("jinja2.", "clearhead.text.sandbox")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        render("x", [])
