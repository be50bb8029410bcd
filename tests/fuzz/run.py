"""``python -m tests.fuzz.run TARGET [--seconds N]``: one target by coverage, with atheris, from its seeds on.

An input that breaks something is printed as a line for the target's corpus.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from importlib import import_module
from pathlib import Path

from tests.fuzz.corpora import FOLDER, corpus, escaped

TARGETS = sorted(path.stem for path in FOLDER.glob("*.txt"))


def main() -> None:
    import atheris  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    arguments = parser.parse_args()
    with atheris.instrument_imports(include=["overair", "tests.fuzz"]):
        target = import_module(f"tests.fuzz.targets.{arguments.target}")

    def one(data: bytes) -> None:
        try:
            target.fuzz_one(data)
        except Exception:
            traceback.print_exc()
            print(f"# put this line into the corpus of {arguments.target}:\n{escaped(data)}", flush=True)
            raise

    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(corpus(arguments.target)):
            (Path(folder) / f"{number:04}").write_bytes(seed)
        options = [f"-max_total_time={arguments.seconds}", "-max_len=4096", "-rss_limit_mb=2048", "-timeout=20"]
        atheris.Setup([sys.argv[0], folder, f"-artifact_prefix={folder}/", *options], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
