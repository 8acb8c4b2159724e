"""Starts aggregators and stock collaborators, each in a workspace and a process group of its own, and ends them again.

The aggregator is the stock one or ours: SHEAF_OPENFL_SERVER is `stock`, or the path of `sheaf` or of a link to it that is named
fx. Workspaces are made with the stock package: the plan as it dumps it, the first model as it saves it, the certificates that
it signs. A collaborator sees nothing of the aggregator's workspace.
"""

import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import numpy as np
import yaml
from openfl.federated.plan import Plan
from openfl.interface.cli_helper import WORKSPACE
from openfl.pipelines import NoCompressionPipeline
from openfl.protocols import base_pb2, utils
from openfl.utilities.split import split_tensor_dict_for_holdouts
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE / "workspace"
sys.path[:0] = [str(HERE.parent), str(SOURCE)]

import processes  # noqa: E402
from processes import DEADLINE_S, free_ports, wait_for  # noqa: E402, F401
from src import models  # noqa: E402

BIN = pathlib.Path(sys.executable).parent
SERVER = os.environ.get("SHEAF_OPENFL_SERVER", "stock")
STOCK = SERVER == "stock"
# The name of the aggregator in its certificate and in every plan.
HOST = "localhost"
# Sorted in one order, authorised in another: the first name comes after every tag of the protocol.
NAMES = ("zeta", "col1", "col2")
SECURITY = {
    "mtls": {"use_tls": True, "require_client_auth": True},
    "tls": {"use_tls": True, "require_client_auth": False},
    "plain": {"use_tls": False, "require_client_auth": False},
}


def environment(directory, **more):
    """All that a process gets."""
    return processes.environment(BIN, directory, **more)


class World(processes.World):
    """Also knows which stock peers came to its aggregators, and how."""

    def __init__(self, directory):
        super().__init__(directory)
        self.peers = set()

    def came(self, peer, transport, tls):
        version = importlib.metadata.version("openfl")
        self.peers.add(f"openfl {version}, {peer}, {transport} {'over TLS' if tls else 'in clear'}")


class Program(processes.Program):
    """A process with its log. `name` is unique in its world and names the log."""

    def environment(self):
        return environment(self.home, **self.environ)


# Plans.

TASKS = {
    "aggregated_model_validation": {"function": "validate_task", "kwargs": {"apply": "global", "metrics": ["acc"]}},
    "train": {"function": "train_task", "kwargs": {"metrics": ["loss"], "epochs": 1}},
    "locally_tuned_model_validation": {"function": "validate_task", "kwargs": {"apply": "local", "metrics": ["acc"]}},
}
AUDIT = {"audit": {"function": "audit_task", "kwargs": {}}}


def plan(
    port,
    *,
    transport="grpc",
    security="mtls",
    rounds=3,
    deltas=True,
    aggregator_deltas=None,
    opt_treatment="RESET",
    pipeline=("NoCompressionPipeline", {}),
    assigner=None,
    aggregation=None,
    audit=False,
    straggler=None,
    aggregator=(),
    network=(),
    runner=(),
):
    """A plan as its author writes it: what it does not say comes from the package's defaults.

    `assigner` is a whole section, `straggler` and `aggregation` are (class, settings), `aggregator`, `network` and `runner` more
    settings of theirs."""
    by_default = lambda section, settings: {"defaults": f"plan/defaults/{section}.yaml", "settings": settings}  # noqa: E731
    tasks = json.loads(json.dumps(TASKS | (AUDIT if audit else {})))
    if aggregation:
        tasks["train"]["aggregation_type"] = {
            "template": f"openfl.interface.aggregation_functions.{aggregation[0]}",
            "settings": aggregation[1],
        }
    config = {
        "aggregator": by_default(
            "aggregator",
            {
                "rounds_to_train": rounds,
                "use_delta_updates": deltas if aggregator_deltas is None else aggregator_deltas,
                "write_logs": True,
                **dict(aggregator),
            },
        ),
        "collaborator": by_default(
            "collaborator", {"opt_treatment": opt_treatment, "use_delta_updates": deltas, "write_logs": True}
        ),
        "data_loader": {"template": "src.dataloader.ShardLoader", "settings": {}},
        "task_runner": {"template": "src.runner.JudgedRunner", "settings": dict(runner)},
        "network": by_default(
            "network",
            {
                "agg_addr": HOST,
                "agg_port": port,
                "transport_protocol": transport,
                "client_reconnect_interval": 1,
                **SECURITY[security],
                **dict(network),
            },
        ),
        "assigner": assigner or by_default("assigner", {}),
        "tasks": tasks,
        "compression_pipeline": {"template": f"openfl.pipelines.{pipeline[0]}", "settings": pipeline[1]},
    }
    if audit and not assigner:
        config["assigner"] = groups("RandomGroupedAssigner", learning=([*TASKS, *AUDIT], None))
    if straggler:
        config["straggler_handling_policy"] = {
            "template": f"openfl.component.aggregator.straggler_handling.{straggler[0]}",
            "settings": straggler[1],
        }
    return config


