#!/usr/bin/env python3
"""That scripts/forecast_accuracy.py compares what it says, not how near it is.

forecast_accuracy_test.py FLASHELM SOURCE_DIR
"""

import json
import os
import subprocess
import sys
import tempfile

FLASHELM, SOURCE = sys.argv[1:3]


def main():
    script = os.path.join(SOURCE, "scripts", "forecast_accuracy.py")
    with tempfile.TemporaryDirectory() as directory:
        model = os.path.join(directory, "tiny.felm")
        subprocess.run([FLASHELM, "convert",
                        os.path.join(SOURCE, "models", "tiny-stories"),
                        "-o", model], check=True, capture_output=True)
        samples = os.path.join(directory, "samples.json")
        command = [sys.executable, script, "--flashelm", FLASHELM, model,
                   "--mem-budget", "1G", "-c", "32", "-p", "8", "-n", "4",
                   "--rounds", "2", "--json", samples]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with open(samples, encoding="utf-8") as file:
            row, = json.load(file)
        assert row["model"] == model and row["budget"] == "1G", row
        assert len(row["samples"]) == 2
        for sample in row["samples"]:
            for key in ("forecast_tps", "measured_tps", "forecast_bytes",
                        "measured_bytes"):
                assert sample[key] > 0, sample
        lines = done.stdout.splitlines()
        assert len(lines) == 3 and lines[2].count("|") == 10, done.stdout
        # What cannot run ends it, with the reason.
        failed = subprocess.run(command + ["--mem-budget", "1"],
                                capture_output=True, text=True)
        assert failed.returncode == 1, failed.returncode
        assert "too small" in failed.stderr, failed.stderr


main()
