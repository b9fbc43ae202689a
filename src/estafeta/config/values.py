"""Typed readings of a parameter's expanded text: booleans, numbers, times, words.

Source: postconf(5), "Specify a non-negative time value ..." and the value lists of each parameter.
Every function raises ValueError with one short reason; the caller adds the parameter and the place.
"""

from __future__ import annotations

from estafeta.config.registry import Parameter

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_INT_MAX = 2**31 - 1
_LONG_MAX = 2**63 - 1


def parse_bool(text: str) -> bool:
    """`yes` or `no`, in any case."""
    lowered = text.lower()
    if lowered == "yes":
        return True
    if lowered == "no":
        return False
    raise ValueError(f'bad boolean value: "{text}" (specify "yes" or "no")')


def parse_int(text: str, maximum: int = _INT_MAX) -> int:
    """A decimal number within the range of C's `int` (or up to `maximum`)."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 20:
        raise ValueError(f'bad numerical value: "{text}"')
    number = int(text)
    if not -maximum - 1 <= number <= maximum:
        raise ValueError(f'bad numerical value: "{text}" (out of range)')
    return number


def parse_size(text: str) -> int:
    """A number of bytes, up to 2^63-1."""
    return parse_int(text, _LONG_MAX)


def parse_time(text: str, unit: str = "s") -> int:
    """A time in seconds: digits and an optional one-letter unit; `unit` is what a bare number has."""
    digits = text
    if text[-1:] in _UNITS and text[-1:]:
        digits, unit = text[:-1], text[-1]
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 20:
        raise ValueError(f'bad time value: "{text}" (specify a number and one of s, m, h, d, w)')
    seconds = int(digits) * _UNITS[unit]
    if seconds > _INT_MAX:
        raise ValueError(f'bad time value: "{text}" (out of range)')
    return seconds


def split_words(text: str, separators: str = ", \t\r\n") -> list[str]:
    """Split at commas and white space; what stands within { and } stays together, with its braces."""
    if "{" not in text:
        for separator in separators:
            if separator != " " and separator in text:
                text = text.replace(separator, " ")
        return [word for word in text.split(" ") if word]
    words: list[str] = []
    start = -1
    level = 0
    for index, character in enumerate(text):
        if level == 0 and character in separators:
            if start >= 0:
                words.append(text[start:index])
                start = -1
            continue
        if start < 0:
            start = index
        if character == "{":
            level += 1
        elif character == "}" and level:
            level -= 1
    if start >= 0:
        words.append(text[start:])
    return words


def validate(parameter: Parameter, text: str) -> bool | int | str:
    """The typed value of `text` for `parameter`, its limits checked."""
    kind = parameter.kind
    if kind == "bool":
        return parse_bool(text)
    if kind in ("int", "size", "time"):
        if kind == "time":
            number = parse_time(text, parameter.unit)
        else:
            number = parse_size(text) if kind == "size" else parse_int(text)
        if parameter.minimum is not None and number < parameter.minimum:
            raise ValueError(f'bad numerical value: "{text}" (the minimum is {parameter.minimum})')
        if parameter.maximum is not None and number > parameter.maximum:
            raise ValueError(f'bad numerical value: "{text}" (the maximum is {parameter.maximum})')
        return number
    if kind == "enum" and text.lower() not in parameter.choices:
        raise ValueError(f'bad value: "{text}" (specify one of: {", ".join(parameter.choices)})')
    if kind == "text" and not text:
        raise ValueError("the value must not be empty")
    return text
