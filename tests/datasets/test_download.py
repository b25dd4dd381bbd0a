"""Downloads against a real server that cuts, refuses and lies."""

import hashlib
import json
import socketserver
import threading
import time

import numpy as np
import pytest

from skretrieval.datasets._download import Transfer, check_mirrors, download
from skretrieval.datasets._registry import RemoteFile

DATA = b"\x80" + np.random.default_rng(0).bytes(700_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
PATIENT = Transfer(n_retries=3, delay=0.0, progress=False)


def remote(*bases, name="gnd.pkl"):
    return RemoteFile(name, tuple(f"{base}/{name}" for base in bases))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gnd.pkl"


def left_over(path):
    return sorted(other.name for other in path.parent.iterdir() if other != path)


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_a_file_arrives_whole(server, path, sha256):
    server.files["gnd.pkl"] = DATA
    assert download(remote(server.base), path, PATIENT, sha256) == (SHA256, f"{server.base}/gnd.pkl")
    assert path.read_bytes() == DATA
    assert left_over(path) == []


def test_what_goes_on_is_logged_and_not_printed(server, path, caplog, capfd):
    server.files["gnd.pkl"] = DATA
    caplog.set_level("INFO", logger="skretrieval")
    download(remote(f"{server.base}/elsewhere", server.base), path, PATIENT, None)
    first, failed, second = [record.getMessage() for record in caplog.records]
    assert first == f"Downloading gnd.pkl from {server.base}/elsewhere/gnd.pkl"
    assert "did not come from" in failed
    assert "404" in failed
    assert second == f"Downloading gnd.pkl from {server.base}/gnd.pkl"
    assert {record.name for record in caplog.records} == {"skretrieval.datasets"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_cut_connections_are_resumed_where_they_ended(server, path, sha256):
    server.files["gnd.pkl"] = DATA
    server.cuts["gnd.pkl"] = [300_000, 0, 200_000]
    download(remote(server.base), path, PATIENT, sha256)
    assert path.read_bytes() == DATA
    ranges = [asked for _, asked, _ in server.log]
    assert ranges == [None, "bytes=300000-", "bytes=300000-", "bytes=500000-"]
    assert left_over(path) == []


def test_progress_renews_the_patience(server, path):
    server.files["gnd.pkl"] = DATA
    server.cuts["gnd.pkl"] = [50_000] * 12
    download(remote(server.base), path, Transfer(n_retries=0, delay=0.0, progress=False), None)
    assert path.read_bytes() == DATA
    assert len(server.log) == 13


def test_a_server_that_never_gets_further_is_given_up(server, path):
    server.files["gnd.pkl"] = DATA
    server.cuts["gnd.pkl"] = [1000] + [0] * 10
    with pytest.raises(OSError, match=r"cut after 1,000 of 700,001 bytes"):
        download(remote(server.base), path, PATIENT, None)
    assert len(server.log) == 1 + 1 + PATIENT.n_retries
    assert not path.exists()
    assert left_over(path) == ["gnd.pkl.part", "gnd.pkl.part.json"]


def test_a_later_process_continues(server, path):
    server.files["gnd.pkl"] = DATA
    server.cuts["gnd.pkl"] = [400_000, 0]
    once = Transfer(n_retries=0, delay=0.0, progress=False)
    with pytest.raises(OSError, match="cut"):
        download(remote(server.base), path, once, None)
    download(remote(server.base), path, once, None)
    assert path.read_bytes() == DATA
    assert server.log[-1][1] == "bytes=400000-"


def test_a_server_without_ranges_starts_again(server, path):
    server.files["gnd.pkl"] = DATA
    server.cuts["gnd.pkl"] = [400_000]
    server.ranges = False
    download(remote(server.base), path, PATIENT, None)
    assert path.read_bytes() == DATA


def test_a_file_that_changed_meanwhile_starts_again(server, path):
    server.files["gnd.pkl"] = bytes(len(DATA))
    server.cuts["gnd.pkl"] = [400_000, 0]
    once = Transfer(n_retries=0, delay=0.0, progress=False)
    with pytest.raises(OSError, match="cut"):
        download(remote(server.base), path, once, None)
    server.files["gnd.pkl"] = DATA
    download(remote(server.base), path, once, None)
    assert path.read_bytes() == DATA
    assert server.log[-1][1:] == ("bytes=400000-", server.log[-1][2])
    assert server.log[-1][2] is not None  # If-Range made the server send all of it


def test_a_file_of_another_length_without_etag_starts_again(server, path):
    server.etags = False
    server.files["gnd.pkl"] = bytes(len(DATA) + 9)
    server.cuts["gnd.pkl"] = [400_000, 0]
    once = Transfer(n_retries=0, delay=0.0, progress=False)
    with pytest.raises(OSError, match="cut"):
        download(remote(server.base), path, once, None)
    server.files["gnd.pkl"] = DATA
    download(remote(server.base), path, PATIENT, None)
    assert path.read_bytes() == DATA


def test_all_had_arrived_before_it_stopped(server, path):
    server.files["gnd.pkl"] = DATA
    part = path.with_name("gnd.pkl.part")
    part.write_bytes(DATA)
    state = {"url": f"{server.base}/gnd.pkl", "validator": None, "total": len(DATA)}
    part.with_name("gnd.pkl.part.json").write_text(json.dumps(state))
    download(remote(server.base), path, PATIENT, None)
    assert path.read_bytes() == DATA
    assert [asked for _, asked, _ in server.log] == [f"bytes={len(DATA)}-"]


@pytest.mark.parametrize("state", ["", "[]", "{broken"])
def test_damaged_notes_of_a_partial_file_are_not_trusted(server, path, state):
    server.files["gnd.pkl"] = DATA
    path.with_name("gnd.pkl.part").write_bytes(b"of another file")
    path.with_name("gnd.pkl.part.json").write_text(state)
    download(remote(server.base), path, PATIENT, None)
    assert path.read_bytes() == DATA
    assert server.log[0][1] is None


def test_wrong_beginning_with_a_known_hash_is_fetched_again(server, path):
    server.files["gnd.pkl"] = DATA
    path.with_name("gnd.pkl.part").write_bytes(b"of another file")
    download(remote(server.base), path, PATIENT, SHA256)
    assert path.read_bytes() == DATA
    assert [asked for _, asked, _ in server.log] == ["bytes=15-", None]


def test_a_wrong_hash_leaves_nothing(server, path):
    server.files["gnd.pkl"] = DATA
    with pytest.raises(OSError, match=rf"SHA-256 of gnd\.pkl is {SHA256}, expected {'0' * 64}"):
        download(remote(server.base), path, PATIENT, "0" * 64)
    assert list(path.parent.iterdir()) == []
    assert len(server.log) == 1


def test_mirrors_are_tried_in_order(server, path):
    server.files["c/gnd.pkl"] = DATA
    server.files["b/gnd.pkl"] = DATA[::-1]
    bases = [f"{server.base}/{folder}" for folder in "abc"]
    transfer = Transfer(mirrors=(bases[0],), n_retries=3, delay=0.0, progress=False)
    _, url = download(remote(*bases[1:]), path, transfer, SHA256)
    assert url == f"{server.base}/c/gnd.pkl"
    assert [name for name, _, _ in server.log] == ["a/gnd.pkl", "b/gnd.pkl", "c/gnd.pkl"]
    assert path.read_bytes() == DATA


def test_a_mirror_continues_anothers_file_only_with_a_known_hash(server, path):
    server.files |= {"a/gnd.pkl": DATA, "b/gnd.pkl": DATA}
    bases = [f"{server.base}/a", f"{server.base}/b"]
    for sha256, expected in ((SHA256, "bytes=100000-"), (None, None)):
        server.log.clear()
        server.cuts["a/gnd.pkl"] = [100_000, 0]
        once = Transfer(n_retries=0, delay=0.0, progress=False)
        download(remote(*bases), path, once, sha256)
        assert server.log[-1][:2] == ("b/gnd.pkl", expected)
        assert path.read_bytes() == DATA


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_the_server_of_the_beginning_is_asked_first(server, path, sha256):
    """What the second one sent is continued, although the first one is back meanwhile."""
    server.files["b/gnd.pkl"] = DATA
    server.cuts["b/gnd.pkl"] = [400_000, 0]
    bases = [f"{server.base}/a", f"{server.base}/b"]
    with pytest.raises(OSError, match="cut"):
        download(remote(*bases), path, Transfer(n_retries=0, delay=0.0, progress=False), sha256)
    server.files["a/gnd.pkl"] = DATA
    server.log.clear()
    assert download(remote(*bases), path, PATIENT, sha256)[1] == f"{server.base}/b/gnd.pkl"
    assert [entry[:2] for entry in server.log] == [("b/gnd.pkl", "bytes=400000-")]
    assert path.read_bytes() == DATA


def test_overload_is_waited_for_and_absence_is_not(server, path):
    server.files["gnd.pkl"] = DATA
    server.statuses["gnd.pkl"] = [503, 429]
    download(remote(server.base), path, PATIENT, None)
    assert len(server.log) == 3
    server.log.clear()
    with pytest.raises(OSError, match=r"(?s)absent\.pkl could not be downloaded.*HTTP 404"):
        download(remote(server.base, name="absent.pkl"), path, PATIENT, None)
    assert len(server.log) == 1


def test_every_failure_is_told(server, path):
    server.statuses["a/gnd.pkl"] = [403]
    bases = [f"{server.base}/a", "http://publisher.invalid"]
    with pytest.raises(OSError, match="could not be downloaded") as caught:
        download(remote(*bases), path, Transfer(n_retries=0, delay=0.0, progress=False), None)
    assert f"{server.base}/a/gnd.pkl: HTTP 403" in str(caught.value)
    assert "http://publisher.invalid/gnd.pkl: " in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("images.tgz", b"<!DOCTYPE html><html>please register</html>", "a web page"),
        ("images.tar.gz", b"plain text", r"no \.gz file"),
        ("images.zip", b"\n <html>", "a web page"),
        ("gnd.pkl", b"<html>moved</html>", "a web page"),
        ("list.txt", b"  <!doctype html>", "a web page"),
    ],
)
def test_a_web_page_is_no_data_set(server, tmp_path, name, data, what):
    server.files[name] = data
    with pytest.raises(OSError, match=f"what the server sent as {name} is {what}"):
        download(remote(server.base, name=name), tmp_path / name, PATIENT, None)
    assert list(tmp_path.iterdir()) == []


