"""Keep a copy of some of the cluster's objects in memory, and update the copy with a watch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from vasevqa.backends.kubernetes.api import Api
from vasevqa.backends.kubernetes.pod_template import Manifest
from vasevqa.errors import ClusterError

LONGEST_PAUSE = 5.0  # seconds between two attempts to reach a server that does not answer
SHORTEST = 1.0  # seconds from one list to the next


class Informer(threading.Thread):
    """A thread that keeps a copy of some of the cluster's objects up to date.

    `path` and `query` select the objects on the API server. `objects` maps the UID of each object to its copy. For each
    change of an object, the informer calls `changed(object, alive)`. `alive` is False if the object was deleted. The
    informer holds the condition `news` during the call. Hold `news` while you read `objects`.

    The constructor lists the objects once, and raises ClusterError if the server refuses or does not answer. After
    `start`, the thread watches for changes since that list. A server regularly ends a watch; the next watch then
    continues at the last version. If a watch ends for any other reason, the thread lists all objects again.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        query: dict[str, str],
        news: threading.Condition,
        changed: Callable[[Manifest, bool], None],
    ) -> None:
        super().__init__(name=f"watch {path.rsplit('/', 1)[-1]}", daemon=True)
        self.objects: dict[str, Manifest] = {}
        self.away = ""  # why the server doesn't answer; empty while it answers
        self.since = 0.0  # start of the failure, on the monotonic clock
        self._api, self._path, self._query, self._news, self._changed = api, path, query, news, changed
        self._closing = threading.Event()
        self._version = ""
        self._list()

    def close(self) -> None:
        """Make the thread stop at the next opportunity."""
        self._closing.set()

    def add(self, thing: Manifest) -> None:
        """Add an object that the watch has not reported yet.

        The caller must hold the condition `news`.
        """
        known = self.objects.get(thing["metadata"]["uid"])
        if known is None:
            self.objects[thing["metadata"]["uid"]] = {**thing, "added": time.monotonic()}

    def drop(self, uid: str) -> None:
        """Forget a deleted object whose deletion the watch has not reported yet.

        The caller must hold the condition `news`.
        """
        self.objects.pop(uid, None)

    def run(self) -> None:
        """Watch until `close` is called."""
        patience = Retrying(
            retry=retry_if_exception_type(ClusterError),
            wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE),
            stop=stop_when_event_set(self._closing),
            sleep=sleep_using_event(self._closing),
            before_sleep=self._broke,
            retry_error_callback=lambda state: None,
        )
        while not self._closing.is_set():
            self._watch()
            patience(self._list)

    def _broke(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        with self._news:
            self.since = self.since if self.away else time.monotonic()
            self.away = str(error)
            self._news.notify_all()

    def _reached(self) -> None:
        with self._news:
            if self.away:
                self.away = ""
                self._news.notify_all()

    def _list(self) -> None:
        began = time.monotonic()
        listed = self._api.get(self._path, **self._query)
        with self._news:
            things = {thing["metadata"]["uid"]: thing for thing in listed["items"]}
            # An object that was added after the request may be missing in the answer.
            gone = [
                thing for uid, thing in self.objects.items() if uid not in things and thing.get("added", 0.0) < began
            ]
            for thing in gone:
                self._tell(thing, False)
            for thing in things.values():
                self._tell(thing, True)
            self._version = listed["metadata"]["resourceVersion"]
        self._reached()

    def _watch(self) -> None:
        """Follow changes until a watch breaks.

        The caller then lists all objects again. In this way the caller also finds out whether the server answers.
        """
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                for event in self._api.watch(self._path, self._version, **self._query):
                    self._reached()
                    if event["type"] == "ERROR":  # 410: the version is too old; any other error also needs a new list
                        break
                    thing: Any = event["object"]
                    with self._news:
                        self._version = thing["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            self._tell(thing, event["type"] != "DELETED")
                else:
                    continue
            except ClusterError:
                pass
            self._closing.wait(max(0.0, SHORTEST - (time.monotonic() - began)))
            return

    def _tell(self, thing: Manifest, alive: bool) -> None:
        uid = thing["metadata"]["uid"]
        if alive:
            self.objects[uid] = thing
        else:
            self.objects.pop(uid, None)
        self._changed(thing, alive)
        self._news.notify_all()
