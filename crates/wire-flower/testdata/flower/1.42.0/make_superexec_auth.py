"""Writes superexec_auth.txt: the secret and the body of an AcquireTask in hex, then its headers, `name value` a line.

Needs `pip install flwr==1.42.0`; the headers are made by its own function.
"""
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.auth import create_superexec_auth_metadata, derive_auth_secret

secret = b"a secret of two lines\n\x00\xff\n"
request = AcquireTaskRequest(supported_task_types=["flwr-serverapp", "flwr-clientapp"])
headers = create_superexec_auth_metadata(
    auth_secret=derive_auth_secret(secret), method="/flwr.proto.Runtime/AcquireTask", request=request)
with open("superexec_auth.txt", "w") as out:
    out.write(f"secret {secret.hex()}\nbody {request.SerializeToString(deterministic=True).hex()}\n")
    out.writelines(f"{name} {value}\n" for name, value in headers.items())
