"""Writes the goldens of crates/wire-openfl with the stock package: tensors as each pipeline encodes them, and what stock decodes; who the
federation of each plan is, and what stock dumps; model files. Also writes golden.json, what stock federations end with.

    .venv-openfl/bin/python tests/interop/openfl/golden.py tensors | plans | models | runs [LESSON…]

For each pipeline `NAME.pbuf` holds what stock encodes and `NAME.decoded.pbuf` what stock decodes from it, through the messages of
the wire. The numbers are drawn anew by stock at each run (its k-means, shifts and rotations have no seed), so the files change
when this runs again.
"""

import json
import os
import pathlib
import random
import sys
import tempfile
import textwrap
import warnings

import torch_stand_in  # before openfl looks for torch
import numpy as np
import openfl
import yaml
from openfl import pipelines

torch_stand_in.leave()
from openfl.federated.plan import Plan  # noqa: E402
from openfl.interface.cli_helper import WORKSPACE  # noqa: E402
from openfl.protocols import aggregator_pb2, base_pb2, utils  # noqa: E402
from openfl.utilities import TensorKey  # noqa: E402

HERE = pathlib.Path(__file__).parent
warnings.filterwarnings("ignore", module="sklearn")
OUT = HERE / "../../../crates/wire-openfl/testdata/openfl-1.9"

PIPELINES = {
    "no_compression": pipelines.NoCompressionPipeline(),
    "random_shift": pipelines.RandomShiftPipeline(),
    "stc": pipelines.STCPipeline(),
    "stc_half": pipelines.STCPipeline(p_sparsity=0.5),
    "skc": pipelines.SKCPipeline(),
    "kc": pipelines.KCPipeline(n_clusters=6),
    "eden_1": pipelines.EdenPipeline(n_bits=1),
    "eden_4": pipelines.EdenPipeline(n_bits=4),
    "eden_8": pipelines.EdenPipeline(n_bits=8),
}


def tensors():
    """Of many shapes: scalars, fewer elements than clusters, constants, negatives only, values that are themselves codes,
    padded and split rotations."""
    rng = np.random.default_rng(7)
    made = {
        "scalar": np.array(0.75, np.float32),
        "few": rng.normal(size=3).astype(np.float32),
        "zeros": np.zeros((4, 5), np.float32),
        "constant": np.full((3, 3), -2.5, np.float32),
        "below": -np.abs(rng.normal(size=(6, 4))).astype(np.float32),
        "codes": np.tile(np.arange(1, 6, dtype=np.float32), 8).reshape(5, 8),
        "matrix": rng.normal(size=(9, 11)).astype(np.float32),
        "at_threshold": rng.normal(size=100).astype(np.float32),
        "conv": (0.1 * rng.normal(size=(4, 3, 3, 3))).astype(np.float32),
        "split": rng.normal(size=(3, 97)).astype(np.float32),
        "large": rng.normal(size=(40, 26)).astype(np.float32),
    }
    return made


def entries(metadata):
    return [base_pb2.MetadataProto(**{key: value for key, value in entry.items()}) for entry in metadata]


def read(tensor):
    """The metadata as the aggregator reads it from a message."""
    return [
        {"int_to_float": entry.int_to_float, "int_list": entry.int_list, "bool_list": entry.bool_list}
        for entry in tensor.transformer_metadata
    ]


def named(name, pipeline, array, tags):
    data, metadata = pipeline.forward(array)
    key = TensorKey(name, "col1", 3, False, tags)
    return utils.construct_named_tensor(key, data, metadata, lossless=not pipeline.is_lossy())


def write(path, message):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(message.SerializeToString())
    print(path.name, len(message.SerializeToString()))


