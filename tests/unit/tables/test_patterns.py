import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from estafeta.system.immediate import run_now
from estafeta.tables import OpenOptions, Table, TableError, open_table
from estafeta.tables.pattern import RuleSet, _engine
from estafeta.tables.posix_regex import PatternError
from estafeta.tables.prefilter import Prefilter, re2_form


def ask(table: Table, key: str) -> str | None:
    return run_now(table.lookup(key))


def table_of(tmp_path: Path, kind: str, text: str, warnings: list[str] | None = None) -> Table:
    path = tmp_path / "t"
    path.write_text(text)
    return open_table(f"{kind}:{path}", OpenOptions(warn=([] if warnings is None else warnings).append))


BOTH = pytest.mark.parametrize("kind", ["regexp", "pcre"])


@BOTH
def test_rules(tmp_path: Path, kind: str) -> None:
    text = """
# comment
/^Subject: (.*) money (.*)$/ REJECT ${2}-$1 $$5
~^a/b~ slash
/two/
   words
/Case/i CASE
if /^x/
/y$/ xy
if !/z/
/^x1/ x1-without-z
endif
endif
!/^[a-z0-9 :]+$/ ODD
/last/ LAST
"""
    table = table_of(tmp_path, kind, text)
    assert ask(table, "subject: make MONEY fast") == "REJECT fast-make $5"
    assert ask(table, "a/b") == "slash"
    assert ask(table, "one two") == "words"
    assert ask(table, "case") is None
    assert ask(table, "Case") == "CASE"
    assert ask(table, "xaY") == "xy"
    assert ask(table, "x1") == "x1-without-z"
    assert ask(table, "x1z") is None
    assert ask(table, "UPPER#") == "ODD"
    assert ask(table, "at last") == "LAST"
    assert ask(table, "none") is None


@BOTH
def test_bad_rules_warn_and_are_skipped(tmp_path: Path, kind: str) -> None:
    warnings: list[str] = []
    text = "nonsense\n/a/z x\n/(/ y\n/a/ $1\n/a/ $x\nendif\nif /q/\n!/(a)/ $1\n/unclosed\n/ok/ good\n"
    table = table_of(tmp_path, kind, text, warnings)
    label = f"{kind} map {tmp_path}/t, line "
    assert [line.removeprefix(label)[0] for line in warnings] == list("1234556897")
    assert f'{label}2: unknown regexp option "z": skipping this rule' in warnings
    assert f'{label}4: out of range replacement index "1": skipping this rule' in warnings
    assert ask(table, "ok") is None  # inside an if that was never closed
    assert ask(table, "q ok") == "good"


def test_pcre_flags(tmp_path: Path) -> None:
    table = table_of(tmp_path, "pcre", "/^a.b$/s S\n/b/A start\n/n e w/x fresh\n/(?<!x)look/ L\n/e$/E end\n")
    assert ask(table, "a\nb") is None
    assert ask(table, "a-b") == "S"
    assert ask(table, "bc") == "start"
    assert ask(table, "ab c") is None
    assert ask(table, "new") == "fresh"
    assert ask(table, "xlook") is None
    assert ask(table, "ylook") == "L"
    assert ask(table, "ze\n") is None


@BOTH
def test_multi_line_flag(tmp_path: Path, kind: str) -> None:
    table = table_of(tmp_path, kind, "/^b$/m yes\n/^c/ c\n/^d/ d\n/^e/ e\n")
    assert ask(table, "a\nb\nx") == "yes"
    assert ask(table, "a\nc") is None


@BOTH
def test_in_memory_rules(kind: str) -> None:
    table = open_table(f"{kind}:{{ {{ /f(o)/ yes $1 }}, {{ if /x/ }} {{endif}} }}")
    assert ask(table, "foo") == "yes o"
    with pytest.raises(TableError, match="at start of text"):
        open_table(f"{kind}:{{ /f/ y }}")
    with pytest.raises(TableError, match="missing '"):
        open_table(f"{kind}:{{{{/a/ x}}")


