"""A client of the legacy protocol that misbehaves, in upstream's own messages."""

import queue

import grpc
from flwr.proto.transport_pb2 import ClientMessage, Parameters, ServerMessage

JOIN = "/flwr.proto.FlowerService/Join"
WRONG_KIND = ClientMessage(evaluate_res=ClientMessage.EvaluateRes(loss=0.5, num_examples=1))
OVERSIZE = ClientMessage(
    get_parameters_res=ClientMessage.GetParametersRes(
        parameters=Parameters(tensors=[b"\0" * (2 << 20)], tensor_type="numpy.ndarray")
    )
)


def answer_first(address, answer, deadline_s=60):
    """Says `answer` to whatever it is told first; gives the status that its stream ends with, and the words."""
    answers = queue.Queue()
    with grpc.insecure_channel(address) as channel:
        join = channel.stream_stream(JOIN, ClientMessage.SerializeToString, ServerMessage.FromString)
        stream = join(iter(answers.get, None), timeout=deadline_s)
        try:
            for _ in stream:
                answers.put(answer)
        except grpc.RpcError:
            pass
        answers.put(None)
        return stream.code().name, stream.details()
