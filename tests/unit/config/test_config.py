"""Config: typed values, defaults, overrides, and what their errors say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.config import Config, ConfigError, default_config, load_config
from estafeta.config.registry import COMPUTED, TRANSPORT_SUFFIXES, find_parameter, parameters
from estafeta.config.values import parse_time, split_words, validate


def config(directory: Path, text: str) -> Config:
    (directory / "main.cf").write_text(text)
    return load_config(str(directory))


def test_every_default_is_valid() -> None:
    defaults = default_config()
    for name, parameter in parameters().items():
        assert validate(parameter, defaults.get(name)) is not None, name


def test_registry_knows_its_types() -> None:
    assert len([row for row in parameters().values() if row.builtin]) == 831
    for row in parameters().values():
        assert row.kind in ("bool", "int", "size", "time", "str", "text", "raw", "enum"), row
        assert (row.kind == "time") == (row.unit in ("s", "m", "h", "d", "w")), row
    assert [name for name, row in parameters().items() if row.default == COMPUTED] != []


def test_typed_values(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        "biff = No\nmessage_size_limit = 99999999999\nmaximal_queue_lifetime = 2\nsmtpd_timeout = 3m\n"
        "myhostname = mx.example.org\nalias_maps = hash:/a, inline:{ a=b, { c = d e } }\n\tstatic:x\n"
        "smtp_destination_concurrency_limit = 7\n",
    )
    assert found.bool("biff") is False
    assert found.size("message_size_limit") == 99999999999
    assert found.seconds("maximal_queue_lifetime") == 2 * 86400
    assert found.seconds("bounce_queue_lifetime") == 5 * 86400
    assert found.seconds("smtpd_timeout") == 180
    assert found.words("alias_maps") == ["hash:/a", "inline:{ a=b, { c = d e } }", "static:x"]
    assert found.get("mydomain") == "example.org"
    assert found.words("mydestination") == ["mx.example.org", "localhost.example.org", "localhost"]
    assert found.transport("smtp", "destination_concurrency_limit") == 7
    assert found.transport("relay", "destination_concurrency_limit") == 20
    assert found.transport("local", "destination_concurrency_limit") == 2
    assert found.transport("uucp", "time_limit", "seconds") == 1000
    assert found.get("forward_path") == "$home/.forward${recipient_delimiter}${extension}, $home/.forward"


def test_computed_names(tmp_path: Path) -> None:
    assert (
        config(tmp_path, "mydomain = example.net\nmyhostname = host.$mydomain\n").get("myhostname")
        == "host.example.net"
    )
    assert config(tmp_path, "mydomain = example.net\n").get("myhostname").partition(".")[2] != ""
    assert config(tmp_path, "myhostname = bare\n").get("mydomain") == "localdomain"
    loopback = config(tmp_path, "inet_interfaces = loopback-only\ninet_protocols = ipv4\nmynetworks_style = subnet\n")
    assert loopback.get("mynetworks") == "127.0.0.0/8"


def test_old_names_work_through_the_new(tmp_path: Path) -> None:
    found = config(tmp_path, "virtual_maps = hash:/v\nfallback_relay = f\nsmtp_per_record_deadline = yes\n")
    assert found.get("virtual_alias_maps") == "hash:/v"
    assert found.get("smtp_fallback_relay") == "f"
    assert found.bool("smtp_per_request_deadline") is True
    assert default_config().bool("smtp_per_request_deadline") is False


def test_overrides_make_a_new_config(tmp_path: Path) -> None:
    found = config(tmp_path, "stress =\n")
    stressed = found.with_overrides([("stress", "yes"), ("own", "$stress!")])
    assert found.seconds("smtpd_timeout") == 300
    assert stressed.seconds("smtpd_timeout") == 10
    assert stressed.get("own") == "yes!"
    assert stressed.lookup("nosuch") is None
    assert not found.is_set("own")


@pytest.mark.parametrize(
    ("text", "name", "kind", "reason"),
    [
        ("a = 1\nbiff = maybe\n", "biff", "bool", "bad boolean value"),
        ("\nhopcount_limit = many\n", "hopcount_limit", "int", "bad numerical value"),
        ("\nhopcount_limit = 0\n", "hopcount_limit", "int", "the minimum is 1"),
        ("\nhopcount_limit = 99999999999\n", "hopcount_limit", "int", "out of range"),
        ("\nsmtpd_timeout = 3y\n", "smtpd_timeout", "seconds", "bad time value"),
        ("\nsmtpd_timeout = -3\n", "smtpd_timeout", "seconds", "bad time value"),
        ("\nmydestination = ${x\n", "mydestination", "words", "truncated"),
    ],
)
def test_errors_name_file_line_and_parameter(tmp_path: Path, text: str, name: str, kind: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        getattr(config(tmp_path, text), kind)(name)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/main.cf, line 2: parameter {name}: ")
    assert reason in message


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown parameter: nosuch"):
        config(tmp_path, "").get("nosuch")


def test_transport_parameters_are_recognised() -> None:
    for suffix in TRANSPORT_SUFFIXES:
        assert find_parameter(f"my-relay{suffix}") is not None
        assert find_parameter(suffix) is None
    found = find_parameter("x_destination_recipient_limit")
    assert found is not None
    assert found.default == "$default_destination_recipient_limit"


@given(st.text(max_size=30))
def test_words_never_fail_and_lose_nothing(text: str) -> None:
    words = split_words(text, " ,")
    assert "".join(words).replace(" ", "").replace(",", "") == text.replace(" ", "").replace(",", "")


@given(st.text(max_size=8))
def test_times_parse_or_raise(text: str) -> None:
    try:
        assert parse_time(text) >= 0
    except ValueError:
        pass


def test_myorigin_may_be_a_file_as_on_debian(tmp_path: Path) -> None:
    (tmp_path / "mailname").write_text("mail.example.org\nsecond line\n")
    found = config(tmp_path, f"myorigin = {tmp_path}/mailname\nmydestination = $myorigin, localhost\n")
    assert found.get("myorigin") == "mail.example.org"
    assert found.words("mydestination") == ["mail.example.org", "localhost"]
    missing = config(tmp_path, f"\nmyorigin = {tmp_path}/nothing\n")
    with pytest.raises(ConfigError, match=r"main.cf, line 2: parameter myorigin: .*/nothing: cannot open file: No such file"):
        missing.get("myorigin")
