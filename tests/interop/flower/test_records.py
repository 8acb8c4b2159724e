"""What is on record of a relayed run, and its removal, by the operator's own command."""

import json

import pytest

import harness
import wire
from flwr.proto import control_pb2
from hands import claimed

pytestmark = pytest.mark.ours_alone("its command exports, checks and removes relayed runs")


def test_a_relayed_run_is_exported_checked_and_removed_by_the_number_that_flower_shows(server, tmp_path):
    run_id, task = claimed(server)
    goes_on = harness.sheaf(server, "rm", str(run_id), check=False)
    assert goes_on.returncode == 6 and "goes on" in goes_on.stderr, goes_on
    stop = control_pb2.StopRunRequest(run_id=run_id)
    assert wire.call(server, "control/stop-run", stop).status == 200
    log = harness.sheaf(server, "logs", str(run_id)).stdout
    kinds = [json.loads(line)["kind"] for line in log.splitlines()]
    assert kinds[0] == "created" and kinds[-1] == "ended", kinds

    export = tmp_path / "run.jsonl"
    assert json.loads(harness.sheaf(server, "journal", "export", str(run_id), "-o", export).stdout)["entries"] == len(kinds)
    checked = json.loads(harness.sheaf(server, "journal", "check", export).stdout)
    assert (checked["journal"], checked["entries"]) == (f"relay-{run_id:016x}", len(kinds)), checked
    forged = tmp_path / "forged.jsonl"
    forged.write_text(export.read_text().replace('"created"', '"Created"', 1))
    assert harness.sheaf(server, "journal", "check", forged, check=False).returncode != 0

    removed = json.loads(harness.sheaf(server, "rm", str(run_id)).stdout)
    assert (removed["name"], removed["entries"], removed["head"]) == (checked["journal"], len(kinds), checked["hash"])
    assert not wire.call(server, "control/list-runs", control_pb2.ListRunsRequest()).message.run_dict
    assert harness.sheaf(server, "rm", str(run_id), check=False).returncode == 3
    assert harness.sheaf(server, "journal", "export", f"relay-{run_id:016x}", check=False).returncode == 3
    # By force it is stopped first.
    other, task = claimed(server)
    harness.sheaf(server, "rm", f"relay-{other:016x}", "--force")
    assert not wire.call(server, "control/list-runs", control_pb2.ListRunsRequest()).message.run_dict