def test_change_is_noticed(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "t"
    path.write_text("/a/ one\n")
    table = open_table(f"regexp:{path}", OpenOptions(clock=lambda: now[0]))
    path.write_text("/a/ other\n")
    assert ask(table, "a") == "one"
    now[0] = 2
    assert ask(table, "a") == "other"
    path.unlink()
    now[0] = 4
    assert ask(table, "a") == "other"


@BOTH
@pytest.mark.parametrize("prefiltered", [True, False])
def test_hostile_subjects_end_soon(tmp_path: Path, kind: str, prefiltered: bool) -> None:
    rules = "/^(a+)+$/ evil\n/^(a|aa)+$/ evil\n/(x+x+)+y/ evil\n" + ("/p1/ 1\n/p2/ 2\n" if prefiltered else "")
    warnings: list[str] = []
    table = table_of(tmp_path, kind, rules, warnings)
    start = time.perf_counter()
    assert ask(table, "a" * 40 + "b") is None
    assert ask(table, "x" * 40) is None
    assert time.perf_counter() - start < 1.0


_SUBJECT = st.text("abAB01.- \n\v_é", max_size=8)
_ATOM = st.sampled_from(
    ["a", "b", "A", ".", "\\.", "[ab]", "[^a]", "[^-b]", "[\\.a]", "[[:alpha:]]", "\\w", "\\s", "\\S", "\\b", "\\d",
     "(a|b)", "(ab)", "^", "$", "\\<", "\\n", "é", "[^é]", "(?:a)", "(?=a)", "{", "a{2}", "a{1,}", "a{,2}", "\\1", "|",
     "[]a]", "\\W", "(", ")", "[", "]", "\\", "-", " ", "_", "\\B", "\\v", "\\x", "[[.a.]]", "(?i)", "(?x) "]
)  # fmt: skip
_PATTERN = st.lists(st.tuples(_ATOM, st.sampled_from(["", "", "", "*", "+", "?", "+?", "*?", "++"])), max_size=5).map(
    lambda parts: "".join(atom + repeat for atom, repeat in parts)
)


@BOTH
@settings(max_examples=150, deadline=None)
@given(st.lists(_PATTERN, min_size=4, max_size=8), st.lists(_SUBJECT, max_size=6), st.sampled_from(["", "i", "m", "im"]))
@example(["a+?", "b", "c", "d"], ["", "b"], "")
@example(["[^À]", "b", "c", "d"], ["à"], "")
@example(["a$", "b", "c", "d"], ["a\n"], "")
def test_prefilter_never_leaves_out_a_match(kind: str, patterns: list[str], subjects: list[str], flags: str) -> None:
    engine = _engine(kind)
    compiled = []
    for pattern in patterns:
        try:
            compiled.append((pattern, engine.compile_pattern(pattern.encode(), flags, True)))
        except PatternError:
            continue
    prefilter = Prefilter([re2_form(pattern.encode(), flags, kind) for pattern, _ in compiled])
    for subject in subjects:
        data = subject.encode()
        candidates = prefilter.candidates(data)
        if candidates is None:
            continue
        for number, (pattern, regex) in enumerate(compiled):
            if regex.matches(data):
                assert number in candidates, (pattern, subject)


def test_the_prefilter_filters() -> None:
    forms = [re2_form(b"^Header%d: .*spam" % n, "", "regexp") for n in range(50)]
    prefilter = Prefilter(forms)
    assert prefilter.candidates(b"Header7: cheap SPAM") == [7]
    assert prefilter.candidates(b"Subject: hello") == []


@BOTH
@settings(max_examples=100, deadline=None)
@given(st.text("/!ifend(){}$1ab \t#\n\\", max_size=60))
def test_any_file_loads(kind: str, text: str) -> None:
    from estafeta.tables.lines import logical_lines

    warnings: list[str] = []
    rules = RuleSet(kind, "t", list(logical_lines(text)), _engine(kind), OpenOptions(warn=warnings.append))
    assert all(re.match(r".*line \d+: |empty macro name|truncated macro", warning) for warning in warnings)
    for subject in (b"", b"a", b"ab1", b"fa"):
        rules.find(subject)
