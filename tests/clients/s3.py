"""S3 as moto speaks it, over TLS, with one bucket and one user who may read it.

    s3.py CERTIFICATE KEY CA FILE...

Puts each file into the bucket `models` under its own name, prints one line of JSON with the port and the
user's keys, and serves until standard input ends.
"""

import json
import os
import sys
import threading
from pathlib import Path

# Whoever calls after the last of these calls, made below, must show keys that may do it.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = str(4 + len(sys.argv[4:]))

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

certificate, key, ca, *files = sys.argv[1:]
server = make_server(
    "127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True, ssl_context=(certificate, key)
)
threading.Thread(target=server.serve_forever, daemon=True).start()


def client(service):
    return boto3.client(
        service,
        endpoint_url=f"https://localhost:{server.port}",
        verify=ca,
        region_name="us-east-1",
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
    )


s3, iam = client("s3"), client("iam")
s3.create_bucket(Bucket="models")
for file in map(Path, files):
    s3.put_object(Bucket="models", Key=f"digits/{file.parent.name}.pt", Body=file.read_bytes())
iam.create_user(UserName="reader")
read = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
policy = json.dumps({"Version": "2012-10-17", "Statement": [read]})
iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
keys = iam.create_access_key(UserName="reader")["AccessKey"]
print(json.dumps({"port": server.port, "id": keys["AccessKeyId"], "secret": keys["SecretAccessKey"]}), flush=True)
sys.stdin.read()
