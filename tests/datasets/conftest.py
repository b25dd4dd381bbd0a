"""A real HTTP server on loopback, and small versions of the published data sets to serve from it."""

import io
import pickle
import socket
import tarfile
import threading
import time
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image


class Loopback:
    """Serves `files`; knows ranges, and can be told to misbehave."""

    def __init__(self):
        self.files = {}
        self.cuts = {}  # name -> how many bytes to send in the next answers before hanging up
        self.statuses = {}  # name -> what to answer next instead
        self.bodies = {}  # name -> an iterable of bytes to send instead, for as long as anybody listens
        self.delays = {}  # name -> seconds to wait before answering
        self.log = []  # (name, Range header or None, If-Range header or None)
        self.ranges = True
        self.etags = True
        self.lengths = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def answer(self, request):
        name = request.path.lstrip("/")
        asked = request.headers.get("Range")
        self.log.append((name, asked, request.headers.get("If-Range")))
        time.sleep(self.delays.get(name, 0))
        if self.statuses.get(name):
            request.send_error(self.statuses[name].pop(0))
            return
        if name in self.bodies:
            self.send_for_ever(request, self.bodies[name])
            return
        if name not in self.files:
            request.send_error(404)
            return
        data = self.files[name]
        etag = f'"{zlib.crc32(data):x}"'
        start = 0
        condition = request.headers.get("If-Range")
        if self.ranges and asked and condition in (None, etag):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(data)}")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            request.send_response(200)
        if self.lengths:
            request.send_header("Content-Length", str(len(data) - start))
        if self.etags:
            request.send_header("ETag", etag)
        request.end_headers()
        body = data[start:]
        if self.cuts.get(name):
            body = body[: self.cuts[name].pop(0)]
        request.wfile.write(body)

    def send_for_ever(self, request, parts):
        request.send_response(200)
        request.end_headers()
        self.sent = 0
        try:
            for part in parts():
                request.wfile.write(part)
                self.sent += len(part)
        except OSError:  # the other side has had enough
            pass

    def asked(self, name):
        return [entry for entry in self.log if entry[0] == name]


@pytest.fixture
def server():
    loopback = Loopback()
    yield loopback
    loopback.close()


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch):
    """No test of this folder reaches the publishers' servers, with a network or without."""
    resolve = socket.getaddrinfo

    def guarded(host, *arguments, **options):
        if host not in ("127.0.0.1", "localhost"):
            raise socket.gaierror(socket.EAI_NONAME, f"{host} is not asked by tests")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", guarded)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "*")
    monkeypatch.delenv("SKRETRIEVAL_DATA", raising=False)


