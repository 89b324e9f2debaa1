"""What others do with the repository: pull it, from here, over http and from a bucket."""

import functools
import hashlib
import http.server
import os
import resource
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.pipeline.conftest import ROOT

NUM_FILES = 12
STAGES = {
    "stages": {
        "make": {
            "cmd": "python make.py",
            "deps": ["make.py"],
            "outs": ["data/published", "model.bin"],
        }
    },
    "artifacts": {
        "published": {"path": "data/published", "type": "dataset", "desc": "Reals and fakes"},
        "detector": {"path": "model.bin", "type": "model", "desc": "A detector"},
    },
}
MAKE = f"""from pathlib import Path
folder = Path("data/published")
folder.mkdir(parents=True, exist_ok=True)
for index in range({NUM_FILES}):
    (folder / f"{{index}}.txt").write_text(f"image {{index}}")
Path("model.bin").write_bytes(bytes(range(256)))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """DVC of this environment first on the path; caches, settings and keys of nobody's."""
    home = tmp_path_factory.mktemp("home")
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "DVC_SITE_CACHE_DIR": str(home / "site-cache"),
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }


Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(environment: dict[str, str]) -> Run:
    """Run a command in a folder, and give what it prints."""

    def run(folder: Path, *command: str, fails: bool = False) -> str:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        printed = done.stdout + done.stderr
        assert bool(done.returncode) == fails, f"{command}: {done.returncode}\n{printed}"
        return printed

    return run


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A repository that keeps its data in a folder of its own, as this one does."""
    folder = tmp_path_factory.mktemp("origin")
    (folder / "make.py").write_text(MAKE)
    (folder / "dvc.yaml").write_text(yaml.safe_dump(STAGES))
    (folder / ".dvcignore").write_text("/store\n")
    for command in (
        "git init -q -b main",
        "dvc init -q",
        "dvc remote add -q -d store store",
        "dvc repro -q",
        "dvc push -q",
        "git add -A",
        "git commit -qm Publish",
        # A version, as GTO writes it: `dvc artifacts get` finds it by this tag.
        "git tag -a detector@v1.0.0 -m first",
        "git tag -a published@v1.0.0 -m first",
    ):
        run(folder, *command.split())
    assert "url = ../store" in (folder / ".dvc/config").read_text()  # relative to .dvc
    return folder


@pytest.fixture
def clone(origin: Path, tmp_path: Path, run: Run) -> Path:
    """A clone with an empty cache."""
    run(tmp_path, "git", "clone", "-q", str(origin), "clone")
    return tmp_path / "clone"


def assert_whole(folder: Path) -> None:
    """Dataset and model are there, byte by byte."""
    texts = [(folder / f"data/published/{i}.txt").read_text() for i in range(NUM_FILES)]
    assert texts == [f"image {i}" for i in range(NUM_FILES)]
    assert (folder / "model.bin").read_bytes() == bytes(range(256))


# The store inside the repository.


def offline(*command: str) -> tuple[str, ...]:
    """Put a command where there is no network, not even a loopback that is up."""
    cut_off = ("unshare", "-rn")
    if subprocess.run([*cut_off, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody cut off a network (unshare -rn)")
    return (*cut_off, *command)


def test_a_clone_has_the_whole_result_without_a_network(tmp_path: Path, run: Run) -> None:
    """`git clone` and `dvc pull` give every output; `dvc repro` then has nothing to do."""
    run(tmp_path, "git", "clone", "-q", str(ROOT), "clone")
    folder = tmp_path / "clone"

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(folder, *offline("dvc", "pull"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    again = run(folder, *offline("dvc", "repro"))
    metrics = run(folder, *offline("dvc", "metrics", "show"))
    run(folder, *offline("dvc", "plots", "show"))
    drawn = run(folder, *offline("semforensics", "render-plots", str(tmp_path / "drawn")))

    # Processor time: the wall clock of a machine that is busy with other tests says little.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 15
    assert "Running stage" not in again
    assert "up to date" in again
    assert "metrics/headline.json" in metrics
    pictures = list((tmp_path / "drawn").glob("*.png"))
    assert f"{len(pictures)} plots" in drawn
    assert {"roc.png", "lpips_nearest_fake_of_each_real.png"} <= {p.name for p in pictures}


def test_the_store_stays_small() -> None:
    """The published files take less than 80 MB in Git."""
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "-l", "HEAD", "store"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert 0 < sum(int(line.split()[3]) for line in listed.splitlines()) < 80e6


def test_a_damaged_file_of_the_store_is_noticed(clone: Path, run: Run) -> None:
    """A pull of changed bytes fails and puts nothing in their place."""
    run(clone, "dvc", "remote", "modify", "store", "verify", "true")
    (damaged,) = (
        p for p in (clone / "store").rglob("*") if p.is_file() and p.stat().st_size == 256
    )
    damaged.chmod(0o644)
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])

    run(clone, "dvc", "pull", fails=True)

    assert not (clone / "model.bin").exists()


def test_this_repository_verifies_what_it_pulls() -> None:
    """The remote of this repository checks hashes."""
    assert "verify = true" in (ROOT / ".dvc/config").read_text()


# Over http.


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def web(origin: Path) -> Iterator[str]:
    """The store on a web server."""
    handler = functools.partial(Quiet, directory=str(origin / "store"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_same_is_pulled_over_http(clone: Path, web: str, run: Run) -> None:
    """A web server of the store's files is a remote to read from."""
    shutil.rmtree(clone / "store")
    run(clone, "dvc", "remote", "add", "web", web)

    run(clone, "dvc", "pull", "-r", "web")

    assert_whole(clone)


