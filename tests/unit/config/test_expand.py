"""`$name` expressions; the expectations were measured with `postconf -x` of Postfix 3.7."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.config.expand import ExpandError, compatibility_level, expand, names_in

VALUES = {"one": "1", "empty": "", "quiet": "$empty", "loop": "a $loop", "a": "$b", "b": "$c", "c": "end", "d": "x$$y"}


def ex(text: str) -> str:
    return expand(text, VALUES.get)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("$one.x", "1.x"),
        ("${one}$(one)", "11"),
        ("[$nosuch]", "[]"),
        ("$a", "end"),
        ("$d", "x$y"),
        ("$$one $${one}", "$one ${one}"),
        ("${one?x}", "x"),
        ("${nope?x}", ""),
        ("${nope:x}", "x"),
        ("${one:x}", ""),
        ("[${one?  y  }]", "[  y  ]"),
        ("[${one?{  y  }:z}]", "[  y  ]"),
        ("[${nope?{  y  } : { z } }]", "[ z ]"),
        ("[${nope?{y}: z}]", "[ z]"),
        ("${quiet?x}", "x"),
        ("${one?a:b}", "a:b"),
        ("${one?:z}", ":z"),
        ("${nope?a}:b", ":b"),
        ("${one?{a{b}c}:{d}}", "a{b}c"),
        ("${one?$(quiet:{z})}", ""),
        ("${one }", "1"),
        ("${{1}=={1}?{a}:{b}}", "a"),
        ("${{1} == {1}:{b}}", ""),
        ("${{1} == {2}:{b}}", "b"),
        ("${{1} == {1}}", "true"),
        ("${{1} == {2}}", ""),
        ("${{ 1 } == {1}}", ""),
        ("${{010} == {10}}", "true"),
        ("${{10} < {9} ? {x} : {y}}", "y"),
        ("${{a10}<{a9}?{x}:z}", "x"),
        ("${{-1} < {1}}", "true"),
        ("${{1} == {1} ? x : y}", " x : y"),
        ("${{3.10} >level {3.9}}", "true"),
        ("${{3.9} ==level {3.9.0}}", "true"),
        ("${{3} !=level {3.0}}", ""),
        ("${{$one} == {1} ? {${{a} == {b} ? {in} : {out}}} : {no}}", "out"),
        ("${nope:${nope2:{deep}}}", "deep"),
        ("a}b{c {$one}", "a}b{c {1}"),
    ],
)
def test_value(text: str, value: str) -> None:
    assert ex(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "$",
        "$ one",
        "$-",
        "${one",
        "$(one}",
        "${one)",
        "${}",
        "${$one?x}",
        "${one.b}",
        "${one!x}",
        "${one?{x} y}",
        "${nope:{x} y}",
        "${one?{a}:{b} c}",
        "${one?{x}:{y}:{z}}",
        "${{1} === {1}}",
        "${{1} = {1}}",
        "${{1}}",
        "${{1} == 1}",
        "${{a} <=level {1}}",
        "${{} <level {3.0}}",
        "$loop",
    ],
)
def test_error(text: str) -> None:
    with pytest.raises(ExpandError):
        ex(text)


def test_loop_through_two_names() -> None:
    with pytest.raises(ExpandError, match="nesting"):
        expand("$x", {"x": "${y}", "y": "${one?$x}", "one": "1"}.get)


def test_levels() -> None:
    assert compatibility_level("3.10") > compatibility_level("3.9") > compatibility_level("2")


def test_names_of_all_branches() -> None:
    assert names_in("${a?{$b}:{$c}} $$d $e ${{$f} == {x} ? {$g}}") == ["a", "b", "c", "e", "f", "g"]


TEXT = st.text(st.sampled_from(list("$${}()?:=<>! aon1.level")), max_size=40)


@given(TEXT)
def test_expands_or_raises_its_error(text: str) -> None:
    for function in (ex, names_in):
        try:
            function(text)
        except ExpandError as error:
            assert "\n" not in str(error)


@given(st.text(st.characters(exclude_characters="$"), max_size=60))
def test_text_without_dollar_stays(text: str) -> None:
    assert ex(text) == text