def test_no_space(server, path, monkeypatch):
    server.files["gnd.pkl"] = DATA
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(OSError, match="700,001 bytes are still to come and 1,000 are free"):
        download(remote(server.base, server.base + "/other"), path, PATIENT, None)
    assert len(server.log) == 1


def test_without_a_stated_length(server, path):
    server.files["gnd.pkl"] = DATA
    server.lengths = False
    download(remote(server.base), path, PATIENT, SHA256)
    assert path.read_bytes() == DATA


def test_a_progress_bar_shows_where_it_resumed(server, path, capsys):
    server.files["gnd.pkl"] = DATA
    server.cuts["gnd.pkl"] = [400_000]
    download(remote(server.base), path, Transfer(n_retries=3, delay=0.0, progress=True), None)
    shown = capsys.readouterr().err
    assert "gnd.pkl:" in shown
    assert "684k/684k" in shown


class FTPHandler(socketserver.StreamRequestHandler):
    """As much of FTP as fetching one file takes."""

    def handle(self):
        self.reply("220 ready")
        for line in self.rfile:
            command, _, argument = line.decode().strip().partition(" ")
            if command == "PASV":
                passive = socketserver.TCPServer(("127.0.0.1", 0), None)
                high, low = divmod(passive.server_address[1], 256)
                self.reply(f"227 passive (127,0,0,1,{high},{low})")
            elif command == "RETR":
                data = self.server.files[argument]
                self.reply(f"150 here it comes ({len(data)} bytes)")
                with passive, passive.get_request()[0] as connection:
                    connection.sendall(data[: self.server.cuts.pop(0) if self.server.cuts else None])
                self.reply("226 done")
            else:
                self.reply({"USER": "331 and who else", "QUIT": "221 bye"}.get(command, "230 fine"))

    def reply(self, text):
        self.wfile.write(text.encode() + b"\r\n")


