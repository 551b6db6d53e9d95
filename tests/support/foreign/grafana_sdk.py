"""Reads a dashboard (stdin) by Grafana's published schema, writes it again, and tells what came back otherwise."""

import enum
import json
import re
import sys
import typing

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

# Grafana itself writes and reads the first three, which its schema does not have. The others the schema has for
# variables that are intervals, and writes for all; and an empty choice of data source stands for the default one.
ELSEWHERE = re.compile(
    r"annotations\.list\[\d+\]\.(titleFormat|textFormat)"
    r"|templating\.list\[\d+\]\.(definition|auto|auto_min|auto_count)"
    r"|templating\.list\[0\]\.current\.(text|value)"
)


def differences(ours, theirs, path):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in ours.keys() | theirs.keys():
            inner = f"{path}.{name}" if path else name
            if ELSEWHERE.fullmatch(inner):
                continue
            if name not in theirs:
                yield f"{inner}: the schema has no such field"
            elif name not in ours:
                yield f"{inner}: left out, and read as {json.dumps(theirs[name])}"
            else:
                yield from differences(ours[name], theirs[name], inner)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for at, (mine, other) in enumerate(zip(ours, theirs)):
            yield from differences(mine, other, f"{path}[{at}]")
    elif ours != theirs or isinstance(ours, bool) != isinstance(theirs, bool):
        yield f"{path}: {json.dumps(ours)} comes back as {json.dumps(theirs)}"


def fits(value, kind):
    if kind in (bool, str, int):
        return type(value) is kind
    if kind is float:
        return type(value) in (int, float)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return any(value == member.value and type(value) is type(member.value) for member in kind) or value in list(kind)
    return True if kind is not type(None) else value is None


def misfits(model, path):
    """Values of another type than the schema has: reading alone takes any."""
    if isinstance(model, list):
        for at, value in enumerate(model):
            yield from misfits(value, f"{path}[{at}]")
    elif type(model).__module__.startswith("grafana_foundation_sdk.models") and hasattr(model, "__dict__"):
        hints = typing.get_type_hints(type(model))
        for name, value in vars(model).items():
            hint = hints.get(name)
            wanted = typing.get_args(hint) if typing.get_origin(hint) is typing.Union else (hint,)
            if not any(fits(value, kind) for kind in wanted):
                yield f"{path}.{name}: {value!r} is no {hint}"
            yield from misfits(value, f"{path}.{name}")


register_default_plugins()
ours = json.load(sys.stdin)
read = Dashboard.from_json(ours)
theirs = json.loads(JSONEncoder(sort_keys=True).encode(read))
found = sorted([*misfits(read, "dashboard"), *differences(ours, theirs, "")])
print("\n".join(found))
sys.exit(1 if found else 0)
