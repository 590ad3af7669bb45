#!/usr/bin/env python3
"""What flashelm bench writes, against docs/bench.schema.json.

bench_schema_test.py FLASHELM SOURCE_DIR

One measurement in every form: the records validate, JSON lines and CSV hold the
same values, every cell of the table the same figures as far as it shows them.
Every key is in docs/BENCHMARKING.md.
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


def text(key):
    return lambda row: "-" if row[key] is None else row[key]


def config(key):
    return lambda row: row["config"][key]


def count(key):
    return lambda row: "-" if row[key] is None else str(row[key])


def number(key, digits):
    return lambda row: "-" if row[key] is None else f"{row[key]:.{digits}f}"


def size_text(value):
    if value is None:
        return "-"
    value = int(value)
    if value < 1024:
        return f"{value} B"
    if value < 1024 ** 2:
        return f"{value / 1024:.1f} KiB"
    if value < 1024 ** 3:
        return f"{value / 1024 ** 2:.2f} MiB"
    return f"{value / 1024 ** 3:.2f} GiB"


def size(key):
    return lambda row: size_text(row[key])


def or_failed(cell):
    return lambda row: (cell(row) if row["error"] is None else
                        "failed: " + row["error"].replace("\n", " "))


def rate(row):
    if row["stddev_ts"] is None:
        return f"{row['avg_ts']:.2f}"
    return f"{row['avg_ts']:.2f} \u00b1 {row['stddev_ts']:.2f}"


# What a record says in each column of the tables.
COLUMNS = {
    "file": lambda row: os.path.basename(row["model_path"]),
    "model": text("model_type"),
    "size": size("model_size"),
    "budget": config("mem_budget"),
    "io": text("io_backend"),
    "sparsity": config("sparsity"),
    "window": config("window"),
    "kv": text("kv_type"),
    "threads": count("n_threads"),
    "batch": count("n_batch"),
    "ctx": count("n_ctx"),
    "test": text("test"),
    "t/s": or_failed(rate),
    "peak RAM": size("peak_rss_bytes"),
    "p50 ms": number("itl_p50_ms", 1),
    "p95 ms": number("itl_p95_ms", 1),
    "flash/tok": size("flash_bytes_per_token"),
    "bound": size("flash_bytes_bound_per_token"),
    "kernel/tok": size("kernel_read_bytes_per_token"),
    "GB/s": number("flash_read_gbps", 2),
    "wait ms": number("io_wait_ms", 1),
    "compute ms": number("compute_ms", 1),
    "cgroup peak": lambda row: size_text((row["cgroup"] or {}).get(
        "peak_bytes")),
}
ABLATION_COLUMNS = {
    "": text("ablation"),
    "GB/token": or_failed(lambda row: f"{row['flash_bytes_per_token'] / 1e9:.3g}"),
    "GB/s": number("flash_read_gbps", 2),
    "reads/token": number("reads_per_token", 0),
    "I/O ms": number("io_busy_ms", 2),
    "wait ms": number("io_wait_ms", 2),
    "compute ms": number("compute_ms", 2),
    "memory ms": number("memory_ms", 2),
    "ms/token": number("ms_per_token", 2),
    "peak RAM": size("peak_rss_bytes"),
}
checked_columns = set()


def check_md(path, rows, columns):
    with open(path, encoding="utf-8") as file:
        lines = [[cell.strip().replace("\\|", "|")
                  for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                 for line in file if line.startswith("|")]
    head, body = lines[0], lines[2:]
    assert len(body) == len(rows), (len(body), len(rows))
    for line, row in zip(body, rows):
        assert len(line) == len(head), line
        for name, cell in zip(head, line):
            expected = columns[name](row)
            assert cell == expected, (name, cell, expected)
            checked_columns.add(name)


def main():
    with open(os.path.join(SOURCE, "docs", "bench.schema.json"),
              encoding="utf-8") as file:
        schema = json.load(file)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)

    with tempfile.TemporaryDirectory() as directory:
        def path(name):
            return os.path.join(directory, name)

        def bench(args, exit_code, columns=None):
            least = [word for flag, value in (("-p", "8"), ("-n", "3"),
                                              ("-r", "2"))
                     if flag not in args for word in (flag, value)]
            out = run(["bench"] + least +
                      ["-o", "json", "-o", "csv=" + path("csv"),
                       "-o", "md=" + path("md"),
                       "-o", "jsonl=" + path("jsonl")] + args, exit_code)
            rows = json.loads(out)
            validator.validate(rows)
            with open(path("jsonl"), encoding="utf-8") as file:
                assert [json.loads(line) for line in file] == rows
            check_csv(path("csv"), rows)
            check_md(path("md"), rows, columns or COLUMNS)
            return rows

        # A name that has to be quoted in every form.
        model = path('a "quoted", | name.felm')
        run(["convert", os.path.join(SOURCE, "models", "tiny-stories"),
             "-o", model])
        rows = bench(["-m", model, "--mem-budget", "1,1G", "--io",
                      "pread,mmap", "--allow-unenforced", "--pg", "4,2"], 4)
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
        # Without sparsity there is no window.
        assert len(rows) == (1 + 2) * 2, len(rows)
        assert rows[-1]["kept_fraction"] < 1, rows[-1]
        # Every column that a table may have, one repetition, and a cgroup
        # where one can be made.
        rows = bench(["-m", model, "-m", sparse, "-m", path("none.felm"),
                      "--kv-type", "f32,bf16", "-t", "1,2", "-b", "4,8", "-c",
                      "16,32", "-n", "0", "-r", "1", "--no-warmup",
                      "--cgroup"], 3)
        assert len(rows) == 3 * 16, len(rows)
        rows = bench(["-m", sparse, "--ablation", "--mem-budget", "1G"], 0,
                     ABLATION_COLUMNS)
        assert [row["ablation"] for row in rows] == [
            "naive", "half pinned", "+ order and merging"], rows

        unchecked = (set(COLUMNS) | set(ABLATION_COLUMNS)) - checked_columns
        assert not unchecked, unchecked

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
                list(row["cgroup"]["properties"]) +
                list(row["layers"]["properties"])):
        assert f"`{key}`" in text, f"{key} is not in docs/BENCHMARKING.md"


if __name__ == "__main__":
    main()
