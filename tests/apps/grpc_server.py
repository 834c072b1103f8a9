"""A gRPC service of bytes without a schema: `grpc_server.py HOST:PORT [SERVICE=STATUS]...`. Methods of `test.Echo`, one of each
kind, and the health protocol where a service has a status: `=1` is that of the whole server, 1 is SERVING, 2 NOT_SERVING."""

import sys
import threading
from concurrent import futures

import grpc


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata((("x-trailing", metadata.get("x-question", "")),))
    if request == b"abort":
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "100% of it is \u00e9")
    if request == b"wait":
        threading.Event().wait(30)
    return request


def numbers(request, context):
    for number in range(int(request)):
        yield b"%d" % number
    if request == b"3":
        context.abort(grpc.StatusCode.DATA_LOSS, "in the middle")


def total(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield request.upper()


statuses = dict(argument.split("=") for argument in sys.argv[2:])


def check(request, context):
    # Field 1 of the request is the name of a service shorter than 128 bytes; field 1 of the response is its status.
    service = request[2:].decode()
    if service not in statuses:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return bytes([8, int(statuses[service])])


class Service(grpc.GenericRpcHandler):
    methods = {
        "/test.Echo/Unary": grpc.unary_unary_rpc_method_handler(unary),
        "/test.Echo/Numbers": grpc.unary_stream_rpc_method_handler(numbers),
        "/test.Echo/Total": grpc.stream_unary_rpc_method_handler(total),
        "/test.Echo/Both": grpc.stream_stream_rpc_method_handler(both),
    }

    if statuses:
        methods["/grpc.health.v1.Health/Check"] = grpc.unary_unary_rpc_method_handler(check)

    def service(self, details):
        return self.methods.get(details.method)


server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", -1)])
server.add_generic_rpc_handlers((Service(),))
server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
