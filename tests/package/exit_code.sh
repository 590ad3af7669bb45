#!/bin/sh
# Runs a command and says how it ended, for tests that look at what it prints.
#
#   exit_code.sh COMMAND...
"$@"
echo "exit code $?"
