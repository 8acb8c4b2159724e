"""Writes node_auth.txt: a fresh P-384 key (PEM), a timestamp and its signature, each on a line, key and signature in base64.

Needs `pip install flwr==1.42.0`; the signature is made by its own function.
"""
import base64
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives import hashes, serialization
k = ec.generate_private_key(ec.SECP384R1())
pem = k.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
t = "2026-11-21T02:25:52.192024+00:00"
from flwr.supercore.primitives.asymmetric import sign_message
sig = sign_message(k, t.encode())
open("node_auth.txt", "w").write("\n".join([base64.b64encode(pem).decode(), t, base64.b64encode(sig).decode()]) + "\n")
