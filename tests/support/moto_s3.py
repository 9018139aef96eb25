"""moto's S3 server as a process: `python -m tests.support.moto_s3 [checks]`. It tells its port on standard error.

moto checks no checksum. With `checks` a put whose bytes do not match the SHA-256 or MD5 sent along is refused, as AWS does.
"""

import base64
import hashlib
import sys
from io import BytesIO
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_SUMS = {"HTTP_X_AMZ_CHECKSUM_SHA256": hashlib.sha256, "HTTP_CONTENT_MD5": hashlib.md5}


def checking(inner: Any) -> Any:
    """A WSGI application that passes on only puts whose bytes match the sums sent along."""

    def application(environment: dict[str, Any], start: Any) -> Any:
        if environment["REQUEST_METHOD"] == "PUT":
            body = environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
            environment["wsgi.input"] = BytesIO(body)
            for header, kind in _SUMS.items():
                told = environment.get(header)
                if told and told != base64.b64encode(kind(body).digest()).decode():
                    start("400 Bad Request", [("Content-Type", "application/xml")])
                    return [b"<Error><Code>BadDigest</Code><Message>The checksum did not match</Message></Error>"]
        return inner(environment, start)

    return application


if __name__ == "__main__":
    application: Any = DomainDispatcherApplication(create_backend_app)
    if "checks" in sys.argv[1:]:
        application = checking(application)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    sys.stderr.write(f"serving on http://127.0.0.1:{server.port}\n")
    sys.stderr.flush()
    server.serve_forever()
