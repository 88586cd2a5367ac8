"""Schemathesis' command line, which has no module of its own to run."""

import sys

from schemathesis.cli import schemathesis

sys.exit(schemathesis())