def write_tensors():
    raw = pipelines.NoCompressionPipeline()
    for name, pipeline in PIPELINES.items():
        tag = "lossy_compressed" if pipeline.is_lossy() else "compressed"
        encoded, decoded = [], []
        for tensor, array in tensors().items():
            # Of a tensor of exactly as many elements as the threshold there is no golden.
            if name.startswith("eden") and tensor == "at_threshold":
                continue
            made = named(tensor, pipeline, array, ("delta", tag, "trained"))
            again = base_pb2.NamedTensor.FromString(made.SerializeToString())
            encoded.append(made)
            # float64 where a shift was taken away; everything is float32 as soon as it is sent or saved.
            array = pipeline.backward(again.data_bytes, read(again)).astype(np.float32)
            decoded.append(named(tensor, raw, array, ("delta", "trained")))
        write(OUT / f"{name}.pbuf", base_pb2.ModelProto(tensors=encoded))
        write(OUT / f"{name}.decoded.pbuf", base_pb2.ModelProto(tensors=decoded))
    write(OUT / "inputs.pbuf", base_pb2.ModelProto(tensors=[named(n, raw, a, ("model",)) for n, a in tensors().items()]))
    write_results()


def write_results():
    """One task's results as a collaborator serialises them."""
    header = aggregator_pb2.MessageHeader(
        sender="col1", receiver="aggregator_plan.yaml_01234567", federation_uuid="plan.yaml_01234567"
    )
    sent = [named(name, PIPELINES["skc"], array, ("delta", "lossy_compressed", "trained")) for name, array in tensors().items()]
    loss = named("loss", PIPELINES["no_compression"], np.array(0.5), ("compressed", "metric"))
    loss.report = True
    results = aggregator_pb2.TaskResults(
        header=header, round_number=3, task_name="train", data_size=320, tensors=[loss, *sent]
    )
    write(OUT / "results.bin", results)


ODD = """
base: &b {x: 1, y: [1, 2.5, yes]}
again: *b
merged: {<<: *b, y: off}
list: &l
- [a, [b, c], {d: e}]
- {z: {}, y: [], x: ~}
- - - deep
twice: [*l, *l]
numbers: [0, 017, 0x1f, 0b11, 1_000, 1:30, 1:30.5, 1., .5, 1e-5, 1.0e-5, 1.5e+300, 1.0e+16, 123456789012345678, 0.0001, 0.00001, -0.0, .inf, -.inf, .nan]
texts: ["", " ", "a ", " a", "~", "null", "yes", "1", "1.0", "0x1f", "1:30", "=", "<<", "2001-12-14", "a: b", "a:b", "a #b", "a#b", "- a", "-a", "? a", "?a", "---", "...x", "it's", 'say "so"', "a\\nb", "a\\n\\n b", "a \\nb", "tab\\there", "\\u00e9", "\\u2028", "[a]", "a[b]", "{a", "a,b", "%a", "@a", "`a", "&a", "*a", "!a", "|a", ">a", "#a", "a:", ":a", ": a", "'a", "a\\\\b"]
3: number
true: truth
1.5: both
long: a text that is so long that it has to be broken at a space somewhere beyond the eightieth column, and then once more because it does not end
quoted: "it's: a text that is so long that it has to be broken at a space somewhere beyond the eightieth column,   and then once more"
escaped: "caf\\u00e9 that is so long that it has to be broken at a space somewhere beyond the eightieth column, and then once more \\u00e9\\u00e9"
word: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbb c
"""
ALPHABET = list("ab1: -#'\"[]{},&*!|>%@`?.~=\\ \n\t") + ["\u00e9", "\u2028", "\x85", "\x07", "\U0001f600", "\ufeff", "null", "yes", "1.5", "   ", "word "]


def odd_documents():
    """Texts of awkward characters in nested containers, by a fixed seed."""
    rng = random.Random(5)
    text = lambda: "".join(rng.choice(ALPHABET) for _ in range(rng.choice([1, 2, 3, 5, 9, 60, 120])))  # noqa: E731
    documents = [ODD, "a: &x [1]\nb: {c: &y [2], d: *y}\ne: [*y, *x]\n", "{}\n", "a: {1: x, b: y}\n"]
    for _ in range(60):
        key = lambda: rng.choice(["k", "key", "a b", "x-y", "3", "it's"]) + str(rng.randrange(1000))  # noqa: E731
        made = {key(): text(), key(): [text(), {key(): text(), key(): [text(), [text()]]}], key(): {key(): {key(): text()}}}
        documents.append(yaml.dump(made, default_style='"', sort_keys=False))
    return documents


