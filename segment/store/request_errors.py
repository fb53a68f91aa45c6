"""Classification of failed requests: transient or permanent, for one object or all; and messages for the user."""

import errno
import re
import socket
from collections.abc import Iterator

from segment.errors import NoCredentials, SegmentError, StoreError, StoreRefused
from segment.store.foreign_text import visible
from segment.store.names import shown
from segment.store.urls import is_http, redact_text


def is_absent(error: OSError) -> bool:
    """Whether the object does not exist. True also if its folder is a file, or its name is too long.

    Drivers raise FileNotFoundError for other failures, too: fsspec's http for every failed look-up, s3fs for a missing
    bucket. Those are not absent objects.
    """
    if isinstance(error, FileNotFoundError):
        return not any(_is_other_failure(cause) for cause in error_chain(error))
    return isinstance(error, NotADirectoryError) or error.errno == errno.ENAMETOOLONG


def _is_other_failure(cause: BaseException) -> bool:
    if isinstance(cause, SegmentError):  # what we refused ourselves
        return True
    if type(cause).__module__.startswith("aiohttp."):
        return getattr(cause, "status", None) not in (404, 410)
    return isinstance(cause, TimeoutError | ConnectionError) or "NoSuchBucket" in str(cause)


def error_chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, each once: they can form a cycle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


# Not every 412: the message of another failure can name an object such as `masks/s-1/1-000408-000412.parquet`.
_PRECONDITION_FAILED = re.compile(r"PreconditionFailed|pre-conditions|(?<![\w/.-])412(?![\w/-])")


def is_taken(error: BaseException) -> bool:
    """Whether a conditional write failed because the object exists."""
    return any(_PRECONDITION_FAILED.search(str(cause)) for cause in error_chain(error))


def is_unsupported(error: BaseException) -> bool:
    """Whether the store or its driver does not support the request."""
    return any(isinstance(cause, NotImplementedError) or "NotImplemented" in str(cause) for cause in error_chain(error))


_PERMANENT_WORDS = (
    "AccessDenied", "Forbidden", "ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket",
    "RequestTimeTooSkewed", "InvalidBucketName", "PermanentRedirect",
)  # fmt: skip
_TRANSIENT_WORDS = (
    "SlowDown", "InternalError", "ServiceUnavailable", "Throttl", "RequestTimeout", "Connection", "Timeout",
    "timed out", "IncompleteBody", "IncompleteRead", "ClientPayloadError", "ServerDisconnected", "BadDigest",
    "Bad Gateway", "reset by peer", "ResponseStreamingError", "FlexibleChecksumError",
    "Temporary failure in name resolution",
)  # fmt: skip
_TRANSIENT_STATUS = re.compile(r"\b(408|429|500|502|503|504)\b")


def is_transient(error: BaseException, url: str) -> bool:
    """Whether a retry may succeed. It cannot for 'permission denied', 'not found', and what we refuse ourselves."""
    if any(isinstance(cause, SegmentError) for cause in error_chain(error)):
        return False
    if isinstance(error, FileNotFoundError):
        if is_absent(error):
            return False
    elif isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    text = _text(error, url)
    if any(word in text for word in _PERMANENT_WORDS) or _missing_credentials(text):
        return False
    if isinstance(error, ConnectionError | TimeoutError) or any(word in text for word in _TRANSIENT_WORDS):
        return True
    return _TRANSIENT_STATUS.search(text) is not None


_FULL_OR_LOCKED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def is_refusal(error: BaseException, verb: str, url: str) -> bool:
    """Whether the store refuses every request until the user acts.

    One unreadable local image, or one forbidden page of a web server, does not affect other objects.
    """
    if is_http(url):
        return False
    if url.startswith("file://"):
        return verb == "write" and isinstance(error, OSError) and error.errno in _FULL_OR_LOCKED
    text = _text(error, url)
    return isinstance(error, PermissionError) or any(word in text for word in _PERMANENT_WORDS)


_OWN_FAULT_WORDS = (
    "ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed",
    "NoCredentials", "credentials",
)  # fmt: skip


def concerns_object(error: BaseException, url: str) -> bool:
    """Whether the store refuses this object only: not a fault of network, credentials or machine."""
    if is_transient(error, url) or any(word in _text(error, url) for word in _OWN_FAULT_WORDS):
        return False
    return any(_is_refused(cause) for cause in error_chain(error))


def _is_refused(cause: BaseException) -> bool:
    if isinstance(cause, PermissionError | IsADirectoryError):
        return True
    if isinstance(cause, socket.gaierror):
        return cause.errno == socket.EAI_NONAME  # unknown host
    if type(cause).__module__.startswith("aiohttp."):
        redirected = "Redirect" in type(cause).__name__ or "InvalidUrl" in type(cause).__name__
        return redirected or 300 <= (getattr(cause, "status", None) or 0) < 500
    response = getattr(cause, "response", None)  # of botocore
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) if isinstance(response, dict) else 0
    return "NoSuchBucket" in str(cause) or 300 <= status < 500


