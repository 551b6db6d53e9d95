"""What a program does with the client that `openapi-python-client` makes of the server's description."""

import sys

sys.path.insert(0, sys.argv[2])

from lock_client import Client  # noqa: E402
from lock_client.api.locking import acquire, heartbeat, release  # noqa: E402
from lock_client.api.looking import list_locks  # noqa: E402
from lock_client.models import Acquire, Acquired, Heartbeat, ModeName, Outcome, Problem, ReleaseBody  # noqa: E402

client = Client(base_url=sys.argv[1])
granted = acquire.sync(client=client, body=Acquire(key="typed:1", owner="python", mode=ModeName.EXCLUSIVE))
assert isinstance(granted, Acquired) and granted.fencing_token > 0, granted
busy = acquire.sync(client=client, body=Acquire(key="typed:1", wait_ms=0))
assert isinstance(busy, Problem) and busy.code == "held" and busy.holder.owner == "python", busy
beat = heartbeat.sync(client=client, body=Heartbeat(key="typed:1", token=granted.token))
assert beat.refresh_count == 1, beat
assert len(list_locks.sync(client=client, prefix="typed:").locks) == 1
released = release.sync(client=client, body=ReleaseBody(key="typed:1", token=granted.token))
assert released.outcome == Outcome.RELEASED, released
print("locked and released by Python")
