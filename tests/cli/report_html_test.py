#!/usr/bin/env python3
"""The report of flashelm bench, against the records of the same sweep.

report_html_test.py FLASHELM SOURCE_DIR

Well-formed, loads nothing, every figure named and with its table, every table
with the values of the records.
"""

import csv
import io
import json
import os
import re
import sys
import tempfile
import urllib.parse
import xml.etree.ElementTree

from report_page import Page, run, sweep

FLASHELM, SOURCE = sys.argv[1:3]


def check_markup(text, page):
    assert page.doctype == "DOCTYPE html", page.doctype
    # Names of XML and of nothing else.
    assert not re.findall(r'https?://(?!www\.w3\.org/2000/svg")', text)
    assert not page.all("script") and not page.all("img")
    assert not re.search(r"@import|url\((?!#)", text)
    ids = [e["attrs"]["id"] for e in page.elements if "id" in e["attrs"]]
    assert len(ids) == len(set(ids)), ids
    for element in page.elements:
        attrs = element["attrs"]
        assert not any(name.startswith("on") for name in attrs), attrs
        for name in ("src", "href"):
            value = attrs.get(name, "")
            assert not value or value.startswith(("#", "data:")), value
            if value.startswith("#"):
                assert value[1:] in ids, value
        for name in attrs.get("aria-labelledby", "").split():
            assert name in ids, name
    levels = [int(e["tag"][1]) for e in page.elements
              if re.fullmatch("h[1-6]", e["tag"])]
    assert levels[0] == 1 and levels.count(1) == 1, levels
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:])), levels
    assert page.all("a")[0]["attrs"] == {"class": "skip", "href": "#main"}
    assert page.all("main") and page.all("html")[0]["attrs"]["lang"] == "en"
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        root = xml.etree.ElementTree.fromstring(drawing)
        if root.get("aria-hidden") == "true":
            continue
        assert root.get("role") == "img"
        assert root[0].tag.endswith("title") and root[0].text
        assert root[1].tag.endswith("desc") and root[1].text
    assert "NaN" not in text and ' nan' not in text, "a figure that is none"


def csv_of(link):
    href = link["attrs"]["href"]
    assert href.startswith("data:text/csv;charset=utf-8,"), href[:40]
    text = urllib.parse.unquote(href.split(",", 1)[1])
    return list(csv.DictReader(io.StringIO(text)))


def short(value):
    size = abs(value)
    if size >= 100 or value == 0:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def key_of(row):
    return (row["test"], str(row["mem_budget_bytes"] or ""),
            row["error"] or "")


def check_table(lines, table, page, rows):
    """Each line is a row's; each cell is that of the record, or follows."""
    body = page.all("tbody", table)[0]
    cells = [[c["text"] for c in page.elements
              if c["tag"] in ("th", "td") and any(p is tr for p in c["parents"])]
             for tr in page.all("tr", body)]
    assert len(cells) == len(lines) > 0
    values = 0
    for line, texts in zip(lines, cells):
        assert len(texts) == len(line), (texts, line)
        found = [row for row in rows if key_of(row) == (
            line["test"], line["mem_budget_bytes"], line["error"])
            and row["io_backend"] == line["mode"].split(",")[0]
            and ("exact" in line["mode"] or row["error"] or
                 row["config"]["selector"] in line["mode"])
            and all(not line.get(k) or k not in row or
                    json.dumps(row[k]) == line[k] or
                    str(row[k]) == line[k] or
                    float(line[k]) == row[k] for k in line
                    if k not in ("mode", "test", "error"))]
        assert found, line
        row = found[0]
        for (key, raw), text in zip(line.items(), texts):
            if key in ("mode", "test", "held", "error"):
                continue
            if key.startswith("layer ") or key == "output head":
                layers = row["layers"]
                if key == "output head":
                    expected = layers["head_streamed_bytes_per_token"]
                else:
                    i = int(key[6:])
                    if "hits" in table["name"]:
                        expected = layers["cache_hit_rate"][i]
                    else:
                        expected = layers["streamed_bytes_per_token"] and \
                            layers["streamed_bytes_per_token"][i]
                        fresh = layers["fresh_bytes_per_token"]
                        if expected is not None and fresh and fresh[i]:
                            expected += fresh[i]
            elif key == "of_bound":
                bound = line["bound_tps"]
                expected = row["avg_ts"] / float(bound) if bound else None
            elif key == "bound_tps":
                continue  # Of several rows; below.
            else:
                expected = row[key]
            if expected is None:
                assert raw == "" and text == "-", (key, raw, text)
                continue
            assert abs(float(raw) - expected) <= 1e-12 * abs(expected), (
                key, raw, expected)
            if not text.endswith(("B", "%", ")")):
                assert text == short(expected), (key, text, expected)
            values += 1
    assert values > 0
    return values


