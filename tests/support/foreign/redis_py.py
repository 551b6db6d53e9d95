"""Locks and releases by redis-py, a command a line: what tests/redis/foreign.rs asks of every foreign client."""

import sys

import redis
from redis.exceptions import LockError, LockNotOwnedError

client = redis.Redis.from_url(sys.argv[1])
held = {}


def lock(key, ttl_ms, **how):
    mine = client.lock(key, timeout=int(ttl_ms) / 1000, sleep=0.01, thread_local=False, **how)
    if not mine.acquire():
        return "busy"
    held[key] = mine
    return "held"


def release(key):
    try:
        held.pop(key).release()
        return "released"
    except LockNotOwnedError:
        return "lost"


def extend(key, ttl_ms):
    try:
        held[key].extend(int(ttl_ms) / 1000, replace_ttl=True)
        return "extended"
    except LockError:
        return "lost"


def count(key, rounds):
    """Adds to a counter that only the lock protects."""
    for _ in range(int(rounds)):
        with client.lock(key, timeout=30, sleep=0.002, thread_local=False):
            seen = int(client.get("counter") or 0)
            client.set("counter", seen + 1)
    return "counted"


commands = {
    "try": lambda key, ttl_ms: lock(key, ttl_ms, blocking=False),
    "wait": lambda key, ttl_ms: lock(key, ttl_ms, blocking=True),
    "release": release,
    "extend": extend,
    "count": count,
}

for line in sys.stdin:
    name, *words = line.split()
    print("> " + commands[name](*words), flush=True)
