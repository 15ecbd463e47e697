from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field, RootModel, field_validator

from profiler import yamlio, yamlio_syntax
from profiler.errors import InputFileError
from profiler.yamlio import FileModel, load_yaml, parse_yaml


class Anything(RootModel[Any]):
    pass


class Lengths(FileModel):
    prompt_tokens: int = Field(gt=0)
    process: Literal["constant", "poisson", "gamma"] = "constant"
    quantiles: tuple[float, ...] = ()


class Closed(FileModel):
    kind: Literal["closed"]
    users: int


class Open(FileModel):
    kind: Literal["open"]
    rate_per_s: float = Field(alias="rate")


class Loads(FileModel):
    loads: list[Annotated[Closed | Open, Field(discriminator="kind")]]
    by_users: dict[int, Lengths] = Field(default_factory=dict)


class Top(FileModel):
    name: str
    offline: Lengths
    several: tuple[Lengths, ...] = ()
    by_name: dict[str, Lengths] = Field(default_factory=dict)
    pair: tuple[int, Lengths] | None = None
    either: int | bool | None = None
    flag: bool = True
    path: Path | None = None

    @field_validator("name")
    @classmethod
    def _no_spaces(cls, name: str) -> str:
        if " " in name:
            raise ValueError("must not hold spaces")
        return name


def plain(text: str) -> Any:
    return parse_yaml(text, Anything, "t.yaml").root


def faults(text: str, model: type[Any] = Top) -> tuple[str, ...]:
    with pytest.raises(InputFileError) as caught:
        parse_yaml(text, model, "t.yaml")
    return caught.value.faults


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("y", "y"),
        ("~", None),
        ("null", None),
        ("nUll", "nUll"),
        ("12", 12),
        ("-0", 0),
        ("+7", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-2.5E-1", -0.25),
        (".", "."),
        ("1e", "1e"),
        ("12:30:00", "12:30:00"),
        ("2026-01-02", "2026-01-02"),
        ("2026-01-02 03:04:05", "2026-01-02 03:04:05"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("|\n  12\n", "12\n"),
        ("<<", "<<"),
        ("=", "="),
        ("[1, a, []]", [1, "a", []]),
        ("{<<: {a: 1}, 1: one, no: x}", {"<<": {"a": 1}, "1": "one", "no": "x"}),
        ("\ufeffa: ü", {"a": "ü"}),
        ("%YAML 1.2\n---\na: 1\n...\n", {"a": 1}),
        ("a:\nb: ''", {"a": None, "b": ""}),
    ],
)
def test_scalars_follow_the_yaml_1_2_core_schema(text: str, value: Any) -> None:
    got = plain(text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (".inf", "finite"),
        ("-.INF", "finite"),
        (".NaN", "finite"),
        ("1e999", "too large"),
        ("0123", "octal"),
        ("-00", "octal"),
        ("1" * 101, "101 characters"),
        ("!!str 1", '"!!str" is refused'),
        ("! 1", "is refused"),
        ("!!python/object:os.system x", "is refused"),
        ("&a 1", "anchor '&a'"),
        ("[*a]", "alias '*a'"),
        ("a: 1\n'a': 2", "a: duplicate key (first in line 1)"),
        ("? [a]\n: 1", "a key must be plain text"),
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("# nothing\n", "nothing but comments"),
        ("---\n", None),
        ("a: 1\n---\nb: 2\n", "second document"),
        ("a: [1,\nb: ]}", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
        ("\ta: 1", "not valid YAML"),
        ('"\\UFFFFFFFF"', "out of range"),
        ('"\\U00110000"', "out of range"),
        ("%YAML 1." + "9" * 5000 + "\n---\na", "out of range"),
        ('"\\ud800"', "surrogate"),
        ('{"\\ud800": 1}', "a key holds half a surrogate"),
        ("a: \x00", "U+0000"),
        ("a: \x1b[0m", "U+001B"),
        ("[" * 65 + "]" * 65, "64 levels"),
        ("- 1\n" * yamlio_syntax.MAX_VALUES, "values"),
        ("#" * (yamlio.MAX_BYTES + 1), "larger than"),
    ],
)
def test_what_is_refused_is_refused_in_one_plain_line(text: str, what: str | None) -> None:
    if what is None:
        assert plain(text) is None
        return
    (line,) = faults(text, Anything)
    assert what in line
    assert line.startswith("t.yaml:")
    assert line.isprintable()