def check_bounds(lines, rows):
    """Of every exact row: the slower of flash and RAM."""
    sound = [row for row in rows if not row["error"]]
    alone = [row for row in sound if not row["n_prompt"]]
    flash = max([(row["flash_read_gbps"] or 0) * 1e9 for row in sound] +
                [(row["flash_bytes_bound_per_token"] or 0) *
                 max(row["samples_ts"]) for row in alone])
    ram = max([row["weight_bytes_per_token"] /
               (row["compute_ms"] or row["ms_per_token"]) * 1e3
               for row in sound if row["n_gen"]] +
              [row["weight_bytes_per_token"] * max(row["samples_ts"])
               for row in alone])
    checked = 0
    for line in lines:
        if line["error"] or "mmap" in line["mode"]:
            continue
        row = [r for r in rows if key_of(r)[:2] == (
            line["test"], line["mem_budget_bytes"]) and
            r["io_backend"] == "pread"][0]
        seconds = max(row["flash_bytes_bound_per_token"] / flash,
                      row["weight_bytes_per_token"] / ram)
        assert abs(float(line["bound_tps"]) * seconds - 1) < 1e-9, line
        assert row["avg_ts"] <= float(line["bound_tps"]) * (1 + 1e-9), line
        checked += 1
    assert checked == 3, checked


def check(path, rows, figures):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    page = Page(text)
    check_markup(text, page)
    names = set()
    for figure in page.all("figure"):
        links = page.all("a", figure)
        tables = page.all("table", figure)
        assert len(links) == len(tables) == 1 and page.all("svg", figure)
        name = links[0]["attrs"]["download"]
        assert name not in names, name
        names.add(name)
        tables[0]["name"] = name
        check_table(csv_of(links[0]), tables[0], page, rows)
    assert figures <= names, figures - names
    for row in rows:
        if row["error"]:
            assert row["error"] in page.all("main")[0]["text"], row["error"]
    saved = [a for a in page.all("a")
             if a["attrs"].get("download") == "records.jsonl"]
    href = urllib.parse.unquote(saved[0]["attrs"]["href"].split(",", 1)[1])
    assert [json.loads(line) for line in href.splitlines()] == rows
    return page, text


def main():
    with tempfile.TemporaryDirectory() as directory:
        report, rows, both, all_rows = sweep(FLASHELM, SOURCE, directory)
        # Of the rows that were made, 2 were refused: at 1 byte, with pread.
        assert sum(row["error"] is not None for row in rows) == 2
        page, _ = check(report, rows, {
            "speed-1.csv", "speed-2.csv", "time-1.csv", "flash-1.csv",
            "first-token-1.csv", "latency-1.csv", "layer-bytes-1.csv"})
        speed = [a for a in page.all("a")
                 if a["attrs"].get("download") == "speed-1.csv"][0]
        check_bounds(csv_of(speed), rows)
        command = page.all("code")[0]["text"]
        assert command.startswith("flashelm bench -m '") and "--html" in command
        check(both, all_rows, {
            "speed-3.csv", "time-2.csv", "flash-2.csv", "latency-2.csv",
            "layer-bytes-2.csv", "layer-hits-2.csv"})

        # Refused before anything is measured.
        model = rows[0]["model_path"]
        for where in (os.path.join(directory, "none", "r.html"), directory,
                      model):
            code = 3 if "none" in where else 2
            assert run([FLASHELM, "bench", "-m", model, "--html", where],
                       code) == "", where
        first = os.path.join(directory, "first.json")
        for args in (["--from", first], ["--from", first, "--html", first],
                     ["--from", first, "--html", report, "-p", "5"],
                     ["-m", model, "-n", "1", "--html", first,
                      "-o", "json=" + first]):
            assert run([FLASHELM, "bench"] + args, 2) == "", args
        run([FLASHELM, "bench", "--from", model, "--html", report], 3)


if __name__ == "__main__":
    main()