def test_ftp(path):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), FTPHandler) as ftp:
        ftp.daemon_threads = True
        ftp.files, ftp.cuts = {"gnd.pkl": DATA}, [1000]
        thread = threading.Thread(target=ftp.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"ftp://127.0.0.1:{ftp.server_address[1]}/pub/data"
        try:
            assert download(remote(url), path, PATIENT, None) == (SHA256, f"{url}/gnd.pkl")
        finally:
            ftp.shutdown()
            thread.join()
    assert path.read_bytes() == DATA
    assert ftp.cuts == []  # it was cut once, and began again


def test_mirrors_are_addresses():
    assert check_mirrors(None) == ()
    assert check_mirrors("https://a") == ("https://a",)
    assert check_mirrors(["https://a", "ftp://b"]) == ("https://a", "ftp://b")
    with pytest.raises(ValueError, match=r"got 'file:///etc'"):
        check_mirrors(["file:///etc"])
    with pytest.raises(ValueError, match="got '/data'"):
        check_mirrors("/data")


# ---------------------------------------------------------------------------------------------------- without an end
def endless():
    while True:
        yield b"\x80" * 65536


def trickle():
    while True:
        yield b"\x80"
        time.sleep(0.05)


def test_an_endless_file_ends_at_the_size_that_is_known(server, path):
    server.bodies["gnd.pkl"] = endless
    size = 1_000_000
    file = RemoteFile("gnd.pkl", (f"{server.base}/gnd.pkl",), size)
    with pytest.raises(OSError, match=r"the server sends more than the 1,165,536 bytes that it may have"):
        download(file, path, PATIENT, None)
    assert list(path.parent.iterdir()) == []
    assert len(server.log) == 1


@pytest.mark.parametrize("name", ["gnd.pkl", "images.tgz"])
def test_an_endless_file_of_unknown_size_ends_all_the_same(server, tmp_path, name, monkeypatch):
    monkeypatch.setattr("skretrieval.datasets._download._LARGEST", {"": 2**20, ".tgz": 2**21})
    server.bodies[name] = endless
    with pytest.raises(OSError, match="the server sends more than"):
        download(remote(server.base, name=name), tmp_path / name, PATIENT, None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_announced_too_large_is_not_begun(server, path):
    server.files["gnd.pkl"] = DATA
    file = RemoteFile("gnd.pkl", (f"{server.base}/gnd.pkl",), 1000)
    with pytest.raises(OSError, match=r"announces 700,001 bytes, more than the 66,636"):
        download(file, path, PATIENT, None)
    assert list(path.parent.iterdir()) == []


def test_another_server_is_asked_after_an_endless_one(server, path):
    server.bodies["a/gnd.pkl"] = endless
    server.files["b/gnd.pkl"] = DATA
    file = RemoteFile("gnd.pkl", (f"{server.base}/a/gnd.pkl", f"{server.base}/b/gnd.pkl"), len(DATA))
    assert download(file, path, PATIENT, SHA256)[1] == f"{server.base}/b/gnd.pkl"
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("n_retries", [0, 2])
def test_a_trickle_is_not_waited_for(server, path, n_retries):
    server.bodies["gnd.pkl"] = trickle
    start = time.monotonic()
    transfer = Transfer(n_retries=n_retries, delay=0.0, timeout=0.3, progress=False)
    with pytest.raises(OSError, match=r"only \d+ bytes came in 0 s"):
        download(remote(server.base), path, transfer, None)
    assert time.monotonic() - start < 5
    assert len(server.log) == 1 + n_retries


def test_a_server_that_brings_a_byte_at_a_time_is_given_up(server, path, monkeypatch):
    monkeypatch.setattr("skretrieval.datasets._download._MOST_ATTEMPTS", 20)
    server.files["gnd.pkl"] = DATA
    server.cuts["gnd.pkl"] = [1] * 100
    with pytest.raises(OSError, match="cut after 20 of"):
        download(remote(server.base), path, PATIENT, None)
    assert len(server.log) == 20
