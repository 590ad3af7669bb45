#!/usr/bin/env python3
"""What flashelm bench writes, against docs/bench.schema.json.

bench_schema_test.py FLASHELM SOURCE_DIR

One measurement in every form: the records validate, JSON lines and CSV hold the
same values, the table the same figures. Every key is in docs/BENCHMARKING.md.
Exit code 77: python3-jsonschema is missing.
"""

import csv
import json
import os
import re
import subprocess
import sys
import tempfile

try:
    import jsonschema
except ImportError:
    print("python3-jsonschema is not installed")
    sys.exit(77)

FLASHELM, SOURCE = sys.argv[1:3]


def run(args, exit_code=0):
    done = subprocess.run([FLASHELM] + args, capture_output=True, text=True)
    assert done.returncode == exit_code, (args, done.returncode, done.stderr)
    return done.stdout


def csv_cell(value):
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


def check_csv(path, rows):
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(rows), (len(lines), len(rows))
    for line, row in zip(lines, rows):
        cells = {}
        for key, value in row.items():
            if key == "cgroup" and value is None:
                value = {k[len("cgroup."):]: None for k in line
                         if k.startswith("cgroup.")}
                assert len(value) == 5, value
            if isinstance(value, dict):
                cells.update({f"{key}.{k}": v for k, v in value.items()})
            else:
                cells[key] = value
        assert list(line) == list(cells), set(line) ^ set(cells)
        for key, value in cells.items():
            text = line[key]
            if isinstance(value, (float, list)):
                assert json.loads(text) == value, (key, text, value)
            else:
                assert text == csv_cell(value), (key, text, value)


def check_md(path, rows):
    with open(path, encoding="utf-8") as file:
        lines = [[cell.strip().replace("\\|", "|")
                  for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                 for line in file if line.startswith("|")]
    head, body = lines[0], lines[2:]
    assert len(body) == len(rows), (len(body), len(rows))
    for line, row in zip(body, rows):
        assert len(line) == len(head), line
        cells = dict(zip(head, line))
        assert cells["test"] == row["test"]
        assert cells["budget"] == row["config"]["mem_budget"]
        assert cells["io"] == row["io_backend"]
        if row["error"] is not None:
            assert cells["t/s"] == "failed: " + row["error"].replace("\n", " ")
            continue
        rate = f"{row['avg_ts']:.2f} \u00b1 {row['stddev_ts']:.2f}"
        assert cells["t/s"] == rate, (cells, rate)
        for name, key in (("p50 ms", "itl_p50_ms"), ("p95 ms", "itl_p95_ms"),
                          ("wait ms", "io_wait_ms")):
            value = row[key]
            expected = "-" if value is None else f"{value:.1f}"
            assert cells[name] == expected, (name, cells[name], value)


def main():
    with open(os.path.join(SOURCE, "docs", "bench.schema.json"),
              encoding="utf-8") as file:
        schema = json.load(file)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)

    with tempfile.TemporaryDirectory() as directory:
        def path(name):
            return os.path.join(directory, name)

        def bench(args, exit_code):
            out = run(["bench", "-p", "8", "-n", "3", "-r", "2",
                       "-o", "json", "-o", "csv=" + path("csv"),
                       "-o", "md=" + path("md"),
                       "-o", "jsonl=" + path("jsonl")] + args, exit_code)
            rows = json.loads(out)
            validator.validate(rows)
            with open(path("jsonl"), encoding="utf-8") as file:
                assert [json.loads(line) for line in file] == rows
            check_csv(path("csv"), rows)
            return rows

        # A name that has to be quoted in every form.
        model = path('a "quoted", | name.felm')
        run(["convert", os.path.join(SOURCE, "models", "tiny-stories"),
             "-o", model])
        rows = bench(["-m", model, "--mem-budget", "1,1G", "--io",
                      "pread,mmap", "--allow-unenforced", "--pg", "4,2"], 4)
        check_md(path("md"), rows)
        assert len(rows) == 2 * 2 * 3
        assert sum(row["error"] is not None for row in rows) == 3

        # Sparse decoding has keys of its own; so has an ablation.
        relu, sparse = path("relu.felm"), path("sparse.felm")
        run(["convert", os.path.join(SOURCE, "models", "tiny-stories-relu"),
             "-o", relu])
        run(["calibrate", "-m", relu, "-o", sparse, "--max-tokens", "100",
             "-f", os.path.join(SOURCE, "tests", "data", "calibration.txt")])
        rows = bench(["-m", sparse, "--sparsity", "off,gate", "--window",
                      "auto,2", "--interleave", "--cache-state", "cold"], 0)
        check_md(path("md"), rows)
        # Without sparsity there is no window.
        assert len(rows) == (1 + 2) * 2, len(rows)
        assert rows[-1]["kept_fraction"] < 1, rows[-1]
        rows = bench(["-m", sparse, "--ablation", "--mem-budget", "1G"], 0)
        assert [row["ablation"] for row in rows] == [
            "naive", "half pinned", "+ order and merging"], rows

        # A record that lacks a key, or has one too many, is none.
        row = dict(rows[0])
        del row["avg_ts"]
        assert not validator.is_valid([row])
        assert not validator.is_valid([dict(rows[0], other=1)])

    with open(os.path.join(SOURCE, "docs", "BENCHMARKING.md"),
              encoding="utf-8") as file:
        text = file.read()
    row = schema["$defs"]["row"]["properties"]
    for key in (list(row) + list(row["config"]["properties"]) +
                list(row["cgroup"]["properties"])):
        assert f"`{key}`" in text, f"{key} is not in docs/BENCHMARKING.md"


if __name__ == "__main__":
    main()
