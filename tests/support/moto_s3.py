"""moto's S3 server as a process: `python -m tests.support.moto_s3 [checks]`. It tells its port on standard error.

moto checks neither that a request is whole, which is made up for, nor any checksum. With `checks` a put whose bytes do not match the SHA-256 or MD5 sent along is refused, as AWS does.
"""

import base64
import hashlib
import sys
from io import BytesIO
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_SUMS = {"HTTP_X_AMZ_CHECKSUM_SHA256": hashlib.sha256, "HTTP_CONTENT_MD5": hashlib.md5}


def strict(inner: Any, *, checks: bool) -> Any:
    """A WSGI application that passes on only requests that came whole, and, if it checks, whose bytes match their sums."""

    def application(environment: dict[str, Any], start: Any) -> Any:
        if environment["REQUEST_METHOD"] == "PUT":
            length = int(environment.get("CONTENT_LENGTH") or -1)
            body = environment["wsgi.input"].read(max(length, 0))
            environment["wsgi.input"] = BytesIO(body)
            # The server beneath takes what was cut within its header for a request with fewer headers.
            if len(body) != length:
                return _refuse(start, "IncompleteBody")
            told = {kind: environment.get(header) for header, kind in _SUMS.items()} if checks else {}
            if any(sum_ and sum_ != base64.b64encode(kind(body).digest()).decode() for kind, sum_ in told.items()):
                return _refuse(start, "BadDigest")
        return inner(environment, start)

    return application


def _refuse(start: Any, code: str) -> list[bytes]:
    start("400 Bad Request", [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>refused</Message></Error>".encode()]


if __name__ == "__main__":
    application = strict(DomainDispatcherApplication(create_backend_app), checks="checks" in sys.argv[1:])
    server = make_server("127.0.0.1", 0, application, threaded=True)
    sys.stderr.write(f"serving on http://127.0.0.1:{server.port}\n")
    sys.stderr.flush()
    server.serve_forever()
