"""Asks a sidecar as a process of its own pod would: in plaintext over the loopback, with tensors in shared memory.

    python pod.py CLIENT ADDRESS        CLIENT: http or grpc

Prints the scores, as JSON. The model is `digits`.
"""

import json
import sys

import numpy as np
import tritonclient.utils.shared_memory as shm

from oip import pixels, refused


def main():
    name, address = sys.argv[1:]
    if name == "http":
        import tritonclient.http as module
    else:
        import tritonclient.grpc as module
    client = module.InferenceServerClient(address)
    # As clients tidy up before they begin.
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()

    key, given = f"/sconce-{name}", pixels()
    handle = shm.create_shared_memory_region("tensors", key, given.nbytes + 64)
    try:
        shm.set_shared_memory_region(handle, [given])
        client.register_system_shared_memory("tensors", key, given.nbytes + 64)
        refused(lambda: client.register_system_shared_memory("tensors", key, 8), "unregister")
        refused(lambda: client.register_system_shared_memory("larger", key, 1 << 30), "not within")
        assert "system_shared_memory" in str(client.get_server_metadata())
        status = client.get_system_shared_memory_status("tensors")
        assert key in str(status), status

        tensor = module.InferInput("image", [1, 64], "FP32")
        tensor.set_shared_memory("tensors", given.nbytes)
        wanted = module.InferRequestedOutput("probabilities")
        wanted.set_shared_memory("tensors", 64, given.nbytes)
        reply = client.infer("digits", [tensor], outputs=[wanted])
        [output] = reply.get_response()["outputs"] if name == "http" else reply.get_response().outputs
        shape = output["shape"] if name == "http" else list(output.shape)
        scores = shm.get_contents_as_numpy(handle, np.float32, shape, given.nbytes).copy()

        # What is sent is the same answer.
        tensor = module.InferInput("image", [1, 64], "FP32")
        tensor.set_data_from_numpy(given)
        sent = client.infer("digits", [tensor]).as_numpy("probabilities")
        assert np.array_equal(sent, scores), (sent, scores)
        wanted.set_shared_memory("tensors", 8, given.nbytes)
        refused(lambda: client.infer("digits", [tensor], outputs=[wanted]), "room for 8")
        client.unregister_system_shared_memory("tensors")
        refused(lambda: client.get_system_shared_memory_status("tensors"), "register it first")
    finally:
        shm.destroy_shared_memory_region(handle)
    print(json.dumps([round(float(score), 6) for score in scores.flatten()]))


if __name__ == "__main__":
    main()
