#!/usr/bin/env python3
"""The report of flashelm bench in headless Chromium.

report_browser_test.py FLASHELM SOURCE_DIR

It is shown, light and dark, wide and narrow, is printed, and nothing is written
to the console. Exit code 77: there is no Chromium.
"""

import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

from report_page import sweep

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    print("chromium is not installed")
    sys.exit(77)


def can_browse(directory):
    """A browser in a sandbox of its own may not see temporary files."""
    page, image = directory + "/try.html", directory + "/try.png"
    with open(page, "w", encoding="utf-8") as file:
        file.write("<!DOCTYPE html><title>Try</title><p>Try")
    subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu",
         "--user-data-dir=" + directory + "/profile",
         "--screenshot=" + image, "file://" + page],
        capture_output=True, timeout=300, check=False)
    return os.path.exists(image)


def browse(directory, page, args):
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu",
         "--hide-scrollbars", "--user-data-dir=" + directory + "/profile",
         "--enable-logging=stderr", "--v=0"] + args + ["file://" + page],
        capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def pixels(path):
    """Rows of (r, g, b) of a PNG of 8 bits, without interlacing."""
    with open(path, "rb") as file:
        data = file.read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, bits, colour, _, _, lace = struct.unpack(
                ">IIBBBBB", body)
            assert bits == 8 and lace == 0 and colour in (2, 6)
        packed += body if kind == b"IDAT" else b""
        at += size + 12
    step = 3 if colour == 2 else 4
    raw, rows = zlib.decompress(packed), []
    before = bytearray(width * step)
    for y in range(height):
        begin = y * (width * step + 1)
        kind, line = raw[begin], bytearray(
            raw[begin + 1:begin + 1 + width * step])
        for i in range(len(line)):
            left = line[i - step] if i >= step else 0
            above = before[i]
            corner = before[i - step] if i >= step else 0
            if kind == 1:
                line[i] = (line[i] + left) & 255
            elif kind == 2:
                line[i] = (line[i] + above) & 255
            elif kind == 3:
                line[i] = (line[i] + (left + above) // 2) & 255
            elif kind == 4:
                nearest = min((abs(above - corner), 0, left),
                              (abs(left - corner), 1, above),
                              (abs(left + above - 2 * corner), 2, corner))
                line[i] = (line[i] + nearest[2]) & 255
        before = line
        rows.append([tuple(line[i:i + 3]) for i in range(0, len(line), step)])
    return rows


def check_screenshot(directory, page, width, is_dark):
    path = os.path.join(directory, "screen.png")
    errors = browse(directory, page, [
        f"--window-size={width},1300", "--screenshot=" + path,
        f"--blink-settings=preferredColorScheme={0 if is_dark else 1}"])
    assert not errors, errors
    rows = pixels(path)
    assert len(rows[0]) == width
    background = rows[0][0]
    assert (sum(background) < 150) == is_dark, background
    other = [p for row in rows for p in row if p != background]
    assert len(other) > 0.02 * width * len(rows), "blank"
    # Text, lines, and marks of several colours.
    coloured = {p for p in other if max(p) - min(p) > 90}
    assert len(coloured) >= 3, coloured
    os.remove(path)


def main():
    with tempfile.TemporaryDirectory() as directory:
        if not can_browse(directory):
            print(CHROMIUM + " shows no page of " + directory)
            sys.exit(77)
        _, _, page, _ = sweep(sys.argv[1], sys.argv[2], directory)
        for width in (1280, 500):
            for is_dark in (False, True):
                check_screenshot(directory, page, width, is_dark)
        pdf = os.path.join(directory, "report.pdf")
        errors = browse(directory, page, ["--print-to-pdf=" + pdf])
        assert not errors, errors
        with open(pdf, "rb") as file:
            printed = file.read()
        assert printed.startswith(b"%PDF-") and len(printed) > 50000

        # What is looked for above would be found.
        bad = os.path.join(directory, "bad.html")
        with open(bad, "w", encoding="utf-8") as file:
            file.write("<script>nothing()</script>")
        assert browse(directory, bad, ["--dump-dom"]), "no console was heard"


if __name__ == "__main__":
    main()
