"""regexp: and pcre: tables.

Source: regexp_table(5), pcre_table(5). The first rule that matches wins. A prefilter (re2.Set) names the rules that can
match, the exact engine decides. Keys are whole strings and are not folded. The file is read again when it changes; one
that cannot be read then leaves the old rules in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from estafeta.tables.posix_regex import MatchFailed, PatternError
from estafeta.tables.prefilter import LineFilter, Prefilter, re2_form
from estafeta.tables.rule_source import RuleSource
from estafeta.tables.rules import BadRule, RuleLine, Template, parse_rules, parse_template
from estafeta.tables.table import LookupFailed, OpenOptions, is_utf8


class Regex(Protocol):
    """A compiled pattern of either engine."""

    groups: int

    def matches(self, subject: bytes) -> bool: ...

    def capture(self, subject: bytes) -> list[bytes] | None: ...


class Library(Protocol):
    """An engine."""

    out_of_range: str
    ending: str
    flag_letters: str

    def compile_pattern(self, pattern: bytes, flags: str, want_groups: bool) -> Regex: ...


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled rule or ``if``; ``parent`` is the number of the ``if`` around it, or -1."""

    line: int
    regex: Regex
    negated: bool
    parent: int
    template: Template | None  # None: an if


def _engine(kind: str) -> Library:
    if kind == "regexp":
        from estafeta.tables.posix_regex import PosixLibrary

        return PosixLibrary()
    from estafeta.tables.pcre import PcreLibrary

    return PcreLibrary()


