"""Asks a model that counts through tritonclient, unchanged, over mTLS: sequences, and streams of them.

    python sequences.py CLIENT ADDRESS CA CERT KEY        CLIENT: http, grpc or aio
"""

import asyncio
import queue
import sys

import numpy as np
from tritonclient.utils import InferenceServerException

LENGTH = 6


def given(module):
    tensor = module.InferInput("x", [1], "INT64")
    tensor.set_data_from_numpy(np.array([1], dtype=np.int64))
    return [tensor]


def place(n, length=LENGTH):
    return {"sequence_start": n == 0, "sequence_end": n == length - 1}


def count(reply):
    return int(reply.as_numpy("OUTPUT__0")[0])


def refused(call, words):
    try:
        call()
    except InferenceServerException as error:
        assert words in error.message(), error
    else:
        raise AssertionError(f"it must be refused: {words}")


def interleaved(module, client):
    """Three sequences in turns, by number and by text."""
    for n in range(LENGTH):
        for name in (1, 2**63 - 1, "speech"):
            assert count(client.infer("counter", given(module), sequence_id=name, **place(n))) == n + 1, (name, n)
    refused(lambda: client.infer("counter", given(module), sequence_id=1), "must specify the START flag")
    assert count(client.infer("counter", given(module))) == 1


def http(address, ca, cert, key):
    import tritonclient.http as module

    client = module.InferenceServerClient(
        address, ssl=True, ssl_options={"ca_certs": ca, "certfile": cert, "keyfile": key}, concurrency=2
    )
    assert {"sequence", "sequence(string_id)"} <= set(client.get_server_metadata()["extensions"])
    interleaved(module, client)
    later = [client.async_infer("counter", given(module), sequence_id=k, **place(0, 1)) for k in range(1, 9)]
    assert [count(reply.get_result()) for reply in later] == [1] * 8


def grpc(address, ca, cert, key):
    import tritonclient.grpc as module

    client = module.InferenceServerClient(
        address, ssl=True, root_certificates=ca, certificate_chain=cert, private_key=key
    )
    interleaved(module, client)

    # All is sent before anything is read; one request in the midst of it fails.
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    asked = []
    for n in range(50):
        for name in (11, "twelve"):
            asked.append((f"{name}-{n}", n + 1))
            client.async_stream_infer(
                "counter", given(module), sequence_id=name, request_id=asked[-1][0], **place(n, 50)
            )
        if n == 25:
            asked.append(("astray", None))
            client.async_stream_infer("counter", given(module), sequence_id=99, request_id="astray")
    for name, expected in asked:
        result, error = answers.get(timeout=60)
        if expected is None:
            assert "must specify the START flag" in error.message(), error
        else:
            assert error is None, error
            assert result.get_response().id == name and count(result) == expected, (name, expected)
    client.stop_stream()

    # With this header the first failure ends the stream, with its status.
    client.start_stream(
        lambda result, error: answers.put((result, error)), headers={"triton_grpc_error": "true"}
    )
    client.async_stream_infer("nobody", given(module))
    result, error = answers.get(timeout=60)
    assert result is None and error.status() == "StatusCode.NOT_FOUND", error
    client.stop_stream()


def aio(address, ca, cert, key):
    import tritonclient.grpc.aio as module

    async def ask():
        client = module.InferenceServerClient(
            address, ssl=True, root_certificates=ca, certificate_chain=cert, private_key=key
        )

        async def requests():
            for n in range(LENGTH):
                yield {
                    "model_name": "counter", "inputs": given(module), "request_id": str(n), "sequence_id": 7, **place(n)
                }

        n = 0
        async for result, error in client.stream_infer(requests()):
            assert error is None and count(result) == n + 1, (n, error)
            n += 1
        assert n == LENGTH
        await client.close()

    asyncio.run(ask())


def main():
    client, address, ca, cert, key = sys.argv[1:]
    {"http": http, "grpc": grpc, "aio": aio}[client](address, ca, cert, key)
    print("all as expected")


if __name__ == "__main__":
    main()
