"""A Hugging Face Hub of a few folders on 127.0.0.1: as much of its protocol as huggingface_hub needs."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


def commit(revision: str) -> str:
    """The commit that a revision means: a commit itself, COMMIT for a branch."""
    return revision if re.fullmatch("[0-9a-f]{40}", revision) else COMMIT


@dataclass
class FakeHub:
    """What it serves, and what it was asked."""

    repositories: dict[str, Path] = field(default_factory=dict)
    url: str = ""
    requests: list[str] = field(default_factory=list)
    cut: str = ""  # the first GET of a file that ends so stops in the middle
    ranges: list[str] = field(default_factory=list)
    lie: str = ""  # a file that ends so is stated with another hash
    created: list[dict] = field(default_factory=list)
    committed: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)

    def files(self, repository: str) -> dict[str, bytes]:
        root = self.repositories[repository]
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}

    def sha256(self, name: str, content: bytes) -> str:
        if self.lie and name.endswith(self.lie):
            content += b"!"
        return hashlib.sha256(content).hexdigest()


def serve(hub: FakeHub) -> ThreadingHTTPServer:
    """Starts the hub in a thread; the caller shuts the server down."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status: int, body: bytes = b"", headers: dict | None = None) -> None:
            self.send_response(status)
            for k, v in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(k, v)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def answer_json(self, table, status: int = 200) -> None:
            self.answer(status, json.dumps(table).encode(), {"Content-Type": "application/json"})

        def look(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            if m := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path):
                self.about(m[1], m[2], m[3])
            elif m := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self.give(m[1], m[2], m[3])
            else:
                self.answer(404)

        do_GET = do_HEAD = look

        def about(self, repository: str, what: str, revision: str) -> None:
            if repository not in hub.repositories:
                return self.answer(404, headers={"X-Error-Code": "RepoNotFound"})
            if revision != "main" and not re.fullmatch("[0-9a-f]{40}", revision):
                return self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
            siblings, tree = [], []
            for name, content in hub.files(repository).items():
                own = {"size": len(content)}
                oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                lfs = name.endswith((".safetensors", ".bin"))
                sha = hub.sha256(name, content)
                siblings.append({"rfilename": name, "blobId": oid, **own})
                tree.append({"type": "file", "path": name, "oid": oid, **own})
                if lfs:
                    siblings[-1]["lfs"] = {"sha256": sha, "pointerSize": 130, **own}
                    tree[-1]["lfs"] = {"oid": sha, "pointerSize": 130, **own}
            if what == "tree":
                return self.answer_json(tree)
            self.answer_json(
                {"_id": "1", "id": repository, "modelId": repository, "sha": commit(revision), "siblings": siblings}
            )

        def give(self, repository: str, revision: str, name: str) -> None:
            content = hub.files(repository)[name]
            # not the git hash that the real Hub gives small files: any name that is no SHA-256 will do
            big = name.endswith((".safetensors", ".bin"))
            etag = hub.sha256(name, content) if big else hashlib.sha1(content).hexdigest()
            headers = {"X-Repo-Commit": commit(revision), "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
            if self.command == "HEAD":
                return self.answer(200, content, headers)
            start, status = 0, 200
            if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
                start, status = int(found[1]), 206
                hub.ranges.append(name)
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if hub.cut and name.endswith(hub.cut):
                hub.cut = ""
                self.send_response(200)
                for k, v in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(k, v)
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                self.close_connection = True
                return
            self.answer(status, content[start:], headers)

        def do_POST(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"POST {path}")
            hub.tokens.add(self.headers.get("Authorization"))
            if (self.headers.get("Transfer-Encoding") or "") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") != "Bearer hf_good":
                return self.answer(403)
            if path == "/api/repos/create":
                hub.created.append(json.loads(body))
                return self.answer_json({"url": f"{hub.url}/me/mine"})
            if path == "/api/validate-yaml":
                return self.answer_json({"errors": [], "warnings": []})
            if "/preupload/" in path:
                files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                         for f in json.loads(body)["files"]]  # fmt: skip
                return self.answer_json({"files": files})
            if "/commit/" in path:
                for line in body.splitlines():
                    row = json.loads(line)
                    if row["key"] == "file":
                        hub.committed[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
                return self.answer_json({"commitUrl": f"{hub.url}/me/mine/commit/{COMMIT}", "commitOid": COMMIT})
            self.answer(404)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