def jpeg(number, size=(64, 48), exif=None):
    """Cut a piece out of a real photograph, another one for each number."""
    photograph = Image.fromarray(load_sample_image("china.jpg"))
    left, top = 37 * number % 500, 150 + 23 * number % 200  # below the sky, which compresses to nothing
    buffer = io.BytesIO()
    options = {} if exif is None else {"exif": exif}
    photograph.crop((left, top, left + 96, top + 72)).resize(size).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def tar_gz(members):
    """Pack (name, bytes) pairs, or TarInfo objects of anything else, in a tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def _rar_block(kind, flags, body, data=b""):
    header = bytes([kind]) + flags.to_bytes(2, "little") + (7 + len(body)).to_bytes(2, "little") + body
    return (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") + header + data


def rar(members, volume=None, last=True):
    """Pack (name, bytes[, mode]) in a rar archive of version 4 without compression; as a volume, if numbered."""
    flags = 0 if volume is None else 0x0011 | (0x0100 if volume == 1 else 0)
    blocks = [b"Rar!\x1a\x07\x00", _rar_block(0x73, flags, bytes(6))]
    for name, data, *mode in members:
        body = len(data).to_bytes(4, "little") * 2 + b"\x03" + zlib.crc32(data).to_bytes(4, "little")
        body += bytes.fromhex("00002158") + bytes([20, 0x30]) + len(name).to_bytes(2, "little")
        body += (mode[0] if mode else 0o100644).to_bytes(4, "little") + name.encode()
        blocks.append(_rar_block(0x74, 0x8000, body, data))
    blocks.append(_rar_block(0x7B, 0x4000 if last else 0x4001, b""))
    return b"".join(blocks)


def text(*names):
    return ("\n".join(names) + "\n").encode() if names else b""


def buildings(prefix, landmarks, query_prefix=""):
    """Photographs and ground truth in the manner of Oxford5k: two queries for each landmark."""
    photographs, truth = {}, []
    for landmark in landmarks:
        for number in range(5):
            photographs[f"{prefix}{landmark}_{number:06d}"] = jpeg(len(photographs))
        stem = f"{prefix}{landmark}_00000"
        for query in (1, 2):
            name = f"{landmark}_{query}"
            line = f"{query_prefix}{stem}{query} 3.5 4.25 60.5 48.7"
            truth += [
                (f"{name}_query.txt", line.encode()),
                (f"{name}_good.txt", text(f"{stem}{query}", f"{stem}0")),
                (f"{name}_ok.txt", text(f"{stem}3")),
                (f"{name}_junk.txt", text(*([f"{stem}4"] if query == 1 else []))),
            ]
    return photographs, truth


def revisited(photographs, protocol=3):
    """Make ground truth in the format of the revisited benchmarks: the last two photographs are queries."""
    *gallery, first, second = photographs
    gnd = [
        {
            "bbx": np.array([1.0, 2.0, 63.0, 47.0]),
            "easy": np.array([0, 2]),
            "hard": np.array([1]),
            "junk": np.array([3, 4]),
        },
        {"bbx": [0.0, 0.0, 64.0, 48.0], "easy": [], "hard": np.array([], dtype=np.int64), "junk": [5]},
    ]
    content = {"gnd": gnd, "imlist": gallery, "qimlist": [first, second], "simlist": None}
    return pickle.dumps(content, protocol=protocol)


@pytest.fixture
def oxford(server):
    photographs, truth = buildings("", ["all_souls", "radcliffe"], "oxc1_")
    server.files["oxbuild_images-v1.tgz"] = tar_gz(
        (f"{name}.jpg", data) for name, data in photographs.items()
    )
    server.files["gt_files_170407.tgz"] = tar_gz(truth)
    server.files["gnd_roxford5k.pkl"] = revisited(photographs)
    return photographs


@pytest.fixture
def paris(server):
    photographs, truth = buildings("paris_", ["defense", "louvre"])
    photographs["paris_louvre_000136"] = b"<!DOCTYPE HTML><html>302 Found</html>"  # as in the real one
    truth.append(("louvre_3_query.txt", b"paris_louvre_000001 0 0 64 48"))
    truth += [
        ("louvre_3_good.txt", text("paris_louvre_000001", "paris_louvre_000136")),
        ("louvre_3_ok.txt", b""),
        ("louvre_3_junk.txt", b""),
    ]
    for part, landmark in ((1, "defense"), (2, "louvre")):
        server.files[f"paris_{part}-v1.tgz"] = tar_gz(
            (f"paris/{landmark}/{name}.jpg", data) for name, data in photographs.items() if landmark in name
        )
    server.files["paris_120310.tgz"] = tar_gz((f"paris_120310/{name}", data) for name, data in truth)
    readable = [name for name in photographs if name != "paris_louvre_000136"]
    server.files["gnd_rparis6k.pkl"] = revisited(readable)
    return photographs


@pytest.fixture
def holidays(server):
    numbers = [100000, 100001, 100002, 100100, 100101, 149900, 149901]
    upside = Image.Exif()
    upside[0x0112] = 6  # as a camera writes it
    photographs = {
        number: jpeg(index, exif=upside if number == 149901 else None) for index, number in enumerate(numbers)
    }
    for part, chosen in ((1, numbers[:4]), (2, numbers[4:])):
        members = ((f"jpg/{number}.jpg", photographs[number]) for number in chosen)
        server.files[f"jpg{part}.tar.gz"] = tar_gz(members)
    server.files["holidays-rotate.yaml"] = b'{\n"100001.jpg": 90,\n"100101.jpg": 270,\n}\n'
    return photographs


@pytest.fixture
def ukbench(server):
    members = [(f"full/ukbench{number:05d}.jpg", jpeg(number)) for number in range(12)]
    members += [(f"thumbnails/ukbench{number:05d}.jpg", jpeg(number, (16, 12))) for number in range(12)]
    server.files["ukbench.zip"] = zipped([*members, ("index.html", b"<html></html>")])


@pytest.fixture
def flickr(server):
    names = [f"oxc1_100k/{tag}/{tag}_{number:06d}.jpg" for tag in ("cat", "park") for number in range(19)]
    names += ["oxc1_100k/park/park_001319.jpg", "oxc1_100k/tree/tree_000000.jpg"]
    for volume, name in enumerate(names, start=1):
        server.files[f"oxc1_100k.part{volume:02d}.rar"] = rar(
            [(name, jpeg(volume))], volume, last=volume == len(names)
        )
    return names


@pytest.fixture
def r1m(server):
    names = [f"{part}/{letter}.jpg" for letter in "ba" for part in (1, 2)]
    for part in (1, 2):
        server.files[f"revisitop1m.{part}.tar.gz"] = tar_gz(
            (name, jpeg(index)) for index, name in enumerate(names) if name.startswith(f"{part}/")
        )
    server.files["revisitop1m.txt"] = text(*names, *(f"{part}/z.jpg" for part in range(3, 101)))
    return names


@pytest.fixture
def make():
    """Give what builds photographs and archives to the tests."""
    return SimpleNamespace(
        jpeg=jpeg,
        tar_gz=tar_gz,
        zipped=zipped,
        rar=rar,
        revisited=revisited,
    )


@pytest.fixture
def options(server, tmp_path):
    return {
        "data_home": tmp_path / "home",
        "mirrors": server.base,
        "progress": False,
        "delay": 0.0,
        "n_retries": 2,
    }


@pytest.fixture
def offline(options):
    return {"data_home": options["data_home"], "download_if_missing": False}
