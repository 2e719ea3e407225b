"""Uploading large files: the LFS batch, single and multipart uploads to signed addresses, verification."""

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from hub import names
from hub.call import Call, parse_json, read_body
from hub.errors import BadRequest, Forbidden, NotFound, TooLarge
from hub.objects import BLOCK, Incoming, hash_file
from hub.routes import Address

PART_SIZE = 64 << 20  # bytes: larger files are uploaded in parts of this size
MAX_PARTS: Final = 10_000  # of one file; for larger files the parts grow
MAX_SIZE: Final = 1 << 42  # bytes of one file
LIFETIME: Final = 24 * 3600  # seconds that an upload's address is good for


def batch(call: Call) -> Any:
    """POST /[datasets/]{id}.git/info/lfs/objects/batch: where to upload what this repo does not hold yet.

    That another repo holds an object does not spare the upload: else knowing a private file's digest would open it.
    """
    repo = call.repo_to_contribute_to()
    if call.field("operation", str) != "upload":
        raise BadRequest("Only the operation 'upload' is offered: files are downloaded from resolve addresses.")
    multipart = "multipart" in call.field("transfers", list, [])
    answers = []
    for each in call.field("objects", list):
        if not isinstance(each, dict) or not isinstance(each.get("oid"), str) or type(each.get("size")) is not int or not 0 <= each["size"] <= MAX_SIZE:
            raise BadRequest("An LFS object is {oid: sha256, size: bytes}.")
        oid, size = names.sha256(each["oid"]), each["size"]
        answer: dict[str, Any] = {"oid": oid, "size": size}
        if not call.hub.repos.holds(repo.uid, oid):
            upload = _multipart(call, repo.uid, oid, size) if multipart and size > PART_SIZE else {"href": _sign(call, "PUT", f"/lfs/{repo.uid}/{oid}", size)}
            answer["actions"] = {"upload": upload, "verify": {"href": _sign(call, "POST", f"/lfs/{repo.uid}/{oid}/verify", size)}}
        answers.append(answer)
    return {"transfer": "multipart" if multipart else "basic", "objects": answers}


async def put(call: Call) -> Response:
    """PUT of a whole file to its signed address; nothing is visible until every byte is verified."""
    uid, oid, size = _check(call)

    with Incoming(call.hub.objects, oid, size) as incoming:
        await _pour(call.request, incoming.write)
        await run_in_threadpool(incoming.store)
    call.hub.repos.hold(uid, oid)
    return Response()


async def put_part(call: Call) -> Response:
    """PUT of one part, written where it belongs in the file. The ETag is what the protocol asks for; what counts is the whole file's sha256."""
    _, _, size = _check(call)
    number: int = call.request.path_params["number"]
    length = part_size(size)
    start = (number - 1) * length
    expected = min(length, size - start)
    written = 0
    digest = hashlib.sha256()
    descriptor = os.open(_upload_path(call), os.O_WRONLY | os.O_CREAT, 0o600)

    def write(block: bytes) -> None:
        nonlocal written
        if written + len(block) > expected:
            raise TooLarge(f"Part {number} is longer than its {expected} bytes.")
        view = memoryview(block)
        while view:
            done = os.pwrite(descriptor, view, start + written)
            written += done
            view = view[done:]
        digest.update(block)

    try:
        await _pour(call.request, write)
    finally:
        os.close(descriptor)
    if written != expected:
        raise BadRequest(f"Part {number} ended after {written} of {expected} bytes.")
    return Response(headers={"ETag": f'"{digest.hexdigest()}"'})


async def complete(call: Call) -> Response:
    """POST after the last part: verify the whole file and keep it."""
    uid, oid, size = _check(call)
    body = parse_json(await read_body(call.request))
    if body.get("oid") != oid:
        raise BadRequest("The upload to complete is another file's.")
    path = _upload_path(call)
    await run_in_threadpool(_keep, call, path, oid, size)
    call.hub.repos.hold(uid, oid)
    return Response()


def verify(call: Call) -> Any:
    """POST of {oid, size} after an upload: whether the file arrived."""
    uid, oid, size = _check(call)
    if not call.hub.repos.holds(uid, oid) or call.hub.objects.size(oid) != size:
        raise NotFound(f"The object {oid} has not been uploaded.")
    return {}


def part_size(size: int) -> int:
    """Bytes of each part, but the last, of a file of `size` bytes."""
    return max(PART_SIZE, -(-size // MAX_PARTS))


def _multipart(call: Call, uid: str, oid: str, size: int) -> dict[str, Any]:
    path = f"/lfs/{uid}/{oid}/{secrets.token_hex(16)}"
    length = part_size(size)
    parts = {f"{number:05d}": _sign(call, "PUT", f"{path}/{number}", size) for number in range(1, -(-size // length) + 1)}
    return {"href": _sign(call, "POST", path, size), "header": {"chunk_size": str(length), **parts}}


def _keep(call: Call, path: Path, oid: str, size: int) -> None:
    try:
        if not path.exists() or path.stat().st_size != size or hash_file(path) != oid:
            raise BadRequest(f"The uploaded parts do not make up the file {oid}. Upload it again.")
        call.hub.objects.adopt(path, oid)
    finally:
        path.unlink(missing_ok=True)


def _upload_path(call: Call) -> Path:
    # The name was made by us and is part of what was signed.
    return call.hub.root.temporary(f"upload-{call.part('upload')}")


def _sign(call: Call, method: str, path: str, size: int) -> str:
    """A full address that lets its holder do this one thing for a while: the client sends uploads without its token."""
    expires = int(time.time()) + LIFETIME
    return f"{call.base}{path}?" + urlencode({"size": size, "expires": expires, "signature": _signature(call, method, path, str(size), str(expires))})


def _signature(call: Call, *parts: str) -> str:
    return hmac.new(call.hub.secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest()


def _check(call: Call) -> tuple[str, str, int]:
    """The repo, digest and size of a signed address. Raises Forbidden for a forged or expired one, NotFound when the repo is gone."""
    size, expires = call.query.get("size", ""), call.query.get("expires", "")
    wanted = _signature(call, call.request.method, call.request.scope["path"], size, expires)
    if not hmac.compare_digest(wanted.encode(), call.query.get("signature", "").encode()) or int(expires) < time.time():
        raise Forbidden("This upload address is not valid, or not any more. Ask for a new one.")
    uid = call.part("uid")
    if call.hub.repos.get(uid) is None:
        raise NotFound("The repo that this was to be uploaded to is gone.")
    return uid, call.part("oid"), int(size)


async def _pour(request: Request, write: Callable[[bytes], None]) -> None:
    """Pass a body on in blocks, in a thread, holding no more than one."""
    block = bytearray()
    async for chunk in request.stream():
        block += chunk
        if len(block) >= BLOCK:
            await run_in_threadpool(write, bytes(block))
            block.clear()
    if block:
        await run_in_threadpool(write, bytes(block))


ROUTES: Final = (
    Address("POST", "/{ns}/{name}.git/info/lfs/objects/batch", batch),
    Address("POST", "/{kind:kind}/{ns}/{name}.git/info/lfs/objects/batch", batch),
    Address("PUT", "/lfs/{uid}/{oid}", put),
    Address("POST", "/lfs/{uid}/{oid}/verify", verify),
    Address("POST", "/lfs/{uid}/{oid}/{upload}", complete),
    Address("PUT", "/lfs/{uid}/{oid}/{upload}/{number:int}", put_part),
)