def test_the_deepest_nesting_allowed_is_read() -> None:
    value: Any = plain("[" * 64 + "]" * 64)
    for _ in range(63):
        (value,) = value
    assert value == []


def test_a_model_is_filled() -> None:
    top = parse_yaml(
        "name: no\noffline: {prompt_tokens: 3, quantiles: [1, 1e3]}\n"
        "pair: [1, {prompt_tokens: 2}]\npath: a/b\n",
        Top,
        "t.yaml",
    )
    assert top.name == "no"
    assert top.offline.quantiles == (1.0, 1000.0)
    assert top.pair == (1, Lengths(prompt_tokens=2))
    assert top.path == Path("a/b")


def test_all_faults_are_reported_at_once_with_line_and_field() -> None:
    text = """\
name: 1
ofline: {}
offline:
  promt_tokens: 3
  prompt_tokens: "3"
  process: gama
  quantiles:
    - a
    - .nan
    - 1
several:
  - prompt_tokens: 0
  -
    prompt_tokens: 1
    proces: x
  - 7
by_name: {"a b": {prompt_tokens: 1.5}}
either: [1]
flag: yes
pair: [1, {prompt_tokens: 1, prompt_tokns: 2}]
"""
    assert faults(text) == (
        "t.yaml:1: name: must be text, not 1; put it in quotes",
        "t.yaml:2: ofline: unknown key; did you mean 'offline'? "
        "(known: name, offline, several, by_name, pair, either, flag, path)",
        "t.yaml:4: offline.promt_tokens: unknown key; did you mean 'prompt_tokens'? "
        "(known: prompt_tokens, process, quantiles)",
        't.yaml:5: offline.prompt_tokens: must be a whole number, not "3"',
        "t.yaml:6: offline.process: must be 'constant', 'poisson' or 'gamma', not \"gama\"; "
        "did you mean 'gamma'?",
        't.yaml:8: offline.quantiles[0]: must be a number, not "a"',
        "t.yaml:9: offline.quantiles[1]: '.nan' is refused; numbers must be finite",
        "t.yaml:12: several[0].prompt_tokens: must be greater than 0, not 0",
        "t.yaml:15: several[1].proces: unknown key; did you mean 'process'? "
        "(known: prompt_tokens, process, quantiles)",
        "t.yaml:16: several[2]: must be a mapping, not 7",
        't.yaml:17: by_name."a b".prompt_tokens: must be a whole number, not 1.5',
        "t.yaml:18: either: must be a whole number, not a list, or must be true or false, not a list",
        't.yaml:19: flag: must be true or false, not "yes"',
        "t.yaml:20: pair[1].prompt_tokns: unknown key; did you mean 'prompt_tokens'? "
        "(known: prompt_tokens, process, quantiles)",
    )


def test_faults_inside_unions_dictionaries_and_aliases_are_found() -> None:
    text = """\
loads:
  - {kind: closed, user: 1}
  - {kind: open, ratte: 1}
  - {kind: ajar}
  - {}
by_users:
  8: {prompt_tokens: x}
  many: {prompt_tokens: 1}
"""
    assert faults(text, Loads) == (
        "t.yaml:2: loads[0].users: is missing",
        "t.yaml:2: loads[0].user: unknown key; did you mean 'users'? (known: kind, users, rate)",
        "t.yaml:3: loads[1].rate: is missing",
        "t.yaml:3: loads[1].ratte: unknown key; did you mean 'rate'? (known: kind, users, rate)",
        "t.yaml:4: loads[2]: kind must be one of 'closed', 'open', not \"ajar\"",
        "t.yaml:5: loads[3]: kind is missing",
        't.yaml:7: by_users.8.prompt_tokens: must be a whole number, not "x"',
        't.yaml:8: by_users.many: must be a whole number, not "many"',
    )


