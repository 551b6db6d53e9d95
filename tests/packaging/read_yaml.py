"""What is in YAML files, as one line of JSON; with a schema, only if it is of that shape.

Usage: read_yaml.py FILE [SCHEMA]; `-` is stdin.
"""

import json
import sys

import jsonschema
import yaml

text = sys.stdin.read() if sys.argv[1] == "-" else open(sys.argv[1]).read()
documents = [document for document in yaml.safe_load_all(text) if document is not None]
for schema in sys.argv[2:]:
    for document in documents:
        jsonschema.validate(document, json.load(open(schema)))
print(json.dumps(documents))
