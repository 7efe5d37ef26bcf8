"""What versions are pulled from in a scenario: files over TLS, and a registry's token service.

    sources.py serve CERTIFICATE KEY FOLDER     prints its port, and serves until standard input ends
    sources.py push REGISTRY CA FILE            puts a file into ml/digits as `oras push` does, prints the digest
"""

import base64
import hashlib
import http.server
import json
import ssl
import sys
import threading
import urllib.request

LOGIN = "Basic " + base64.b64encode(b"ci:secret").decode()


class Files(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if not self.path.startswith("/token"):
            return super().do_GET()
        known = self.headers.get("Authorization") == LOGIN
        answer = json.dumps({"token": "let-in"} if known else {}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def serve(certificate, key, folder):
    handler = lambda *arguments: Files(*arguments, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


def push(registry, ca, file):
    context = ssl.create_default_context(cafile=ca)

    def call(method, url, body=b"", kind="application/octet-stream"):
        headers = {"Authorization": "Bearer let-in", "Content-Type": kind}
        request = urllib.request.Request(url, data=body, method=method, headers=headers)
        return urllib.request.urlopen(request, context=context)

    def blob(data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        place = call("POST", f"{registry}/v2/ml/digits/blobs/uploads/").headers["Location"]
        call("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", data)
        return {"mediaType": "application/octet-stream", "digest": digest, "size": len(data)}

    with open(file, "rb") as archive:
        layer = blob(archive.read())
    layer["annotations"] = {"org.opencontainers.image.title": "digits.pt"}
    kind = "application/vnd.oci.image.manifest.v1+json"
    config = {**blob(b"{}"), "mediaType": "application/vnd.oci.empty.v1+json"}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}).encode()
    call("PUT", f"{registry}/v2/ml/digits/manifests/2", manifest, kind)
    print("sha256:" + hashlib.sha256(manifest).hexdigest())


{"serve": serve, "push": push}[sys.argv[1]](*sys.argv[2:])
