"""Configurations that projects and distributions ship: nothing in them is fatal, nothing raises, what is missing is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from estafeta.config import load_config
from estafeta.config.programs import KNOWN_PROGRAMS
from estafeta.config.settings_check import check_configuration
from estafeta.tables.availability import table_problems

PLACE = Path(__file__).parents[4] / "shared" / "realworld"
NAMES = sorted(path.name for path in PLACE.iterdir() if path.is_dir()) if PLACE.is_dir() else []

pytestmark = pytest.mark.skipif(not NAMES, reason="no ../shared/realworld beside the checkout")


@pytest.mark.parametrize("name", NAMES)
def test_what_check_says(name: str, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    shutil.copytree(PLACE / name, etc)
    (tmp_path / "mailname").write_text("mail.example.org\n")
    for path in etc.rglob("*"):
        if path.is_file():
            text = path.read_bytes().replace(b"@DIR@", str(etc).encode())
            path.write_bytes(text.replace(b"/etc/mailname", str(tmp_path / "mailname").encode()))
    problems = check_configuration(str(etc), KNOWN_PROGRAMS)
    assert [str(problem) for problem in problems if problem.severity == "fatal"] == []
    problems += table_problems(load_config(str(etc)))
    said = "\n".join(str(problem) for problem in problems)
    assert "Traceback" not in said
    assert len(set(problems)) == len(problems)
    text = (etc / "main.cf").read_text(errors="surrogateescape")
    for parameter in ("smtpd_milters", "smtpd_upstream_proxy_protocol", "tls_server_sni_maps"):
        if f"\n{parameter} " in text or f"\n{parameter}=" in text:
            assert f"parameter {parameter} is set but not implemented" in said, parameter
