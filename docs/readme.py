"""What commands print in the README, renewed: python docs/readme.py

A block that begins with `$ handgrad …` holds the output of that command, and so do the lines
after a comment `<!-- handgrad … -->`, up to the next blank line. With --check nothing is written;
the exit code says whether the README is what the commands print (see `comparable`).
"""

import argparse
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
BLOCKS = re.compile(
    r"(?P<head>^```console\n\$ (?P<shown>handgrad .*)\n)(?P<block>(?s:.*?))(?=^```$)"
    r"|(?P<mark>^<!-- (?P<hidden>handgrad .*) -->\n\n)(?P<lines>(?:.+\n)*)",
    re.MULTILINE,
)


def output(command: str) -> str:
    """What a command of handgrad prints, whatever its exit code, run where the README stands."""
    words = [sys.executable, "-P", "-m", "handgrad.compare.cli", *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    return done.stdout


def renewed(text: str) -> str:
    """The text with what the commands print now."""
    return BLOCKS.sub(lambda m: (m["head"] or m["mark"]) + output(m["shown"] or m["hidden"]), text)


def comparable(text: str) -> str:
    """Without what differs between runs and devices: seconds, the device and its rounding."""
    text = re.sub(r"· [\d.]+ s$", "· … s", text, flags=re.MULTILINE)
    text = re.sub(r"(?<=in float32 on )\w+", "…", text)
    return re.sub(r"[\d.]+(?= ulp)|(?<=autodiff's own )[\d.]+", "…", text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    given = parser.parse_args(arguments)
    text = README.read_text("utf-8")
    new = renewed(text)
    if comparable(new) == comparable(text):
        return 0
    if given.check:
        print("README.md is out of date: run python docs/readme.py", file=sys.stderr)
        return 1
    README.write_text(new, "utf-8")
    print("README.md is renewed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
