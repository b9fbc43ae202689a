"""The zones of the routing tests: one domain for each verdict of smtp(8)."""

from __future__ import annotations

from typing import Any

ZONES: dict[str, Any] = {
    "null.test": {"MX": ["0 ."]},
    "mixnull.test": {"MX": ["0 .", "10 good.test"]},
    "nodata.test": {"TXT": ["x"]},
    "servfail.test": "SERVFAIL",
    "refused.test": "REFUSED",
    "formerr.test": "FORMERR",
    "badmx.test": {"MX": ["10 nohost.test"]},
    "nodatamx.test": {"MX": ["10 nodata.test"]},
    "failmx.test": {"MX": ["10 servfail.test"]},
    "mixmx.test": {"MX": ["10 servfail.test", "20 nohost.test"]},
    "mixmx2.test": {"MX": ["10 nohost.test", "20 servfail.test"]},
    "selfmx.test": {"MX": ["10 me.test"]},
    "selfaddr.test": {"MX": ["10 alias.test"]},
    "backup.test": {"MX": ["10 nohost.test", "20 me.test", "30 good.test"]},
    "relay.test": {"MX": ["10 good.test", "20 me.test", "30 other.test"]},
    "selfa.test": {"A": ["127.0.0.1"]},
    "me.test": {"A": ["127.0.0.1"]},
    "alias.test": {"A": ["127.0.0.1"]},
    "good.test": {"A": ["127.0.0.9"]},
    "other.test": {"A": ["127.0.0.10"]},
    "malformed.test": {"MX": ["10 a\\032b.test"]},
    "numericmx.test": {"MX": ["10 127.0.0.9"]},
    "two.test": {"MX": ["10 good.test", "10 other.test", "5 both.test"]},
    "both.test": {"A": ["127.0.0.20"], "AAAA": ["::20"]},
    "many.test": {"A": [f"127.0.1.{n}" for n in range(1, 4)], "AAAA": [f"::{n}" for n in range(1, 9)]},
    "xn--and-6ma2c.test": {"A": ["127.0.0.30"]},
}
