"""The endpoint for the bytes of what a run's stages made: a whole file, or parts of one that a download lacks."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Response
from fastapi.responses import FileResponse
from starlette.responses import MalformedRangeHeader, RangeNotSatisfiable

from service.api.access import TheRun, TheSettings, TheStore, caller
from service.api.errors import ApiError, problems
from service.api.tagging import named
from service.runs import artifacts

protected = APIRouter(tags=["findings"], dependencies=[Depends(caller)], responses=problems(401, 404, 410, 416, 422, 429))

Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="The sha256 of a file that `artifacts` of the run lists.")]
Known = Annotated[str | None, Header(alias="If-None-Match", description="ETags of answers that you have; of one of these the answer is 304, without a body.")]
Range = Annotated[
    str | None, Header(alias="Range", description="The bytes that are wanted: `bytes=1000-`, from there on. Of several parts the answer is in parts.")
]

_BYTES = {"schema": {"type": "string", "format": "binary"}}
_ETAG = {"ETag": {"description": "The file's sha256, in quotes.", "schema": {"type": "string"}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {"application/octet-stream": _BYTES}, "headers": _ETAG},
    206: {"description": "Parts of it", "content": {"application/octet-stream": _BYTES, "multipart/byteranges": _BYTES}, "headers": _ETAG},
    304: {"description": "It is the file that If-None-Match names", "headers": _ETAG},
}


class Content(FileResponse):
    """A file or the parts that `Range` names, whose refusals are problem documents as all others are."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []  # RFC 9110 has it ignored
        except RangeNotSatisfiable as error:
            message = f"The file has {file_size:,} bytes, and {http_range!r} names none of them."
            raise ApiError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "no_such_bytes", message, {"Content-Range": f"bytes */{file_size}"}) from error


@protected.get("/runs/{id}/artifacts/{sha256}", summary="A file that a run's stages made", response_class=Content, responses=_ANSWERS)
def content(run: TheRun, sha256: Digest, store: TheStore, settings: TheSettings, known: Known = None, wanted: Range = None) -> Response:
    """Its bytes, under its name. 404: no stage of the run made such a file. 410: it was thrown away for room, or lies on another machine.

    A download that broke off goes on by `Range`, and `If-Range` with the ETag makes sure of the same file.
    """
    tag = f'"{sha256}"'
    found = artifacts.find(store, settings, run.id, sha256)
    if named(known, tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
    return Content(found.path, media_type="application/octet-stream", filename=found.name, headers={"ETag": tag}, stat_result=found.path.stat())