class RuleSet:
    """The compiled rules of one table."""

    def __init__(
        self, kind: str, source: str, lines: list[tuple[int, str]], engine: Library, options: OpenOptions
    ):
        self._kind = kind
        self._label = f"{kind} map {source}"
        self._engine = engine
        self._options = options
        self.rules: list[Rule] = []
        forms: list[bytes | None] = []
        open_ifs: list[int] = []
        for parsed in parse_rules(lines, self._warn, engine.ending):
            if parsed.kind == "endif":
                if open_ifs:
                    open_ifs.pop()
                else:
                    self._warn(parsed.line, "ignoring ENDIF without matching IF")
                if parsed.result:
                    self._warn(parsed.line, "ignoring extra text after ENDIF")
                continue
            try:
                rule, form = self._compile(parsed, open_ifs[-1] if open_ifs else -1)
            except (BadRule, PatternError) as err:
                self._warn(parsed.line, str(err))
                continue
            if rule.template is None:
                open_ifs.append(len(self.rules))
            self.rules.append(rule)
            forms.append(form)
        for number in open_ifs:
            self._warn(self.rules[number].line, "IF has no matching ENDIF")
        self._final = [number for number, rule in enumerate(self.rules) if rule.template is not None]
        self._prefilter = Prefilter(forms)
        self._plain = all(rule.parent < 0 and not rule.negated for rule in self.rules)
        self._negated = [n for n in self._final if self.rules[n].negated]
        self._line_filter = LineFilter(forms) if not self._negated else None

    def _warn(self, line: int, text: str) -> None:
        self._options.warn(f"{self._label}, line {line}: {text}")

    def _compile(self, parsed: RuleLine, parent: int) -> tuple[Rule, bytes | None]:
        assert parsed.pattern is not None
        pattern = parsed.pattern
        for letter in pattern.flags:
            if letter not in self._engine.flag_letters:
                raise BadRule(f'unknown regexp option "{letter}": skipping this rule')
            if letter == "X":
                self._warn(parsed.line, 'ignoring obsolete regexp option "X"')
        template: Template | None = None
        wanted = 0
        if parsed.kind == "if":
            if parsed.result:
                self._warn(parsed.line, "ignoring extra text after IF statement")
        else:
            if parsed.result is None:
                self._warn(parsed.line, "no replacement text: using empty string")
            template = self._template(parsed)
            wanted = max((part for part in template if isinstance(part, int)), default=0)
            if wanted and not self._options.substitution:
                raise BadRule("regular expression substitution is not allowed: skipping this rule")
            if wanted and pattern.negated:
                raise BadRule("$number found in negative match replacement text: skipping this rule")
        raw = pattern.text.encode("utf-8", "surrogateescape")
        regex = self._engine.compile_pattern(raw, pattern.flags, wanted > 0)
        if wanted > regex.groups:
            raise BadRule(f'out of range replacement index "{wanted}": skipping this rule')
        rule = Rule(parsed.line, regex, pattern.negated, parent, template)
        return rule, re2_form(raw, pattern.flags, self._kind)

    def _template(self, parsed: RuleLine) -> Template:
        try:
            return parse_template(
                parsed.result or "", self._engine.out_of_range, lambda text: self._warn(parsed.line, text)
            )
        except BadRule as err:
            if "skipping" not in str(err):
                self._options.warn(str(err))
                raise BadRule("bad replacement syntax: skipping this rule")
            raise

    def excludes(self, text: bytes) -> bool:
        """True if certainly no line of ``text`` (LF line ends) has a result."""
        return self._line_filter is not None and self._line_filter.excludes(text)

    def find(self, subject: bytes) -> str | None:
        """The result of the first rule that matches."""
        hits = self._prefilter.candidates(subject)
        possible: frozenset[int] | None = None
        if hits is None:
            numbers = self._final
        elif self._plain:
            numbers = hits
        else:
            possible = frozenset(hits)
            numbers = sorted({n for n in hits if self.rules[n].template is not None}.union(self._negated))
        decided: dict[int, bool] = {}
        for number in numbers:
            rule = self.rules[number]
            if rule.parent >= 0 and not self._inside(rule.parent, subject, possible, decided):
                continue
            template = rule.template or ()
            if rule.negated:
                if not self._matches(number, subject, possible):
                    return "".join(str(part) for part in template)
                continue
            if any(isinstance(part, int) for part in template):
                try:
                    groups = rule.regex.capture(subject)
                except MatchFailed as err:
                    self._warn(rule.line, str(err))
                    continue
                if groups is not None:
                    return "".join(
                        part if isinstance(part, str) else groups[part].decode("utf-8", "surrogateescape")
                        for part in template
                    )
            elif self._matches(number, subject, possible):
                return "".join(str(part) for part in template)
        return None

    def _matches(self, number: int, subject: bytes, possible: frozenset[int] | None) -> bool:
        if possible is not None and number not in possible:
            return False
        try:
            return self.rules[number].regex.matches(subject)
        except MatchFailed as err:
            # As Postfix: a rule that takes too long does not match.
            self._warn(self.rules[number].line, str(err))
            return False

    def _inside(
        self, number: int, subject: bytes, possible: frozenset[int] | None, decided: dict[int, bool]
    ) -> bool:
        """Whether the ``if`` and all around it let the subject in."""
        chain = []
        while number >= 0 and number not in decided:
            chain.append(number)
            number = self.rules[number].parent
        entered = number < 0 or decided[number]
        for number in reversed(chain):
            entered = entered and self._matches(number, subject, possible) != self.rules[number].negated
            decided[number] = entered
        return entered


class PatternTable:
    """regexp: and pcre:"""

    is_pattern = True

    def __init__(self, kind: str, source: str, options: OpenOptions) -> None:
        """``source``: file name or { {rule}, ... }. Raises TableError."""
        self.name = f"{kind}:{source}"
        self._options = options
        engine = _engine(kind)
        self._source = RuleSource(kind, source, options, lambda lines: RuleSet(kind, source, lines, engine, options))
        self._closed = False

    def excludes(self, text: bytes) -> bool:
        """True if certainly no line of ``text`` (LF line ends) has a result; false says nothing."""
        return not self._closed and self._source.rules().excludes(text)

    async def lookup(self, key: str) -> str | None:
        """The result of the first rule that matches the whole ``key``; raises LookupFailed."""
        if self._closed:
            raise LookupFailed(self.name, "the table is closed")
        rules = self._source.rules()
        if self._options.utf8 and not is_utf8(key):
            return None
        subject = key.encode("utf-8", "surrogateescape")
        nul = subject.find(b"\0")
        if nul >= 0:
            subject = subject[:nul]  # a key is a C string to both engines of Postfix
        return rules.find(subject)

    def close(self) -> None:
        """Answer no more."""
        self._closed = True
