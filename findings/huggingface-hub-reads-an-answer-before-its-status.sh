#!/usr/bin/env bash
# huggingface_hub 2.4.0, Python 3.11.
#
# A commit that holds a README.md first posts it to `/api/validate-yaml`. Of that answer the client reads the JSON and only then looks at the status, and it asks
# once, where other requests of an upload are made again after a 502. So a gateway's page, or an empty answer, of one moment ends `create_commit` as a
# JSONDecodeError, which is a ValueError as for a card that is wrong: whoever catches HfHubHTTPError to try again later does not see it. The same answer to the
# commit itself is an HfHubHTTPError of status 502, and to the request for upload modes is outlasted.
#
# Expected: HfHubHTTPError with the status, from each of the three. Seen, for one 502 with a page of HTML, to the first request of each kind:
#   /api/validate-yaml JSONDecodeError
#   /preupload/        passed
#   /commit/           HfHubHTTPError 502
#
# Fails when that changes. Needs python3.11 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check huggingface_hub==2.4.0
cat > "$work/look.py" <<'PYTHON'
import json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError


class Hub(BaseHTTPRequestHandler):
    """As much of a Hub as a commit of one small text file needs."""

    protocol_version = "HTTP/1.1"
    broken = ""  # part of the path whose next request meets a gateway's page

    def do_POST(self):
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if Hub.broken and Hub.broken in self.path:
            Hub.broken = ""
            return self.answer(502, "text/html", b"<html>Bad gateway</html>")
        if "/preupload/" in self.path:
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(sent)["files"]]
            return self.answer(200, "application/json", json.dumps({"files": modes}).encode())
        found = {} if "validate-yaml" in self.path else {"commitUrl": f"http://{self.headers['Host']}/acme/model/commit/{'1' * 40}", "commitOid": "1" * 40}
        self.answer(200, "application/json", json.dumps(found).encode())

    def answer(self, status, kind, content):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
api = HfApi(endpoint=f"http://127.0.0.1:{server.server_address[1]}", token="hf_none")
for path in ("/api/validate-yaml", "/preupload/", "/commit/"):
    Hub.broken, found = path, "passed"
    try:
        api.create_commit("acme/model", [CommitOperationAdd("README.md", b"---\nlicense: mit\n---\n")], commit_message="A card")
    except HfHubHTTPError as error:
        found = f"{type(error).__name__} {error.response.status_code}"
    except ValueError as error:
        found = type(error).__name__
    print(f"{path:18} {found}")
PYTHON
expected='/api/validate-yaml JSONDecodeError
/preupload/        passed
/commit/           HfHubHTTPError 502'
seen=$("$work/env/bin/python" "$work/look.py" 2> "$work/log") || { cat "$work/log"; exit 1; }
printf '%s\n' "$seen"
[ "$seen" = "$expected" ] || { echo "other than seen before"; exit 1; }
