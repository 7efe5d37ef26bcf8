"""Asks a sidecar through other people's clients, unchanged, over mTLS.

    python oip.py CLIENT ADDRESS CA CERT KEY        CLIENT: triton-http, triton-grpc, kserve or kserve-grpc

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


def refused(call, says):
    """Whatever the client raises must tell its user this."""
    try:
        call()
    except Exception as error:
        assert says in str(error), error
        return
    raise AssertionError(f"it should have been refused: {says}")


def extensions(module, client, as_json):
    """Calls of Triton's extensions, which the two clients of its have alike."""
    [counted] = client.get_inference_statistics("digits", **as_json)["model_stats"]
    success, infer = counted["inference_stats"]["success"], counted["inference_stats"]["compute_infer"]
    assert int(success["count"]) == int(counted["inference_count"]) == int(infer["count"]) > 0, counted
    assert int(success["ns"]) > int(infer["ns"]) > 0, counted
    parts = [int(counted["inference_stats"][part]["ns"]) for part in ("compute_input", "compute_infer", "compute_output")]
    assert min(parts) > 0 and sum(parts) < int(success["ns"]), counted
    assert counted["version"] == "1" and len(client.get_inference_statistics(**as_json)["model_stats"]) == 1
    config = client.get_model_config("digits", **as_json)
    config = config.get("config", config)
    assert config["platform"] == "pytorch_libtorch" and int(config.get("max_batch_size", 0)) == 0, config
    assert config["input"][0]["data_type"] == "TYPE_FP32" and list(map(int, config["input"][0]["dims"])) == [-1, 64]
    index = client.get_model_repository_index(**as_json)
    [indexed] = index["models"] if isinstance(index, dict) else index
    assert (indexed["name"], indexed["version"], indexed["state"]) == ("digits", "1", "READY"), indexed
    given = module.InferInput("image", [1, 64], "FP32")
    given.set_data_from_numpy(pixels())
    scores = client.infer("digits", [given]).as_numpy("probabilities")[0]
    wanted = module.InferRequestedOutput("probabilities", class_count=2)
    [classes] = client.infer("digits", [given], outputs=[wanted]).as_numpy("probabilities")
    largest = np.argsort(scores)[::-1][:2]
    assert [text.decode() for text in classes] == [f"{scores[at]:.6f}:{at}" for at in largest], classes
    settings = client.get_log_settings(**as_json)
    assert "log_verbose_level" in settings.get("settings", settings), settings
    # What a sidecar logs its own pod decides.
    refused(lambda: client.update_log_settings({"log_verbose_level": 1}), "SCONCE_UNIX_SOCKET")
    for traced in (client.get_trace_settings(**as_json), client.get_trace_settings("digits", **as_json)):
        traced = traced.get("settings", traced)["trace_level"]
        assert (traced["value"] if isinstance(traced, dict) else traced) == ["OFF"], traced
    client.load_model("digits")
    refused(lambda: client.load_model("nobody"), "sconce push")
    refused(lambda: client.unload_model("digits"), "sconce delete digits")
    assert client.is_model_ready("digits")


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
    extensions(module, client, {})
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
    extensions(module, client, {"as_json": True})
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
        scores = reply.outputs[0].as_numpy().reshape(1, 10)
        older = InferenceRESTClient(RESTConfig(protocol="v1", transport=httpx.AsyncHTTPTransport(verify=context)))
        assert await older.is_model_ready(base, "digits")
        reply = await older.infer(base, {"instances": pixels().tolist()}, model_name="digits")
        [predicted] = reply["predictions"]
        # A model of several outputs answers with an object for each row.
        assert np.allclose(predicted["probabilities"] if isinstance(predicted, dict) else predicted, scores[0], atol=1e-6)
        return scores

    return asyncio.run(ask())


def kserve_grpc(address, ca, cert, key):
    import grpc
    from kserve import InferenceGRPCClient, InferInput, InferRequest
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as wire

    async def ask():
        client = InferenceGRPCClient(
            address, use_ssl=True, root_certificates=ca, private_key=key, certificate_chain=cert
        )
        assert await client.is_server_ready() and await client.is_model_ready("digits")
        given = InferInput("image", [1, 64], "FP32")
        given.set_data_from_numpy(pixels(), binary_data=False)
        reply = await client.infer(InferRequest(model_name="digits", infer_inputs=[given]))
        # Its class for clients has no such call; its wire has, and it is not Triton's.
        stub = client._client_stub
        loaded = await stub.RepositoryModelLoad(wire.RepositoryModelLoadRequest(model_name="digits"))
        assert (loaded.model_name, loaded.isLoaded) == ("digits", True), loaded
        try:
            await stub.RepositoryModelUnload(wire.RepositoryModelUnloadRequest(model_name="digits"))
            raise AssertionError("an unload must be refused")
        except grpc.aio.AioRpcError as error:
            assert "sconce delete digits" in error.details(), error
        await client.close()
        return reply.outputs[0].as_numpy().reshape(1, 10)

    return asyncio.run(ask())


CLIENTS = {"triton-http": triton_http, "triton-grpc": triton_grpc, "kserve": kserve, "kserve-grpc": kserve_grpc}


def main():
    client, address, ca, cert, key = sys.argv[1:]
    scores = CLIENTS[client](address, ca, cert, key)
    print(json.dumps([round(float(score), 6) for score in np.asarray(scores).flatten()]))


if __name__ == "__main__":
    main()