_AWS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or --storage-option anon=true for a public bucket"
# Texts of drivers for missing credentials, and the advice to the user.
_NO_CREDENTIALS = (
    (("NoCredentialsError", "Unable to locate credentials"), f"no credentials were found: {_AWS}"),
    (("PartialCredentialsError",), f"the credentials are incomplete: {_AWS}"),
    (("ProfileNotFound",), "there is no AWS profile of that name: check AWS_PROFILE and ~/.aws/config"),
    (("DefaultCredentialsError", "Anonymous caller does not have"),
     "no credentials were found: set GOOGLE_APPLICATION_CREDENTIALS to a key file, use `gcloud auth "
     "application-default login`, or --storage-option token=anon for a public bucket"),
    (("Must provide either a connection_string or account_name", "CredentialUnavailableError",
      "DefaultAzureCredential failed to retrieve a token"),
     "no credentials were found: set AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or "
     "AZURE_STORAGE_SAS_TOKEN, or AZURE_STORAGE_CONNECTION_STRING, or --storage-option account_name=... anon=true for "
     "a public container"),
)  # fmt: skip


def _missing_credentials(text: str) -> str:
    """Return the advice if an error's text says that credentials are missing, else `""`."""
    return next((advice for words, advice in _NO_CREDENTIALS if any(word in text for word in words)), "")


_ADVICE = (
    (("NoSuchBucket", "bucket does not exist"), "there is no such bucket"),
    (("RequestTimeTooSkewed",),
     "this machine's clock is wrong: set it (the store refuses requests more than 15 minutes off)"),
    (("ExpiredToken", "token has expired"), "the credentials have expired: renew them and run the same command again"),
    (("InvalidAccessKeyId", "SignatureDoesNotMatch"), "the credentials are not valid for this store"),
    (("Forbidden", "AccessDenied", "PermissionError", "Permission denied", "Unauthorized"),
     "permission denied: check that the credentials are right and may read this place (for an output: write and list, "
     "too). The signature of a signed URL may have expired"),
    (("No space left", "ENOSPC"), "the disk is full"),
    (("Disk quota exceeded",), "the disk quota is used up"),
    (("Read-only file system",), "the file system is read-only"),
    (("NotADirectoryError",), "a folder of its path is a file"),
    (("IsADirectoryError",), "it is a folder, and a file is expected"),
    (("Too many levels of symbolic links",), "a symbolic link of its path leads to itself; delete the link"),
    (("FlexibleChecksumError",), "this store's checksums are not those that S3 clients expect: set "
     "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"),
    (("libjvm", "libhdfs"), "hdfs:// needs Java and Hadoop on this machine: set JAVA_HOME and HADOOP_HOME"),
    (("CERTIFICATE_VERIFY_FAILED",), "the server's certificate is not trusted here: set SSL_CERT_FILE (for s3:// "
     "AWS_CA_BUNDLE) to the file of your organisation's certificates"),
    (("Cannot connect to host", "EndpointConnectionError", "Name or service not known", "Connection refused"),
     "the host cannot be reached: check its name, and this machine's network and proxy"),
)  # fmt: skip
RESUMABLE = "The run can be resumed with the same command."


_URL = re.compile(r"\b\w++://[^\s'\"<>]+")  # in time that grows with the text, which a stranger's server may choose
_MOST_TEXT = 10_000  # characters of an error that are read


def _text(error: BaseException, url: str) -> str:
    """Return the types and texts of an error and its causes, without URLs: `https://host/500/` contains no status.

    Drivers name an object by its URL, by its path, or by the URL of their own request.
    """
    text = " ".join(f"{type(e).__name__} {e}"[:_MOST_TEXT] for e in error_chain(error)).replace(url, "")
    path = url.partition("://")[2]
    # A bucket's name alone may be a word of the message.
    return _URL.sub("", text.replace(path, "") if "/" in path else text)


def store_error(verb: str, url: str, error: BaseException) -> StoreError:
    """Return the error to raise for a request that failed permanently."""
    if _missing_credentials(_text(error, url)):
        return NoCredentials(error_message(verb, url, error))
    found = (StoreRefused if is_refusal(error, verb, url) else StoreError)(error_message(verb, url, error))
    found.object_specific = concerns_object(error, url)
    return found


def error_message(verb: str, url: str, error: BaseException) -> str:
    """Describe a request that failed permanently, with the fix if it is known."""
    text = _text(error, url)
    if credentials := _missing_credentials(text):
        return f"could not {verb} {shown(url)}: {credentials}"
    if url.startswith("file://") and isinstance(error, PermissionError):
        check = "check that you may read (and for an output: write) this place"
        return f"could not {verb} {shown(url)}: permission denied: {check}"
    for words, advice in _ADVICE:
        if any(word in text for word in words):
            return f"could not {verb} {shown(url)}: {advice}"
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
    detail = visible(redact_text(f"{type(cause).__name__}: {cause}"[:_MOST_TEXT]))[:300]
    return f"could not {verb} {shown(url)}: {detail}. {RESUMABLE}"
