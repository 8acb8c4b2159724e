"""Who and what is refused, and that a federation goes on as if it had not been: over gRPC and HTTP, under TLS with certificates."""

import datetime
import socket
import ssl
import struct

import grpc
import numpy as np
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from openfl.protocols import aggregator_pb2, base_pb2

import hands
import harness
import test_hands
from hands import metric, named, refused, trained

ZETA, COL1, _ = harness.NAMES
Code = grpc.StatusCode
# What stands for "your header is not of this federation": any of these; collaborators go by none in particular.
NOT_OURS = (Code.UNKNOWN, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.PERMISSION_DENIED, Code.UNAUTHENTICATED)
# Peaks of runs that nobody disturbed are within a few hundredths of each other; what is sent in vain is twice such a peak.
FLAT = 1.2
VAIN_BYTES = 64 << 20
NOT_READABLE = (Code.UNKNOWN, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION)


def began(world, pki, **parameters):
    federation = harness.Federation(world, pki, runner=test_hands.RUNNER, rounds=2, **parameters)
    federation.server.start()
    return federation


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, pki):
    """The peak of the aggregator's memory where nobody is refused, by transport."""
    peaks = {}
    for transport, kind in (("grpc", hands.Grpc), ("rest", hands.Rest)):
        with harness.World(tmp_path_factory.mktemp(transport)) as world:
            peaks[transport] = ends_as_if_nothing_had_been(began(world, pki, transport=transport), kind)
    return peaks


@pytest.fixture
def federation(undisturbed, world, pki):
    """Over gRPC; after the test it is run to its end by hand, to the bits of one that nobody disturbed and in about its memory."""
    federation = began(world, pki)
    yield federation
    peak = ends_as_if_nothing_had_been(federation, hands.Grpc)
    assert harness.STOCK or peak < FLAT * undisturbed["grpc"]


@pytest.fixture
def served(undisturbed, world, pki):
    """Over HTTP; likewise."""
    federation = began(world, pki, transport="rest")
    yield federation
    peak = ends_as_if_nothing_had_been(federation, hands.Rest)
    assert harness.STOCK or peak < FLAT * undisturbed["rest"]


def ends_as_if_nothing_had_been(federation, kind):
    """Gives the peak of the aggregator's memory, in bytes, up to the end of the last round."""
    everybody = [kind(federation, name) for name in federation.names]
    updates = [test_hands.drawn(1), test_hands.drawn(2)]
    for number in range(2):
        for hand, update in zip(everybody, updates):
            test_hands.complete(hand, number, update)
    peak = federation.server.peak_bytes()
    test_hands.quits(federation, *everybody)
    wanted = test_hands.moved(test_hands.FIRST, test_hands.mean(updates))
    test_hands.same(harness.arrays_of(federation.saved("last"))[1], wanted)
    assert "panicked" not in federation.server.text()
    return peak


def every_call(hand):
    """Each of the four calls that a collaborator makes."""
    yield hand.ping
    yield hand.tasks
    yield lambda: hand.tensor("square", "model")
    yield lambda: hand.send("train", metric("loss", 1.0), data_size=3)


