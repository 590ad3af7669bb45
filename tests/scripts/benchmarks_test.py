#!/usr/bin/env python3
"""scripts/benchmarks.sh in its smallest form, and what it makes of the document.

benchmarks_test.py SOURCE_DIR BIN_DIR WORK_DIR

Every section is measured and has tables of figures without empty cells; what is
outside of the markers stays; what is there already is not measured again; too
small a disk and unknown words are refused before anything is made.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

SOURCE, BIN, WORK = sys.argv[1:4]
SCRIPT = os.path.join(SOURCE, "scripts", "benchmarks.sh")
BLOCK = re.compile(r"<!-- benchmarks\.sh: (\S+) -->\n(.*?)<!-- end of \1 -->",
                   re.DOTALL)


def run(args, exit_code=0, env=None):
    done = subprocess.run([SCRIPT, "--bin", BIN] + args, capture_output=True,
                          text=True, env=env, check=False)
    assert done.returncode == exit_code, (args, done.returncode, done.stderr)
    return done


def tables(text):
    """Lists of rows, each a list of cells."""
    found = []
    rows = []
    for line in text.splitlines() + [""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line[1:-1].split("|")])
        elif rows:
            found.append(rows)
            rows = []
    return found


def check_section(name, text):
    assert "```sh\n" in text and "This is the smoke form" in text, (name, text)
    found = tables(text)
    assert found, (name, text)
    for head, _, *body in found:
        assert body, name
        for row in body:
            assert len(row) == len(head) and all(row), (name, row)
            assert not any("failed" in cell for cell in row), (name, row)
            # In each row, but for facts about the machine, is a figure.
            figures = [cell for cell in row[1:]
                       if re.match(r"[0-9][0-9,]*(\.[0-9]+)?( \(|$)", cell)]
            assert figures or name == "machine", (name, row)


def main():
    with tempfile.TemporaryDirectory(dir=WORK) as place:
        document = os.path.join(place, "doc.md")
        with open(os.path.join(SOURCE, "docs", "BENCHMARKS.md"),
                  encoding="utf-8") as file:
            before = file.read()
        shutil.copy(os.path.join(SOURCE, "docs", "BENCHMARKS.md"), document)
        work = os.path.join(place, "work")
        smoke = ["--smoke", "--work", work]
        names = [line.split()[0]
                 for line in run(["--smoke", "--list"]).stdout.splitlines()]
        assert len(names) >= 16, names

        # Nothing is made where there is no room for it, nor for a wrong word.
        small = os.path.join(place, "small")
        os.mkdir(small)
        with open(os.path.join(small, "df"), "w", encoding="ascii") as file:
            file.write("#!/bin/sh\necho Avail\necho 10\n")
        os.chmod(os.path.join(small, "df"), 0o755)
        env = dict(os.environ, PATH=small + ":" + os.environ["PATH"])
        refused = run(smoke, 1, env)
        assert "10 MB free" in refused.stderr, refused.stderr
        refused = run(["--work", work], 1, env)
        # Three files of 3B at once, and more.
        needed = int(re.search(r"up to (\d+) MB", refused.stderr).group(1))
        assert 18000 < needed < 32000, refused.stderr
        for args in (["--smoke", "--section", "nothing"], ["--fast"], ["-o"],
                     smoke + ["-o", document, "--document", document]):
            assert run(args, 2).stdout == "", args

        # One section to standard output, then all of them into the document.
        one = run(smoke + ["--section", "exact-q4"])
        check_section("exact-q4", one.stdout)
        all_of_them = run(smoke + ["--document", document])
        assert f"{len(names) - 1} of {len(names)} sections" in (
            all_of_them.stderr), all_of_them.stderr
        with open(document, encoding="utf-8") as file:
            after = file.read()
        assert BLOCK.sub("", before) == BLOCK.sub("", after)
        blocks = dict(BLOCK.findall(after))
        # The document may have sections that cannot be measured here.
        assert set(names) <= set(blocks), (names, blocks.keys())
        for name in names:
            check_section(name, blocks[name])
        with open(os.path.join(place, "doc.json"), encoding="utf-8") as file:
            raw = json.load(file)["sections"]
        assert list(raw) == names, raw.keys()
        assert raw["exact-q4"]["results"]["rows.json"][0]["samples_ts"]
        assert raw["exact-q4"]["commands"][-1].startswith("flashelm bench ")
        assert not [name for path, _, files in os.walk(work) for name in files
                    if name.endswith(".felm")], "models are removed"

        # All is there: nothing is measured, and the same is written.
        again = run(smoke + ["-o", os.path.join(place, "again.md")])
        assert f"0 of {len(names)} sections" in again.stderr, again.stderr
        with open(os.path.join(place, "again.md"), encoding="utf-8") as file:
            assert file.read() == "\n".join(blocks[name] for name in names)


if __name__ == "__main__":
    main()
