"""Several of these, in any language, count in one file: `count.py FILE TIMES`. Without the lock they would overwrite each other.

`count.py hold KEY TTL` holds a lock until it is lost, and says so.
"""

import sys
import time

from leasehold import Lock

if sys.argv[1] == "hold":
    with Lock(sys.argv[2], ttl=float(sys.argv[3])) as lock:
        print("held", flush=True)
        lock.lost.wait()
        print("lost", flush=True)
        sys.exit()

path, times = sys.argv[1], int(sys.argv[2])
for _ in range(times):
    with Lock("count:" + path, ttl=10, wait=60) as lock:
        with open(path) as file:
            count, seen = map(int, file.read().split())
        assert lock.fencing_token > seen, "another had the lock after us"
        time.sleep(0.001)
        with open(path, "w") as file:
            file.write(f"{count + 1} {lock.fencing_token}\n")
        lock.ensure_held()