def printed():
    """The plan that OpenFL's documentation prints: its network is all defaults, so its port follows from the plan itself."""
    return yaml.safe_load((HERE / "printed.yaml").read_text())


def groups(kind, **named):
    """An assigner's section; each group is (tasks, collaborators), or without collaborators all of them."""
    made = []
    for name, (tasks, collaborators) in named.items():
        group = {"name": name, "percentage": 1.0 / len(named), "tasks": list(tasks)}
        made.append(group | ({"collaborators": list(collaborators)} if collaborators else {}))
    return {"template": f"openfl.component.{kind}", "settings": {"task_groups": made}}


# Workspaces.


def make_pki(directory, names=NAMES):
    """The keys and certificates of an aggregator and of collaborators."""
    directory.mkdir(parents=True)
    subprocess.run(
        [sys.executable, HERE / "pki.py", *names],
        cwd=directory,
        env=environment(directory),
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=DEADLINE_S,
    )
    return directory / "cert"


def make_workspace(directory, config, names, *, first_round=0, arrays=None):
    """What `fx workspace create` and `fx plan initialize` leave, without certificates. The first model is that of the runner's
    settings where `arrays` are not given."""
    for folder in ("plan", "save", "logs", "local_state", "data"):
        (directory / folder).mkdir(parents=True)
    shutil.copytree(SOURCE / "src", directory / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(WORKSPACE / "workspace" / ".workspace", directory)
    (directory / "requirements.txt").touch()
    file = directory / "plan" / "plan.yaml"
    Plan.dump(file, config)
    (directory / "plan" / "cols.yaml").write_text("collaborators:\n" + "".join(f"- {name}\n" for name in names))
    shards = [f"{name},{shard}\n" for shard, name in enumerate(names, 1)]
    (directory / "plan" / "data.yaml").write_text("".join(shards))
    parsed = Plan.parse(file, resolve=False)
    # As `fx plan initialize -a localhost` writes it back.
    parsed.config["network"]["settings"]["agg_addr"] = HOST
    Plan.dump(file, parsed.config)
    settings = {"model": "mixed", "large_elements": 600_000, "seed": 7} | config["task_runner"]["settings"]
    arrays = arrays or models.first(settings["model"], settings["large_elements"], settings["seed"])
    sent, _ = split_tensor_dict_for_holdouts(arrays)
    parsed.save_model_to_state_file(sent, first_round, directory / "save" / "init.pbuf")


def port_of(directory):
    """The port that a workspace's plan names or comes to."""
    return Plan.parse(directory / "plan" / "plan.yaml").config["network"]["settings"]["agg_port"]


def identity(directory):
    """The names by which a plan's aggregator and federation know each other."""
    parsed = Plan.parse(directory / "plan" / "plan.yaml")
    return parsed.aggregator_uuid, parsed.federation_uuid


class Server(Program):
    """An aggregator in its workspace."""

    def __init__(self, world, port, *, task_group=None, name="aggregator", server=None, **environ):
        self.port = port
        server = server or SERVER
        if server == "stock":
            command = [BIN / "fx", "aggregator", "start"]
        else:
            program = pathlib.Path(server).absolute()
            command = [program, *(["aggregator"] if program.name == "fx" else ["openfl"]), "start"]
        command += ["-p", "plan/plan.yaml", "-c", "plan/cols.yaml"]
        command += ["--task_group", task_group] if task_group else []
        # The stock one writes event files only when it is told so.
        super().__init__(world, name, command, TENSORBOARD="1", **environ)

    @property
    def address(self):
        return f"{HOST}:{self.port}"

    def start(self):
        super().start()
        return self.wait_listening()

    def listening(self):
        try:
            with socket.create_connection((HOST, self.port), timeout=5):
                return True
        except OSError:
            return False

    def wait_listening(self):
        def up():
            if not self.alive():
                raise RuntimeError(f"the aggregator ended with {self.process.returncode}\n{self.text()[-3000:]}")
            return self.listening()

        wait_for("the aggregator's port", up)
        return self

    def peak_bytes(self):
        """The most memory that it had at once so far."""
        (said,) = re.findall(r"^VmHWM:\s+(\d+) kB$", pathlib.Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        return 1024 * int(said)

    def end(self, deadline_s=None):
        """Waits until it ends by itself; gives the exit code."""
        wait_for("the aggregator's end", lambda: not self.alive(), deadline_s or 2 * DEADLINE_S)
        return self.process.returncode


class Collaborator(Program):
    """A stock collaborator in its workspace. `proxy` is the port of a forwarding proxy that it is to use."""

    def __init__(self, world, name, *, proxy=None, **environ):
        url = f"http://127.0.0.1:{proxy}"
        environ |= {key: url for key in ("grpc_proxy", "https_proxy", "http_proxy")} if proxy else {}
        super().__init__(world, name, [BIN / "fx", "collaborator", "start", "-n", name], **environ)

    def end(self, deadline_s=None):
        wait_for(f"the end of {self.name}", lambda: not self.alive(), deadline_s or 2 * DEADLINE_S)
        return self.process.returncode

    def waits(self):
        """Whether it stalls in its training."""
        return (self.home / "waits").exists()

    def go(self):
        """Lets a collaborator that stalls go on."""
        (self.home / "go").touch()


class Federation:
    """An aggregator and its collaborators, in workspaces made from one plan; nothing is started yet. `config` is a whole plan, and
    `environ` what each process gets."""

    def __init__(self, world, pki, config=None, *, count=2, first_round=0, task_group=None, server=None, environ=(), **parameters):
        (port,) = free_ports(1)
        self.environ = dict(environ)
        self.world, self.names, self.pki = world, NAMES[:count], pki
        self.config = config or plan(port, **parameters)
        self.server = Server(world, port, task_group=task_group, server=server, **self.environ)
        make_workspace(self.server.home, self.config, self.names, first_round=first_round)
        self.server.port = port_of(self.server.home)
        self.collaborators = {}
        for name in self.names:
            home = world.directory / name
            shutil.copytree(self.server.home, home)
            for folder in ("save", "local_state"):
                shutil.rmtree(home / folder)
            copy_certificates(pki, home, ("client", f"col_{name}"))
        copy_certificates(pki, self.server.home, ("server", f"agg_{HOST}"))

    def collaborator(self, name, **options):
        network = self.config["network"].get("settings", {})
        self.world.came("`fx collaborator start`", network.get("transport_protocol", "grpc"), network.get("use_tls", True))
        self.collaborators[name] = Collaborator(self.world, name, **self.environ, **options)
        return self.collaborators[name]

    def start(self, late=()):
        """Starts them all; those that are to be late first, so that they wait in the first round."""
        # A port that follows from the plan may be that of another run.
        wait_for("the plan's port", lambda: not self.server.listening())
        self.server.start()
        for name in late:
            wait_for(f"{name} in its training", self.collaborator(name).start().waits)
        for name in self.names:
            if name not in late:
                self.collaborator(name).start()

    def end(self):
        """Waits until all ended by themselves, and well."""
        for name, collaborator in self.collaborators.items():
            assert collaborator.end() == 0, f"collaborator {name} ended with {collaborator.process.returncode}"
        assert self.server.end() == 0, f"the aggregator ended with {self.server.process.returncode}"

    def saved(self, which):
        """The bytes of save/<which>.pbuf; none when there is no such file."""
        file = self.server.home / "save" / f"{which}.pbuf"
        return file.read_bytes() if file.exists() else None

    def metrics(self):
        return metrics(self.server.home, "aggregator")


def copy_certificates(pki, home, pair):
    """What one participant has: the chain, its certificate and its key; nothing where there are none."""
    if pki is None:
        return
    folder, stem = pair
    (home / "cert" / folder).mkdir(parents=True)
    shutil.copy(pki / "cert_chain.crt", home / "cert")
    for suffix in ("crt", "key"):
        shutil.copy(pki / folder / f"{stem}.{suffix}", home / "cert" / folder)


# Results.

# Of one machine and one day.
TIMES = ("elapsed_seconds",)


def written(directory, origin):
    """What a participant wrote down of each round."""
    file = directory / "logs" / f"{origin}_metrics.txt"
    # Without a line that is being written.
    whole = file.read_text().rpartition("\n")[0] if file.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def metrics(directory, origin):
    """The same without times, in the order of rounds."""
    rounds = [{key: value for key, value in line.items() if key not in TIMES} for line in written(directory, origin)]
    return sorted(rounds, key=lambda line: line["round_number"])


def board(directory, origin):
    """The scalars of a participant's event files, as TensorBoard's own messages and checksums say: (tag, step) to value."""
    found = {}
    for file in sorted((directory / "logs" / f"{origin}_tensorboard").iterdir()):
        content = file.read_bytes()
        while content:
            end = 12 + int.from_bytes(content[:8], "little")
            record = content[12:end]
            for checked, checksum in ((content[:8], content[8:12]), (record, content[end : end + 4])):
                assert int.from_bytes(checksum, "little") == masked_crc32c(checked)
            content = content[end + 4 :]
            event = Event.FromString(record)
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return found


def arrays_of(model, pipeline=None):
    """The round and the arrays by name, in their order, of a model file's bytes."""
    arrays, number = utils.deconstruct_model_proto(base_pb2.ModelProto.FromString(model), pipeline or NoCompressionPipeline())
    return number, {name: np.asarray(array) for name, array in arrays.items()}


def final(federation):
    """The arrays by name of the model that all rounds came to: ours writes it beside the last one, as safetensors of float32."""
    content = (federation.server.home / "save" / "last.final.safetensors").read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    arrays = {}
    for name, entry in json.loads(content[8:begin]).items():
        if name != "__metadata__":
            assert entry["dtype"] == "F32", name
            start, end = (begin + offset for offset in entry["data_offsets"])
            arrays[name] = np.frombuffer(content[start:end], "<f4").reshape(entry["shape"])
    return arrays


def pipeline_of(config):
    section = config["compression_pipeline"]
    return Plan.build(section["template"], dict(section["settings"]))