def stock_plans():
    root = pathlib.Path(openfl.__file__).parent.parent / "openfl-workspace"
    for path in sorted(root.rglob("plan.yaml")):
        yield str(path.relative_to(root).parent.parent), path.read_text()


def own_plans():
    """The plan of a workspace as `fx` writes it back, and one by hand with other classes."""
    lab = textwrap.dedent("""
        aggregator: {defaults: plan/defaults/aggregator.yaml, settings: {rounds_to_train: 3, write_logs: true}}
        collaborator: {defaults: plan/defaults/collaborator.yaml, settings: {opt_treatment: RESET, use_delta_updates: true}}
        data_loader: {template: src.dataloader.Loader, settings: {n: 200}}
        task_runner: {template: src.taskrunner.Runner, settings: {lr: 0.05, note: "it's: long enough to be broken somewhere, when it is written beyond the eightieth column of the file"}}
        network:
          defaults: plan/defaults/network.yaml
          settings: {agg_addr: localhost, agg_port: 50151, transport_protocol: grpc}
        assigner: {defaults: plan/defaults/assigner.yaml}
        tasks: {defaults: plan/defaults/tasks_torch.yaml}
        compression_pipeline: {template: openfl.pipelines.SKCPipeline, settings: {p_sparsity: 0.3, n_clusters: 4}}
        straggler_handling_policy:
          template: openfl.component.CutoffTimePolicy
          settings: {straggler_cutoff_time: 20, minimum_reporting: 1}
    """)
    yield "lab", lab
    for file in sorted(WORKSPACE.joinpath("workspace/plan/defaults").glob("*.yaml")):
        section = file.stem.split("_")[0] if file.stem.startswith(("tasks", "connector")) else file.stem
        plan = {"aggregator": {"settings": {"rounds_to_train": 1}}, "network": {"settings": {"agg_addr": "a", "agg_port": 1}}}
        plan.setdefault("tasks", {})
        plan[section] = {**plan.get(section, {}), "defaults": f"plan/defaults/{file.name}"}
        yield f"defaults/{file.name}", yaml.dump(plan)


def write_plans():
    """Every plan in the package, a few more, and what stock makes of them on a machine called agg.example."""
    os.environ["FQDN"] = "agg.example"
    plans = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "plan.yaml")
        for name, text in [*stock_plans(), *own_plans()]:
            path.write_text(text)
            dump = yaml.dump(Plan.parse(path, resolve=False).config)
            plan = Plan.parse(path)
            plans.append({
                "name": name,
                "plan": text,
                "dump": dump,
                "federation_uuid": plan.federation_uuid,
                "aggregator_uuid": plan.aggregator_uuid,
                "agg_addr": plan.config["network"]["settings"]["agg_addr"],
                "agg_port": plan.config["network"]["settings"]["agg_port"],
            })  # fmt: skip
    documents = [{"text": text, "dump": yaml.dump(yaml.safe_load(text))} for text in odd_documents()]
    for name, value in [("plans.json", plans), ("documents.json", documents)]:
        (OUT / name).write_text(json.dumps(value, indent=1) + "\n")
        print(name, len(value))


def write_models():
    """Model files as the aggregator saves them."""
    kept = {name: array for name, array in tensors().items() if name not in ("at_threshold", "codes")}
    for name, pipeline in [("model", "no_compression"), ("model_skc", "skc")]:
        pipeline = PIPELINES[pipeline]
        model = utils.construct_model_proto(kept, 2, pipeline)
        utils.dump_proto(model, OUT / f"{name}.pbuf")
        if pipeline.is_lossy():
            decoded, round_number = utils.deconstruct_model_proto(model, pipeline)
            raw = utils.construct_model_proto(decoded, round_number, PIPELINES["no_compression"])
            utils.dump_proto(raw, OUT / f"{name}.decoded.pbuf")


def write_runs():
    import runs

    runs.record(*sys.argv[2:])


if __name__ == "__main__":
    {"tensors": write_tensors, "plans": write_plans, "models": write_models, "runs": write_runs}[sys.argv[1]]()
