"""Open a file of somebody else's directory so that nothing there changes and nothing here is fooled."""

import errno
import os
import stat

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_no_atime = getattr(os, "O_NOATIME", 0)


def open_read_only(name: str, directory: int | None = None) -> int:
    """Given a path, or a name inside an open directory, return a descriptor of that regular file, for reading only.

    No link is followed, no pipe waited for; the time of last access stays as it is where the kernel lets us (only for
    the file's owner). The limit of open files is raised as far as the kernel allows before it counts. Raise OSError.
    """
    try:
        descriptor = _open(name, directory)
    except OSError as error:
        if error.errno != errno.EMFILE or not _raise_limit():
            raise
        descriptor = _open(name, directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return descriptor


def _open(name: str, directory: int | None) -> int:
    try:
        return os.open(name, _FLAGS | _no_atime, dir_fd=directory)
    except PermissionError:
        return os.open(name, _FLAGS, dir_fd=directory)


def _raise_limit() -> bool:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return True


def read_whole(descriptor: int, limit: int) -> bytes:
    """Given a descriptor, return the file's bytes from its beginning. Raise OSError where it is larger than `limit`."""
    data = b""
    while piece := os.pread(descriptor, limit + 1 - len(data), len(data)):
        data += piece
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes")
    return data
