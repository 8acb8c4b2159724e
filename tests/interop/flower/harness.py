"""Starts servers and stock peers, each in a directory and a process group of its own, and ends them again.

The server is the stock SuperLink or ours: SHEAF_FLOWER_SERVER is `stock`, or the path of `sheaf` or of a link to it that is
named flower-superlink.
"""

import ctypes
import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import certs
import wire

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import processes  # noqa: E402
from processes import DEADLINE_S, free_ports, wait_for  # noqa: E402

APP = HERE / "app"
BIN = pathlib.Path(sys.executable).parent
OLD_BIN = BIN.parent.with_name(BIN.parent.name + "-1.39") / "bin"
SERVER = os.environ.get("SHEAF_FLOWER_SERVER", "stock")
STOCK = SERVER == "stock"


def has_landlock():
    """Whether the kernel offers what keeps a ServerApp from reading what its server may."""
    create_ruleset, ask_version = 444, 1
    return ctypes.CDLL(None, use_errno=True).syscall(create_ruleset, None, 0, ask_version) > 0


def has_ipv6():
    """Whether this machine can listen on its own IPv6 address."""
    try:
        with socket.socket(socket.AF_INET6) as each:
            each.bind(("::1", 0))
    except OSError:
        return False
    return True


def environment(directory, **more):
    """All that a process gets: nothing that would be reported to anybody."""
    return processes.environment(
        BIN,
        directory,
        **{
            "FLWR_HOME": str(directory / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            **more,
        },
    )


class Program(processes.Program):
    """A process with its log. `name` is unique in its world and names the log."""

    def environment(self):
        return environment(self.home, **self.environ)


class World(processes.World):
    """The processes of one test."""

    # The looks at a run that tests themselves take.
    uninteresting = re.compile("list-runs|ListRuns|list-nodes|ListNodes")


class Server(Program):
    """A SuperLink. `ca` is the path of its authority under TLS; `address` serves HTTP, `grpc_address` the Fleet over gRPC.

    Ours always has its database; the stock one has it where a test needs it, with `durable`.
    """

    def __init__(
        self,
        world,
        *,
        authority=None,
        auth=False,
        isolation="subprocess",
        grpc=False,
        durable=False,
        server=None,
        host="127.0.0.1",
        options=(),
    ):
        port, grpc_port, control_port = free_ports(3)
        self.port, self.authority, self.auth = port, authority, auth
        self.address, self.grpc_address = f"127.0.0.1:{port}", f"127.0.0.1:{grpc_port}"
        self.ca = authority.ca if authority else None
        server = server or SERVER
        self.stock = server == "stock"
        program = [BIN / "flower-superlink"] if self.stock else [pathlib.Path(server).absolute()]
        if not self.stock and pathlib.Path(server).name != "flower-superlink":
            program.append("superlink")
        command = [*program, "--host", host, "--port", port, "--isolation", isolation]
        command += ["--fleet-api-address", self.grpc_address, "--control-api-address", f"127.0.0.1:{control_port}"]
        command += ["--disable-runtime-dependency-installation", *options]
        command += [] if self.stock or has_landlock() else ["--server-apps-unwalled"]
        command += ["--database", world.directory / "state.db"] if durable or not self.stock else []
        command += tls_of_server(authority) if authority else ["--insecure"]
        command += ["--enable-supernode-auth"] if auth else []
        environ = {"FLWR_INTERNAL_GRPC_FLEET_API": "1"} if grpc and self.stock else {}
        super().__init__(world, "superlink", command, **environ)

    def start(self):
        super().start()
        return self.wait_healthy()

    def wait_healthy(self):
        def up():
            if not self.alive():
                raise RuntimeError(f"the server ended with {self.process.returncode}\n{self.text()[-3000:]}")
            return wire.healthy(self)

        wait_for("the server's health", up)
        return self

    def end(self, run_id, deadline_s=None, look_every_s=0.5):
        """Waits until a run is finished; gives its status and sub-status, such as finished:completed."""

        def finished():
            run = wire.run_of(self, run_id)
            return run if run is not None and run.status.status == "finished" else None

        # Seldom: each look is a call like a node's.
        run = wait_for(f"the end of run {run_id}", finished, deadline_s or 2 * DEADLINE_S, look_every_s)
        return f"{run.status.status}:{run.status.sub_status}"

    def online(self):
        return [node for node, status in wire.nodes_of(self).items() if status == "online"]

    def wait_nodes(self, count):
        return wait_for(f"{count} nodes online", lambda: len(found := self.online()) == count and found)


def sheaf(server, *arguments, check=True):
    """The operator's command beside the server."""
    database = server.world.directory / "state.db"
    done = subprocess.run(
        [SERVER, "--json", "--operator", database / "operator", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    if check and done.returncode != 0:
        raise RuntimeError(f"sheaf {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def tls_of_server(authority):
    files = {"ca-cert": authority.ca, "cert": authority.certificate, "key": authority.key}
    return [part for name, path in files.items() for part in (f"--ssl-{name}file", path)]


class SuperNode(Program):
    """A stock SuperNode with a partition of its own. `via` is an address in place of the server's."""

    def __init__(self, world, server, partition, *, key=None, via=None, old=False, name=None, options=()):
        (port,) = free_ports(1)
        address = via or (server.grpc_address if old else server.address)
        program = (OLD_BIN if old else BIN) / "flower-supernode"
        command = [program, "--superlink", address, "--port", port]
        command += ["--node-config", f"partition-id={partition}"]
        command += ["--root-certificates", server.ca] if server.ca else ["--insecure"]
        command += ["--auth-supernode-private-key", key] if key else []
        # The old one starts its own release's programs.
        environ = {"PATH": f"{OLD_BIN}:{os.environ['PATH']}"} if old else {}
        super().__init__(world, name or f"supernode-{partition}", [*command, *options], **environ)


class SuperExec(Program):
    """The process that starts ServerApps for a server with `isolation="process"`, apart from the server."""

    def __init__(self, world, server, *, via=None):
        command = [BIN / "flower-superexec", "--runtime-api-address", via or server.address]
        command += ["--root-certificates", server.ca] if server.ca else ["--insecure"]
        super().__init__(world, "superexec", command)


class Cli:
    """The stock `flwr` command, connected to one server."""

    def __init__(self, world, server, name="cli", *, old=False):
        self.world, self.name, self.flwr = world, name, (OLD_BIN if old else BIN) / "flwr"
        self.home = world.directory / name
        (self.home / "flwr").mkdir(parents=True)
        trust = f'root-certificates = "{server.ca}"' if server.ca else "insecure = true"
        config = f'[superlink]\ndefault = "it"\n\n[superlink.it]\naddress = "{server.address}"\n{trust}\n'
        (self.home / "flwr" / "config.toml").write_text(config)

    def __call__(self, *arguments, check=True, timeout_s=None):
        """Runs it to its end; gives what it printed on standard output."""
        done = self.run(*arguments, timeout_s=timeout_s)
        if check and done.returncode != 0:
            raise RuntimeError(f"flwr {arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def run(self, *arguments, timeout_s=None):
        return subprocess.run(
            [self.flwr, *map(str, arguments)],
            cwd=self.home,
            env=environment(self.home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s or 2 * DEADLINE_S,
        )

    def json(self, *arguments):
        return json.loads(self(*arguments, "--format", "json"))

    def program(self, name, *arguments):
        """The command as a process that goes on beside the test."""
        program = Program(self.world, name, [self.flwr, *arguments])
        program.home = self.home
        return program

    def submit(self, **config):
        """Starts a run of the tests' app; gives its id."""
        return int(self.json("run", APP, "it", "--run-config", run_config(**config))["run-id"])

    def result(self, run_id):
        """What the ServerApp printed as its result, from the server's log of the run."""
        return result_in(self("log", run_id, "it", "--show"))


def run_config(**config):
    """The --run-config of `key_s=1.0` and so on, underscores standing for hyphens."""
    return " ".join(f"{name.replace('_', '-')}={json.dumps(value)}" for name, value in config.items())


def result_in(log):
    lines = [line for line in log.splitlines() if "RESULT {" in line]
    if len(lines) != 1:
        raise AssertionError(f"{len(lines)} results in the log:\n{log[-4000:]}")
    return json.loads(lines[0].partition("RESULT ")[2])


def federation(world, count, *, tls=False, auth=False, server=None, **options):
    """A server with `count` stock nodes online, partitions 0 and on; gives the server, the nodes and the command."""
    authority = certs.Authority(world.directory / "tls") if tls else None
    server = Server(world, authority=authority, auth=auth, server=server, **options).start()
    cli = Cli(world, server)
    keys = [None] * count
    if auth:
        pairs = [certs.node_key(world.directory / f"node-{idx}") for idx in range(count)]
        for _, public in pairs:
            cli("supernode", "register", public, "it")
        keys = [private for private, _ in pairs]
    nodes = [SuperNode(world, server, idx, key=key).start() for idx, key in enumerate(keys)]
    server.wait_nodes(count)
    return server, nodes, cli