def test_missing_fields_point_at_what_should_hold_them() -> None:
    assert faults("# comment\nname: a\noffline:\n  process: poisson\n") == (
        "t.yaml:3: offline.prompt_tokens: is missing",
    )
    assert faults("- 1") == ("t.yaml:1: must be a mapping, not a list",)


def test_the_words_of_a_validator_are_kept() -> None:
    assert faults("name: a b\noffline: {prompt_tokens: 1}") == ("t.yaml:1: name: must not hold spaces",)


def test_a_refused_value_is_not_reported_a_second_time() -> None:
    assert faults("name: *x\noffline: {prompt_tokens: 0777}") == (
        "t.yaml:1: alias '*x' is refused; write the value out",
        "t.yaml:2: offline.prompt_tokens: '0777' could be octal or decimal; "
        "write it without the leading 0, or in quotes for text",
    )


def test_a_flood_of_faults_is_cut() -> None:
    class Numbers(RootModel[list[int]]):
        pass

    lines = faults("- x\n" * 1000, Numbers)
    assert len(lines) == yamlio.MAX_FAULTS + 1
    assert lines[-1] == "t.yaml: and 900 more faults; correct these first"


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: ü\noffline: {prompt_tokens: 1}\n", encoding="utf-8")
    assert load_yaml(path, Top).name == "ü"


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    def line(path: Path) -> str:
        with pytest.raises(InputFileError) as caught:
            load_yaml(path, Top)
        (fault,) = caught.value.faults
        return fault

    latin, large, pipe = tmp_path / "latin.yaml", tmp_path / "large.yaml", tmp_path / "pipe.yaml"
    latin.write_bytes(b"name: a\noffline: \xfc\n")
    large.write_bytes(b"#" * (yamlio.MAX_BYTES + 1))
    os.mkfifo(pipe)
    assert line(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: no such file"
    assert line(tmp_path) == f"{tmp_path}: is a directory, not a YAML file"
    assert line(latin) == f"{latin}:2: byte 0xfc is not UTF-8 text; save it as UTF-8"
    assert "larger than" in line(large)
    assert "not a regular file" in line(pipe)
    assert "cannot be read" in line(latin / "below")
    assert "not a usable file name" in line(Path("a\0b"))


def test_an_unreadable_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "locked.yaml"
    path.write_text("a: 1")

    def denied(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(InputFileError, match=r"locked\.yaml: cannot be read: Permission denied"):
        load_yaml(path, Top)


PIECES = "a name offline 1 0 01 1e3 .nan ~ true << = @ ` % é : { } [ ] , ' \" &a *a ! !!int | > ? # \\x4 \\U"
YAML_LIKE = st.lists(
    st.sampled_from(
        [
            *PIECES.split(),
            *"\t\x85\ufeff\ud800\x00 \n",
            ": ",
            "- ",
            ", ",
            "\n  ",
            "---\n",
            "...\n",
            "%YAML 1.2\n",
        ]
    ),
    max_size=40,
).map("".join)


def refusals(text: str, model: type[Any]) -> tuple[str, ...]:
    """Faults of ``text``, empty when it loads; any other exception fails the test."""
    try:
        parse_yaml(text, model, "t.yaml")
    except InputFileError as error:
        return error.faults or ("refused without a fault",)
    return ()


@settings(deadline=None, max_examples=400)
@given(text=st.one_of(st.text(), YAML_LIKE))
@example(text="? ")
@example(text="{? }")
@example(text="[? : ]")
@example(text='"\\U00110000')
def test_any_text_loads_or_is_refused(text: str) -> None:
    for line in refusals(text, Top) + refusals(text, Anything):
        assert line.startswith("t.yaml:")
        assert line.isprintable()


@settings(deadline=None, max_examples=200)
@given(raw=st.one_of(st.binary(), YAML_LIKE.map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_any_bytes_load_or_are_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(raw)
    try:
        load_yaml(path, Anything)
    except InputFileError as error:
        lines = error.faults
    else:
        lines = (str(path),)
    assert lines
    assert all(line.startswith(str(path)) for line in lines)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=80), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, max_examples=200)
@given(value=JSON_VALUES)
def test_json_written_in_ascii_is_read_back(value: Any) -> None:
    assert plain(json.dumps(value)) == value