def test_a_damaged_file_over_http_is_noticed(
    clone: Path, tmp_path: Path, origin: Path, run: Run
) -> None:
    """What a web server changed on the way fails the pull."""
    shutil.copytree(origin / "store", tmp_path / "damaged")
    (path,) = (
        p for p in (tmp_path / "damaged").rglob("*") if p.is_file() and p.stat().st_size == 256
    )
    path.chmod(0o644)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    handler = functools.partial(Quiet, directory=str(tmp_path / "damaged"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        run(clone, "dvc", "remote", "add", "web", f"http://127.0.0.1:{server.server_port}")
        run(clone, "dvc", "remote", "modify", "web", "verify", "true")

        run(clone, "dvc", "pull", "-r", "web", fails=True)

        server.shutdown()
    assert not (clone / "model.bin").exists()


# A bucket.


@dataclass
class Bucket:
    """A bucket that can fail."""

    url: str
    application: Any
    puts_left: float = float("inf")
    stored: list[str] = field(default_factory=list)
    prefix: str = field(default_factory=lambda: f"sem-{secrets.token_hex(4)}")
    """Of this test's own: moto and DVC remember what others have stored."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Answer a request; once no puts are left, refuse all of them."""
        if environ["REQUEST_METHOD"] in ("PUT", "POST") and "/data/" in environ["PATH_INFO"]:
            if self.puts_left <= 0:
                start_response("503 Service Unavailable", [("Content-Length", "0")])
                return [b""]
            self.puts_left -= 1
            self.stored.append(environ["PATH_INFO"])
        return self.application(environ, start_response)


@pytest.fixture
def bucket(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket named `data` on a server of this machine."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, environment[name])
    found = Bucket("", DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, found, threaded=True)
    found.url = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    client(found).create_bucket(Bucket="data")
    found.stored.clear()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def client(bucket: Bucket) -> Any:
    """A client that looks into the bucket."""
    return boto3.client("s3", endpoint_url=bucket.url)


def use(bucket: Bucket, folder: Path, run: Run) -> None:
    """Make the bucket a remote, as the README tells."""
    run(folder, "dvc", "remote", "add", "bucket", f"s3://data/{bucket.prefix}")
    run(folder, "dvc", "remote", "modify", "bucket", "endpointurl", bucket.url)
    run(folder, "dvc", "remote", "modify", "bucket", "verify", "true")


def test_a_bucket_takes_and_gives(
    clone: Path, tmp_path: Path, origin: Path, bucket: Bucket, run: Run
) -> None:
    """What one pushes to S3 another pulls from there."""
    run(clone, "dvc", "pull", "-q")
    use(bucket, clone, run)
    run(tmp_path, "git", "clone", "-q", str(origin), "other")
    other = tmp_path / "other"
    use(bucket, other, run)

    run(clone, "dvc", "push", "-r", "bucket")
    run(other, "dvc", "pull", "-r", "bucket")

    assert_whole(other)


def test_an_outage_during_a_push_loses_nothing(
    clone: Path, tmp_path: Path, origin: Path, bucket: Bucket, run: Run
) -> None:
    """The push fails, what arrived is whole, and the next push sends the rest."""
    run(clone, "dvc", "pull", "-q")
    use(bucket, clone, run)
    bucket.puts_left = 5

    run(clone, "dvc", "push", "-r", "bucket", fails=True)

    listed = client(bucket).list_objects_v2(Bucket="data", Prefix=bucket.prefix).get("Contents", [])
    assert 0 < len(listed) < NUM_FILES + 2
    for entry in listed:
        body = client(bucket).get_object(Bucket="data", Key=entry["Key"])["Body"].read()
        assert hashlib.md5(body).hexdigest() == "".join(entry["Key"].split("/")[-2:])[:32]
    bucket.puts_left = float("inf")
    run(clone, "dvc", "push", "-r", "bucket")
    run(tmp_path, "git", "clone", "-q", str(origin), "other")
    use(bucket, tmp_path / "other", run)
    run(tmp_path / "other", "dvc", "pull", "-r", "bucket")
    assert_whole(tmp_path / "other")


def test_a_damaged_object_is_noticed(
    clone: Path, tmp_path: Path, origin: Path, bucket: Bucket, run: Run
) -> None:
    """An object whose bytes changed in the bucket fails the pull."""
    run(clone, "dvc", "pull", "-q")
    use(bucket, clone, run)
    run(clone, "dvc", "push", "-r", "bucket")
    digest = hashlib.md5((clone / "model.bin").read_bytes()).hexdigest()
    key = f"{bucket.prefix}/files/md5/{digest[:2]}/{digest[2:]}"
    client(bucket).put_object(Bucket="data", Key=key, Body=b"x" * 256)
    run(tmp_path, "git", "clone", "-q", str(origin), "other")
    other = tmp_path / "other"
    use(bucket, other, run)

    run(other, "dvc", "pull", "-r", "bucket", fails=True)

    assert not (other / "model.bin").exists()


# From another repository.


def test_others_get_import_and_open_what_is_published(
    origin: Path, tmp_path: Path, web: str, run: Run
) -> None:
    """`dvc get`, `dvc import`, `dvc artifacts get` and `dvc.api` find dataset and model."""
    other = tmp_path / "other"
    other.mkdir()
    run(other, "git", "init", "-q")
    run(other, "dvc", "init", "-q")

    run(other, "dvc", "get", str(origin), "data/published", "-o", "got")
    run(other, "dvc", "import", str(origin), "model.bin", "-o", "imported.bin")
    run(other, "dvc", "artifacts", "get", str(origin), "detector", "-o", "by_name")
    run(other, "dvc", "artifacts", "get", str(origin), "published", "-o", "set")
    read = "import dvc.api, sys; sys.stdout.write(dvc.api.read('data/published/3.txt', repo={!r}))"
    opened = run(other, "python", "-c", read.format(str(origin)))

    assert (other / "got/7.txt").read_text() == "image 7"
    assert (other / "imported.bin").read_bytes() == bytes(range(256))
    recorded = yaml.safe_load((other / "imported.bin.dvc").read_text())
    assert recorded["deps"][0]["repo"]["rev_lock"]
    assert (other / "by_name").read_bytes() == bytes(range(256))
    assert len(list((other / "set").iterdir())) == NUM_FILES
    assert opened == "image 3"

    # From a Git address a path inside the repository means nothing: the data come over http.
    config = tmp_path / "remote.ini"
    config.write_text(f"['remote \"web\"']\n    url = {web}\n")
    address = origin.as_uri()
    run(
        other,
        "dvc",
        "get",
        address,
        "model.bin",
        "-o",
        "far",
        "--config",
        str(config),
        "--remote",
        "web",
    )
    assert (other / "far").read_bytes() == bytes(range(256))
