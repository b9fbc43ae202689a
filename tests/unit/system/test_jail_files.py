"""Copies of the machine's files in a jail: made, refreshed, removed, never through a link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from estafeta.system.jail_files import differing_files, jail_files, refresh_jail


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc" / "zone").write_bytes(b"TZif")
    (root / "etc" / "localtime").symlink_to("zone")
    return root


def test_made_refreshed_and_removed(machine: Path, tmp_path: Path) -> None:
    jail = tmp_path / "jail"
    jail.mkdir()
    assert refresh_jail(str(jail), root=str(machine)) == []
    assert (jail / "etc" / "hosts").read_text() == "127.0.0.1 localhost\n"
    assert (jail / "etc" / "localtime").read_bytes() == b"TZif"
    assert not (jail / "etc" / "localtime").is_symlink()
    assert not (jail / "etc" / "services").exists(), "what the machine does not have"
    assert (jail / "dev").is_dir()
    assert list(differing_files(str(jail), root=str(machine))) == []
    before = os.stat(jail / "etc" / "localtime").st_ino
    (machine / "etc" / "hosts").write_text("127.0.0.2 other\n")
    assert list(differing_files(str(jail), root=str(machine))) == [(str(jail / "etc/hosts"), str(machine / "etc/hosts"))]
    assert refresh_jail(str(jail), root=str(machine)) == []
    assert (jail / "etc" / "hosts").read_text() == "127.0.0.2 other\n"
    assert os.stat(jail / "etc" / "localtime").st_ino == before, "what is right is left alone"
    (machine / "etc" / "hosts").unlink()
    assert list(differing_files(str(jail), root=str(machine))) == [(str(jail / "etc/hosts"), str(machine / "etc/hosts"))]
    assert refresh_jail(str(jail), root=str(machine)) == []
    assert not (jail / "etc" / "hosts").exists()


def test_links_are_not_followed(machine: Path, tmp_path: Path) -> None:
    jail, target = tmp_path / "jail", tmp_path / "target"
    jail.mkdir()
    target.mkdir()
    (jail / "etc").symlink_to(target)
    problems = refresh_jail(str(jail), root=str(machine))
    assert problems and all("not a directory of root's own" in problem for problem in problems)
    assert list(target.iterdir()) == []
    (jail / "etc").unlink()
    (jail / "etc").mkdir()
    (target / "precious").write_text("keep")
    (jail / "etc" / "hosts").symlink_to(target / "precious")
    assert refresh_jail(str(jail), root=str(machine)) == []
    assert (target / "precious").read_text() == "keep"
    assert not (jail / "etc" / "hosts").is_symlink()


@pytest.mark.parametrize("zone", ["", "UTC0", "/etc/shadow", "../../etc/shadow", ":../x", "CET-1CEST"])
def test_zones_that_are_no_file_of_the_database(zone: str) -> None:
    assert len(jail_files(zone)) == len(jail_files())


def test_a_zone_of_the_database() -> None:
    if os.path.exists("/usr/share/zoneinfo/Etc/UTC"):
        assert jail_files(":Etc/UTC")[-1] == "usr/share/zoneinfo/Etc/UTC"
