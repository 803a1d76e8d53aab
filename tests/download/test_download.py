"""Fetching data, from a server on this machine: no test reaches any other."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import socket
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmsa import cli
from mmsa.data.store import FOLDS, Store
from mmsa.dataset.ch_sims import ChSims
from mmsa.dataset.cmu_mosei import CmuMosei
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.dataset.custom import Custom
from mmsa.dataset.dataset import Dataset
from mmsa.dataset.pom import Pom
from mmsa.dataset.synthetic import Synthetic
from mmsa.dataset.ur_funny import UrFunny
from mmsa.download import download, transfer
from mmsa.errors import ConfigError, DataError
from mmsa.readers.sequence_file import write_sequence
from tests.dataset.corpora import tiny_sequences
from tests.download.loopback import (
    Answer,
    Handler,
    Host,
    another_part,
    busy,
    longer_than_stated,
    no_length,
    page,
    page_of_its_size,
    to_a_file,
    to_ftp,
    too_short,
    truncated,
    whole,
    without_range,
)

NAMES = {
    "words": "CMU_MOSI_TimestampedWords.csd",
    "text": "CMU_MOSI_TimestampedWordVectors_1.1.csd",
    "audio": "CMU_MOSI_COVAREP.csd",
    "visual": "CMU_MOSI_VisualFacet_4.1.csd",
    "labels": "CMU_MOSI_Opinion_Labels.csd",
}
AUDIO = NAMES["audio"]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but this machine can be reached, and nobody waits."""
    connect = socket.create_connection

    def near(address: tuple[str, int], *rest: Any, **named: Any) -> socket.socket:
        if address[0] != "127.0.0.1":
            raise OSError("far away")
        return connect(address, *rest, **named)

    monkeypatch.setattr(socket, "create_connection", near)
    monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small corpus under the names that mmsdk lists for CMU-MOSI."""
    folder = tmp_path_factory.mktemp("corpus")
    folds = CmuMosi().fold_of(folder)
    videos = [name for fold in FOLDS for name in sorted(v for v, f in folds.items() if f == fold)[:2]]
    sequences = tiny_sequences("a")
    for role, name in NAMES.items():
        write_sequence(folder / name, name.removesuffix(".csd"), dict.fromkeys(videos, sequences[role]["a"]))
    return {name: (folder / name).read_bytes() for name in NAMES.values()}


@pytest.fixture
def host(contents: dict[str, bytes]) -> Iterator[Host]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host = Host(f"http://127.0.0.1:{server.server_port}", dict(contents))
    server.host = host  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield host
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(host: Host, data: Path, dataset: Dataset | None = None) -> Path:
    return download.download(dataset or CmuMosi(), data, host.address, progress=False)


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_fetched_prepares_and_opens_a_store(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.command(["prepare", "cmu_mosi", "--download", "--mirror", f"{host.address}/", "--data", str(tmp_path)])
    folder = tmp_path / "sources" / "cmu_mosi"
    assert held(folder) == host.files
    (path,) = tmp_path.glob("cmu_mosi-*.h5")
    assert len(Store.open(path).ids) == 12
    said = capsys.readouterr()
    assert f"dataset.source={folder}" in said.out.splitlines()[-1]
    assert all(f"{name}: SHA-256 {hashlib.sha256(body).hexdigest()}" in said.err for name, body in host.files.items())
    assert max(host.requests.index(r) for r in host.requests if r[0] == "HEAD") == 4  # sizes first, of all
    host.requests.clear()
    fetch(host, tmp_path)
    assert not host.requests


def test_only_the_rest_of_an_interrupted_file_travels(host: Host, tmp_path: Path) -> None:
    content = host.files[AUDIO]
    folder = download.source_folder(CmuMosi(), tmp_path)
    folder.mkdir(parents=True)
    (folder / f"{AUDIO}.part").write_bytes(content[:1000])
    fetch(host, tmp_path)
    assert host.asked(AUDIO) == ["bytes=1000-"] and host.sent[AUDIO] == len(content) - 1000
    assert held(folder) == host.files


def test_a_connection_that_ends_early_is_resumed_where_it_ended(host: Host, tmp_path: Path) -> None:
    host.odd[AUDIO] = truncated
    size = len(host.files[AUDIO])
    with pytest.raises(DataError, match=f"of {size} bytes"):
        fetch(host, tmp_path)
    folder = download.source_folder(CmuMosi(), tmp_path)
    part = (folder / f"{AUDIO}.part").read_bytes()
    assert host.files[AUDIO].startswith(part) and size * 3 // 4 < len(part) < size
    assert set(held(folder)) == {*host.files, f"{AUDIO}.part"} - {AUDIO}
    assert len(host.asked(AUDIO)) == 3
    host.odd.clear()
    assert held(fetch(host, tmp_path)) == host.files
    assert host.asked(AUDIO)[-1] == f"bytes={len(part)}-"


@pytest.mark.parametrize("reason", ["no range", "newer on the server", "longer than the file"])
def test_a_part_that_cannot_be_continued_is_fetched_anew(reason: str, host: Host, tmp_path: Path) -> None:
    folder = download.source_folder(CmuMosi(), tmp_path)
    folder.mkdir(parents=True)
    extent = len(host.files[AUDIO]) + 5 if reason == "longer than the file" else 1000
    (folder / f"{AUDIO}.part").write_bytes(b"old".ljust(extent))
    if reason == "no range":
        host.odd[AUDIO] = without_range
    if reason == "newer on the server":
        stamp = formatdate((folder / f"{AUDIO}.part").stat().st_mtime + 60, usegmt=True)
        host.odd[AUDIO] = lambda handler, content: whole(handler, content, Last_Modified=stamp)
    assert held(fetch(host, tmp_path)) == host.files


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (page, "not an HDF5 file \\(text/html\\)"),
        (page_of_its_size, "not an HDF5 file"),
        (no_length, "does not state its size"),
        (another_part, "another part"),
        (to_a_file, "HTTP 302.*file:///etc/passwd"),
        (to_ftp, "HTTP 302.*ftp://"),
        (busy, "HTTP 503"),
    ],
)
def test_what_is_not_the_file_is_not_kept_and_costs_nothing(odd: Answer, said: str, host: Host, tmp_path: Path) -> None:
    folder = download.source_folder(CmuMosi(), tmp_path)
    folder.mkdir(parents=True)
    (folder / f"{AUDIO}.part").write_bytes(host.files[AUDIO][:1000])
    host.odd[AUDIO] = odd
    with pytest.raises(DataError, match=said):
        fetch(host, tmp_path)
    rest = {name: body for name, body in host.files.items() if name != AUDIO}
    there = held(folder)
    assert there.pop(f"{AUDIO}.part") == host.files[AUDIO][:1000]
    assert there == rest


@pytest.mark.parametrize("odd", [page, too_short])
def test_nothing_of_a_wrong_file_is_left(odd: Answer, host: Host, tmp_path: Path) -> None:
    host.odd[AUDIO] = odd
    with pytest.raises(DataError, match="HDF5 file"):
        fetch(host, tmp_path)
    assert set(held(download.source_folder(CmuMosi(), tmp_path))) == host.files.keys() - {AUDIO}


def test_a_body_beyond_the_stated_size_is_cut_off(host: Host, tmp_path: Path) -> None:
    host.odd[AUDIO] = longer_than_stated
    with pytest.raises(DataError, match="sent more than"):
        fetch(host, tmp_path)
    assert AUDIO not in held(download.source_folder(CmuMosi(), tmp_path))


def test_two_do_not_write_one_file(host: Host, tmp_path: Path) -> None:
    folder = download.source_folder(CmuMosi(), tmp_path)
    folder.mkdir(parents=True)
    with open(folder / f"{AUDIO}.part", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=f"{AUDIO}.*another process"):
            fetch(host, tmp_path)
        assert (folder / f"{AUDIO}.part").exists() and not host.asked(AUDIO)
    assert held(fetch(host, tmp_path)) == host.files


def test_a_file_system_without_locks_is_told_of(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert held(fetch(host, tmp_path)) == host.files
    assert "has no locks: do not fetch into it twice" in capsys.readouterr().err


def test_a_known_hash_is_compared(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SHA256", {AUDIO: "0" * 64})
    with pytest.raises(DataError, match=f"{'0' * 64} is published"):
        fetch(host, tmp_path)
    assert set(held(download.source_folder(CmuMosi(), tmp_path))) == host.files.keys() - {AUDIO}
    monkeypatch.setattr(download, "SHA256", {AUDIO: hashlib.sha256(host.files[AUDIO]).hexdigest()})
    assert held(fetch(host, tmp_path)) == host.files


def test_a_passing_error_is_tried_again(host: Host, tmp_path: Path) -> None:
    def at_last(handler: Handler, content: bytes) -> None:
        (whole if len(host.asked(AUDIO, "HEAD")) == 3 else busy)(handler, content)

    host.odd[AUDIO] = at_last
    assert held(fetch(host, tmp_path)) == host.files
    assert len(host.asked(AUDIO, "HEAD")) == 3


def test_files_that_are_not_there_are_listed_with_what_to_type(host: Host, tmp_path: Path) -> None:
    del host.files[AUDIO]
    size = len(host.files[NAMES["words"]])
    host.odd[NAMES["words"]] = truncated
    typed = ["prepare", "cmu_mosi", "--download", "--mirror", host.address, "--data", str(tmp_path)]
    with pytest.raises(DataError) as caught:
        cli.command(typed)
    lines = str(caught.value).splitlines()
    folder = download.source_folder(CmuMosi(), tmp_path)
    assert lines[1].startswith(f"  {NAMES['words']}, {size / 1e3:.1f} kB: the connection ended")
    assert lines[2] == f"  {AUDIO}, size unknown: HTTP 404 Not Found"
    assert str(folder) in lines[3]
    assert lines[4] == f"  type mmsa prepare cmu_mosi --source {folder} --data {tmp_path}"
    assert len(host.asked(AUDIO, "HEAD")) == 1  # what is not there will not be there a moment later
    assert not list(tmp_path.glob("*.h5"))


@pytest.mark.parametrize("where", ["mirror", "recipe"])
def test_a_host_that_does_not_answer_is_asked_for_one_file_only(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        mirror = f"http://127.0.0.1:{closed.getsockname()[1]}"
    tries = []
    near = socket.create_connection

    def counted(*given: Any, **named: Any) -> socket.socket:
        tries.append(given[0])
        return near(*given, **named)

    monkeypatch.setattr(socket, "create_connection", counted)
    with pytest.raises(DataError, match="cannot be reached") as caught:
        download.download(CmuMosei(), tmp_path, mirror if where == "mirror" else None, progress=False)
    lines = str(caught.value).splitlines()
    assert len(tries) == 3 and len(lines) == 8
    assert [line.partition(",")[0].strip() for line in lines[1:6]] == [
        "CMU_MOSEI_TimestampedWords.csd",
        "CMU_MOSEI_TimestampedGloveVectors.csd",
        "CMU_MOSEI_COVAREP.csd",
        "CMU_MOSEI_VisualFacet42.csd",
        "CMU_MOSEI_LabelsSentiment.csd",
    ]
    assert not held(download.source_folder(CmuMosei(), tmp_path))


def test_too_little_space_is_refused_before_anything_is_fetched(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    total = sum(map(len, host.files.values()))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=total - 1))
    with pytest.raises(DataError, match="nothing was fetched"):
        fetch(host, tmp_path)
    assert not host.sent and not held(download.source_folder(CmuMosi(), tmp_path))
    said = capsys.readouterr().err
    assert all(f"{name}, {len(body) / 1e3:.1f} kB" in said for name, body in host.files.items())
    assert f"in all {total / 1e3:.1f} kB; {(total - 1) / 1e3:.1f} kB are free" in said
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=total))
    assert held(fetch(host, tmp_path)) == host.files


def test_a_file_put_there_by_hand_under_another_accepted_name_is_not_fetched(host: Host, tmp_path: Path) -> None:
    folder = download.source_folder(CmuMosi(), tmp_path)
    folder.mkdir(parents=True)
    (folder / "CMU_MOSI_Visual_Facet_42.csd").write_bytes(host.files[NAMES["visual"]])
    (folder / AUDIO).write_bytes(host.files[AUDIO][:-10])  # a browser's half download
    fetch(host, tmp_path)
    assert NAMES["visual"] not in host.sent and (folder / AUDIO).read_bytes() == host.files[AUDIO]


def test_what_a_run_does_not_read_is_not_fetched() -> None:
    assert list(download.addresses(CmuMosi(modalities=["audio"]))) == ["words", "audio", "labels"]
    assert "text" not in download.addresses(CmuMosi(glove="glove.txt"))
    openface = CmuMosi(feature_sets={"visual": "CMU_MOSI_OpenFace2"})
    assert download.addresses(openface)["visual"].endswith("/CMU_MOSI_OpenFace2.csd")


@pytest.mark.parametrize("dataset", [CmuMosi(), CmuMosei(), Pom()], ids=lambda dataset: dataset.name)
def test_every_role_has_an_address(dataset: Dataset) -> None:
    listed = download.addresses(dataset)
    assert list(listed) == list(dataset.sequences)
    assert all(address.startswith("http") and address.endswith(".csd") for address in listed.values())


@pytest.mark.parametrize("name", ["CMU_MOSI_Visual_OpenFace_1", "../../escape", "/etc/passwd", ".hidden"])
def test_a_name_without_an_address_is_refused_and_none_leaves_the_folder(name: str, host: Host, tmp_path: Path) -> None:
    dataset = CmuMosi(feature_sets={"visual": name})
    with pytest.raises(DataError, match="lists no address for visual"):
        download.addresses(dataset)
    if "/" in name or name.startswith("."):
        with pytest.raises(DataError, match="lists no address for visual"):
            fetch(host, tmp_path, dataset)
        assert not host.requests


@pytest.mark.parametrize("dataset", [UrFunny(), ChSims(), Custom(), Synthetic()], ids=lambda dataset: dataset.name)
def test_data_sets_without_addresses_say_where_they_come_from(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        download.download(dataset, tmp_path, progress=False)
    assert dataset.origin in str(caught.value) and f"type mmsa prepare {dataset.name}" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "mirror", ["file:///etc", "ftp://host/x", "host/x", "http://", "http://h:a/", "http://u:secret@h/", "http://h/?q=1"]
)
def test_a_mirror_is_an_address_of_http(mirror: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--mirror") as caught:
        download.download(CmuMosi(), tmp_path, mirror, progress=False)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "more", [["--download", "--source", "x"], ["--download", "dataset.source=x"], ["--mirror", "http://127.0.0.1"]]
)
def test_options_that_do_not_go_together(more: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--source|--download"):
        cli.command(["prepare", "cmu_mosi", "--data", str(tmp_path), *more])
    assert not list(tmp_path.iterdir())
