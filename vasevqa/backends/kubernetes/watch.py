"""Keep a collection of the cluster in memory: list the objects once, then follow each change with a watch."""

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
    """The objects at `path` that `query` selects, by UID.

    For each change, the class calls `changed(object, alive)`. `alive` is False if the object was deleted. During the
    call, the class holds the condition `news`. Hold `news` while you read `objects`.

    The constructor lists the objects once. The constructor raises ClusterError if the server refuses or does not
    answer.

    `start` then watches from the resource version of that list. A server regularly ends a watch; a new watch then
    continues at the last version. If a watch ends for any other reason, all objects are listed again.
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
        """Stop at the next opportunity."""
        self._closing.set()

    def add(self, thing: Manifest) -> None:
        """Add an object before the watch reports the object.

        The caller must hold the condition `news`.
        """
        known = self.objects.get(thing["metadata"]["uid"])
        if known is None:
            self.objects[thing["metadata"]["uid"]] = {**thing, "added": time.monotonic()}

    def drop(self, uid: str) -> None:
        """Forget a deleted object before the watch reports the deletion.

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
        """Follow changes until the watch breaks.

        The caller then lists all objects again. The list also shows whether the server answers.
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
