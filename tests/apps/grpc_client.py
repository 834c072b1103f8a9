"""Calls `test.Echo` in every way: `grpc_client.py HOST:PORT [CA]`."""

import os
import queue
import sys
from concurrent import futures

import grpc

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.ssl_target_name_override", "gateway.test")]

if len(sys.argv) > 2:
    with open(sys.argv[2], "rb") as ca:
        channel = grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials(ca.read()), OPTIONS)
else:
    channel = grpc.insecure_channel(sys.argv[1], OPTIONS)

unary = channel.unary_unary("/test.Echo/Unary")
numbers = channel.unary_stream("/test.Echo/Numbers")
total = channel.stream_unary("/test.Echo/Total")
both = channel.stream_stream("/test.Echo/Both")


def fails(code, call):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error
    raise AssertionError(f"no {code}")


# Unary, with metadata both ways, empty and larger than every window.
for message in [b"hello", b"", os.urandom(5_000_000)]:
    answer, call = unary.with_call(message, metadata=(("x-question", "why"),))
    assert answer == message
    assert ("x-trailing", "why") in [(item.key, item.value) for item in call.trailing_metadata()]

# Errors: in a head that is the trailers, too, and after messages.
error = fails(grpc.StatusCode.INVALID_ARGUMENT, lambda: unary(b"abort"))
assert error.details() == "100% of it is \u00e9", error.details()
received = []
error = fails(grpc.StatusCode.DATA_LOSS, lambda: received.extend(numbers(b"3")))
assert received == [b"0", b"1", b"2"] and error.details() == "in the middle"
fails(grpc.StatusCode.UNIMPLEMENTED, lambda: channel.unary_unary("/test.Echo/None")(b""))

# Streams of each kind.
assert list(numbers(b"1000")) == [b"%d" % number for number in range(1000)]
assert total(iter([b"x" * 1_000] * 500)) == b"500000"

# Turn by turn: each answer comes before the next question is asked.
questions = queue.Queue()
answers = both(iter(questions.get, None))
for number in range(50):
    questions.put(b"question %d" % number)
    assert next(answers) == b"QUESTION %d" % number
questions.put(None)
assert list(answers) == []

# Many at once on one connection.
with futures.ThreadPoolExecutor(16) as pool:
    messages = [os.urandom(2_000) for _ in range(400)]
    assert list(pool.map(unary, messages)) == messages

# The client's deadline.
fails(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: unary(b"wait", timeout=0.3))
print("all answered")
