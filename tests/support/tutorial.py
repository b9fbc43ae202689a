"""The tutorial pages: their configuration blocks, and instances made of them."""

from __future__ import annotations

import re
from pathlib import Path

from support.instance import MASTER_CF, Instance

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"en": DOCS / "tutorial.md", "es": DOCS / "es" / "tutorial.md"}
_BLOCK = re.compile(r"<!-- block: (\S+) (\S+) -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> dict[str, dict[str, str]]:
    """Scene -> file -> text, as on the page."""
    found: dict[str, dict[str, str]] = {}
    for scene, file, text in _BLOCK.findall(PAGES[language].read_text()):
        assert file not in found.setdefault(scene, {}), f"{scene} {file} is there twice"
        found[scene][file] = text
    return found


def without_comments(text: str) -> list[str]:
    """The lines that mean something."""
    return [re.sub(r"\s+", " ", line.rstrip()) for line in text.splitlines() if line.strip() and not line.startswith("#")]


# What every test changes: mail for users goes into maildirs of the instance.
DELIVERY = """\
mailbox_transport = virtual
virtual_mailbox_maps = regexp:{etc}/mailboxes
local_transport = local
"""


def instance_of(
    scene: str, *, language: str = "en", replace: dict[str, str] | None = None, more: str = "", master_cf: str = MASTER_CF
) -> Instance:
    """An instance with a scene's blocks, not started. ``replace`` changes addresses and ports, everywhere."""
    files = blocks(language)[scene]
    changes = {"/etc/postfix": "{etc}", **(replace or {})}

    def changed(text: str) -> str:
        for old, new in changes.items():
            text = text.replace(old, new)
        return text

    main = changed(files.get("main.cf", ""))
    instance = Instance("", master_cf)
    directory = str(instance.etc)
    path = instance.etc / "main.cf"
    own = "mydestination =\nmyhostname = mail.test.example\nmydomain = test.example\nmynetworks = 127.0.0.0/8\n"
    base = path.read_text()
    for line in own.splitlines():
        if re.search(rf"(?m)^{line.split(' =')[0]} *=", main):
            base = base.replace(line + "\n", "")
    for line in ("alias_maps =", "alias_database =", "transport_maps"):
        if re.search(rf"(?m)^{line.split(' =')[0]} *=", main):
            base = re.sub(rf"(?m)^{line}.*\n", "", base)
    instance.write("main.cf", (base + main + DELIVERY + more).replace("{etc}", directory))
    instance.write("mailboxes", "/^([^@+]+)(\\+[^@]*)?@/ ${1}/\n")
    for name, text in files.items():
        if name not in ("main.cf", "master.cf"):
            instance.write(name, changed(text).replace("{etc}", directory))
    if "master.cf" in files:
        text = changed(files["master.cf"]).replace("{etc}", directory)
        instance.write("master.cf", re.sub(r"(?m)^smtp(\s+inet)", rf"127.0.0.1:{instance.port}\1", text))
    return instance
