"""Asks a sidecar through other people's clients, unchanged, over mTLS.

    python oip.py CLIENT ADDRESS CA CERT KEY        CLIENT: triton-http, triton-grpc or kserve

Prints the version that answered and the scores, as JSON. One client a process: two of
them bring the same protobuf file and cannot be loaded together.
"""

import asyncio
import json
import ssl
import sys

import numpy as np


def pixels():
    return np.array([[(n * 7 + 13) % 17 / 16 for n in range(64)]], dtype=np.float32)


def triton(module, client):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("digits")
    given = module.InferInput("image", [1, 64], "FP32")
    given.set_data_from_numpy(pixels())
    reply = client.infer("digits", [given], outputs=[module.InferRequestedOutput("probabilities")])
    try:
        client.infer("nobody", [given])
        raise AssertionError("an unknown model must be an error")
    except module.InferenceServerException as error:
        assert "nobody" in str(error), error
    return reply.as_numpy("probabilities")


def triton_http(address, ca, cert, key):
    import tritonclient.http as module
    from tritonclient.utils import InferenceServerException

    module.InferenceServerException = InferenceServerException
    client = module.InferenceServerClient(
        address, ssl=True, ssl_options={"ca_certs": ca, "certfile": cert, "keyfile": key}
    )
    assert client.get_model_metadata("digits")["inputs"][0]["shape"] == [-1, 64]
    scores = triton(module, client)
    for coding in ("gzip", "deflate"):
        for binary in (True, False):
            rows = np.repeat(pixels(), 100, axis=0)
            given = module.InferInput("image", list(rows.shape), "FP32")
            given.set_data_from_numpy(rows, binary_data=binary)
            wanted = [module.InferRequestedOutput("probabilities", binary_data=binary)]
            reply = client.infer(
                "digits", [given], outputs=wanted,
                request_compression_algorithm=coding, response_compression_algorithm=coding,
            )
            assert np.allclose(reply.as_numpy("probabilities"), np.repeat(scores, 100, axis=0), atol=1e-6), coding
    # Python's JSON has NaN where JSON has not.
    given = module.InferInput("image", [1, 64], "FP32")
    given.set_data_from_numpy(np.full((1, 64), np.nan, dtype=np.float32), binary_data=False)
    wanted = [module.InferRequestedOutput("probabilities", binary_data=False)]
    assert np.isnan(client.infer("digits", [given], outputs=wanted).as_numpy("probabilities")).all()
    return scores


def triton_grpc(address, ca, cert, key):
    import tritonclient.grpc as module
    from tritonclient.utils import InferenceServerException

    module.InferenceServerException = InferenceServerException
    client = module.InferenceServerClient(
        address, ssl=True, root_certificates=ca, certificate_chain=cert, private_key=key
    )
    assert list(client.get_model_metadata("digits").inputs[0].shape) == [-1, 64]
    scores = triton(module, client)
    for coding in ("gzip", "deflate"):
        given = module.InferInput("image", [1, 64], "FP32")
        given.set_data_from_numpy(pixels())
        reply = client.infer("digits", [given], compression_algorithm=coding)
        assert np.allclose(reply.as_numpy("probabilities"), scores, atol=1e-6), coding
    return scores


def kserve(address, ca, cert, key):
    import httpx
    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(cert, key)

    async def ask():
        client = InferenceRESTClient(RESTConfig(protocol="v2", transport=httpx.AsyncHTTPTransport(verify=context)))
        base = f"https://{address}"
        assert await client.is_server_ready(base) and await client.is_model_ready(base, "digits")
        given = InferInput("image", [1, 64], "FP32")
        given.set_data_from_numpy(pixels(), binary_data=False)
        reply = await client.infer(base, InferRequest(model_name="digits", infer_inputs=[given]), model_name="digits")
        return reply.outputs[0].as_numpy().reshape(1, 10)

    return asyncio.run(ask())


def main():
    client, address, ca, cert, key = sys.argv[1:]
    scores = {"triton-http": triton_http, "triton-grpc": triton_grpc, "kserve": kserve}[client](address, ca, cert, key)
    print(json.dumps([round(float(score), 6) for score in np.asarray(scores).flatten()]))


if __name__ == "__main__":
    main()
