"""Checks a compose file against the Compose specification's JSON schema and prints it as JSON.

usage: check_compose.py FILE
"""

import importlib.util
import json
import pathlib
import sys

import jsonschema
import yaml


def schema():
    package = importlib.util.find_spec("compose").submodule_search_locations[0]
    return json.loads((pathlib.Path(package) / "config" / "compose_spec.json").read_text())


def main():
    document = yaml.safe_load(pathlib.Path(sys.argv[1]).read_text())
    errors = list(jsonschema.Draft7Validator(schema()).iter_errors(document))
    for error in errors:
        place = "/".join(str(part) for part in error.absolute_path)
        print(f"{sys.argv[1]}: {place}: {error.message}", file=sys.stderr)
    if errors:
        sys.exit(1)
    json.dump(document, sys.stdout)


main()
