"""A certificate authority of one test, a server's certificate from it, and node keys."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """`ca` is the authority's certificate, `certificate` and `key` those of a server on loopback; all are paths."""

    def __init__(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        self.ca, self.certificate, self.key = (directory / name for name in ("ca.pem", "server.pem", "server.key"))
        signer = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "interop tests")])
        root = _builder(name, name, signer.public_key())
        root = root.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        root = root.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        root = root.add_extension(x509.SubjectKeyIdentifier.from_public_key(signer.public_key()), critical=False)
        self.ca.write_bytes(_pem(root.sign(signer, hashes.SHA256())))
        key = ec.generate_private_key(ec.SECP256R1())
        server = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        leaf = _builder(server, name, key.public_key())
        hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        leaf = leaf.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        leaf = leaf.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        leaf = leaf.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        leaf = leaf.add_extension(issuer, critical=False)
        self.certificate.write_bytes(_pem(leaf.sign(signer, hashes.SHA256())))
        self.key.touch(mode=0o600)
        self.key.write_bytes(private_bytes(key))


def _builder(subject, issuer, public_key):
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - DAY).not_valid_after(now + 7 * DAY)


def _usage(**on):
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    )
    flags = dict.fromkeys([*names.split(), "encipher_only", "decipher_only"], False)
    return x509.KeyUsage(**(flags | on))


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_bytes(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def node_key(path):
    """Writes a node's key pair as OpenSSH files, the form that upstream's documentation makes; gives both paths."""
    key = ec.generate_private_key(ec.SECP384R1())
    public = path.with_suffix(".pub")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(*form))
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    return path, public
