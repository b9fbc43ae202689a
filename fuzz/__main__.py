"""``make fuzz``: coverage-guided fuzzing with atheris. Usage: python -m fuzz TARGET [libFuzzer options]; python -m fuzz list.

atheris is no dependency of the project: `make fuzz` installs it into the environment first. A finding is written to
tests/unit/fuzz/found/TARGET-*; fix it and leave the file there.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Fuzz one target until libFuzzer's options say stop (``-max_total_time=600``)."""
    if len(sys.argv) < 2 or sys.argv[1] == "list":
        from fuzz.targets import TARGETS

        sys.stdout.write("\n".join(TARGETS) + "\n")
        return
    import atheris  # type: ignore[import-not-found,unused-ignore]

    name = sys.argv[1]
    with atheris.instrument_imports(include=["estafeta"]):
        from fuzz.targets import TARGETS
    target = TARGETS[name]
    from fuzz.seeds import SEEDS

    found = Path(__file__).parents[1] / "tests" / "unit" / "fuzz" / "found"
    found.mkdir(exist_ok=True)
    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed{number}").write_bytes(seed)
    options = [f"-artifact_prefix={found}/{name}-", "-max_len=4096", "-timeout=5", *sys.argv[2:], str(corpus)]
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