def stranger(name, directory):
    """A certificate for this name that nobody of the federation signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    day = datetime.timedelta(days=1)
    made = made.serial_number(1).not_valid_before(now - day).not_valid_after(now + day)
    client = directory / "client"
    client.mkdir(parents=True)
    (client / f"col_{name}.crt").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (client / f"col_{name}.key").write_bytes(key.private_bytes(*plain))
    return directory


# gRPC.


def test_grpc_without_a_certificate_of_the_federation(federation, pki, tmp_path):
    own = stranger(ZETA, tmp_path / "stranger")
    (own / "cert_chain.crt").write_bytes((pki / "cert_chain.crt").read_bytes())
    channels = [
        hands.Credentials(pki, None).channel(federation.server.address),
        hands.Credentials(own, ZETA).channel(federation.server.address),
        grpc.insecure_channel(federation.server.address),
    ]
    for channel in channels:
        with refused(Code.UNAVAILABLE):
            hands.Grpc(federation, ZETA, channel=channel).ping()


def test_grpc_with_somebody_elses_certificate(federation):
    for sender, calls in ((COL1, 4), ("nobody", 1), ("", 1)):
        hand = hands.Grpc(federation, ZETA)
        hand.header.sender = sender
        for call in list(every_call(hand))[:calls]:
            with refused(Code.UNAUTHENTICATED):
                call()


def test_grpc_with_headers_of_another_federation(federation):
    for claims in ({"receiver": "aggregator_other"}, {"federation_uuid": "other"}, {"common_name": "other"}):
        for call in every_call(hands.Grpc(federation, ZETA, **claims)):
            with refused(*NOT_OURS):
                call()


def test_grpc_uploads_that_are_none(federation):
    hand = hands.Grpc(federation, ZETA)
    for pieces in ([], [b""], [b"\xff\xff\xff"], [b"\x0a\xff"], [b"\x00" * 100]):
        with refused(*NOT_READABLE, *NOT_OURS):
            hand.stream(*pieces)


def test_grpc_pieces_of_any_size(federation):
    hand = hands.Grpc(federation, ZETA)
    hand.tasks()
    update = test_hands.drawn(1)
    tensors = [trained(name, array) for name, array in update.items()]
    hand.send("train", metric("loss", 0.5), *tensors, data_size=test_hands.SIZES[ZETA][0], piece=7)
    assert [task.name for task in hand.tasks().tasks] == ["aggregated_model_validation", "locally_tuned_model_validation"]


def without_metadata():
    return base_pb2.NamedTensor(name="square", tags=["compressed", "trained"], data_bytes=bytes(196))


def lying(shape, size):
    metadata = [base_pb2.MetadataProto(int_list=shape)]
    return base_pb2.NamedTensor(
        name="square", tags=["compressed", "trained"], data_bytes=bytes(size), transformer_metadata=metadata
    )


UNREADABLE = {
    "not-compressed": named("square", np.zeros((7, 7)), ("trained",)),
    "without-metadata": without_metadata(),
    "too-short": lying([7, 7], 192),
    "too-long": lying([7, 7], 200),
    "not-float32": lying([7, 7], 195),
    "huge": lying([2**31 - 1, 2**31 - 1, 2**31 - 1], 4),
    "difference-from-nothing": trained("not of the model", np.zeros(3), delta=True),
}


def test_grpc_tensors_that_are_none(federation):
    hand = hands.Grpc(federation, ZETA)
    hand.tasks()
    taken = []
    for name, tensor in UNREADABLE.items():
        try:
            with refused(*NOT_READABLE):
                hand.send("train", tensor, data_size=3)
        except AssertionError as error:
            taken.append((name, error))
    assert not taken


VAIN = {
    "longer-than-its-shape": lambda: lying([7, 7], VAIN_BYTES),
    "of-another-shape": lambda: trained("square", np.zeros(VAIN_BYTES // 4, np.float32), delta=True),
    "of-another-name": lambda: trained("not of the model", np.zeros(VAIN_BYTES // 4, np.float32), delta=True),
}


@pytest.mark.parametrize("why", VAIN)
def test_grpc_large_tensors_that_are_none(federation, why):
    hand = hands.Grpc(federation, ZETA)
    hand.tasks()
    with refused(*NOT_READABLE):
        hand.send("train", VAIN[why](), data_size=3)


@pytest.mark.parametrize("why", VAIN)
def test_http_large_tensors_that_are_none(served, why):
    hand = hands.Rest(served, ZETA)
    hand.tasks()
    body = hands.framed(hand.results("train", [VAIN[why]()], round_number=0, data_size=3))
    assert hand.post(body).status_code == 400


@pytest.mark.parametrize(
    "kind", [hands.Rest, pytest.param(hands.Rest2, marks=pytest.mark.ours_alone("an upload comes over HTTP/2"))]
)
def test_http_large_uploads_with_headers_of_another_federation(served, kind):
    hand = kind(served, ZETA)
    for wrong in ({"Receiver": "other"}, {"Federation-UUID": "other"}, {"Sender": COL1}):
        assert hand.post(bytes(VAIN_BYTES), wrong).status_code in (400, 401), wrong


def test_grpc_relay_without_a_connector(federation):
    hand = hands.Grpc(federation, ZETA)
    with refused(Code.UNIMPLEMENTED):
        hand.stub.InteropRelay(aggregator_pb2.InteropMessage(header=hand.header), timeout=hands.CALL_S)


@pytest.mark.seldom
def test_grpc_a_tensor_that_is_not_there(federation):
    with refused(*NOT_READABLE, Code.NOT_FOUND):
        hands.Grpc(federation, ZETA).tensor("not of the model", "model")


def test_grpc_without_client_certificates_goes_by_the_header(world, pki):
    federation = began(world, pki, security="tls")
    with refused(Code.UNAUTHENTICATED):
        hands.Grpc(federation, "nobody", certificate="").ping()
    assert hands.Grpc(federation, COL1, certificate="").ping().header.receiver == COL1


def test_grpc_with_one_certificate_for_all(world, pki):
    federation = began(world, pki, aggregator={"single_col_cert_common_name": COL1})
    assert hands.Grpc(federation, ZETA, certificate=COL1, common_name=COL1).ping().header.single_col_cert_common_name == COL1
    with refused(Code.UNAUTHENTICATED):
        hands.Grpc(federation, ZETA, common_name=COL1).ping()
    with refused(Code.UNAUTHENTICATED):
        hands.Grpc(federation, ZETA, certificate=COL1, sender="nobody", common_name=COL1).ping()
    with refused(*NOT_OURS):
        hands.Grpc(federation, ZETA, certificate=COL1).ping()


# HTTP.


@pytest.mark.ours_alone("a client certificate is asked for over HTTP too")
def test_http_without_a_certificate_of_the_federation(served, pki, tmp_path):
    own = stranger(ZETA, tmp_path / "stranger")
    (own / "cert_chain.crt").write_bytes((pki / "cert_chain.crt").read_bytes())
    for pki_of, certificate in ((pki, ""), (own, ZETA)):
        hand = hands.Rest(served, ZETA)
        hand.credentials = hands.Credentials(pki_of, certificate)
        with pytest.raises(requests.exceptions.ConnectionError):
            hand.ping()


@pytest.mark.ours_alone("headers over HTTP are held against the certificate")
def test_http_with_somebody_elses_certificate(served):
    hand = hands.Rest(served, COL1, certificate=ZETA)
    assert hand.ping().status_code == 401
    assert hand.call("GET", "/tasks", params=hand.params).status_code == 401
    assert hand.get_tensor("square", "model").status_code == 401
    body = hands.framed(hand.results("train", [metric("loss", 1.0)], round_number=0, data_size=3))
    assert hand.post(body).status_code in (400, 401)


def test_http_with_headers_of_another_federation(served):
    hand = hands.Rest(served, ZETA)
    for wrong in ({"collaborator_id": "nobody"}, {"federation_uuid": "other"}, {"collaborator_id": COL1}):
        for path in ("/ping", "/tasks"):
            params = {key: value for key, value in (hand.params | wrong).items() if value}
            assert hand.call("GET", path, params=params).status_code == 401, (path, wrong)
        assert hand.get_tensor("square", "model", **wrong).status_code == 401, wrong
    assert hand.call("GET", "/tasks").status_code == 401
    body = hands.framed(hand.results("train", [metric("loss", 1.0)], round_number=0, data_size=3))
    for wrong in ({"Sender": "nobody"}, {"Sender": ""}, {"Receiver": "other"}, {"Federation-UUID": "other"}):
        assert hand.post(body, wrong).status_code in (400, 401), wrong


def test_http_bodies_that_are_none(served):
    hand = hands.Rest(served, ZETA)
    good = hands.framed(hand.results("train", [metric("loss", 1.0)], round_number=9, data_size=3))
    message = good[4:-4]
    bad = {
        "nothing": b"",
        "half a length": b"\x00\x00",
        "no end": good[:-4],
        "an end that is none": good[:-4] + struct.pack(">I", 2) + b"\x08\x00",
        "more than announced": good + b"more",
        "less than announced": struct.pack(">I", len(message) + 1) + message + struct.pack(">I", 0),
        "far less than announced": struct.pack(">I", 2**32 - 1) + message + struct.pack(">I", 0),
        "no message": struct.pack(">I", 3) + b"\xff\xff\xff" + struct.pack(">I", 0),
        "no results": hands.body_of(b"\xff\xff\xff"),
    }
    for name, body in bad.items():
        assert hand.post(body).status_code == 400, name
    assert hand.post(good).status_code == 200


def test_http_tensors_that_are_none(served):
    hand = hands.Rest(served, ZETA)
    hand.tasks()
    for name, tensor in UNREADABLE.items():
        body = hands.framed(hand.results("train", [tensor], round_number=0, data_size=3))
        assert hand.post(body).status_code == 400, name


def test_http_questions_that_are_none(served):
    hand = hands.Rest(served, ZETA)
    assert hand.get_tensor("square", "model", round_number="a").status_code == 400
    assert hand.call("GET", "/nothing").status_code == 404
    assert hand.call("GET", "/tasks/results").status_code == 405
    assert hand.call("POST", "/tasks").status_code == 405
    assert hand.call("POST", "/interop/relay", data=b"{}").status_code == 501
    answer = hand.ping()
    assert answer.json()["header"] == {"sender": hand.aggregator, "receiver": ZETA, "federationUuid": hand.federation}
    for name, value in {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}.items():
        assert answer.headers[name] == value


def test_http_over_tls_of_1_3_only(served):
    context = ssl.create_default_context(cafile=str(served.pki / "cert_chain.crt"))
    context.load_cert_chain(*map(str, hands.Credentials(served.pki, ZETA).pair))
    connect = lambda: context.wrap_socket(  # noqa: E731
        socket.create_connection((harness.HOST, served.server.port), timeout=20), server_hostname=harness.HOST
    )
    with connect() as connection:
        assert connection.version() == "TLSv1.3"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError), connect():
        pass
