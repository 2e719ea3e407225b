"""Tells how much has been sent to the Hub: bytes as they go out over LFS, and over Xet as its client, or who watches it, tells them of each file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

from config.progress import Tally, report, within

ALONE = 1_000_000  # bytes of a file above which it is sent by itself
Operation = CommitOperationAdd | CommitOperationDelete


class Addition(CommitOperationAdd):
    """A file to upload whose bytes are counted when they are read to be sent."""

    tally: Tally | None = None

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:
        """The file to read; the client asks for it with a progress bar when it is about to send it."""
        with super().as_file() as file:
            if with_tqdm and self.tally is not None:
                _count(file, self.tally)
            yield file


def _count(file: BinaryIO, tally: Tally) -> None:
    """Have every read counted. Where the client begins again, so does the count."""
    plain, position = file.read, 0

    def read(size: int = -1) -> bytes:
        nonlocal position
        found = plain(size)
        tally.add(file.tell() - position)
        position = file.tell()
        return found

    file.read = read  # type: ignore[method-assign] # as the client itself does it


def upload(api: HfApi, repo: str, operations: Sequence[Operation]) -> None:
    """Upload what the operations add and the Hub keeps in LFS, for a commit that comes after it. Raises what the client raises.

    Reports bytes, those of small files as well, which go with the commit itself.
    """
    additions = [operation for operation in operations if isinstance(operation, Addition)]
    total = sum(addition.upload_info.size for addition in additions)
    if constants.HF_HUB_DISABLE_XET:
        _by_lfs(api, repo, additions, Tally(total, "bytes"))
    else:
        _by_xet(api, repo, additions, total)
    report(total, total, "bytes")  # others were there already


def _by_lfs(api: HfApi, repo: str, additions: Sequence[Addition], tally: Tally) -> None:
    small = []
    for addition in additions:
        addition.tally = tally
        if addition.upload_info.size > ALONE:  # the client sends several in threads of its own, to which no time limit of ours applies
            api.preupload_lfs_files(repo, [addition], free_memory=False)
        else:
            small.append(addition)
    if small:
        api.preupload_lfs_files(repo, small, free_memory=False)


def _by_xet(api: HfApi, repo: str, additions: Sequence[Addition], total: int) -> None:
    sent = 0
    report(sent, total, "bytes")
    for addition in additions:
        addition.tally = None
        with within(sent, total, "bytes"):
            api.preupload_lfs_files(repo, [addition], free_memory=False)
        sent += addition.upload_info.size
        report(sent, total, "bytes")
