"""Stock collaborators that reach the aggregator through a proxy. Over HTTP it keeps each call whole, and passes it on in chunks of
its own.
"""

import pytest

import cells
import proxy
import runs

ROUTES = [("rest", "plain"), ("rest", "mtls"), ("rest", "tls"), ("grpc", "mtls"), ("grpc", "plain")]
ALWAYS = [("rest", "mtls")]


def cases():
    for transport, security in ROUTES:
        marks = [] if (transport, security) in ALWAYS else [pytest.mark.seldom]
        yield pytest.param(transport, security, id=f"{transport}-{security}", marks=marks)


@pytest.mark.parametrize("transport, security", cases())
def test_federation_through_a_proxy_ends_as_without_one(world, pki, transport, security):
    federation = cells.federation(world, pki, "plain", transport=transport, security=security)
    proxies = {name: proxy.Proxy(federation, name) for name in federation.names}
    federation.server.start()
    for name, each in proxies.items():
        federation.collaborator(name, proxy=each.port).start()
    federation.end()
    runs.assert_equal(runs.outcome(federation), "plain")
    for each in proxies.values():
        assert each.calls.count("GetTasks") >= 4 and each.calls.count("SendLocalTaskResults") == 9
