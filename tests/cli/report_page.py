"""What the tests of bench's report share: a sweep, and a strict reader."""

import json
import os
import subprocess
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input", "col"}


def run(command, exit_code=0):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == exit_code, (command, done.returncode, done.stderr)
    return done.stdout


def sweep(flashelm, source, directory):
    """Two models, rows that fail, mmap and sparse rows; the report's path, and
    the records."""
    plain = os.path.join(directory, 'a <b> & "c".felm')
    relu = os.path.join(directory, "relu.felm")
    sparse = os.path.join(directory, "sparse.felm")
    run([flashelm, "convert", os.path.join(source, "models", "tiny-stories"),
         "-o", plain])
    run([flashelm, "convert",
         os.path.join(source, "models", "tiny-stories-relu"), "-o", relu])
    run([flashelm, "calibrate", "-m", relu, "-o", sparse, "--max-tokens", "100",
         "-f", os.path.join(source, "tests", "data", "calibration.txt")])
    report = os.path.join(directory, "report.html")
    first, second = (os.path.join(directory, name)
                     for name in ("first.json", "second.jsonl"))
    # A budget that is refused; a report of one sweep alone.
    run([flashelm, "bench", "-m", plain, "-p", "0", "-n", "4", "--pg", "8,2",
         "-r", "2", "--mem-budget", "1,14M,16M,64M", "--io", "pread,mmap",
         "--allow-unenforced", "-o", "json=" + first, "--html", report], 4)
    run([flashelm, "bench", "-m", sparse, "-p", "0", "-n", "4", "-r", "2",
         "--mem-budget", "14M,64M", "--sparsity", "off,gate",
         "--neuron-reads", "single", "-o", "jsonl=" + second])
    with open(first, encoding="utf-8") as file:
        rows = json.load(file)
    with open(second, encoding="utf-8") as file:
        more = [json.loads(line) for line in file]
    both = os.path.join(directory, "both.html")
    run([flashelm, "bench", "--from", first, "--from", second, "--html", both])
    return report, rows, both, rows + more


class Page(HTMLParser):
    """Elements of a page, with their text; anything but well-formed markup is
    an AssertionError."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open = []
        self.elements = []
        self.doctype = None
        self.feed(text)
        self.close()
        assert not self.open, [e["tag"] for e in self.open]

    def handle_decl(self, decl):
        self.doctype = decl

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, attrs)
        element = {"tag": tag, "attrs": dict(attrs), "text": "",
                   "parents": list(self.open)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1]["tag"] == tag, (
            tag, [e["tag"] for e in self.open], self.getpos())
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def unknown_decl(self, data):
        raise AssertionError(data)

    def all(self, tag, within=None):
        return [e for e in self.elements if e["tag"] == tag and
                (within is None or any(p is within for p in e["parents"]))]
