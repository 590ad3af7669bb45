#!/usr/bin/env python3
"""What flashelm doctor prints, against docs/doctor.schema.json.

doctor_schema_test.py FLASHELM SOURCE_DIR

Exit code 77: python3-jsonschema is missing.
"""

import json
import os
import subprocess
import sys
import tempfile

try:
    import jsonschema
except ImportError:
    print("python3-jsonschema is not installed")
    sys.exit(77)

FLASHELM, SOURCE = sys.argv[1:3]


def examine(path):
    done = subprocess.run(
        [FLASHELM, "doctor", path, "--time", "1", "-c", "64", "--json"],
        capture_output=True, text=True)
    assert done.returncode == 0, (path, done.returncode, done.stderr)
    return json.loads(done.stdout)


def main():
    schema_path = os.path.join(SOURCE, "docs", "doctor.schema.json")
    with open(schema_path, encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft7Validator.check_schema(schema)
    with tempfile.TemporaryDirectory() as directory:
        for path in (directory, "/proc"):
            report = examine(path)
            jsonschema.validate(report, schema)
        assert os.listdir(directory) == [], os.listdir(directory)
    # A schema that takes anything would say nothing.
    del report["models"]
    try:
        jsonschema.validate(report, schema)
    except jsonschema.ValidationError:
        return
    raise AssertionError("a report without models was taken")


main()
