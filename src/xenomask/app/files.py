"""The files of the page's sessions: who has which, and when they go."""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT_SECONDS = 3600  # files of sessions that never said goodbye (a lost connection, curl)
KEPT = 8  # a session's newest answers: more than it can wait for at a time
UPLOADS = 2  # a session's newest: the photo whose answer waits in the queue, and the one that was dropped after it


class Files:
    """The files of all sessions: a folder a session, and the uploads, which gradio names by their content."""

    def __init__(self, root: Path):
        self.root, self.lock = root, threading.Lock()
        # two users may drop the same photo, which then is one file
        self.uploads: dict[Path, set[str]] = {}
        self.answering: Counter[str] = Counter()
        self.gone: set[str] = set()

    @contextmanager
    def answer(self, who: str) -> Iterator[None]:
        """Around all that a session asks for: what it left is removed again where it ends before its answer."""
        with self.lock:
            self.answering[who] += 1
            self.gone.discard(who)
        try:
            yield
        finally:
            with self.lock:
                self.answering[who] -= 1
                last = not self.answering[who]
                late = last and who in self.gone
                if last:
                    del self.answering[who]
                    self.gone.discard(who)
            if late:
                self.forget(who)

    def new(self, who: str, kind: str) -> Path:
        """A new folder of a session; its oldest of that kind go, and what is too old in all sessions."""
        self._drop_old()
        own = self.root / f"session-{who}"
        folder = own / f"{kind}-{time.monotonic_ns():016x}"  # so that no browser shows an old picture
        folder.mkdir(parents=True)
        # not all but this one: a slider's answers may overtake each other
        for old in sorted(own.glob(f"{kind}-*"))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return folder

    def take(self, who: str, upload: Path) -> None:
        """Notes whose upload that is, as its newest; all but the session's newest UPLOADS go."""
        with self.lock:
            self.uploads[upload] = self.uploads.pop(upload, set()) | {who}
            self._leave([p for p, users in self.uploads.items() if who in users][:-UPLOADS], who)

    def forget(self, who: str) -> None:
        """Removes what a session left, uploads too unless another session has the same one."""
        with self.lock:
            if self.answering[who]:
                self.gone.add(who)
        shutil.rmtree(self.root / f"session-{who}", ignore_errors=True)
        with self.lock:
            self._leave(list(self.uploads), who)

    def _drop_old(self) -> None:
        for path in self.root.rglob("*"):
            try:
                if path.is_file() and time.time() - path.stat().st_mtime > KEPT_SECONDS:
                    path.unlink()
            except OSError:  # another thread was faster
                continue

    def _leave(self, uploads: list[Path], who: str) -> None:
        """Removes those uploads that no other session has; the lock is held."""
        for upload in uploads:
            self.uploads[upload].discard(who)
            if not self.uploads[upload]:
                upload.unlink(missing_ok=True)
                del self.uploads[upload]
