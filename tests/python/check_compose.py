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
    # Found, not imported: what the package itself needs is not installed.
    package = importlib.util.find_spec("check_jsonschema").submodule_search_locations[0]
    vendored = pathlib.Path(package) / "builtin_schemas" / "vendor" / "compose-spec.json"
    return json.loads(vendored.read_text())


def main():
    document = yaml.safe_load(pathlib.Path(sys.argv[1]).read_text())
    compose = schema()
    validator = jsonschema.validators.validator_for(compose)
    validator.check_schema(compose)
    errors = list(validator(compose).iter_errors(document))
    for error in errors:
        place = "/".join(str(part) for part in error.absolute_path)
        print(f"{sys.argv[1]}: {place}: {error.message}", file=sys.stderr)
    if errors:
        sys.exit(1)
    json.dump(document, sys.stdout)


main()
