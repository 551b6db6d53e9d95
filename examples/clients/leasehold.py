"""A lock of a leasehold server, held and kept while a `with` block runs. Nothing but Python's own library.

    from leasehold import Lock

    with Lock("order:42", ttl=10, wait=30) as lock:
        pay(fencing_token=lock.fencing_token)   # the resource refuses a smaller one than it has seen
        lock.ensure_held()                      # raises Lost once the lock may be somebody else's

What a client must get right, and where it is done here:

* The deadline is counted by this process's clock from before the request was sent (`_granted`), so that it is never later than
  the server's. Once it is over the lock counts as lost, whatever the server may say later.
* The token is chosen here, so that a request whose answer was lost can be sent again and brings the same lock.
* A heartbeat every third of the TTL; one that is not answered is sent again until the deadline.
* The lock is given back even if it is not known whether it was granted.
"""

import json
import os
import threading
import time
import urllib.error
import urllib.request
import uuid

ROUND = 20.0  # seconds: one request waits no longer, since proxies cut those that do
PAUSE = 0.25  # seconds between a failure and the next try


def now():
    """Seconds on a clock that nobody sets, and that goes on while the machine sleeps where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class NotAcquired(Exception):
    """Somebody else has the lock, or the server could not be asked, until the wait was over."""


class Lost(Exception):
    """The lock has ended before it was released, or nobody can tell."""


class Refused(Exception):
    """The server's answer to a request that it will never grant; `code` is stable."""

    def __init__(self, problem):
        super().__init__(problem.get("detail", problem))
        self.code = problem.get("code", "unknown")
        self.status = problem.get("status", 0)


class Lock:
    """Not to be shared by threads, but for `lost`, `ensure_held` and `remaining`."""

    def __init__(self, key, *, ttl=30.0, wait=5.0, owner=None, server=None, bearer=None):
        self.key, self.ttl, self.wait, self.owner = key, ttl, wait, owner or f"python:{os.getpid()}"
        self._server = (server or os.environ.get("LEASEHOLD_SERVER", "http://127.0.0.1:7420")).rstrip("/")
        self._bearer = bearer or os.environ.get("LEASEHOLD_TOKEN")
        self.lost = threading.Event()  # set once the lock has ended before it was released
        self.fencing_token = None

    def __enter__(self):
        self._acquire(now() + self.wait)
        self._released = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"lock {self.key}", daemon=True)
        self._keeper.start()
        return self

    def __exit__(self, *_):
        self._released.set()
        self._keeper.join()
        self._release()

    def remaining(self):
        """Seconds until the lock is lost if no heartbeat comes through; 0 once it is."""
        return 0.0 if self.lost.is_set() else max(0.0, self._deadline - now())

    def ensure_held(self):
        if not self.remaining():
            raise Lost(self.key)

    def _acquire(self, end):
        self._token = str(uuid.uuid4())
        why = None
        try:
            while True:
                left = end - now()
                if why and left <= 0:
                    raise NotAcquired(f"{self.key}: {why}")
                sent, wait = now(), max(0.0, min(left, ROUND))
                asks = {"key": self.key, "token": self._token, "owner": self.owner}
                try:
                    self._granted(sent, self._post("/acquire", wait + 5, **asks, ttl_ms=ms(self.ttl), wait_ms=ms(wait)))
                    if self.remaining():
                        return
                    why = "its turn came while this process did not run"
                    self._release()
                    self._token = str(uuid.uuid4())
                except Refused as refused:
                    if refused.code not in ("held", "timeout", "queue_full", "rate_limited") and refused.status < 500:
                        raise
                    why = refused
                except OSError as unreachable:
                    why = unreachable
                if not (isinstance(why, Refused) and why.code == "timeout"):
                    time.sleep(max(0.0, min(PAUSE, end - now())))
        except BaseException:
            self._release()  # of an answer that was lost the server may have granted it
            raise

    def _granted(self, sent, answer):
        self.fencing_token = answer["fencing_token"]
        self._extended(sent, answer["waited_ms"] + answer["remaining_ms"])

    def _extended(self, sent, left_ms):
        # Less what two clocks may differ by: a hundredth of the TTL, and two milliseconds at least.
        self._deadline = sent + left_ms / 1000 - max(0.002, self.ttl / 100)

    def _keep(self):
        pause = self.ttl / 3
        while not self._released.wait(min(pause, max(0.0, self._deadline - now()))):
            if now() >= self._deadline:
                return self.lost.set()
            sent = now()
            try:
                # An answer after the deadline would be of no use.
                answer = self._post("/heartbeat", self._deadline - sent, key=self.key, token=self._token, ttl_ms=ms(self.ttl))
                self._extended(sent, answer["remaining_ms"])
                pause = self.ttl / 3
            except Refused as refused:
                if refused.status < 500 and refused.code != "rate_limited":
                    return self.lost.set()
                pause = PAUSE
            except OSError:
                pause = PAUSE

    def _release(self):
        try:
            self._post("/release", 2, key=self.key, token=self._token)
        except (Refused, OSError):
            pass  # it ends with its TTL

    def _post(self, path, timeout, **body):
        headers = {"content-type": "application/json"}
        if self._bearer:
            headers["authorization"] = f"Bearer {self._bearer}"
        request = urllib.request.Request(self._server + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=max(0.01, timeout)) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            try:
                problem = json.load(refused)
            except ValueError:  # a proxy's own page
                problem = {"status": refused.code, "detail": refused.reason}
            raise Refused(problem) from None
        except ValueError as garbled:
            raise OSError(f"no answer of a lock server: {garbled}") from None


def ms(seconds):
    return int(seconds * 1000)
