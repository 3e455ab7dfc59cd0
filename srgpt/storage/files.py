"""Files at URLs: local paths or any fsspec URL (``s3://bucket/prefix``), with errors that say what to do."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from srgpt.errors import InputError, SrgptError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


READ_TIMEOUT = 30
"""Seconds without a byte from an object store after which a request counts as lost, and is sent again."""


def is_local(url: str) -> bool:
    """Return whether ``url`` is a path on this machine."""
    return "://" not in url or url.startswith("file://")


def filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of ``url`` and the path within it.

    A request to S3 that is refused for now (5xx) or lost is sent again, with back-off, some twenty times; a store
    that cannot be reached at all is given up after seconds.

    Raises :class:`InputError` where the URL's scheme is unknown, or needs a package that is not here.
    """
    _check_scheme(url)
    options: dict[str, Any] = {}
    if url.startswith(("s3://", "s3a://")):
        options["config_kwargs"] = {
            "connect_timeout": 5,
            "read_timeout": READ_TIMEOUT,
            "retries": {"max_attempts": 4, "mode": "standard"},
        }
        _retry_server_errors()
    with io_errors(url):
        return fsspec.core.url_to_fs(url, **options)


def _retry_server_errors() -> None:
    """Let s3fs send again what botocore gave up on; by itself it does so for errors that say ``SlowDown`` only."""
    with contextlib.suppress(ImportError):  # which _check_scheme has told
        import s3fs.core
        from botocore.exceptions import ClientError

        def is_transient(error: Exception) -> bool:
            if not isinstance(error, ClientError):
                return False
            return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500

        s3fs.core.set_custom_error_handler(is_transient)


def _check_scheme(url: str) -> None:
    scheme = url.split("://", 1)[0] if "://" in url else "file"
    try:
        fsspec.get_filesystem_class(scheme)
    except (ValueError, ImportError) as error:
        raise InputError(
            f"{url}: {scheme}:// cannot be used here ({error}). Allowed: a local path, file://, s3://, "
            "or any scheme that fsspec knows and whose package is installed."
        ) from error


@contextlib.contextmanager
def io_errors(url: str, *, write: bool = False) -> Iterator[None]:
    """Turn what file systems raise about ``url`` into an error that a person can act on."""
    try:
        yield
    except (SrgptError, KeyboardInterrupt):
        raise
    except FileNotFoundError as error:
        if write:
            raise InputError(
                f"{url}: cannot be written there ({error.strerror or error}). Give another folder."
            ) from error
        raise InputError(
            f"{url}: not found. Check the path; if a stage writes it, run that stage first."
        ) from error
    except OSError as error:
        raise SrgptError(f"{url}: {error.strerror or error}") from error
    except Exception as error:
        module = type(error).__module__.split(".")[0]
        if module in {"botocore", "aiobotocore", "aiohttp", "s3fs", "fsspec", "asyncio", "ssl"}:
            raise SrgptError(
                f"{url}: the object store did not answer ({type(error).__name__}: {error}). "
                "Check AWS_ENDPOINT_URL, the credentials and the bucket, then run the same command again."
            ) from error
        raise


def join(url: str, *parts: str) -> str:
    """Append path parts to a URL."""
    return posixpath.join(url.rstrip("/"), *parts)


def exists(url: str) -> bool:
    """Return whether a file or folder is there."""
    fs, path = filesystem(url)
    with io_errors(url):
        return bool(fs.exists(path))


def read_bytes(url: str) -> bytes:
    """Read a whole file."""
    fs, path = filesystem(url)
    with io_errors(url):
        return fs.cat_file(path)


def write_bytes(url: str, data: bytes) -> None:
    """Write a whole file so that a reader sees all of it or nothing."""
    fs, path = filesystem(url)
    with io_errors(url, write=True):
        if is_local(url):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            partial = f"{path}.{os.getpid()}.tmp"
            try:
                with open(partial, "wb") as file:  # noqa: PTH123
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, path)  # noqa: PTH105
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(partial)  # noqa: PTH108
        else:  # an object store's put is atomic by itself
            fs.pipe_file(path, data)


def read_json(url: str) -> Any:
    """Read a JSON file; a broken one is an :class:`InputError` that names it."""
    data = read_bytes(url)
    try:
        return json.loads(data)
    except ValueError as error:
        raise InputError(f"{url}: not JSON ({error})") from error


def write_json(url: str, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values are equal bytes."""
    write_bytes(url, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def digest(value: Any) -> str:
    """Return the SHA-256 of bytes, or of a value's canonical JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.sha256(data).hexdigest()


def remove(url: str) -> None:
    """Remove a file or a folder; nothing happens where there is none."""
    fs, path = filesystem(url)
    with io_errors(url):
        if fs.exists(path):
            fs.rm(path, recursive=True)


def relative_url(target: str, base: str) -> str:
    """Express ``target`` relative to the folder ``base`` where both lie in one store, else absolute.

    Manifests refer to their inputs this way, so that a tree of tables can move as a whole.
    """
    if is_local(target) and is_local(base):
        return Path(os.path.relpath(plain_path(target), plain_path(base))).as_posix()
    if not is_local(target) and not is_local(base) and target.split("/")[:3] == base.split("/")[:3]:
        return posixpath.relpath(target.split("://", 1)[1], base.split("://", 1)[1])
    return target


def resolve_url(reference: str, base: str) -> str:
    """Undo :func:`relative_url`."""
    if "://" in reference or reference.startswith("/"):
        return reference
    if is_local(base):
        return os.path.normpath(Path(plain_path(base)) / reference)
    scheme, path = base.split("://", 1)
    return f"{scheme}://{posixpath.normpath(posixpath.join(path, reference))}"


def plain_path(url: str) -> str:
    """Return a local URL as a path."""
    return url.removeprefix("file://")


def location(url: str) -> tuple[str, ...]:
    """Return scheme and path parts; local links are followed, so that two names of a folder are equal."""
    if is_local(url):
        return ("file", *Path(plain_path(url)).resolve().parts)
    scheme, path = url.split("://", 1)
    return (scheme.replace("s3a", "s3"), *posixpath.normpath(path).split("/"))
